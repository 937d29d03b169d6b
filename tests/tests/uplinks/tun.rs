//! Two tun devices with a program between them that carries packets from one to the other, as a VPN's does.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use harness::Netns;
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::os::fd::AsFd;

/// Larger than any packet that a tun device without offloads hands out.
const LARGEST: usize = 1 << 16;

/// How long it takes at most to notice the end.
const POLL_MS: u16 = 50;

/// Carries packets both ways until it is dropped; then the devices go too.
pub(crate) struct Pump {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pump {
    /// Makes an `eth0` in each of the namespaces.
    pub(crate) fn between(namespaces: [&Netns; 2]) -> Self {
        let [one, other] = namespaces.map(|ns| Arc::new(ns.run(open).unwrap()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [(Arc::clone(&one), Arc::clone(&other)), (other, one)].map(|(from, to)| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || carry(&from, &to, &stop))
        });
        Self { stop, threads: threads.into() }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A tun device of the calling thread's namespace, without a header in front of each packet.
fn open() -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: plain integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result).unwrap();
    file
}

fn carry(from: &File, to: &File, stop: &AtomicBool) {
    let mut buffer = vec![0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(POLL_MS)).unwrap_or(0) <= 0 {
            continue;
        }
        match { from }.read(&mut buffer) {
            // A device that is down takes nothing: EIO.
            Ok(length) => drop({ to }.write(&buffer[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The device went with its namespace.
            Err(_) => return,
        }
    }
}
