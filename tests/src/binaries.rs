//! Where the binaries under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// The variable that names their directory.
pub const DIR_VARIABLE: &str = "OVERLAYD_BIN_DIR";

/// The variable that names the directory of the next build's, whose map layout is another, and which dies after the step of
/// its start that `OVERLAYD_DIE_AFTER` names. `cargo xtask test --full` builds it.
pub const NEXT_DIR_VARIABLE: &str = "OVERLAYD_NEXT_BIN_DIR";

/// The directory of `overlayd` and `overlayctl`: the variable's, else `release/` in cargo's target directory.
///
/// # Errors
/// This program is not in a target directory, and no variable helps.
pub fn dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os(DIR_VARIABLE) {
        return Ok(dir.into());
    }
    Ok(target_dir()?.join("release"))
}

/// One of the binaries.
///
/// # Errors
/// It has not been built.
pub fn find(name: &str) -> Result<String> {
    find_in(&dir()?, name)
}

/// One of another build's binaries.
///
/// # Errors
/// As [`find`].
pub fn find_in(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} is missing: build it with `cargo build --release -p overlay-user --bins`", path.display());
    }
    Ok(path.display().to_string())
}

/// Cargo's target directory, found from where this program is: tests run in `<target>/<profile>/deps`.
///
/// # Errors
/// This program is not in a target directory, and no variable names one.
pub fn target_dir() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    if let Some(dir) = exe.ancestors().find(|dir| dir.join(".rustc_info.json").is_file()) {
        return Ok(dir.to_owned());
    }
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(dir.into()),
        None => bail!("{} is in no cargo target directory: set {DIR_VARIABLE}", exe.display()),
    }
}
