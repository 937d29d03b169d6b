//! The name under which everything of one topology is found again: namespaces, pins and files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{bpffs, docker::Place, netns, netns::Netns};

/// Begins all names. A dot ends each part, and parts have none, so no scope is the prefix of another.
const PREFIX: &str = "overlayd";

/// Owns a name, and the directory for its files; dropping it removes all that bears the name.
#[derive(Debug)]
pub struct Scope {
    name: String,
}

impl Scope {
    /// A name nobody else has, for a test.
    ///
    /// # Errors
    /// No root.
    pub fn unique() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Only a process that had our id before us can have left something under this name.
        if !Remains::of(&name).is_empty() {
            let _ = remove(&name, Duration::ZERO);
        }
        Self::named(&name)
    }

    /// This name.
    ///
    /// # Errors
    /// The name is taken or has other characters than `a-z 0-9 -`, or no root.
    pub fn named(name: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(legal) {
            bail!("`{name}` is no name for a lab: 1 to 40 of a-z, 0-9 and -");
        }
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root");
        }
        let scope = Self { name: name.to_owned() };
        match fs::create_dir(scope.dir()) {
            Ok(()) => Ok(scope),
            Err(e) => {
                let dir = scope.dir();
                // Not ours, so not ours to remove.
                std::mem::forget(scope);
                Err(e).with_context(|| format!("cannot create {}", dir.display()))
            }
        }
    }

    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        dir(&self.name)
    }

    /// The pin directory of one of its hosts.
    #[must_use]
    pub fn pin_dir(&self, host: &str) -> PathBuf {
        pins(&self.name).join(host)
    }

    /// The full name of one of its namespaces.
    #[must_use]
    pub fn netns_name(&self, part: &str) -> String {
        format!("{}{part}", netns_prefix(&self.name))
    }

    /// Creates one of its namespaces.
    ///
    /// # Errors
    /// No root, or it is there already.
    pub fn netns(&self, part: &str) -> Result<Netns> {
        Netns::create(&self.netns_name(part))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        for trouble in remove(&self.name, Duration::ZERO) {
            eprintln!("{trouble}");
        }
    }
}

/// What bears a name.
#[derive(Debug, Default)]
pub struct Remains {
    /// Docker engines.
    pub engines: Vec<Place>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Its directory on bpffs, if it is there.
    pub pins: Option<PathBuf>,
    /// Its directory of files, if it is there.
    pub dir: Option<PathBuf>,
}

impl Remains {
    /// What there is under this name, however it came about.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let prefix = netns_prefix(name);
        let entries = fs::read_dir(netns::DIR).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        Self {
            engines: Place::all_in(&dir(name)),
            namespaces: names.filter(|n| n.starts_with(&prefix)).collect(),
            pins: Some(pins(name)).filter(|p| p.exists()),
            dir: Some(dir(name)).filter(|p| p.exists()),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.engines.is_empty() && self.namespaces.is_empty() && self.pins.is_none() && self.dir.is_none()
    }
}

/// Removes all that bears the name, also after a crash; returns what could not be removed, one line each.
#[must_use]
pub fn remove(name: &str, grace: Duration) -> Vec<String> {
    let remains = Remains::of(name);
    let mut trouble = Vec::new();
    let mut note = |what: String, result: Result<()>| {
        if let Err(e) = result {
            trouble.push(format!("cannot remove {what}: {e:#}"));
        }
    };
    // Containers have namespaces without a name: only their engine finds them.
    for engine in &remains.engines {
        note(format!("the Docker engine in {}", engine.dir.display()), engine.remove());
    }
    // The daemons before their pins, or they would attach anew; then the programs, then what they were attached to.
    for ns in &remains.namespaces {
        Netns::borrow(Path::new(netns::DIR).join(ns)).end_processes(grace);
    }
    if let Some(pins) = &remains.pins {
        note(pins.display().to_string(), bpffs::remove_tree(pins));
    }
    for ns in &remains.namespaces {
        note(format!("the namespace {ns}"), Netns::delete(ns, grace));
    }
    if let Some(dir) = &remains.dir {
        note(dir.display().to_string(), fs::remove_dir_all(dir).map_err(Into::into));
    }
    trouble
}

/// Whether a namespace or a pin directory's name belongs to this scope.
#[must_use]
pub fn owns(scope: &str, name: &str) -> bool {
    name.starts_with(&netns_prefix(scope)) || Path::new(name).starts_with(pins(scope))
}

fn netns_prefix(name: &str) -> String {
    format!("{PREFIX}.{name}.")
}

fn dir(name: &str) -> PathBuf {
    Path::new("/tmp").join(format!("{PREFIX}.{name}"))
}

fn pins(name: &str) -> PathBuf {
    Path::new(bpffs::ROOT).join(format!("{PREFIX}-{name}"))
}

/// Removes what test runs that were killed have left: their names hold the process id.
fn sweep() {
    let entries = fs::read_dir("/tmp").into_iter().flatten().flatten();
    for entry in entries.filter_map(|e| e.file_name().into_string().ok()) {
        let Some(name) = entry.strip_prefix("overlayd.t") else { continue };
        let Some((pid, _)) = name.split_once('-') else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            let _ = remove(&format!("t{name}"), Duration::ZERO);
        }
    }
}
