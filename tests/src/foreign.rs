//! Somebody else's eBPF programs: they count what they see, by UDP port, and drop what they are told to. Nothing of
//! overlayd is in them, nor of the library that it loads its own with.

mod assembler;
mod sys;

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;

use self::assembler::assemble;
use crate::{Netns, bpffs, tcx::Direction};

/// The hook a program is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// tcx, or a filter of the older tc.
    Tc,
    /// XDP.
    Xdp,
}

/// Where among the programs of a tcx hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before all that are there.
    First,
    /// After all that are there.
    Last,
}

/// UDP packets over IPv4 to a port, which are told apart from all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The destination port, in the packet's first UDP header.
    pub port: u16,
    /// Dropped, or passed on.
    pub drop: bool,
}

/// A loaded program with its counters.
#[derive(Debug)]
pub struct Foreign {
    program: OwnedFd,
    counters: OwnedFd,
    watched: Vec<Watched>,
    name: String,
}

/// A program on a hook; dropping it takes it away.
#[derive(Debug)]
pub struct OnHook {
    link: OwnedFd,
}

/// A program that is a filter of the older tc; dropping it takes it away, the qdisc too.
#[derive(Debug)]
pub struct OnFilter {
    ns: Netns,
    device: String,
    pin: PathBuf,
}

impl Foreign {
    /// Loads a program that counts.
    ///
    /// # Errors
    /// No root, or the kernel refused; the error holds the verifier's words.
    pub fn load(kind: Kind, name: &str, watched: &[Watched]) -> Result<Self> {
        let slots = u32::try_from(watched.len() + 1)?;
        let counters = sys::create_array(slots).context("cannot create a map")?;
        let code = assemble(kind, counters.as_raw_fd(), watched)?;
        let program = sys::load(kind, name, &code).with_context(|| format!("cannot load {name}"))?;
        Ok(Self { program, counters, watched: watched.to_vec(), name: name.to_owned() })
    }

    /// One that counts UDP packets to these ports, and drops nothing.
    ///
    /// # Errors
    /// As [`Foreign::load`].
    pub fn counting(kind: Kind, name: &str, ports: &[u16]) -> Result<Self> {
        let watched: Vec<Watched> = ports.iter().map(|port| Watched { port: *port, drop: false }).collect();
        Self::load(kind, name, &watched)
    }

    /// Its id.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn id(&self) -> Result<u32> {
        sys::program_id(&self.program)
    }

    /// How many packets to a port it saw.
    ///
    /// # Errors
    /// It was not told to watch this port.
    pub fn seen(&self, port: u16) -> Result<u64> {
        let slot = self.watched.iter().position(|watched| watched.port == port);
        let slot = slot.with_context(|| format!("{} does not watch port {port}", self.name))?;
        sys::count(&self.counters, u32::try_from(slot + 1)?)
    }

    /// How many packets it saw that were none of those.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn others(&self) -> Result<u64> {
        sys::count(&self.counters, 0)
    }

    /// Puts it on a tcx hook.
    ///
    /// # Errors
    /// There is no such device, or the kernel refused.
    pub fn tcx(&self, ns: &Netns, device: &str, direction: Direction, order: Order) -> Result<OnHook> {
        let link = ns.run(|| sys::attach_tcx(&self.program, index(device)?, direction, order))?;
        let link = link.with_context(|| format!("{} on {direction:?} of {device}", self.name))?;
        Ok(OnHook { link })
    }

    /// Puts it on a device's driver.
    ///
    /// # Errors
    /// There is no such device, the driver has no XDP, or a program already.
    pub fn xdp(&self, ns: &Netns, device: &str) -> Result<OnHook> {
        let link = ns.run(|| sys::attach_xdp(&self.program, index(device)?))?;
        Ok(OnHook { link: link.with_context(|| format!("{} on {device}", self.name))? })
    }

    /// Makes it a filter of the older tc, as `tc filter add … bpf da` does, on a clsact qdisc of its own. `pin` is
    /// a path for its pin, and gone again afterwards.
    ///
    /// # Errors
    /// There is no such device, or tc refused.
    pub fn filter(&self, ns: &Netns, device: &str, direction: Direction, pin: &Path) -> Result<OnFilter> {
        bpffs::ensure()?;
        sys::pin(&self.program, pin).with_context(|| format!("cannot pin {}", pin.display()))?;
        let filter =
            OnFilter { ns: Netns::borrow(ns.path()), device: device.to_owned(), pin: pin.to_owned() };
        ns.exec(&["tc", "qdisc", "add", "dev", device, "clsact"])?;
        let hook = if direction == Direction::Ingress { "ingress" } else { "egress" };
        let path = pin.display().to_string();
        let words = ["tc", "filter", "add", "dev", device, hook, "pref", "10", "bpf", "da", "object-pinned"];
        ns.exec(&[&words[..], &[&path]].concat())?;
        Ok(filter)
    }
}

impl OnHook {
    /// The id of its BPF link.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn id(&self) -> Result<u32> {
        sys::link_id(&self.link)
    }
}

impl Drop for OnFilter {
    fn drop(&mut self) {
        // The device may be gone already, and the qdisc with it.
        let _ = self.ns.cmd("tc").args(["qdisc", "del", "dev", &self.device, "clsact"]).run();
        if let Err(e) = std::fs::remove_file(&self.pin) {
            eprintln!("cannot remove {}: {e}", self.pin.display());
        }
    }
}

fn index(device: &str) -> Result<u32> {
    match if_nametoindex(device) {
        Ok(index) => Ok(index),
        Err(e) => bail!("no device {device}: {e}"),
    }
}
