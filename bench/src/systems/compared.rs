//! A system as it is handed out: its sides, its data path, and the hosts below.

use anyhow::{Context, Result};

use super::{
    Side, System,
    bed::Bed,
    proof::{self, DataPath},
};

/// Dropped in this order: daemons before the hosts they run on.
pub(super) struct Compared<P> {
    name: &'static str,
    sides: [Side; 2],
    path: P,
    bed: Bed,
}

impl<P: DataPath> Compared<P> {
    /// Hands it out once it has shown that it is what it says.
    pub(super) fn ready(name: &'static str, bed: Bed, sides: [Side; 2], path: P) -> Result<Box<dyn System>>
    where
        P: 'static,
    {
        let system = Self { name, sides, path, bed };
        system.check()?;
        Ok(Box::new(system))
    }
}

impl<P: DataPath> System for Compared<P> {
    fn name(&self) -> &str {
        self.name
    }

    fn client(&self) -> &Side {
        &self.sides[0]
    }

    fn server(&self) -> &Side {
        &self.sides[1]
    }

    fn describe(&self) -> String {
        self.path.describe()
    }

    fn check(&self) -> Result<()> {
        let claim = || format!("{} on the {} wire is not what it claims", self.name, self.bed.wire);
        proof::prove(&self.bed, &self.sides, &self.path).with_context(claim)
    }
}
