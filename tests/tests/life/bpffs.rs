//! Pins that somebody removes, and a bpffs that somebody unmounts.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use harness::{
    Topology, eventually,
    overlayd::{Config, Overlayd},
    two_hosts,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use overlay_common::map::{name, program};
use overlay_user::datapath::pin::Pins;

use crate::bed::{Flow, SOON, is_well, pause};

/// Every map, every program that is always loaded, and as many links.
fn whole(pins: &Pins, links: usize) -> bool {
    name::ALL.iter().all(|map| pins.map(map).exists())
        && program::TCX.iter().all(|program| pins.program(program).exists())
        && pins.pinned_links().unwrap().len() == links
}

#[test]
fn pins_that_somebody_removes_are_made_again_and_nothing_is_lost() {
    let mut topology = two_hosts().unwrap();
    let pins = Pins::new(&topology.h(1).overlayd().config.pin_dir);
    let links = pins.pinned_links().unwrap().len();
    assert!(whole(&pins, links));
    let flow = Flow::start(&topology);
    for path in [pins.links(), pins.layout().join("maps"), pins.root().to_path_buf()] {
        fs::remove_dir_all(&path).unwrap();
        eventually(&format!("{} is whole again", path.display()), Duration::from_secs(15), || {
            whole(&pins, links)
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", topology.h(1).overlayd().log_tail(20)));
        is_well(topology.h(1));
        flow.goes_on();
    }
    // They are what a daemon to come adopts.
    topology.h_mut(1).overlayd_mut().kill9().unwrap();
    flow.goes_on();
    topology.h_mut(1).overlayd_mut().start_again().unwrap();
    flow.goes_on();
    assert!(whole(&pins, links));
    flow.clean();
    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    assert!(!pins.root().exists());
    assert!(harness::tcx::attachments_in(&topology.h(1).ns).unwrap().is_empty());
}

/// A bpffs of the test's own.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        mount.mount();
        mount
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self) {
        mount(Some("bpf"), self.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    }

    fn unmount(&self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

/// Another mount namespace, as a service with private mounts has: its copy of the bpffs lives on, and with it the
/// links that are pinned there, where nobody reaches them.
struct Elsewhere(Child);

impl Elsewhere {
    fn start(bpffs: &Path) -> Self {
        let mut process = Command::new("unshare").args(["--mount", "sleep", "60"]).spawn().unwrap();
        let mounts = format!("/proc/{}/mountinfo", process.id());
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let copied = || {
            let theirs = fs::read_link(format!("/proc/{}/ns/mnt", process.id()));
            theirs.is_ok_and(|theirs| theirs != own)
                && fs::read_to_string(&mounts).is_ok_and(|text| text.contains(&*bpffs.to_string_lossy()))
        };
        let ready = eventually("there is another mount namespace", SOON, copied);
        if ready.is_err() {
            process.kill().unwrap();
        }
        ready.unwrap();
        Self(process)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_unmounted_bpffs_is_said_and_nothing_is_lost() {
    // Outlives the daemon that pins there.
    let bpffs = Mount::new();
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    topology.start_overlayd(1).unwrap();
    let config = Config { pin_dir: bpffs.path().join("overlayd"), ..topology.overlayd_config(0) };
    let pins = Pins::new(&config.pin_dir);
    let host = &mut topology.hosts[0];
    host.overlayd = Some(Overlayd::start(&host.ns, config).unwrap());
    topology.await_routes().unwrap();
    let links = pins.pinned_links().unwrap().len();
    let flow = Flow::start(&topology);
    let elsewhere = Elsewhere::start(bpffs.path());
    bpffs.unmount();
    let h1 = topology.h(1);
    let says_so = || {
        let log = h1.overlayd().log_tail(20);
        log.contains("are gone: containers talk as long as overlayd runs") && log.contains("--pin-dir")
    };
    eventually("it says so", SOON, says_so).unwrap();
    pause(1);
    bpffs.mount();
    eventually("it is pinned again", Duration::from_secs(15), || whole(&pins, links))
        .unwrap_or_else(|error| panic!("{error}\n{}", h1.overlayd().log_tail(20)));
    is_well(h1);
    flow.clean();
    drop(elsewhere);
}
