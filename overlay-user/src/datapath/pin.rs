//! The pin directory: where maps, programs and links outlive the daemon.
//!
//! `<pin-dir>/<layout>/{maps,programs,links}`. Links are named `<ifindex>-<program>`.

use std::{
    borrow::Cow,
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

/// The directories of a layout.
const PARTS: [&str; 3] = ["maps", "programs", "links"];

/// The paths of one layout under a pin directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
    layout: OsString,
}

impl Pins {
    /// The paths of this build's layout under `root`; nothing is touched.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), layout: LAYOUT.into() }
    }

    /// The pin directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the layout.
    pub fn layout(&self) -> PathBuf {
        self.root.join(&self.layout)
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

    /// The name of the layout.
    pub fn layout_name(&self) -> Cow<'_, str> {
        self.layout.to_string_lossy()
    }

    /// True where a daemon of this layout has pinned its maps here.
    pub fn is_here(&self) -> bool {
        self.map(overlay_common::map::name::STATUS).exists()
    }

    /// True where a daemon of whatever layout has pinned its maps here.
    pub fn exist(&self) -> bool {
        self.is_here() || self.other_layouts().is_ok_and(|others| others.iter().any(Self::is_here))
    }

    /// The directories of other layouts in the same pin directory, whatever is in them.
    ///
    /// # Errors
    /// [`DatapathError::Io`] where the directory cannot be read.
    pub fn other_layouts(&self) -> Result<Vec<Self>, DatapathError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(DatapathError::Io { action: "read", path: self.root.clone(), source }),
        };
        let layouts =
            entries.flatten().map(|entry| Self { root: self.root.clone(), layout: entry.file_name() });
        // Somebody else's directories have none of these.
        let is_layout = |other: &Self| PARTS.iter().any(|part| other.layout().join(part).is_dir());
        Ok(layouts.filter(|other| other.layout != self.layout && is_layout(other)).collect())
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

    /// Refuses a directory that is not on bpffs, or on one that ends with a private mount namespace. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn check(&self) -> Result<(), DatapathError> {
        self.refuse_private()?;
        if self.is_to_be_mounted() || is_bpffs(self.existing()) {
            return Ok(());
        }
        Err(DatapathError::Pin(format!(
            "pin directory {} is not on a bpffs: choose one under {SYSTEM_BPFFS} with --pin-dir",
            self.root.display()
        )))
    }

    /// Refuses a bpffs that is this mount namespace's own: what is pinned there vanishes with it, and
    /// what is pinned elsewhere cannot be seen from here.
    ///
    /// # Errors
    /// [`DatapathError::Pin`].
    pub fn refuse_private(&self) -> Result<(), DatapathError> {
        if shares_mounts() || (!self.is_to_be_mounted() && outermost_sees(self.existing())) {
            return Ok(());
        }
        let what = if self.is_to_be_mounted() {
            format!(
                "no bpffs at {SYSTEM_BPFFS} in this mount namespace, and one mounted here would vanish with it"
            )
        } else {
            let root = self.root.display();
            format!("pin directory {root} belongs to a private mount namespace and would vanish with it")
        };
        Err(DatapathError::Pin(format!(
            "{what}: enter the network namespace with `nsenter --net=…`, which keeps the mounts, \
             instead of `ip netns exec`"
        )))
    }

    /// True where the system's bpffs is still to be mounted for this directory.
    fn is_to_be_mounted(&self) -> bool {
        self.root.starts_with(SYSTEM_BPFFS) && !is_bpffs(Path::new(SYSTEM_BPFFS))
    }

    /// The directory itself, or the nearest one above that is there.
    fn existing(&self) -> &Path {
        self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
    }

    /// Makes the directories, mounting the system's bpffs where nothing is mounted yet.
    ///
    /// # Errors
    /// As [`Self::check`], or an error of the filesystem.
    pub fn prepare(&self) -> Result<(), DatapathError> {
        self.check()?;
        if self.is_to_be_mounted() {
            mount(Some("bpf"), SYSTEM_BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(
                |errno| DatapathError::Io {
                    action: "mount bpffs at",
                    path: SYSTEM_BPFFS.into(),
                    source: errno.into(),
                },
            )?;
        }
        for directory in PARTS {
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
        for directory in PARTS.into_iter().rev() {
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

/// The `/proc` directory of the process whose mounts outlive ours: init, or the furthest ancestor in sight
/// where init is hidden from us.
fn outermost() -> Option<PathBuf> {
    let mut pid = std::process::id();
    let mut seen = None;
    while pid != 0 {
        let process = PathBuf::from(format!("/proc/{pid}"));
        pid = parent(&process).unwrap_or(0);
        if mount_namespace(&process).is_some() {
            seen = Some(process);
        }
    }
    seen
}

/// The parent's id; 0 for a process whose parent is outside of our PID namespace.
fn parent(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // "PID (NAME) STATE PPID …", and the name may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn mount_namespace(process: &Path) -> Option<u64> {
    fs::metadata(process.join("ns/mnt")).map(|meta| meta.ino()).ok()
}

/// True where this process and the outermost one have the same mounts.
fn shares_mounts() -> bool {
    outermost().is_none_or(|outer| mount_namespace(&outer) == mount_namespace(Path::new("/proc/self")))
}

/// True where the outermost process sees the same filesystem at this path.
fn outermost_sees(path: &Path) -> bool {
    let (Some(outer), Ok(relative)) = (outermost(), path.strip_prefix("/")) else { return false };
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(path), device(&outer.join("root").join(relative))) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
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
