//! Counts the frames on a device that are like this or that, in the kernel: however many pass, none is missed.

use std::{
    mem,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc::{self, sock_filter},
};

use super::packet_socket;
use crate::Netns;

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In, after the device has merged them (GRO), if it does.
    In,
    /// Out, after the kernel has segmented what the device does not take, if it had to.
    Out,
}

/// What frames are like. Addresses and ports are looked for in IPv4 without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// Longer than this many bytes, the Ethernet header among them.
    LongerThan(u32),
    /// UDP to this port.
    UdpTo(u16),
    /// This protocol of IP.
    Protocol(u8),
    /// From this address to that one.
    Between(Ipv4Addr, Ipv4Addr),
}

/// Counts from its making on.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// Begins to count.
    ///
    /// # Errors
    /// No root, or there is no such device.
    pub fn on(ns: &Netns, device: &str, way: Way, like: Like) -> Result<Self> {
        let socket = packet_socket::open(ns, packet_socket::ifindex(ns, device)?, libc::ETH_P_ALL)?;
        attach(&socket, &filter(way, like))?;
        let tap = Self(socket);
        // What came before the filter was there.
        tap.count()?;
        Ok(tap)
    }

    /// Frames since the last call.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn count(&self) -> Result<u64> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = mem::size_of_val(&stats) as libc::socklen_t;
        let (fd, value) = (self.0.as_raw_fd(), (&raw mut stats).cast());
        // SAFETY: the pointer and the length are those of a whole tpacket_stats.
        let said =
            unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut len) };
        Errno::result(said).context("cannot read a packet socket's statistics")?;
        // tp_packets has those too that did not fit the socket's buffer, which nobody reads (packet(7)).
        Ok(stats.tp_packets.into())
    }
}

fn attach(socket: &OwnedFd, program: &[sock_filter]) -> Result<()> {
    let len = u16::try_from(program.len())?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let size = mem::size_of_val(&program) as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw const program).cast());
    // SAFETY: the program and what it points to live until the call returns; the kernel copies both and writes neither.
    let said = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size) };
    Errno::result(said).map(drop).context("cannot attach a filter to a packet socket")
}

/// Where the kernel keeps a frame's direction for filters: SKF_AD_OFF + SKF_AD_PKTTYPE.
const DIRECTION: u32 = 0xffff_f000 + 4;

/// A classic BPF program: what it leaves in the accumulator is compared, step by step.
fn filter(way: Way, like: Like) -> Vec<sock_filter> {
    let (word, half, byte) = (libc::BPF_W, libc::BPF_H, libc::BPF_B);
    let (ipv4, protocol) = ((half, 12, libc::ETH_P_IP as u32), |number: u32| (byte, 23, number));
    let mut equal = match like {
        Like::LongerThan(_) => Vec::new(),
        Like::UdpTo(port) => vec![ipv4, protocol(17), (half, 36, port.into())],
        Like::Protocol(number) => vec![ipv4, protocol(number.into())],
        Like::Between(from, to) => vec![ipv4, (word, 26, from.to_bits()), (word, 30, to.to_bits())],
    };
    let direction = match way {
        Way::In => libc::PACKET_HOST,
        Way::Out => libc::PACKET_OUTGOING,
    };
    equal.push((byte, DIRECTION, direction.into()));
    let mut program: Vec<sock_filter> = Vec::new();
    let longer = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    if let Like::LongerThan(bytes) = like {
        program.extend([step(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0), step(longer, bytes)]);
    }
    for (size, offset, value) in equal {
        let load = libc::BPF_LD | size | libc::BPF_ABS;
        program.extend([step(load, offset), step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)]);
    }
    program.extend([step(libc::BPF_RET | libc::BPF_K, 1), step(libc::BPF_RET | libc::BPF_K, 0)]);
    // Whatever does not hold leads to the last instruction.
    let last = program.len() - 1;
    for (index, step) in program.iter_mut().enumerate() {
        if u32::from(step.code) & 7 == libc::BPF_JMP {
            step.jf = u8::try_from(last - index - 1).unwrap_or(u8::MAX);
        }
    }
    program
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_through_at_its_last_but_one_step_only() {
        for like in [Like::LongerThan(1514), Like::UdpTo(4789), Like::Protocol(47)] {
            let program = filter(Way::Out, like);
            let jumps = program.iter().enumerate().filter(|(_, step)| step.jf != 0);
            assert!(jumps.clone().count() >= 2, "{like:?}");
            for (index, step) in jumps {
                assert_eq!(index + 1 + usize::from(step.jf), program.len() - 1, "{like:?}");
            }
            let ends: Vec<u32> = program[program.len() - 2..].iter().map(|step| step.k).collect();
            assert_eq!(ends, [1, 0], "{like:?}");
        }
    }
}
