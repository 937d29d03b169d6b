//! Building what the lab runs.

use std::env;

use anyhow::Result;
use harness::binaries::{DIR_VARIABLE, target_dir};

use crate::command;

/// Builds overlayd and overlayctl in release, unless the environment says where they are.
pub(crate) fn build() -> Result<()> {
    if env::var_os(DIR_VARIABLE).is_some() {
        return Ok(());
    }
    // A relative CARGO_TARGET_DIR would mean another one from the workspace's root.
    command::build_binaries(&std::path::absolute(target_dir()?)?)
}
