//! Modules that the initial filesystem needs, in the order in which they can be loaded.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Xz,
    Zstd,
    Gzip,
}

impl Compression {
    /// By a file's first bytes.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 3] =
            [(b"\xfd7zXZ\0", Self::Xz), (b"\x28\xb5\x2f\xfd", Self::Zstd), (b"\x1f\x8b", Self::Gzip)];
        known.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, compression)| compression)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Decompresses by way of the tool for it.
pub(super) fn decompress(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>> {
    let program = compression.program();
    let mut child = Command::new(program)
        .args(["-q", "-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let output = thread::scope(|scope| {
        // A tool that ends early says below why.
        scope.spawn(move || drop(stdin.write_all(bytes)));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// A module's file under `directory` (`/lib/modules/<version>`), decompressed.
pub(super) fn read(directory: &Path, file: &Path) -> Result<Vec<u8>> {
    let path = directory.join(file);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    match Compression::of(&bytes) {
        Some(compression) => decompress(compression, &bytes),
        None => Ok(bytes),
    }
}

/// The files of `modules` and of all that they need, each after what it needs. A module that the kernel has
/// built in is no file.
pub(super) fn in_order(directory: &Path, modules: &[&str]) -> Result<Vec<PathBuf>> {
    let path = directory.join("modules.dep");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let files = ordered(&text, modules);
    if files.is_empty() {
        bail!("{} names none of {}", path.display(), modules.join(", "));
    }
    Ok(files)
}

fn ordered(text: &str, modules: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for module in modules {
        let line =
            text.lines().find_map(|line| line.split_once(':').filter(|(file, _)| name(file) == *module));
        let Some((file, needs)) = line else { continue };
        // What is needed first stands last.
        for file in needs.split_whitespace().rev().chain([file]) {
            if !files.iter().any(|known| known == Path::new(file)) {
                files.push(file.into());
            }
        }
    }
    files
}

/// A module's name: its file's without directory and extensions, and dashes count as underscores.
pub(super) fn name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_before_it_and_only_once() {
        let dep = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                   kernel/net/9p/9pnet-virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/v.ko.xz\n\
                   kernel/net/9p/9pnet.ko.xz:\n";
        let files = ordered(dep, &["9pnet_virtio", "built_in", "9p"]);
        let names: Vec<String> = files.iter().map(|file| name(&file.display().to_string())).collect();
        assert_eq!(names, ["v", "9pnet", "9pnet_virtio", "netfs", "9p"]);
    }

    #[test]
    fn a_file_survives_each_compression() {
        for (program, compression) in
            [("xz", Compression::Xz), ("zstd", Compression::Zstd), ("gzip", Compression::Gzip)]
        {
            // The initial filesystem's tools: setup installs them for this command alone.
            let Ok(output) = Command::new("sh").args(["-c", &format!("printf text | {program} -c")]).output()
            else {
                panic!("no shell")
            };
            if output.status.success() {
                assert_eq!(Compression::of(&output.stdout), Some(compression));
                assert_eq!(decompress(compression, &output.stdout).unwrap(), b"text");
            }
        }
        assert_eq!(Compression::of(b"\x7fELF"), None);
        assert!(decompress(Compression::Gzip, b"no gzip").is_err());
    }
}
