//! A tun device that is written to: a packet that goes in takes the kernel's way from there before the call returns.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};
use nix::{errno::Errno, libc, net::if_::if_nametoindex};

/// A device of the calling thread's network namespace; it goes with its value.
pub(super) struct Tun {
    file: File,
    pub(super) name: String,
    pub(super) ifindex: u32,
}

impl Tun {
    pub(super) fn open(name: &str) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        let file = file.context("cannot open /dev/net/tun")?;
        // SAFETY: plain integers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        Errno::result(result).with_context(|| format!("cannot make the tun device {name}"))?;
        let ifindex = if_nametoindex(name).with_context(|| format!("no device {name}"))?;
        Ok(Self { file, name: name.to_owned(), ifindex })
    }

    /// A packet comes in, from its IP header on.
    pub(super) fn receive(&self, packet: &[u8]) -> Result<()> {
        let len = (&self.file).write(packet).context("a tun device takes no packet")?;
        ensure!(len == packet.len(), "a tun device took {len} of {} bytes", packet.len());
        Ok(())
    }
}
