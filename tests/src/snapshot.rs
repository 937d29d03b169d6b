//! What exists on this machine, so that a run can prove it left nothing.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::{Netns, bpffs, netns, tcx, wait::eventually_some};

/// What exists: namespaces and pins of the machine, devices and tcx programs of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Named network namespaces.
    pub namespaces: BTreeSet<String>,
    /// Devices.
    pub links: BTreeSet<String>,
    /// Programs on their tcx hooks.
    pub tcx: BTreeSet<tcx::Attachment>,
    /// Everything under the BPF filesystem's root.
    pub pins: BTreeSet<PathBuf>,
}

/// What differs between two snapshots, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference(pub Vec<Change>);

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `namespace`, `link`, `tcx` or `pin`.
    pub kind: &'static str,
    /// Its name.
    pub what: String,
    /// Whether it is new; else it is gone.
    pub appeared: bool,
}

impl Snapshot {
    /// As seen from the caller's own namespace.
    ///
    /// # Errors
    /// No root.
    pub fn take() -> Result<Self> {
        let devices = tcx::devices()?;
        Ok(Self {
            namespaces: names(Path::new(netns::DIR)),
            tcx: tcx::attachments(&devices)?.into_iter().collect(),
            links: devices.into_values().collect(),
            pins: tree(Path::new(bpffs::ROOT)),
        })
    }

    /// As seen from another namespace.
    ///
    /// # Errors
    /// It cannot be entered, or no root.
    pub fn take_in(ns: &Netns) -> Result<Self> {
        ns.run(Self::take)?
    }

    /// What has to change for `self` to become `after`.
    #[must_use]
    pub fn difference(&self, after: &Self) -> Difference {
        let tcx = |s: &Self| s.tcx.iter().map(|a| format!("{a:?}")).collect();
        let pins = |s: &Self| s.pins.iter().map(|p| p.display().to_string()).collect();
        let mut changes = changes("namespace", &self.namespaces, &after.namespaces);
        changes.extend(self::changes("link", &self.links, &after.links));
        changes.extend(self::changes("tcx", &tcx(self), &tcx(after)));
        changes.extend(self::changes("pin", &pins(self), &pins(after)));
        Difference(changes)
    }

    /// Waits until all is as in `self` again but for what `ignore` says is none of ours, and returns what is
    /// not: the kernel takes a namespace's devices down some time after its name is gone.
    ///
    /// # Errors
    /// No snapshot could be taken.
    pub fn settle(&self, deadline: Duration, ignore: impl Fn(&Change) -> bool) -> Result<Difference> {
        let mut last = Difference::default();
        let settled = eventually_some("all is as before", deadline, || {
            last = self.difference(&Self::take()?);
            last.0.retain(|change| !ignore(change));
            Ok(last.0.is_empty().then_some(()))
        });
        if settled.is_err() && last.0.is_empty() {
            settled?;
        }
        Ok(last)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.0 {
            let sign = if change.appeared { '+' } else { '-' };
            writeln!(f, "{sign} {} {}", change.kind, change.what)?;
        }
        Ok(())
    }
}

fn changes(kind: &'static str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<Change> {
    let change = |what: &String, appeared| Change { kind, what: what.clone(), appeared };
    let gone = before.difference(after).map(|what| change(what, false));
    gone.chain(after.difference(before).map(|what| change(what, true))).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}
