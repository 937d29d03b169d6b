//! What is known of a running engine, enough to remove every trace of it from another process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::client::Client;
use super::process::{Process, elsewhere_naming};
use crate::cgroup;

/// For dockerd's own orderly stop: it waits up to 15 s for its containerd, and is usually done in one.
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// What is an engine's own on this machine: all of it is found, and removed, by these names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path of the network namespace it runs in.
    pub netns: PathBuf,
    /// All its files: socket, data, log.
    pub dir: PathBuf,
    /// The cgroup above all of its containers, in every hierarchy.
    pub cgroup_parent: String,
}

/// A running engine, as a record that outlives the process which started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineState {
    /// dockerd.
    pub process: Process,
    /// Where it runs.
    pub place: Place,
}

impl EngineState {
    /// A way to talk to the engine.
    pub fn client(&self) -> Client {
        self.place.client()
    }

    /// For a state file.
    pub fn to_json(&self) -> Value {
        let mut record = self.place.to_json();
        record["pid"] = self.process.pid.into();
        record["start"] = self.process.start.into();
        record
    }

    /// From a state file.
    pub fn from_json(value: &Value) -> Result<Self> {
        let wrong = |field: &str| wrong(value, field);
        let number = |field: &str| value[field].as_u64().ok_or_else(|| wrong(field));
        let pid = i32::try_from(number("pid")?).ok().filter(|pid| *pid > 1).ok_or_else(|| wrong("pid"))?;
        let process = Process { pid, start: number("start")? };
        Ok(Self { process, place: Place::from_json(value)? })
    }

    /// Removes the containers, the daemons, what they left running, the cgroups and the files.
    ///
    /// Goes on after an error, so that one fault does not leave the rest behind, and may be called again. Links and
    /// iptables rules stay in the network namespace, which is the caller's.
    pub fn down(&self) -> Result<()> {
        self.place.clear(Some(self.process))
    }
}

/// In an engine's directory: what it takes to remove it when nobody remembers it.
const RECORD: &str = "engine.json";

fn wrong(value: &Value, field: &str) -> anyhow::Error {
    anyhow!("the record of an engine lacks a valid '{field}': {value}")
}

impl Place {
    fn to_json(&self) -> Value {
        json!({
            "netns": self.netns.to_string_lossy(),
            "dir": self.dir.to_string_lossy(),
            "cgroup_parent": self.cgroup_parent,
        })
    }

    fn from_json(value: &Value) -> Result<Self> {
        let text = |field| value[field].as_str().filter(|it| it.len() > 1).ok_or_else(|| wrong(value, field));
        Ok(Self {
            netns: text("netns")?.into(),
            dir: text("dir")?.into(),
            cgroup_parent: text("cgroup_parent")?.to_owned(),
        })
    }

    /// Writes it down in the engine's directory.
    pub(super) fn note(&self) -> Result<()> {
        let path = self.dir.join(RECORD);
        fs::write(&path, self.to_json().to_string()).with_context(|| format!("writing {}", path.display()))
    }

    /// The engines that have their directories in `scratch`, whoever started them, running or not.
    pub fn all_in(scratch: &Path) -> Vec<Self> {
        let entries = fs::read_dir(scratch).into_iter().flatten().flatten();
        let records = entries.filter_map(|entry| fs::read(entry.path().join(RECORD)).ok());
        let places =
            records.filter_map(|record| Self::from_json(&serde_json::from_slice(&record).ok()?).ok());
        // A record that was copied or moved tells of another directory, which is not ours to remove.
        places.filter(|place| place.dir.parent() == Some(scratch)).collect()
    }

    /// Does what [`EngineState::down`] does, for who knows no more than the directory.
    pub fn remove(&self) -> Result<()> {
        self.clear(self.dockerd()?)
    }

    /// dockerd, by its own pid file; it is another's pid where nothing of ours has it.
    fn dockerd(&self) -> Result<Option<Process>> {
        let pid = fs::read_to_string(self.dir.join("dockerd.pid")).ok();
        let pid: Option<i32> = pid.and_then(|pid| pid.trim().parse().ok());
        Ok(self.processes()?.into_iter().find(|process| Some(process.pid) == pid))
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.dir.join("docker.sock"), self.netns.clone())
    }

    /// The processes that belong to the engine: daemons and shims name its directory, containers sit in its cgroup.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let exec_root = self.dir.join("exec");
        let mut found = elsewhere_naming(&exec_root.to_string_lossy())?;
        for pid in cgroup::processes(&self.cgroup_parent)? {
            found.extend(Process::of(pid));
        }
        Ok(found)
    }

    /// See [`EngineState::down`]; without a process, dockerd is one of those found by name.
    pub(super) fn clear(&self, dockerd: Option<Process>) -> Result<()> {
        let steps = [
            ("removing the containers", self.remove_containers(dockerd)),
            ("stopping dockerd", dockerd.map_or(Ok(()), |process| process.terminate(GRACE))),
            ("ending what it left running", self.kill_stragglers()),
            ("removing its cgroups", cgroup::remove(&self.cgroup_parent)),
            ("removing its files", self.remove_files()),
        ];
        let failed =
            steps.into_iter().filter_map(|(step, outcome)| Some(format!("{step}: {:#}", outcome.err()?)));
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() {
            Ok(())
        } else {
            bail!("engine in {}: {}", self.dir.display(), failed.join("; "))
        }
    }

    fn remove_containers(&self, dockerd: Option<Process>) -> Result<()> {
        let client = self.client();
        if !dockerd.is_some_and(Process::alive) || !client.answers() {
            return Ok(());
        }
        let listed = client.docker(&["ps", "-aq"])?;
        let ids: Vec<&str> = listed.lines().collect();
        if ids.is_empty() {
            return Ok(());
        }
        client.docker(&[&["rm", "-f", "-v"], ids.as_slice()].concat()).map(drop)
    }

    /// After an orderly stop there are none; after a kill, the shims and the containers are left.
    fn kill_stragglers(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes()?;
            if left.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "these processes do not end: {left:?}");
            left.iter().try_for_each(|process| process.terminate(Duration::from_millis(200)))?;
        }
    }

    fn remove_files(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_json() {
        let state = EngineState {
            process: Process { pid: 4711, start: 1 << 40 },
            place: Place {
                netns: "/run/netns/a".into(),
                dir: "/tmp/a".into(),
                cgroup_parent: "/overlay-a".to_owned(),
            },
        };
        assert_eq!(EngineState::from_json(&state.to_json()).expect("complete"), state);
    }

    #[test]
    fn a_broken_record_says_which_field() {
        for (value, field) in [
            (json!({}), "pid"),
            (json!({"pid": 1, "start": 2, "netns": "/n", "dir": "/d", "cgroup_parent": "/c"}), "pid"),
            (json!({"pid": 2, "start": 2, "netns": "/n", "dir": "/", "cgroup_parent": "/c"}), "dir"),
            (
                json!({"pid": 2, "start": 2, "netns": "/n", "dir": "/d", "cgroup_parent": "/"}),
                "cgroup_parent",
            ),
        ] {
            let error = EngineState::from_json(&value).expect_err("broken").to_string();
            assert!(error.contains(&format!("'{field}'")), "{error}");
        }
    }
}
