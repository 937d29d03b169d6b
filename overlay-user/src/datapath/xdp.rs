//! The XDP program on the uplink: loaded where it is wanted only, attached in native mode or not at all, pinned and
//! adopted as the tcx links are.

use std::{error::Error, fs, io};

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};
use nix::errno::Errno;
use overlay_common::map::program::UPLINK_DECAP;
use tracing::debug;

use super::{
    DatapathError,
    load::Programs,
    pin::{Pins, ReplaceError},
};

impl Programs {
    /// Whether the XDP program is loaded.
    pub fn has_xdp(&self) -> bool {
        self.ebpf.program(UPLINK_DECAP).is_some_and(|program| program.fd().is_ok())
    }

    /// The XDP program, loaded and pinned on first use.
    ///
    /// # Errors
    /// [`DatapathError::Load`] with the kernel's reason.
    pub fn xdp(&mut self, pins: &Pins) -> Result<&mut Xdp, DatapathError> {
        let error = |source: Box<dyn Error + Send + Sync>| DatapathError::Load {
            what: format!("program {UPLINK_DECAP}"),
            source,
        };
        let program = self.ebpf.program_mut(UPLINK_DECAP).ok_or_else(|| error("not in the object".into()))?;
        let xdp: &mut Xdp = program.try_into().map_err(|e: ProgramError| error(e.into()))?;
        if xdp.fd().is_err() {
            xdp.load().map_err(|e| error(e.into()))?;
            Pins::replace(&pins.program(UPLINK_DECAP), |path| xdp.pin(path)).map_err(|e| match e {
                ReplaceError::Pin(e) => error(e.into()),
                ReplaceError::Io(e) => error(e.into()),
            })?;
        }
        Ok(xdp)
    }
}

/// Why an interface could not be given the program.
#[derive(Debug)]
pub enum Refusal {
    /// Another XDP program is there.
    Taken,
    /// The driver has no native XDP.
    NotNative,
    /// Anything else.
    Failed(DatapathError),
}

/// True where a link of ours is pinned for this interface.
pub fn is_pinned(pins: &Pins, ifindex: u32) -> bool {
    pins.link(ifindex, UPLINK_DECAP).exists()
}

/// Attaches the program in native mode, or gives the link that is already pinned this build's. Returns true where
/// a link was adopted.
///
/// # Errors
/// [`Refusal`]; nothing is attached then.
pub fn attach(programs: &mut Programs, pins: &Pins, ifindex: u32, interface: &str) -> Result<bool, Refusal> {
    let failed = |source: Box<dyn Error + Send + Sync>| {
        let interface = interface.to_owned();
        Refusal::Failed(DatapathError::Attach { program: UPLINK_DECAP, interface, source })
    };
    let xdp = programs.xdp(pins).map_err(Refusal::Failed)?;
    let path = pins.link(ifindex, UPLINK_DECAP);
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|e| failed(e.into()))?;
        match xdp.attach_to_link(link) {
            Ok(id) => {
                // The pin holds the link; our own reference is not needed.
                drop(xdp.take_link(id).map_err(|e| failed(e.into()))?);
                return Ok(true);
            }
            Err(reason) => debug!(interface, %reason, "replacing a dead XDP link"),
        }
    }
    let id: XdpLinkId =
        xdp.attach_to_if_index(ifindex, XdpMode::Driver).map_err(|error| match errno(&error) {
            Some(Errno::EBUSY | Errno::EEXIST) => Refusal::Taken,
            Some(Errno::EOPNOTSUPP) => Refusal::NotNative,
            _ => failed(error.into()),
        })?;
    let link = xdp.take_link(id).map_err(|e| failed(e.into()))?;
    let link = FdLink::try_from(link).map_err(|e| failed(e.into()))?;
    Pins::replace(&path, |path| link.pin(path).map(drop)).map_err(|e| match e {
        ReplaceError::Pin(e) => failed(e.into()),
        ReplaceError::Io(e) => failed(e.into()),
    })?;
    Ok(false)
}

/// Detaches the program: the pin is the link's last reference.
///
/// # Errors
/// [`DatapathError::Io`].
pub fn detach(pins: &Pins, ifindex: u32) -> Result<(), DatapathError> {
    let path = pins.link(ifindex, UPLINK_DECAP);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Io { action: "remove", path, source: error })
        }
        _ => Ok(()),
    }
}

/// The error number of the system call behind an error.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(Errno::from_raw(code));
        }
        cause = error.source();
    }
    None
}
