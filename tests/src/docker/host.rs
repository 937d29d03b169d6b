//! The namespaces an engine runs in, and the thread that lives in them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::cgroup::Hierarchies;

/// What an engine must not share with another engine on this machine nor with the machine's own: shim sockets and
/// the namespaces of containers, and in `/etc/docker` the engine's identity (`key.json`) and configuration.
/// Where the machine lacks such a directory, an empty one stays behind: it is the place to mount on.
const PRIVATE: [&str; 3] = ["/run/docker", "/run/containerd", "/etc/docker"];

/// A thread in an existing network namespace and in mount and UTS namespaces of its own.
///
/// Whatever it spawns starts in those namespaces. It lives as long as this handle, which keeps the mounts for a restart
/// of the engine and makes PR_SET_PDEATHSIG safe: that signal comes when the *thread* that forked ends (prctl(2)),
/// so a caller's short-lived thread must not be the parent.
#[derive(Debug)]
pub(super) struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    command: Command,
    /// Sent to the child when our process or the thread ends, however it ends.
    at_our_death: Option<Signal>,
    reply: Sender<io::Result<Child>>,
}

impl Host {
    /// Makes the namespaces; `netns` is a path to an existing one.
    pub(super) fn enter(netns: &Path, hostname: &str) -> Result<Self> {
        let netns_file = File::open(netns)
            .with_context(|| format!("opening the network namespace {}: does it exist?", netns.display()))?;
        refuse_our_own(netns, &netns_file)?;
        let hostname = hostname.to_owned();
        let (jobs, inbox) = channel::<Job>();
        let (ready, outcome) = channel();
        let thread = std::thread::Builder::new().name("engine-host".to_owned()).spawn(move || {
            let entered = set_up(&netns_file, &hostname);
            let usable = entered.is_ok();
            if ready.send(entered).is_ok() && usable {
                serve(&inbox);
            }
        })?;
        let host = Self { jobs: Some(jobs), thread: Some(thread) };
        outcome.recv().context("the namespace thread ended early")??;
        Ok(host)
    }

    /// Starts `command` in the namespaces, in a session of its own: a terminal's Ctrl-C reaches us, not it.
    pub(super) fn spawn(&self, command: Command, at_our_death: Option<Signal>) -> Result<Child> {
        let gone = || anyhow!("the namespace thread has ended");
        let (reply, answer) = channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { command, at_our_death, reply }).map_err(|_| gone())?;
        Ok(answer.recv().map_err(|_| gone())??)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Closing the channel ends the thread; its mounts go with the last process in the namespace.
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Our own namespace is the machine's, as a rule: an engine there would rewrite the machine's iptables rules.
fn refuse_our_own(path: &Path, netns: &File) -> Result<()> {
    let (own, wanted) = (fs::metadata("/proc/thread-self/ns/net")?, netns.metadata()?);
    let same = (own.dev(), own.ino()) == (wanted.dev(), wanted.ino());
    ensure!(!same, "{} is our own network namespace: make one for the engine", path.display());
    Ok(())
}

fn serve(inbox: &Receiver<Job>) {
    for Job { mut command, at_our_death, reply } in inbox {
        let prepare = move || {
            nix::unistd::setsid()?;
            prctl::set_pdeathsig(at_our_death)?;
            Ok(())
        };
        // SAFETY: setsid(2) and prctl(2) are plain system calls: no allocation and no lock between fork and exec.
        unsafe { command.pre_exec(prepare) };
        // The caller may have given up waiting; the child then ends with this thread.
        let _ = reply.send(command.spawn());
    }
}

fn set_up(netns: &File, hostname: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("making mount and UTS namespaces: an engine needs root")?;
    setns(netns, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
    // Nothing mounted here may reach the machine's own mount table.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making the mounts private")?;
    // Docker sets FORWARD to DROP only if it is the one to switch forwarding on: start like a fresh host.
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").context("switching forwarding off")?;
    fs::write("/proc/sys/kernel/hostname", hostname).context("setting the host name")?;
    mount_sys()?;
    for dir in PRIVATE {
        fs::create_dir_all(dir).with_context(|| format!("creating {dir}"))?;
        attach("tmpfs", dir, "mode=711")?;
    }
    Ok(())
}

/// A sysfs that shows this network namespace's links; it hides what was mounted below the old one.
///
/// The bpffs at /sys/fs/bpf is among the hidden, and stays so: engines do not use it, and overlayd, which pins there,
/// runs outside in the machine's normal mount namespace.
fn mount_sys() -> Result<()> {
    let hierarchies = Hierarchies::detect()?;
    attach("sysfs", "/sys", "")?;
    hierarchies.mount_at(Path::new("/sys/fs/cgroup"))?;
    let security = PathBuf::from("/sys/kernel/security");
    if security.is_dir() {
        // The engine loads its AppArmor profile through it. Kernels without security modules refuse the mount.
        let _ = attach("securityfs", "/sys/kernel/security", "");
    }
    Ok(())
}

fn attach(kind: &str, at: &str, options: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} at {at}"))
}
