//! Control groups, v1 and v2: shown inside a private mount namespace, listed and removed by name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// The hierarchies of the running machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchies {
    /// One mount per entry, named by its mount options: `cpu,cpuacct`, `memory`, `name=systemd` …
    V1(Vec<String>),
    /// The unified hierarchy alone.
    V2,
}

impl Hierarchies {
    /// Asks the kernel which hierarchies this machine uses.
    pub fn detect() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
        Ok(Self::parse(&text))
    }

    /// Reads the `ID:CONTROLLERS:PATH` lines of `/proc/PID/cgroup`; the unified hierarchy has no controllers there.
    fn parse(text: &str) -> Self {
        let named = text.lines().filter_map(|line| line.split(':').nth(1)).filter(|list| !list.is_empty());
        let lists: Vec<String> = named.map(str::to_owned).collect();
        // systemd keeps a controller-less `name=systemd` beside v2 on hybrid machines: not enough to call it v1.
        if lists.iter().any(|list| !list.starts_with("name=")) { Self::V1(lists) } else { Self::V2 }
    }

    /// Mounts them at `at` (normally `/sys/fs/cgroup` under a new sysfs). Call it in a mount namespace of your own.
    ///
    /// A hierarchy may be mounted any number of times: every mount shows the same tree.
    pub fn mount_at(&self, at: &Path) -> Result<()> {
        match self {
            Self::V1(lists) => {
                attach("tmpfs", at, Some("mode=755"))?;
                lists.iter().try_for_each(|list| mount_v1(at, list))
            }
            Self::V2 => attach("cgroup2", at, None),
        }
    }
}

fn mount_v1(at: &Path, list: &str) -> Result<()> {
    let name = list.strip_prefix("name=").unwrap_or(list);
    let dir = at.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let options = if name == list { list.to_owned() } else { format!("none,{list}") };
    attach("cgroup", &dir, Some(&options))?;
    // Programs look for each controller under its own name, also where two share a mount.
    for alias in name.split(',').filter(|alias| *alias != name) {
        let link = at.join(alias);
        std::os::unix::fs::symlink(name, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

fn attach(kind: &str, at: &Path, options: Option<&str>) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("mounting {kind} ({}) at {}", options.unwrap_or("no options"), at.display()))
}

/// The directories of the group `name` (a path below the root of the hierarchies) wherever it exists.
pub fn directories(name: &str) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let name = name.trim_start_matches('/');
    let dirs = mounts.lines().filter_map(mount_point).map(|at| at.join(name)).filter(|dir| dir.is_dir());
    Ok(dirs.collect())
}

/// The mount point of a `mountinfo` line (proc(5)) if that mount is the root of a cgroup hierarchy.
fn mount_point(line: &str) -> Option<PathBuf> {
    let (head, tail) = line.split_once(" - ")?;
    let mut fields = head.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    let is_root = root == "/" && matches!(tail.split(' ').next()?, "cgroup" | "cgroup2");
    is_root.then(|| PathBuf::from(at))
}

/// Every process in the group `name` and in the groups below it.
pub fn processes(name: &str) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for dir in directories(name)? {
        for group in tree(&dir) {
            // A group may go away between the listing and this line: then it holds nobody.
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    Ok(pids)
}

/// Removes the group `name` and all below it from every hierarchy; its processes must be gone.
pub fn remove(name: &str) -> Result<()> {
    for dir in directories(name)? {
        for group in tree(&dir) {
            match fs::remove_dir(&group) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing the cgroup {}", group.display()));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A group's directory and all below it, the deepest first, which is the order rmdir(2) wants.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.extend(tree(&entry.path()));
        }
    }
    groups.push(dir.to_path_buf());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_follow_the_controllers() {
        let v1 = "3:cpu,cpuacct:/\n2:memory:/a\n1:name=systemd:/init.scope\n0::/\n";
        let lists = ["cpu,cpuacct", "memory", "name=systemd"].map(str::to_owned).to_vec();
        assert_eq!(Hierarchies::parse(v1), Hierarchies::V1(lists));
        assert_eq!(Hierarchies::parse("0::/user.slice\n"), Hierarchies::V2);
        assert_eq!(
            Hierarchies::parse("1:name=systemd:/\n0::/\n"),
            Hierarchies::V2,
            "hybrid without controllers"
        );
    }

    #[test]
    fn only_the_roots_of_cgroup_mounts_count() {
        let line = "31 24 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory";
        assert_eq!(mount_point(line), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(mount_point("31 24 0:27 / /u rw - cgroup2 cgroup2 rw"), Some(PathBuf::from("/u")));
        assert_eq!(mount_point("31 24 0:27 /docker/x /u rw - cgroup2 cgroup2 rw"), None, "a bind of a part");
        assert_eq!(mount_point("31 24 0:27 / /tmp rw - tmpfs tmpfs rw"), None);
    }
}
