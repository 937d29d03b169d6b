//! The next build of overlayd, as far as its tests need one: the map layout is another, and it dies after any step of its
//! start when told to. Made of these sources with a few edits, so that what users run has none of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::command;

/// The variable that tells tests where the next build's binaries are.
pub(crate) const DIR_VARIABLE: &str = "OVERLAYD_NEXT_BIN_DIR";

/// Replaces a text that a file has once.
struct Edit {
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

/// Values of the maps that every packet meets are longer. One of them has other contents too, so that what was carried over
/// is not yet what the build wants.
const EDITS: [Edit; 15] = [
    Edit {
        file: "overlay-common/src/map/mod.rs",
        find: "pub const LAYOUT: &str = \"v2\";",
        replace: "pub const LAYOUT: &str = \"next\";",
    },
    Edit {
        file: "overlay-common/src/map/mod.rs",
        find: "size_of::<Port>() == 88",
        replace: "size_of::<Port>() == 96",
    },
    Edit {
        file: "overlay-common/src/map/mod.rs",
        find: "size_of::<Endpoint>() == 32",
        replace: "size_of::<Endpoint>() == 40",
    },
    Edit {
        file: "overlay-common/src/map/mod.rs",
        find: "size_of::<Route>() == 12",
        replace: "size_of::<Route>() == 16",
    },
    Edit {
        file: "overlay-common/src/map/mod.rs",
        find: "size_of::<Tunnel>() == 344",
        replace: "size_of::<Tunnel>() == 352",
    },
    Edit {
        file: "overlay-common/src/map/remote.rs",
        find: "    pub source: u32,\n}",
        replace: "    pub source: u32,\n    /// New.\n    pub new: u32,\n}",
    },
    Edit {
        file: "overlay-common/src/map/remote.rs",
        find: "    pub hops: [Hop; MAX_HOPS],\n}",
        replace: "    pub hops: [Hop; MAX_HOPS],\n    /// New.\n    pub new: u64,\n}",
    },
    Edit {
        file: "overlay-common/src/map/workload.rs",
        find: "    pub last_event_ms: u32,\n}",
        replace: "    pub last_event_ms: u32,\n    /// New.\n    pub new: [u32; 2],\n}",
    },
    Edit {
        file: "overlay-common/src/map/workload.rs",
        find: "    pub mac: Mac,\n    /// The bridge's MAC address: the source of what is delivered to it.\n    pub gateway_mac: Mac,\n}",
        replace: "    pub mac: Mac,\n    /// The bridge's.\n    pub gateway_mac: Mac,\n    /// New.\n    pub new: u64,\n}",
    },
    Edit {
        file: "overlay-user/src/reconcile/plan.rs",
        find: "source: remote.source as u32 }",
        replace: "source: remote.source as u32, new: 7 }",
    },
    Edit {
        file: "overlay-user/src/reconcile/desired/outer.rs",
        find: "            padding: [0; 2],\n            hops,\n",
        replace: "            padding: [0; 2],\n            hops,\n            new: 0,\n",
    },
    Edit {
        file: "overlay-user/src/ports.rs",
        find: "        last_event_ms: 0,\n",
        replace: "        last_event_ms: 0,\n        new: [0; 2],\n",
    },
    Edit {
        file: "overlay-user/src/endpoints.rs",
        find: "        gateway_mac: bridge.mac,\n    };",
        replace: "        gateway_mac: bridge.mac,\n        new: 0,\n    };",
    },
    Edit {
        file: "overlay-user/src/endpoints.rs",
        find: "        gateway_mac: port.gateway_mac,\n    })",
        replace: "        gateway_mac: port.gateway_mac,\n        new: 0,\n    })",
    },
    Edit {
        file: "overlay-ebpf/src/learn.rs",
        find: "        gateway_mac: port.gateway_mac,\n    };",
        replace: "        gateway_mac: port.gateway_mac,\n        new: 0,\n    };",
    },
];

/// As the kernel would for want of memory: nothing is put in order.
const CRASH: Edit = Edit {
    file: "overlay-user/src/daemon/phases.rs",
    find: "    pub(super) fn over(&mut self, phase: &'static str) {\n",
    replace: "    pub(super) fn over(&mut self, phase: &'static str) {\n        \
        if !self.told && std::env::var(\"OVERLAYD_DIE_AFTER\").is_ok_and(|last| last == phase) {\n            \
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);\n        }\n",
};

/// What of the workspace is no source.
const NO_SOURCE: [&str; 3] = ["target", ".git", "docs"];

/// Where its binaries are.
pub(crate) fn binaries(target: &Path) -> PathBuf {
    target.join("next/target/debug")
}

/// Builds it.
pub(crate) fn build(target: &Path) -> Result<()> {
    let target = target.join("next");
    let sources = target.join("src");
    copy(&command::workspace(), &sources)?;
    let build = ["build", "--package", "overlay-user", "--bins"];
    command::run(command::cargo(&build).current_dir(&sources).env("CARGO_TARGET_DIR", target.join("target")))
}

/// Copies what differs, so that cargo builds no more than that.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let cannot = || format!("cannot copy {} to {}", from.join(&directory).display(), to.display());
        fs::create_dir_all(to.join(&directory)).with_context(cannot)?;
        for entry in fs::read_dir(from.join(&directory)).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let path = directory.join(entry.file_name());
            if NO_SOURCE.iter().any(|name| path == Path::new(name)) {
                continue;
            }
            if entry.file_type().with_context(cannot)?.is_dir() {
                directories.push(path);
                continue;
            }
            let mut content = fs::read(entry.path()).with_context(cannot)?;
            for edit in edits().filter(|edit| path == Path::new(edit.file)) {
                content = edit.apply(&String::from_utf8(content)?)?.into_bytes();
            }
            let copied = to.join(&path);
            if fs::read(&copied).map_or(true, |there| there != content) {
                fs::write(&copied, &content).with_context(cannot)?;
            }
        }
    }
    Ok(())
}

fn edits() -> impl Iterator<Item = &'static Edit> {
    EDITS.iter().chain([&CRASH])
}

impl Edit {
    fn apply(&self, text: &str) -> Result<String> {
        let count = text.matches(self.find).count();
        ensure!(count == 1, "{} has {count} times what is to be replaced: {:?}", self.file, self.find);
        Ok(text.replace(self.find, self.replace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_finds_its_place() {
        for edit in edits() {
            let text = fs::read_to_string(command::workspace().join(edit.file)).unwrap();
            let edited = edit.apply(&text).unwrap();
            assert!(edited.contains(edit.replace));
        }
    }
}
