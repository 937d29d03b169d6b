//! The pin directory: where maps, programs and links outlive the daemon.
//!
//! `<pin-dir>/<layout>/{maps,programs,links}`. Links are named `<ifindex>-<program>`.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use overlay_common::map::LAYOUT;

use super::DatapathError;

/// Where the system mounts its bpffs.
const SYSTEM_BPFFS: &str = "/sys/fs/bpf";

/// The paths under a pin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The paths under `root`; nothing is touched.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The pin directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of this layout version.
    pub fn layout(&self) -> PathBuf {
        self.root.join(LAYOUT)
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.layout().join("maps").join(name)
    }

    /// The pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.layout().join("programs").join(name)
    }

    /// The directory of the links' pins.
    pub fn links(&self) -> PathBuf {
        self.layout().join("links")
    }

    /// The pin of a program's link to an interface.
    pub fn link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.links().join(format!("{ifindex}-{program}"))
    }

    /// True where a daemon of this layout has pinned its maps here.
    pub fn exist(&self) -> bool {
        self.map(overlay_common::map::name::STATUS).exists()
    }

    /// Every link pinned, as (ifindex, program name). Names of another form are left alone.
    ///
    /// # Errors
    /// [`DatapathError::Io`] where the directory cannot be read.
    pub fn pinned_links(&self) -> Result<Vec<(u32, String)>, DatapathError> {
        let path = self.links();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(DatapathError::Io { action: "read", path, source }),
        };
        Ok(entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let (ifindex, program) = name.split_once('-')?;
                Some((ifindex.parse().ok()?, program.to_owned()))
            })
            .collect())
    }

    /// Makes the directories, mounting the system's bpffs where nothing is mounted yet.
    ///
    /// # Errors
    /// [`DatapathError::Pin`] where the directory is not on bpffs, or on one that ends with a private mount
    /// namespace.
    pub fn prepare(&self) -> Result<(), DatapathError> {
        if self.root.starts_with(SYSTEM_BPFFS) && !is_bpffs(Path::new(SYSTEM_BPFFS)) {
            if !shares_mounts_with_init() {
                return Err(DatapathError::Pin(format!(
                    "no bpffs at {SYSTEM_BPFFS} in this mount namespace, and one mounted here would vanish with it: \
                     enter the network namespace with `nsenter --net=…`, which keeps the mounts, instead of `ip netns exec`"
                )));
            }
            mount(Some("bpf"), SYSTEM_BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(
                |errno| DatapathError::Io {
                    action: "mount bpffs at",
                    path: SYSTEM_BPFFS.into(),
                    source: errno.into(),
                },
            )?;
        }
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            return Err(DatapathError::Pin(format!(
                "pin directory {} is not on a bpffs: choose one under {SYSTEM_BPFFS} with --pin-dir",
                self.root.display()
            )));
        }
        if !shares_mounts_with_init() && !init_sees(existing) {
            return Err(DatapathError::Pin(format!(
                "the bpffs under {} belongs to a private mount namespace and would vanish with it: \
                 enter the network namespace with `nsenter --net=…`, which keeps the mounts",
                self.root.display()
            )));
        }
        for directory in ["maps", "programs", "links"] {
            let path = self.layout().join(directory);
            fs::create_dir_all(&path).map_err(|source| DatapathError::Io {
                action: "create",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Pins an object over whatever stands at `path`, so that the path always names one.
    ///
    /// # Errors
    /// What `pin` says, or an error of the filesystem.
    pub fn replace<E>(path: &Path, pin: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), ReplaceError<E>> {
        let mut name = path.file_name().map(OsString::from).unwrap_or_default();
        // bpffs keeps names with a dot for itself.
        name.push("-new");
        let new = path.with_file_name(name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(ReplaceError::Io(error)),
            _ => {}
        }
        pin(&new).map_err(ReplaceError::Pin)?;
        fs::rename(&new, path).map_err(ReplaceError::Io)
    }

    /// Removes every pin and the directories. What is gone already is no error.
    ///
    /// # Errors
    /// [`DatapathError::Io`] for the first path that cannot be removed.
    pub fn remove(&self) -> Result<(), DatapathError> {
        // Links first: from then on no packet meets a program whose maps are going.
        for directory in ["links", "programs", "maps"] {
            let path = self.layout().join(directory);
            remove_dir_all(&path)?;
        }
        for path in [self.layout(), self.root.clone()] {
            match fs::remove_dir(&path) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    return Err(DatapathError::Io { action: "remove", path, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why a pin could not be replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError<E> {
    /// The object could not be pinned.
    #[error(transparent)]
    Pin(E),
    /// The filesystem refused.
    #[error(transparent)]
    Io(io::Error),
}

fn remove_dir_all(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Io { action: "remove", path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

fn shares_mounts_with_init() -> bool {
    let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|meta| meta.ino());
    match (namespace("self"), namespace("1")) {
        (Ok(ours), Ok(init)) => ours == init,
        // Without sight of init (hidepid, a PID namespace) there is nothing to compare with.
        _ => true,
    }
}

/// True where init sees the same filesystem at this path.
fn init_sees(path: &Path) -> bool {
    let Ok(relative) = path.strip_prefix("/") else { return false };
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(path), device(&Path::new("/proc/1/root").join(relative))) {
        (Ok(ours), Ok(init)) => ours == init,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_off_bpffs_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let error = Pins::new(&directory.path().join("pins")).prepare().unwrap_err().to_string();
        assert!(error.contains("not on a bpffs") && error.contains("--pin-dir"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn link_names_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        assert!(pins.pinned_links().unwrap().is_empty());
        fs::create_dir_all(pins.links()).unwrap();
        fs::write(pins.link(7, "uplink_ingress"), "").unwrap();
        fs::write(pins.links().join("something"), "").unwrap();
        assert_eq!(pins.pinned_links().unwrap(), [(7, "uplink_ingress".to_owned())]);
    }
}
