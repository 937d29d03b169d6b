//! Pinning again what is held and not pinned any more.

use overlay_common::map::{name, program};

use super::{DatapathError, load::Programs, pin::Pins};

impl Programs {
    /// True where every map and every program that is loaded has a pin.
    pub fn are_pinned(&self, pins: &Pins) -> bool {
        name::ALL.iter().all(|map| pins.map(map).exists())
            && program::TCX.iter().all(|program| pins.program(program).exists())
            && (!self.has_xdp() || pins.program(program::UPLINK_DECAP).exists())
    }

    /// Pins the maps and programs that have no pin. Not the links: they are their holder's.
    ///
    /// # Errors
    /// [`DatapathError::Load`] for the first that cannot be pinned.
    pub fn pin_again(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        let error = |what: &str, error: aya::pin::PinError| DatapathError::Load {
            what: format!("{what}'s pin"),
            source: error.into(),
        };
        for map in name::ALL {
            let path = pins.map(map);
            if let Some(held) = self.ebpf.map(map).filter(|_| !path.exists()) {
                held.pin(&path).map_err(|e| error(&format!("map {map}"), e))?;
            }
        }
        for name in program::TCX {
            let path = pins.program(name);
            if !path.exists() {
                self.get(name)?.pin(&path).map_err(|e| error(&format!("program {name}"), e))?;
            }
        }
        // Loaded, and pinned, where it is wanted only.
        let path = pins.program(program::UPLINK_DECAP);
        if self.has_xdp() && !path.exists() {
            self.xdp(pins)?
                .pin(&path)
                .map_err(|e| error(&format!("program {}", program::UPLINK_DECAP), e))?;
        }
        Ok(())
    }
}
