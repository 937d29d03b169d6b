//! Loading the programs: maps that are pinned are adopted, programs are always the ones of this build.

use std::collections::BTreeSet;

use aya::{Ebpf, EbpfLoader, programs::SchedClassifier};
use overlay_common::map::{name, program};

use super::{
    DatapathError, OBJECT,
    pin::{Pins, ReplaceError},
};

/// The programs, verified and loaded. They stay in the kernel as long as a link or a pin holds them.
pub struct Programs {
    pub(super) ebpf: Ebpf,
}

impl Programs {
    /// Loads the object, with its maps pinned under `pins`, and pins the programs.
    ///
    /// # Errors
    /// [`DatapathError::Load`] with the kernel's reason.
    pub fn load(pins: &Pins) -> Result<Self, DatapathError> {
        Self::load_object(pins, OBJECT)
    }

    /// The same of another build's object.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_object(pins: &Pins, object: &[u8]) -> Result<Self, DatapathError> {
        let mut loader = EbpfLoader::new();
        for map in name::ALL {
            loader.map_pin_path(map, pins.map(map));
        }
        let load_error = |what: &str, source| DatapathError::Load { what: what.to_owned(), source };
        let ebpf = loader.load(object).map_err(|error| load_error("object", error.into()))?;
        let mut programs = Self { ebpf };
        for name in program::TCX {
            let program = programs.get(name)?;
            program.load().map_err(|error| load_error(&format!("program {name}"), error.into()))?;
            Pins::replace(&pins.program(name), |path| program.pin(path)).map_err(|error| {
                let source: Box<dyn std::error::Error + Send + Sync> = match error {
                    ReplaceError::Pin(error) => error.into(),
                    ReplaceError::Io(error) => error.into(),
                };
                load_error(&format!("program {name}'s pin"), source)
            })?;
        }
        Ok(programs)
    }

    /// The ids of all of them, of whatever type: by these they are told from other people's.
    pub fn ids(&self) -> BTreeSet<u32> {
        self.ebpf.programs().filter_map(|(_, program)| Some(program.info().ok()?.id())).collect()
    }

    /// The program with this name.
    ///
    /// # Errors
    /// [`DatapathError::Load`] where the object has none.
    pub fn get(&mut self, name: &str) -> Result<&mut SchedClassifier, DatapathError> {
        let missing =
            || DatapathError::Load { what: format!("program {name}"), source: "not in the object".into() };
        let program = self.ebpf.program_mut(name).ok_or_else(missing)?;
        program.try_into().map_err(|error: aya::programs::ProgramError| DatapathError::Load {
            what: format!("program {name}"),
            source: error.into(),
        })
    }
}
