//! Kinds of uplink, and whether they can be had here.

use std::{
    collections::BTreeSet,
    env,
    sync::{Condvar, Mutex, PoisonError},
};

use harness::{Scope, process::Cmd};

/// What an uplink is. It is called `eth0`, as on all hosts of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vlan,
    Bond,
    WireGuard,
    Tun,
    /// A network card of this driver, of which there are two on one wire.
    Nic(&'static str),
}

/// Names the kinds that this machine is to have, joined by commas: their tests run or fail. Interfaces of the drivers
/// among them are the tests' to use, which they are on no machine that does not say so.
const VARIABLE: &str = "OVERLAYD_TEST_UPLINKS";

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Bond => "bond",
            Self::WireGuard => "wireguard",
            Self::Tun => "tun",
            Self::Nic(driver) => driver,
        }
    }

    /// Whether its packets begin with an Ethernet header.
    pub(crate) fn has_ethernet(self) -> bool {
        !matches!(self, Self::WireGuard | Self::Tun)
    }

    /// In words why it cannot be tried here. `None` where it can, and where it must.
    pub(crate) fn lacking(self) -> Option<String> {
        let required = env::var(VARIABLE).unwrap_or_default();
        if required.split(',').any(|name| name == self.name()) {
            return None;
        }
        match self {
            Self::Nic(driver) => Some(format!("no {driver} interfaces to spare")),
            kind if exists(kind) => None,
            kind => Some(format!("no {} in this kernel", kind.name())),
        }
    }
}

/// Whether the kernel knows the kind. Any other trouble is left for the test to meet.
fn exists(kind: Kind) -> bool {
    load(kind.name());
    let (Ok(scope), name) = (Scope::unique(), kind.name()) else { return true };
    let Ok(ns) = scope.netns("kind") else { return true };
    let make = match kind {
        Kind::Tun => "tuntap add dev new mode tun".to_owned(),
        Kind::Vlan => {
            let made = ns.ip("link add name under0 type veth peer name under1");
            made.map_or_else(|_| String::new(), |_| "link add link under0 name new type vlan id 7".to_owned())
        }
        _ => format!("link add name new type {name}"),
    };
    let made = ns.cmd("ip").args(make.split_whitespace()).run();
    made.is_ok_and(|made| made.code == Some(0) || !says_unknown(&made.stderr))
}

/// What `ip` says of a kind that the kernel does not have.
fn says_unknown(said: &str) -> bool {
    ["Unknown device type", "not supported", "No such file"].iter().any(|words| said.contains(words))
}

/// Loads a module, where it is one: nothing asks the kernel for tun, nor for a network card's driver where no udev runs.
pub(crate) fn load(module: &str) {
    let _ = Cmd::new("modprobe").args(["-q", module]).run();
}

/// The drivers whose cards some test has now: there are two of each, and not more.
static TAKEN: (Mutex<BTreeSet<&str>>, Condvar) = (Mutex::new(BTreeSet::new()), Condvar::new());

/// A test's turn with the cards of a driver.
pub(crate) struct Turn(&'static str);

impl Turn {
    pub(crate) fn wait(driver: &'static str) -> Self {
        let (taken, free) = &TAKEN;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            free.wait_while(taken, |taken| taken.contains(driver)).unwrap_or_else(PoisonError::into_inner);
        taken.insert(driver);
        Self(driver)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (taken, free) = &TAKEN;
        taken.lock().unwrap_or_else(PoisonError::into_inner).remove(self.0);
        free.notify_all();
    }
}
