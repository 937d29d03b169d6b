//! What must outlive the daemon: who this node is, what it announced and changed, so that the next daemon
//! is the same node and `overlayd detach` can undo everything without it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_common::Mac;
use serde::{Deserialize, Serialize};

use crate::{
    config::StoreConfig,
    datapath::pin::Pins,
    store::{Announcement, Subnets, etcd::Access},
    sysctl,
    underlay::Underlay,
};

/// The file in the state directory.
const FILE: &str = "state.json";

/// The form of the file; another one is refused rather than guessed at.
const VERSION: u32 = 1;

/// Where the announcements were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdState {
    /// How it is reached; no secrets.
    #[serde(flatten)]
    pub access: Access,
    /// The keys' prefix.
    pub prefix: String,
}

/// The content of `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The form of the file; another one is refused.
    pub version: u32,
    /// The node's name.
    pub node_name: String,
    /// Our VTEP's MAC address.
    pub vtep_mac: String,
    /// The network's VNI and port when last heard of, for a start without the store.
    pub network: Option<(u32, u16)>,
    /// The etcd that the announcements are in, if they are in one.
    pub etcd: Option<EtcdState>,
    /// What is announced.
    pub announcements: Vec<Announcement>,
    /// What `overlayd lease` got for a bridge of this host.
    #[serde(default)]
    pub leased: Option<Subnets>,
    /// Kernel settings that were changed, with their old values.
    pub sysctls: Vec<sysctl::Saved>,
    /// Where the data path is pinned.
    #[serde(default)]
    pub pin_dir: Option<PathBuf>,
    /// The API socket.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// The state directory, locked: one daemon, or one detach, at a time.
pub struct StateDir {
    path: PathBuf,
    /// Whether it was made for this process.
    created: bool,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// One line, naming the process that holds the lock where there is one.
    pub fn lock(path: &Path) -> anyhow::Result<Self> {
        let created = create(path)?;
        match try_lock(path)? {
            Ok(lock) => Ok(Self { path: path.to_path_buf(), created, _lock: lock }),
            Err(pid) => bail!(
                "overlayd already runs with state directory {} (process {pid}): stop it, or choose another --state-dir",
                path.display()
            ),
        }
    }

