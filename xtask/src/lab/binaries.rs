//! Building what the lab runs.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use harness::binaries::{DIR_VARIABLE, target_dir};

/// Builds overlayd and overlayctl in release, unless the environment says where they are.
pub(crate) fn build() -> Result<()> {
    if env::var_os(DIR_VARIABLE).is_some() {
        return Ok(());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let status = Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--release", "-p", "overlay-user", "--bins", "--target-dir"])
        // A relative CARGO_TARGET_DIR would mean another one from there.
        .arg(std::path::absolute(target_dir()?)?)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo build --release -p overlay-user --bins` failed, see above");
    }
    Ok(())
}
