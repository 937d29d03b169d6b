//! The underlay, watched: how large the tunnel packets of each pair are, and whether they carry DF.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::Result;
use harness::Netns;
use nix::sys::{
    socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket,
        sockopt::{RcvBufForce, ReceiveTimeout},
    },
    time::TimeVal,
};

use crate::option::{self, PacketVnetHdr};

/// `struct virtio_net_hdr`, which tells how an aggregate will be cut.
const VNET: usize = 10;
const OUTER: usize = VNET + 14;
const INNER: usize = OUTER + 20 + 8 + 8 + 14;

/// What was seen from one container to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The largest outer IP packet; of an aggregate, that of the packets it will be cut into.
    pub(crate) largest: u32,
    /// Tunnel packets.
    pub(crate) packets: u64,
    /// Those without DF, or themselves a fragment.
    pub(crate) without_df: u64,
}

/// By inner source and destination.
pub(crate) type Pairs = BTreeMap<(Ipv4Addr, Ipv4Addr), Seen>;

/// A packet socket at work; drop ends it.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Pairs>>,
}

impl Watch {
    /// Watches one device, both directions.
    pub(crate) fn start(ns: &Netns, device: &'static str) -> Result<Self> {
        let (socket, index) = ns.run(|| -> Result<_> {
            let (family, protocol) = (AddressFamily::Packet, SockProtocol::EthAll);
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            Ok((socket, nix::net::if_::if_nametoindex(device)? as usize))
        })??;
        option::set(&socket, PacketVnetHdr, &1)?;
        option::set(&socket, RcvBufForce, &(64 << 20))?;
        option::set(&socket, ReceiveTimeout, &TimeVal::new(0, 50_000))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || read(&socket, index, &told));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it.
    pub(crate) fn finish(mut self) -> Pairs {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Until it is told to stop and nothing more is there.
fn read(socket: &OwnedFd, index: usize, stop: &AtomicBool) -> Pairs {
    let mut pairs = Pairs::new();
    let mut buffer = [0; 256];
    loop {
        // The headers are enough; a device without a socket of its own needs no `sockaddr_ll`.
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((len, Some(from))) if from.ifindex() == index => note(&buffer[..len], &mut pairs),
            Ok(_) => {}
            Err(_) if stop.load(Ordering::Relaxed) => return pairs,
            Err(_) => {}
        }
    }
}

fn note(bytes: &[u8], pairs: &mut Pairs) {
    let Some(tunnel) = Tunnel::parse(bytes) else { return };
    let seen = pairs.entry((tunnel.src, tunnel.dst)).or_default();
    seen.packets += 1;
    seen.largest = seen.largest.max(tunnel.wire_len);
    seen.without_df += u64::from(!tunnel.df);
}

struct Tunnel {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    wire_len: u32,
    df: bool,
}

impl Tunnel {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let byte = |at: usize| bytes.get(at).copied();
        let be16 = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
        let udp = be16(OUTER - 2)? == 0x0800 && byte(OUTER)? == 0x45 && byte(OUTER + 9)? == 17;
        if !udp || be16(OUTER + 22)? != 4789 {
            return None;
        }
        let gso_size = u32::from(u16::from_ne_bytes([byte(4)?, byte(5)?]));
        let wire_len = match gso_size {
            0 => u32::from(be16(OUTER + 2)?),
            size => {
                let tcp = byte(INNER + 9)? == 6;
                let transport = if tcp { u32::from(byte(INNER + 20 + 12)? >> 4) * 4 } else { 8 };
                (INNER - OUTER) as u32 + 20 + transport + size
            }
        };
        // Flags and offset: DF and nothing else.
        let df = be16(OUTER + 6)? == 0x4000;
        Some(Self { src: address(INNER + 12)?, dst: address(INNER + 16)?, wire_len, df })
    }
}