    /// As [`StateDir::lock`], but asks a running daemon to end and waits for it.
    ///
    /// # Errors
    /// One line where it does not end in time.
    pub fn take_over(path: &Path, wait: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + wait;
        let mut asked = None;
        loop {
            // Anew each time: a daemon that detaches as it ends removes the directory.
            let created = create(path)?;
            let held = match try_lock(path) {
                Err(error) if is_gone(&error) && Instant::now() < deadline => continue,
                held => held?,
            };
            match held {
                Ok(lock) => return Ok(Self { path: path.to_path_buf(), created, _lock: lock }),
                Err(pid) if Instant::now() < deadline => {
                    if asked.as_ref() != Some(&pid) {
                        asked = Some(pid.clone());
                        // The lock's holder, so the process is a daemon of ours and not a reused number.
                        if let Ok(raw) = pid.parse() {
                            let _ = kill(Pid::from_raw(raw), Signal::SIGTERM);
                        }
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(pid) => bail!("overlayd (process {pid}) does not end: stop it, then detach again"),
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Reads the state; `None` where there is none.
    ///
    /// # Errors
    /// One line where the file cannot be read or is not of this form.
    pub fn read(&self) -> anyhow::Result<Option<State>> {
        Self::peek(&self.path)
    }

    /// As [`StateDir::read`], without the lock.
    ///
    /// # Errors
    /// As [`StateDir::read`].
    pub fn peek(directory: &Path) -> anyhow::Result<Option<State>> {
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let advice = || {
            format!("{} is not a state file of this version: move it away to start afresh", path.display())
        };
        let state: State = serde_json::from_str(&text).with_context(advice)?;
        if state.version != VERSION {
            bail!(advice());
        }
        Ok(Some(state))
    }

    /// Replaces the state in one step: after a crash the old or the new one is there, whole.
    ///
    /// # Errors
    /// One line naming the file.
    pub fn write(&self, state: &State) -> anyhow::Result<()> {
        let path = self.file();
        let new = path.with_extension("json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(state)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts back what was there before a start that failed.
    ///
    /// # Errors
    /// One line naming the directory.
    pub fn put_back(self, before: Option<&State>) -> anyhow::Result<()> {
        match before {
            Some(state) => self.write(state),
            None if self.created => self.remove(),
            None => self.clear(),
        }
    }

    /// Removes the directory with all that is ours in it.
    ///
    /// # Errors
    /// One line naming the directory.
    pub fn remove(self) -> anyhow::Result<()> {
        self.clear()?;
        match fs::remove_dir(&self.path) {
            // Somebody else's files stay, and so does the directory. A daemon that detached as it ended may
            // have removed it already.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) =>
            {
                Ok(())
            }
            result => result.with_context(|| format!("cannot remove {}", self.path.display())),
        }
    }

    fn clear(&self) -> anyhow::Result<()> {
        for name in [FILE, "state.json.new", "lock"] {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {name} in {}", self.path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes the directory where it is missing; true where it was.
fn create(path: &Path) -> anyhow::Result<bool> {
    let missing = !path.exists();
    fs::create_dir_all(path).with_context(|| format!("cannot create state directory {}", path.display()))?;
    Ok(missing)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Takes the lock, or tells who has it.
fn try_lock(path: &Path) -> anyhow::Result<Result<Flock<File>, String>> {
    let lock = path.join("lock");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&lock);
    let file = open().with_context(|| format!("cannot open {}", lock.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            held.set_len(0)
                .and_then(|()| held.write_all(std::process::id().to_string().as_bytes()))
                .with_context(|| format!("cannot write {}", lock.display()))?;
            Ok(Ok(held))
        }
        Err((_, Errno::EWOULDBLOCK)) => {
            let pid = fs::read_to_string(&lock).unwrap_or_default();
            Ok(Err(if pid.is_empty() { "unknown".to_owned() } else { pid }))
        }
        Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", lock.display())),
    }
}

impl State {
    /// The state of a node that starts for the first time.
    pub fn new(node_name: &str, vtep_mac: Mac) -> Self {
        Self {
            version: VERSION,
            node_name: node_name.to_owned(),
            vtep_mac: vtep_mac.to_string(),
            network: None,
            etcd: None,
            announcements: Vec::new(),
            leased: None,
            sysctls: Vec::new(),
            pin_dir: None,
            socket: None,
        }
    }

    /// Refuses a pin directory other than the one in which this node's data path is still pinned: that one
    /// would go on beside ours, and nobody would know of it any more.
    ///
    /// # Errors
    /// One line naming both.
    pub fn refuse_other_pins(&self, pin_dir: &Path) -> anyhow::Result<()> {
        let Some(noted) = &self.pin_dir else { return Ok(()) };
        let same = noted == pin_dir || fs::canonicalize(noted).ok() == fs::canonicalize(pin_dir).ok();
        if same || !Pins::new(noted).exist() {
            return Ok(());
        }
        bail!(
            "this state directory's data path is pinned under {}, not {}: name it with --pin-dir",
            noted.display(),
            pin_dir.display()
        )
    }

    /// Notes what is announced from now on. Returns what was announced before under keys that are not this host's
    /// any more: it stays noted until it has been taken back.
    pub fn note_announcements(&mut self, new: &[Announcement]) -> Vec<Announcement> {
        self.announcements.retain(|old| !new.iter().any(|new| new.subnets == old.subnets));
        let stale = self.announcements.clone();
        self.announcements.extend_from_slice(new);
        stale
    }

    /// Notes settings that were changed. What one was before the first change is what is put back.
    pub fn note_sysctls(&mut self, changed: Vec<sysctl::Saved>) -> bool {
        let before = self.sysctls.len();
        for saved in changed {
            if self.sysctls.iter().all(|known| known.path != saved.path) {
                self.sysctls.push(saved);
            }
        }
        self.sysctls.len() != before
    }

    /// Notes where announcements are made from now on.
    pub fn note_store(&mut self, store: &StoreConfig) {
        self.etcd = match store {
            StoreConfig::Etcd { access, prefix, .. } => {
                Some(EtcdState { access: access.clone(), prefix: prefix.clone() })
            }
            StoreConfig::File(_) => None,
        };
    }
}

/// The VTEP's MAC address of a new node: the same whenever the same node starts anew. The machine's id
/// tells machines apart, the name and the address tell nodes on one machine apart.
pub fn derive_vtep_mac(node_name: &str, underlay: Underlay) -> Mac {
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    // One of two is enough, and keeps the address of a host that gets IPv6 besides.
    let address = underlay.addresses().next().map(|ip| ip.to_string()).unwrap_or_default();
    Mac::derive(format!("{}/{node_name}/{address}", machine.trim()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_and_is_removed_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let held = StateDir::lock(&path).unwrap();
        assert_eq!(held.read().unwrap(), None);
        let state = State::new("n1", Mac([2, 0, 0, 0, 0, 1]));
        held.write(&state).unwrap();
        assert_eq!(held.read().unwrap(), Some(state));
        held.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_state_file_from_before_ipv6_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let held = StateDir::lock(directory.path()).unwrap();
        let text = r#"{"version":1,"node_name":"n1","vtep_mac":"02:00:00:00:00:01","network":[1,4789],
            "etcd":{"endpoints":["http://127.0.0.1:2379"],"prefix":"/overlayd/network"},
            "announcements":[{"subnet":"172.17.0.0/16","public_ip":"172.16.199.17","vni":1,
            "vtep_mac":"02:00:00:00:00:01"}],"sysctls":[],"pin_dir":null}"#;
        fs::write(directory.path().join("state.json"), text).unwrap();
        let state = held.read().unwrap().unwrap();
        let [announced] = &state.announcements[..] else { panic!("{state:?}") };
        assert_eq!(announced.subnets.to_string(), "172.17.0.0/16");
        assert_eq!(announced.host.to_string(), "172.16.199.17");
        held.write(&state).unwrap();
        assert_eq!(held.read().unwrap(), Some(state));
    }

    #[test]
    fn what_is_announced_under_another_key_now_is_noted_until_it_is_taken_back() {
        let mut state = State::new("n1", Mac([2, 0, 0, 0, 0, 1]));
        let announce = |v6: Option<&str>| Announcement {
            subnets: Subnets { v4: "10.1.0.0/24".parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) },
            host: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
            src_ips: Vec::new(),
            vni: 1,
            vtep_mac: state.vtep_mac.clone(),
            encap: overlay_common::Encap::Vxlan,
        };
        let (alone, dual) = (announce(None), announce(Some("fd00:1::/64")));
        assert_eq!(state.note_announcements(std::slice::from_ref(&alone)), []);
        assert_eq!(state.note_announcements(std::slice::from_ref(&alone)), []);
        let stale = state.note_announcements(std::slice::from_ref(&dual));
        assert_eq!(stale, std::slice::from_ref(&alone));
        assert_eq!(state.announcements, [alone, dual]);
    }

    #[test]
    fn a_second_daemon_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let _held = StateDir::lock(directory.path()).unwrap();
        let Err(error) = StateDir::lock(directory.path()) else { panic!("locked twice") };
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_foreign_file_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let held = StateDir::lock(directory.path()).unwrap();
        for text in ["", "{}", "{\"version\":99}"] {
            fs::write(directory.path().join("state.json"), text).unwrap();
            assert!(held.read().unwrap_err().to_string().contains("move it away"));
        }
    }
}
