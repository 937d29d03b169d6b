//! The kernel that overlayd runs on: old enough ones are refused, and what a newer one would add is told.

use std::fs;

use anyhow::{Context, ensure};

use crate::datapath::attach;

/// The oldest series that overlayd is tested on. It lacks nothing on it; what older ones lack nobody has tried.
const OLDEST: (u32, u32) = (6, 1);

/// Refuses a kernel that is too old.
///
/// # Errors
/// One line that names both versions.
pub fn refuse_too_old() -> anyhow::Result<()> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
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

/// What is lost on this kernel, one line each.
pub fn notes() -> Vec<String> {
    let no_tcx = "this kernel has no tcx (Linux 6.6 has): the programs are filters on the devices' clsact; whoever \
                  removes that, or puts filters before them, takes their packets away";
    (!attach::has_tcx()).then(|| no_tcx.to_owned()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
