//! Packet sockets (packet(7)): whole frames, past every protocol.

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    libc,
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, SockaddrLike, bind, socket},
};

use crate::{Netns, tcx};

/// The index of a device in a namespace.
pub(super) fn ifindex(ns: &Netns, device: &str) -> Result<u32> {
    let devices = ns.run(tcx::devices)??;
    let found = devices.into_iter().find(|(_, name)| name == device);
    found.map(|(index, _)| index).with_context(|| format!("{} has no device {device}", ns.name()))
}

/// A packet socket in a namespace, bound to a device, or to all of them where that is 0. It receives frames of
/// `protocol`; with 0 it only sends.
pub(super) fn open(ns: &Netns, device: u32, protocol: i32) -> Result<OwnedFd> {
    let open = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    let socket = ns.run(open)?.context("cannot open a packet socket: are we root?")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: device.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of a whole sockaddr_ll, whose family says so.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(len)) };
    bind(socket.as_raw_fd(), &address.context("a link address")?).context("cannot bind a packet socket")?;
    Ok(socket)
}
