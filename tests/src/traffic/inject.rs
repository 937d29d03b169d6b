//! Frames put on a device as they are, whoever they claim to be from.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, send};

use super::packet_socket;
use crate::Netns;

/// Sends on one device of one namespace. What is sent there arrives at the device's other end: on the wire's
/// port `h1` at the uplink of host 1, on a container's `eth0` at its bridge port.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    device: String,
}

impl Injector {
    /// Opens a device.
    ///
    /// # Errors
    /// No root, or there is no such device.
    pub fn open(ns: &Netns, device: &str) -> Result<Self> {
        let socket = packet_socket::open(ns, packet_socket::ifindex(ns, device)?, 0)?;
        Ok(Self { socket, device: format!("{} of {}", device, ns.name()) })
    }

    /// Sends one frame, from the Ethernet header on.
    ///
    /// # Errors
    /// It is shorter than an Ethernet header, longer than the device's MTU allows, or the device is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty());
        let sent = sent.with_context(|| format!("cannot send {} bytes on {}", frame.len(), self.device))?;
        ensure!(sent == frame.len(), "{sent} of {} bytes sent on {}", frame.len(), self.device);
        Ok(())
    }
}
