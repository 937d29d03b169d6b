//! The BPF filesystem the pins are on.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::process::Cmd;

/// Where it is mounted. Every mount of it is a tree of its own, so there must be one only.
pub const ROOT: &str = "/sys/fs/bpf";

/// Mounts it where nothing is mounted yet.
///
/// # Errors
/// No root, or something else is mounted there.
pub fn ensure() -> Result<()> {
    let magic = || statfs(ROOT).map(|s| s.filesystem_type()).with_context(|| format!("statfs {ROOT}"));
    if magic()? == BPF_FS_MAGIC {
        return Ok(());
    }
    // Two of us may come here at once; the second mount would hide the first one's pins.
    let _lock = lock()?;
    if magic()? == BPF_FS_MAGIC {
        return Ok(());
    }
    Cmd::new("mount").args(["-t", "bpf", "bpf", ROOT]).check()?;
    if magic()? != BPF_FS_MAGIC {
        bail!("{ROOT} is no bpffs although mount succeeded");
    }
    Ok(())
}

/// Removes a directory of pins and all below.
///
/// # Errors
/// No root.
pub fn remove_tree(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Held on the directory above, which the mount does not hide and which needs no file of ours.
fn lock() -> Result<Flock<fs::File>> {
    let path = "/sys/fs";
    let file = fs::File::open(path).with_context(|| format!("cannot open {path}"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .with_context(|| format!("cannot lock {path}"))
}
