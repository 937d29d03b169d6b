//! Kernel settings under /proc/sys/net: reading, changing, and putting back what was there.
//!
//! /proc/sys/net shows the network namespace of the calling thread, not that of the process.

use std::{fs, io};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// The only settings this module touches: those of the network, which belong to a namespace.
const ROOT: &str = "/proc/sys/net/";

/// A setting that could not be read or changed. The text names its path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}")]
pub struct SysctlError {
    operation: String,
    path: String,
    source: io::Error,
}

/// The path of a per-interface IPv4 setting, `rp_filter` of `docker0` say.
///
/// By path, as opposed to `sysctl -w a.b.c`, an interface name with dots in it needs no care.
pub fn ipv4_conf(interface: &str, name: &str) -> String {
    format!("{ROOT}ipv4/conf/{interface}/{name}")
}

/// The path of a per-interface IPv6 setting.
pub fn ipv6_conf(interface: &str, name: &str) -> String {
    format!("{ROOT}ipv6/conf/{interface}/{name}")
}

/// One line where the kernel does not forward IPv6 packets that come in by any of these bridges; the first it does
/// not forward for is named. That is the administrator's to decide (Docker does it for networks with IPv6): turning it
/// on ends the taking of router advertisements on the uplink.
///
/// A kernel without IPv6 has nothing to forward.
pub fn ipv6_forwarding_note<'a>(bridges: impl IntoIterator<Item = (&'a str, Ipv6Net)>) -> Option<String> {
    // Kernel 6.17 has force_forwarding, by interface.
    let is_on =
        |interface: &str, name: &str| get(&ipv6_conf(interface, name)).is_ok_and(|value| value != "0");
    if !matches!(get(&ipv6_conf("all", "forwarding")).as_deref(), Ok("0")) {
        return None;
    }
    let (bridge, address) = bridges.into_iter().find(|(name, _)| !is_on(name, "force_forwarding"))?;
    Some(not_forwarded(bridge, address))
}

fn not_forwarded(bridge: &str, address: Ipv6Net) -> String {
    format!(
        "net.ipv6.conf.all.forwarding is 0, but bridge {bridge} has {}: IPv6 packets that the kernel has to forward, \
         too large ones say, are lost; set it to 1, and accept_ra to 2 on uplinks that need it",
        address.trunc()
    )
}

/// Reads a setting, without its line end.
pub fn get(path: &str) -> Result<String, SysctlError> {
    let value = checked(path).and_then(|()| fs::read_to_string(path));
    value.map(|value| value.trim_end().to_owned()).map_err(|source| SysctlError {
        operation: "read".to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// Changes a setting.
pub fn set(path: &str, value: &str) -> Result<(), SysctlError> {
    checked(path).and_then(|()| fs::write(path, value)).map_err(|source| SysctlError {
        operation: format!("write {value:?} to"),
        path: path.to_owned(),
        source,
    })
}

/// Changes a setting that the kernel may not have.
pub fn set_if_present(path: &str, value: &str) -> Result<(), SysctlError> {
    match set(path, value) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A setting that was changed, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Its path.
    pub path: String,
    /// Its value before the change.
    pub old: String,
}

impl Saved {
    /// Sets `path` to `value`. None where it had that value already, and there is nothing to put back.
    pub fn change(path: &str, value: &str) -> Result<Option<Self>, SysctlError> {
        let old = get(path)?;
        if old == value {
            return Ok(None);
        }
        set(path, value)?;
        Ok(Some(Self { path: path.to_owned(), old }))
    }

    /// Puts the old value back. A setting whose interface is gone needs nothing put back.
    pub fn restore(&self) -> Result<(), SysctlError> {
        set_if_present(&self.path, &self.old)
    }
}

/// Paths come back from a state file: none may lead elsewhere.
fn checked(path: &str) -> io::Result<()> {
    let inside = path.strip_prefix(ROOT).is_some_and(|rest| rest.split('/').all(|part| part != ".."));
    if inside {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a setting under {ROOT}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_in_interface_names_stay_as_they_are() {
        assert_eq!(ipv4_conf("eth0.100", "rp_filter"), "/proc/sys/net/ipv4/conf/eth0.100/rp_filter");
    }

    #[test]
    fn errors_name_the_path_and_the_value() {
        let path = ipv4_conf("no-such-link", "rp_filter");
        let read = get(&path).unwrap_err().to_string();
        assert_eq!(read, format!("cannot read {path}: No such file or directory (os error 2)"));
        let written = set(&path, "2").unwrap_err().to_string();
        assert!(written.starts_with(&format!("cannot write \"2\" to {path}: ")), "{written}");
    }

    #[test]
    fn nothing_outside_the_networks_settings_is_touched() {
        for path in ["/etc/hostname", "/proc/sys/kernel/hostname", "/proc/sys/net/../kernel/hostname", ""] {
            assert!(get(path).unwrap_err().to_string().contains("not a setting under"), "{path:?}");
            assert!(set(path, "x").unwrap_err().to_string().contains("not a setting under"), "{path:?}");
        }
    }

    #[test]
    fn a_setting_of_a_link_that_is_gone_is_restored_by_itself() {
        let saved = Saved { path: ipv4_conf("no-such-link", "rp_filter"), old: "1".to_owned() };
        assert!(saved.restore().is_ok());
    }

    #[test]
    fn the_longest_note_is_kept_whole() {
        let subnet = "fd00:1111:2222:3333:4444:5555:6666:7777/126".parse().unwrap();
        let note = not_forwarded("a-name-of-15-by", subnet);
        assert!(note.len() < overlay_common::map::NOTE_BYTES, "{}: {note}", note.len());
    }

    #[test]
    fn saved_settings_survive_a_state_file() {
        let saved = Saved { path: ipv4_conf("docker0", "rp_filter"), old: "2".to_owned() };
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
    }
}
