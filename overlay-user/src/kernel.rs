//! The kernel that overlayd runs on: old enough ones are refused, and what a newer one would add is told.

use std::fs;

use anyhow::{Context, ensure};

use crate::datapath::attach;

/// The oldest series that overlayd is tested on. All that it does it does there; what older ones lack nobody has tried.
const OLDEST: (u32, u32) = (6, 1);

/// Where the kernel tells its version.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Refuses a kernel that is too old.
///
/// # Errors
/// One line that names both versions.
pub fn refuse_too_old() -> anyhow::Result<()> {
    let release = fs::read_to_string(RELEASE).with_context(|| format!("cannot read {RELEASE}"))?;
    check(release.trim())
}

fn check(release: &str) -> anyhow::Result<()> {
    let (major, minor) = OLDEST;
    // What does not look like a version says nothing against it: loading the programs will tell.
    ensure!(
        series(release).is_none_or(|series| series >= OLDEST),
        "Linux {release} is too old: overlayd needs {major}.{minor} or newer"
    );
    Ok(())
}

/// `6.1.0-56-amd64`: 6.1.
fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The first series whose `bpf_skb_adjust_room` strips outer headers of another IP version than the inner one
/// (`BPF_F_ADJ_ROOM_DECAP_L3_IPV4` and its like). Only a packet would tell otherwise.
const DECAP_ACROSS: (u32, u32) = (6, 3);

/// What is lost on this kernel, one line each.
pub fn notes() -> Vec<String> {
    let no_tcx = "this kernel has no tcx (Linux 6.6 has): the programs are filters on the devices' clsact; whoever \
                  removes that, or puts filters before them, takes their packets away";
    let mut notes: Vec<String> = (!attach::has_tcx()).then(|| no_tcx.to_owned()).into_iter().collect();
    notes.extend(fs::read_to_string(RELEASE).ok().and_then(|release| no_decap_across(&release)));
    notes
}

fn no_decap_across(release: &str) -> Option<String> {
    let (major, minor) = DECAP_ACROSS;
    series(release).filter(|series| *series < DECAP_ACROSS)?;
    Some(format!(
        "this kernel cannot strip IPv6 from around IPv4, nor IPv4 from around IPv6 (Linux {major}.{minor} can): in tc, such \
         tunnel packets take the slower way through the tunnel device"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_cannot_strip_is_told() {
        assert!(no_decap_across("6.1.0-56-amd64\n").unwrap().contains("Linux 6.3 can"));
        for good in ["6.3.0", "6.12.117+deb12-amd64", "7.2", "strange"] {
            assert_eq!(no_decap_across(good), None, "{good}");
        }
    }

    #[test]
    fn the_series_decides() {
        for good in ["6.1.0-56-amd64", "6.1", "6.12.117+deb12-amd64", "7.0-rc1", "10.2.3", "strange"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["6.0.19", "5.15.0-91-generic", "4.18.0-553.el8.x86_64"] {
            let error = check(bad).unwrap_err().to_string();
            assert_eq!(error, format!("Linux {bad} is too old: overlayd needs 6.1 or newer"));
        }
    }
}
