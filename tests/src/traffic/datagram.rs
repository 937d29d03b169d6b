//! UDP sockets whose IP header is the test's business: TOS, TTL, options, segments.

use std::{
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
};

use crate::Netns;

/// As large as a datagram gets.
const LARGEST: usize = 1 << 16;

/// A UDP socket in a namespace.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UdpSocket,
    address: SocketAddrV4,
}

/// A datagram as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its sender.
    pub from: SocketAddrV4,
    /// DSCP and ECN of its header.
    pub tos: u8,
    /// TTL of its header.
    pub ttl: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl DatagramSocket {
    /// Binds an address and a port, any where it is 0.
    ///
    /// # Errors
    /// The namespace has no such address, or the port is taken.
    pub fn bind(ns: &Netns, ip: Ipv4Addr, port: u16) -> Result<Self> {
        let socket = ns.run(|| UdpSocket::bind((ip, port)))?;
        let socket = socket.with_context(|| format!("cannot bind {ip}:{port} in {}", ns.name()))?;
        setsockopt(&socket, sockopt::IpRecvTos, &true)?;
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
        socket.set_broadcast(true)?;
        let std::net::SocketAddr::V4(address) = socket.local_addr()? else { bail!("bound to IPv6") };
        Ok(Self { socket, address })
    }

    /// Where it is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The socket itself, for what std knows.
    #[must_use]
    pub fn std(&self) -> &UdpSocket {
        &self.socket
    }

    /// DSCP and ECN of what it sends from now on.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_tos(&self, tos: u8) -> Result<()> {
        setsockopt(&self.socket, sockopt::Ipv4Tos, &i32::from(tos)).context("cannot set the TOS")
    }

    /// IP options of what it sends from now on, as they stand in the header.
    ///
    /// # Errors
    /// They are malformed.
    pub fn set_options(&self, options: &[u8]) -> Result<()> {
        let len = libc::socklen_t::try_from(options.len())?;
        // SAFETY: the kernel reads `len` bytes from a slice of that length.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_OPTIONS,
                options.as_ptr().cast(),
                len,
            )
        };
        Errno::result(result).map(drop).context("cannot set IP options")
    }

    /// Has the kernel cut what it sends into datagrams of this size (UDP GSO, kernel >= 4.18).
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_segment(&self, bytes: u16) -> Result<()> {
        setsockopt(&self.socket, sockopt::UdpGsoSegment, &i32::from(bytes)).context("cannot set UDP_SEGMENT")
    }

    /// Lets fragments leave: DF off.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn allow_fragments(&self) -> Result<()> {
        let dont: libc::c_int = libc::IP_PMTUDISC_DONT;
        // SAFETY: the kernel reads an int of the size given.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw const dont).cast(),
                size_of_val(&dont) as libc::socklen_t,
            )
        };
        Errno::result(result).map(drop).context("cannot turn path MTU discovery off")
    }

    /// Sends.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn send(&self, to: SocketAddrV4, payload: &[u8]) -> Result<()> {
        let sent = self.socket.send_to(payload, to).with_context(|| format!("cannot send to {to}"))?;
        ensure!(sent == payload.len(), "{sent} of {} bytes sent", payload.len());
        Ok(())
    }

    /// The next datagram, `None` where none comes in time.
    ///
    /// # Errors
    /// The socket has an error.
    pub fn receive(&self, wait: Duration) -> Result<Option<Datagram>> {
        self.socket.set_read_timeout(Some(wait))?;
        let mut buffer = vec![0; LARGEST];
        let mut control = cmsg_space!(libc::c_int, u8);
        let (len, from, tos, ttl) = {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let message = match recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut control), MsgFlags::empty())
            {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(e) => return Err(e).context("cannot receive"),
            };
            let (mut tos, mut ttl) = (None, None);
            for item in message.cmsgs()? {
                match item {
                    ControlMessageOwned::Ipv4Tos(value) => tos = Some(value),
                    ControlMessageOwned::Ipv4Ttl(value) => ttl = Some(value),
                    _ => {}
                }
            }
            (message.bytes, message.address.context("a datagram without sender")?, tos, ttl)
        };
        buffer.truncate(len);
        Ok(Some(Datagram {
            from: SocketAddrV4::new(from.ip(), from.port()),
            tos: tos.context("no TOS came along")?,
            ttl: u8::try_from(ttl.context("no TTL came along")?)?,
            payload: buffer,
        }))
    }
}
