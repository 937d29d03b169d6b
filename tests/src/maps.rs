//! Pinned maps as bpftool prints them: somebody else's reading, by field names.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Cmd;

/// The entries of a map under a pin directory: keys and values with their field names.
///
/// # Errors
/// There is no such map, or bpftool failed.
pub fn dump(pin_dir: &Path, map: &str) -> Result<Vec<(Value, Value)>> {
    // The layout's version is a directory, and there is one.
    let layout = fs::read_dir(pin_dir)
        .with_context(|| format!("cannot read {}", pin_dir.display()))?
        .next()
        .context("nothing is pinned")??;
    let path = layout.path().join("maps").join(map).display().to_string();
    let output = Cmd::new("bpftool").args(["-j", "map", "dump", "pinned", &path]).check()?;
    let entries: Vec<Value> = serde_json::from_str(&output.stdout).context("bpftool printed no array")?;
    let fields = |entry: &Value| {
        let formatted = entry.get("formatted").context("an entry without field names: the map has no BTF")?;
        Ok((formatted["key"].clone(), formatted["value"].clone()))
    };
    entries.iter().map(fields).collect()
}

/// An array of bytes in what bpftool printed.
#[must_use]
pub fn bytes(value: &Value) -> Vec<u8> {
    let byte = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
    value.as_array().into_iter().flatten().filter_map(byte).collect()
}
