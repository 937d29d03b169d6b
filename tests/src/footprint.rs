//! Everything overlayd can leave on a host, so that a test can prove that it left nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{Netns, Topology, bpffs, tcx};

/// The settings of all interfaces; any of them may be changed behind one's back.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// What there is on a host, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint(BTreeSet<String>);

impl Footprint {
    /// Devices, tcx programs, routes, permanent neighbours and settings of a host (counted from 1), all
    /// keys of etcd, and what lies in `dirs`, with the contents of plain files.
    ///
    /// # Errors
    /// Something could not be read.
    pub fn of(topology: &Topology, host: usize, dirs: &[&Path]) -> Result<Self> {
        let ns = &topology.h(host).ns;
        let mut lines = BTreeSet::new();
        for attachment in tcx::attachments_in(ns)? {
            lines.insert(format!("tcx {attachment:?}"));
        }
        for (index, name) in ns.run(tcx::devices)?? {
            lines.insert(format!("link {index} {name}"));
        }
        // Learned neighbours come and go by themselves, ours are permanent.
        for (what, args) in [
            ("route", "-o -4 route show table all"),
            ("rule", "-o -4 rule"),
            ("route", "-o -6 route show table all"),
            ("rule", "-o -6 rule"),
            ("neighbour", "-o neigh show nud permanent"),
        ] {
            let said = ns.ip(args)?.stdout;
            // Those of links themselves are there as soon as duplicates have been looked for.
            let lasting = said.lines().filter(|line| !line.contains("fe80:") && !line.contains("ff00:"));
            lines.extend(lasting.map(|line| format!("{what} {}", line.trim())));
        }
        lines.extend(settings(ns)?);
        if let Some(etcd) = &topology.etcd {
            lines.extend(etcd.get_prefix("/")?.into_iter().map(|(key, value)| format!("key {key} {value}")));
        }
        for dir in dirs {
            tree(dir, &mut lines)?;
        }
        Ok(Self(lines))
    }

    /// What appeared and what vanished until `after`: empty where nothing changed.
    #[must_use]
    pub fn difference(&self, after: &Self) -> Vec<String> {
        let gone = self.0.difference(&after.0).map(|line| format!("- {line}"));
        gone.chain(after.0.difference(&self.0).map(|line| format!("+ {line}"))).collect()
    }
}

fn settings(ns: &Netns) -> Result<Vec<String>> {
    // /proc/sys/net is that of the reading thread's namespace.
    ns.run(|| {
        let mut lines = Vec::new();
        for path in files(Path::new(SETTINGS))? {
            if let Ok(value) = fs::read_to_string(&path) {
                lines.push(format!("setting {} {}", path.display(), value.trim()));
            }
        }
        Ok(lines)
    })?
}

fn tree(dir: &Path, lines: &mut BTreeSet<String>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    lines.insert(format!("directory {}", dir.display()));
    for path in files(dir)? {
        // A map's pin reads as its contents, which change with every packet.
        let pin = path.starts_with(bpffs::ROOT);
        let content = if pin { Vec::new() } else { fs::read(&path).unwrap_or_default() };
        lines.insert(format!("file {} {}", path.display(), String::from_utf8_lossy(&content)));
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
