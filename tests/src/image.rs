//! A container image made of this machine's own files, so that no registry is needed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// Copied in with the libraries that `ldd` names; they replace busybox's applets of the same name.
const TOOLS: [&str; 2] = ["iperf3", "ping"];

const DIRECTORIES: [&str; 10] =
    ["bin", "usr/bin", "usr/sbin", "sbin", "etc", "tmp", "dev", "proc", "sys", "var/run"];

/// A root file system as a tar archive: busybox, iperf3, ping, the libraries they need, nothing else.
#[derive(Clone, Debug)]
pub struct Image {
    tar: PathBuf,
}

impl Image {
    /// The name the image gets in every engine.
    pub const NAME: &'static str = "overlay-tools:1";

    /// Builds the archive in `scratch`, or takes the one an earlier call left there.
    pub fn build(scratch: &Path) -> Result<Self> {
        let tar = scratch.join("image.tar");
        if tar.is_file() {
            return Ok(Self { tar });
        }
        // Built beside and renamed, so that nobody sees half an archive; the name keeps two builders apart.
        let work = scratch.join(format!("image-{}", crate::docker::unique_id()?));
        let built = fill(&work.join("root")).and_then(|()| pack(&work, &tar));
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        built.map(|()| Self { tar })
    }

    /// The archive, for `docker import`.
    pub fn tar(&self) -> &Path {
        &self.tar
    }
}

fn fill(root: &Path) -> Result<()> {
    for dir in DIRECTORIES {
        fs::create_dir_all(root.join(dir))
            .with_context(|| format!("creating {dir} in {}", root.display()))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;

    let busybox = find("busybox")?;
    copy(&busybox, &root.join("bin/busybox"))?;
    let mut libraries = libraries(&busybox)?;
    let list = output(Command::new(&busybox).arg("--list"))?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        if applet != "busybox" && !TOOLS.contains(&applet) {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    for tool in TOOLS {
        let path = find(tool)?;
        copy(&path, &root.join("usr/bin").join(tool))?;
        libraries.extend(self::libraries(&path)?);
    }
    libraries.iter().try_for_each(|library| copy(library, &root.join(library.strip_prefix("/")?)))
}

fn pack(work: &Path, tar: &Path) -> Result<()> {
    let half = work.join("image.tar");
    let done = output(Command::new("tar").arg("-C").arg(work.join("root")).arg("-cf").arg(&half).arg("."))?;
    ensure!(done.status.success(), "tar failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    fs::rename(&half, tar).with_context(|| format!("moving the image to {}", tar.display()))
}

/// A program on the PATH or in the system directories, which a plain user's PATH may lack.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path).chain(system).map(|dir| dir.join(program));
    match candidates.find(|candidate| candidate.is_file()) {
        Some(found) => Ok(found),
        None => bail!("{program} is not installed: the container image needs it; run `cargo xtask setup`"),
    }
}

/// The shared libraries of a program and its loader, as `ldd` finds them; none for a static program.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let listing = output(Command::new("ldd").arg(program))?;
    Ok(parse_ldd(&String::from_utf8_lossy(&listing.stdout)))
}

/// Takes `NAME => /path (0x…)` and `/path (0x…)`; the vDSO has no path.
fn parse_ldd(listing: &str) -> BTreeSet<PathBuf> {
    let words = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.filter(|word| !word.ends_with(':')).map(PathBuf::from).collect()
}

/// Copies the file a link leads to, with its mode.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a file in the image has no directory")?;
    fs::create_dir_all(parent)?;
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("running {}", command.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_lines_give_paths() {
        let listing =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        let wanted = ["/lib/x/libc.so.6", "/lib64/ld.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(listing), BTreeSet::from(wanted));
        assert!(parse_ldd("\tnot a dynamic executable\n").is_empty());
    }
}
