//! From packages to what can be booted: the kernel, its modules, and an initial filesystem that finds this machine's.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{apt, cpio::Archive, module, vmlinux};
use crate::command;

/// Files and directories of an image.
pub(super) const VERSION: &str = "version";
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";
pub(super) const MODULES: &str = "root/lib/modules";

/// What it takes to reach the host's files and the emulator's consoles. The last is built in from 6.13 on.
const NEEDED: [&str; 6] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "crc32c_generic"];

const INIT: &[u8] = include_bytes!("init.sh");

/// Makes an image of a kernel's packages in a new directory.
pub(super) fn make(debs: &[PathBuf], directory: &Path) -> Result<()> {
    let unpacked = directory.join("unpacked");
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    for deb in debs {
        apt::unpack(deb, &unpacked)?;
    }
    let (version, modules) = take_modules(&unpacked, directory)?;
    // Debian's package does this when it is installed.
    let depmod = command::find("depmod").context("depmod is missing")?;
    apt::output(Command::new(depmod).arg("-b").arg(directory.join("root")).arg(&version))?;
    let image = [unpacked.join("boot").join(format!("vmlinuz-{version}")), modules.join("vmlinuz")];
    let image = image.iter().find(|file| file.is_file());
    let image = fs::read(image.context("the packages have no kernel")?)?;
    let kernel = vmlinux::extract(&image).unwrap_or_else(|error| {
        eprintln!("booting the compressed kernel: {error:#}");
        image
    });
    fs::write(directory.join(KERNEL), kernel)?;
    initrd(&modules, &directory.join(INITRD))?;
    fs::remove_dir_all(&unpacked)?;
    // Last: who finds it finds all the rest.
    fs::write(directory.join(VERSION), version)?;
    Ok(())
}

/// Moves the modules to where an image has them. Returns the kernel's version and their directory.
fn take_modules(unpacked: &Path, directory: &Path) -> Result<(String, PathBuf)> {
    let places = ["usr/lib/modules", "lib/modules"].map(|place| unpacked.join(place));
    let Some(from) = places.iter().find(|place| place.is_dir()) else {
        bail!("the packages have no modules")
    };
    let version = fs::read_dir(from)?.next().context("the packages have no modules")??.file_name();
    let version = version.to_string_lossy().into_owned();
    let to = directory.join(MODULES);
    fs::create_dir_all(to.parent().unwrap_or(&to))?;
    fs::rename(from, &to)?;
    let modules = to.join(&version);
    Ok((version, modules))
}

fn initrd(modules: &Path, path: &Path) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for directory in ["bin", "proc", "sys", "dev", "lower", "overlay", "new", "modules"] {
        archive.directory(directory)?;
    }
    let busybox = command::find("busybox").context("busybox is missing")?;
    archive.file("bin/busybox", &fs::read(busybox)?)?;
    let mut list = String::new();
    for file in module::in_order(modules, &NEEDED)? {
        let name = module::name(&file.display().to_string());
        archive.file(&format!("modules/{name}.ko"), &module::read(modules, &file)?)?;
        list.push_str(&name);
        list.push('\n');
    }
    archive.file("modules/list", list.as_bytes())?;
    archive.file("init", INIT)?;
    archive.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}
