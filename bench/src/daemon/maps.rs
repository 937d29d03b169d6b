//! The maps, looked at from outside the daemon.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use overlay_common::Vni;
use overlay_user::datapath::{
    map::{Maps, RouteKey},
    pin::Pins,
};

use super::peers::Reached;

/// Between two looks: short beside every figure, and long enough to leave the CPU to who is measured.
pub(super) const LOOK: Duration = Duration::from_micros(50);

/// The maps of a daemon.
pub(super) struct Watched(Maps);

impl Watched {
    pub(super) fn open(pin_dir: &Path) -> Result<Self> {
        Ok(Self(Maps::open(&Pins::new(pin_dir))?))
    }

    /// Waits until they are there.
    pub(super) fn await_maps(pin_dir: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        loop {
            match Self::open(pin_dir) {
                Ok(maps) => return Ok(maps),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context(format!("no maps under {} in {limit:?}", pin_dir.display()));
                }
                Err(_) => sleep(Duration::from_millis(1)),
            }
        }
    }

    /// True where packets to a subnet go where they should.
    pub(super) fn leads(&self, reached: &Reached) -> Result<bool> {
        let Some(route) = self.0.route(key(reached)?)? else { return Ok(false) };
        let Some(tunnel) = self.0.tunnel(route.tunnel)? else { return Ok(false) };
        // The inner Ethernet header ends the template, and begins with the VTEP's address.
        let end = tunnel.template_len as usize;
        let mac = end.checked_sub(14).and_then(|at| tunnel.template.get(at..at + 6));
        Ok(tunnel.remote == reached.remote.into() && mac == Some(&reached.mac.0))
    }

    /// True where there is no way to a subnet.
    pub(super) fn is_gone(&self, reached: &Reached) -> Result<bool> {
        Ok(self.0.route(key(reached)?)?.is_none())
    }

    /// True where there is a way to a subnet, whichever.
    fn is_there(&self, reached: &Reached) -> Result<bool> {
        Ok(self.0.route(key(reached)?)?.is_some())
    }

    /// Waits until there is a way to each of these, and tells when the last was seen.
    pub(super) fn await_all(&self, reached: &[Reached], limit: Duration) -> Result<std::time::SystemTime> {
        let deadline = Instant::now() + limit;
        let mut left = reached.iter();
        let mut next = left.next();
        while let Some(one) = next {
            if self.is_there(one)? {
                next = left.next();
            } else if Instant::now() >= deadline {
                bail!("no route to {} in {limit:?}: {} are missing", one.subnet, left.len() + 1);
            } else {
                sleep(LOOK);
            }
        }
        Ok(std::time::SystemTime::now())
    }

    /// Checks that each leads where it should.
    pub(super) fn check(&self, reached: &[Reached]) -> Result<()> {
        for one in reached {
            if !self.leads(one)? {
                bail!("the route to {} does not lead to {}", one.subnet, one.remote);
            }
        }
        Ok(())
    }
}

fn key(reached: &Reached) -> Result<RouteKey> {
    Ok(RouteKey::new(Vni::new(1)?, reached.subnet))
}
