//! Pinned maps as bpftool prints them: somebody else's reading, by field names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Cmd;

/// The entries of a map under a pin directory: keys and values with their field names.
///
/// # Errors
/// There is no such map, or bpftool failed.
pub fn dump(pin_dir: &Path, map: &str) -> Result<Vec<(Value, Value)>> {
    let output = bpftool("dump", pin_dir, map, &[])?;
    let entries: Vec<Value> = serde_json::from_str(&output).context("bpftool printed no array")?;
    let fields = |entry: &Value| Ok((formatted(entry)?["key"].clone(), formatted(entry)?["value"].clone()));
    entries.iter().map(fields).collect()
}

/// One value of a map whose key is a number of 32 bits.
///
/// # Errors
/// There is no such map or entry, or bpftool failed.
pub fn lookup(pin_dir: &Path, map: &str, key: u32) -> Result<Value> {
    let key = key.to_ne_bytes().map(|byte| byte.to_string());
    let key: Vec<&str> = std::iter::once("key").chain(key.iter().map(String::as_str)).collect();
    let entry: Value = serde_json::from_str(&bpftool("lookup", pin_dir, map, &key)?)?;
    Ok(formatted(&entry)?["value"].clone())
}

/// Where a map is pinned. The layout's version is a directory, and there is one.
///
/// # Errors
/// Nothing is pinned.
pub fn pinned(pin_dir: &Path, map: &str) -> Result<PathBuf> {
    let layout = fs::read_dir(pin_dir)
        .with_context(|| format!("cannot read {}", pin_dir.display()))?
        .next()
        .context("nothing is pinned")??;
    Ok(layout.path().join("maps").join(map))
}

fn bpftool(verb: &str, pin_dir: &Path, map: &str, args: &[&str]) -> Result<String> {
    let path = pinned(pin_dir, map)?.display().to_string();
    let output = Cmd::new("bpftool").args(["-j", "map", verb, "pinned", &path]).args(args).check()?;
    Ok(output.stdout)
}

fn formatted(entry: &Value) -> Result<&Value> {
    entry.get("formatted").context("an entry without field names: the map has no BTF")
}

/// An array of bytes in what bpftool printed.
#[must_use]
pub fn bytes(value: &Value) -> Vec<u8> {
    let byte = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok());
    value.as_array().into_iter().flatten().filter_map(byte).collect()
}
