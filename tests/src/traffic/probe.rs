//! The probe: numbered datagrams at a fixed rate in both directions, so that not one can be missed.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};

use super::Tally;
use crate::Netns;

/// How long the last datagrams are waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// Begins every datagram, lest something else is counted.
const MAGIC: [u8; 8] = *b"overlayd";

/// Bytes of payload: small, as most lost packets are.
const SIZE: usize = 64;

/// Where one side of the probe is.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a, A = Ipv4Addr> {
    /// The namespace.
    pub ns: &'a Netns,
    /// Its address there.
    pub ip: A,
}

/// What arrived, by direction.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the first endpoint to the second.
    pub forth: Tally,
    /// From the second endpoint to the first.
    pub back: Tally,
}

impl Report {
    /// Whether in both directions everything arrived, and once.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.forth.clean() && self.back.clean()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forth: {}; back: {}", self.forth, self.back)
    }
}

/// A probe under way. It ends by itself after its duration, or at [`Probe::finish`] or drop.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sent: [Arc<AtomicU64>; 2],
    senders: [Option<JoinHandle<Sent>>; 2],
    receivers: [Option<JoinHandle<Tally>>; 2],
    end: Instant,
}

struct Sent {
    sent: u64,
    refused: u64,
}

impl Probe {
    /// Starts sending `rate` datagrams a second each way, for at most `duration`.
    ///
    /// # Errors
    /// A namespace cannot be entered or has no such address.
    pub fn start<A: Into<IpAddr>>(
        a: Endpoint<'_, A>,
        b: Endpoint<'_, A>,
        rate: u32,
        duration: Duration,
    ) -> Result<Self> {
        let (socket_a, socket_b) = (Arc::new(socket(a)?), Arc::new(socket(b)?));
        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (addr_a, addr_b) = (socket_a.local_addr()?, socket_b.local_addr()?);
        let start = Instant::now();
        let end = start + duration;
        let receive = |socket: &Arc<UdpSocket>, from: SocketAddr| {
            let (socket, stop, arrived) = (Arc::clone(socket), Arc::clone(&stop), Arc::clone(&arrived));
            Some(thread::spawn(move || receiver(&socket, from, &stop, &arrived, end)))
        };
        let receivers = [receive(&socket_b, addr_a), receive(&socket_a, addr_b)];
        let sent = [(), ()].map(|()| Arc::new(AtomicU64::new(0)));
        let send = |socket: &Arc<UdpSocket>, to: SocketAddr, sent: &Arc<AtomicU64>| {
            let (socket, stop, sent) = (Arc::clone(socket), Arc::clone(&stop), Arc::clone(sent));
            Some(thread::spawn(move || sender(&socket, to, &stop, &sent, rate, end)))
        };
        let senders = [send(&socket_a, addr_b, &sent[0]), send(&socket_b, addr_a, &sent[1])];
        Ok(Self { stop, arrived, sent, senders, receivers, end })
    }

    /// How many datagrams arrived so far, both directions together.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// How many datagrams were sent so far, forth and back: the next ones have these numbers.
    #[must_use]
    pub fn sent(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.sent[way].load(Ordering::Relaxed))
    }

    /// Whether it is still sending.
    #[must_use]
    pub fn sending(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && Instant::now() < self.end
    }

    /// Waits for the duration to be over, and for the last datagrams.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn join(mut self) -> Result<Report> {
        self.collect()
    }

    /// Ends it now, and waits for the last datagrams.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn finish(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.collect()
    }

    fn collect(&mut self) -> Result<Report> {
        let mut tallies = Vec::new();
        for (sender, receiver) in self.senders.iter_mut().zip(&mut self.receivers) {
            let sent = sender.take().context("collected once")?.join();
            let sent = sent.map_err(|_| anyhow!("the probe's sender panicked"))?;
            let tally = receiver.take().context("collected once")?.join();
            let tally = tally.map_err(|_| anyhow!("the probe's receiver panicked"))?;
            tallies.push(tally.of(sent.sent, sent.refused));
        }
        let (back, forth) = (tallies.pop(), tallies.pop());
        Ok(Report { forth: forth.context("two directions")?, back: back.context("two directions")? })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.senders.iter_mut().filter_map(Option::take).map(JoinHandle::join).count();
        let _ = self.receivers.iter_mut().filter_map(Option::take).map(JoinHandle::join).count();
    }
}

/// Unconnected, so that a passing ICMP error does not come back as an error of `send`.
fn socket<A: Into<IpAddr>>(at: Endpoint<'_, A>) -> Result<UdpSocket> {
    let (ns, ip) = (at.ns, at.ip.into());
    let socket = ns.run(|| UdpSocket::bind((ip, 0)))?;
    let socket = socket.with_context(|| format!("cannot bind {ip} in {}", ns.name()))?;
    // Four seconds of 1000 datagrams a second, at what the kernel charges for each: losses must be the network's.
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

fn sender(
    socket: &UdpSocket,
    to: SocketAddr,
    stop: &AtomicBool,
    told: &AtomicU64,
    rate: u32,
    end: Instant,
) -> Sent {
    let interval = Duration::from_secs(1) / rate.max(1);
    let mut sent = Sent { sent: 0, refused: 0 };
    let mut packet = [0; SIZE];
    packet[..8].copy_from_slice(&MAGIC);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) && due < end {
        // Absolute times: one who slept too long catches up.
        thread::sleep(due.saturating_duration_since(Instant::now()));
        packet[8..16].copy_from_slice(&sent.sent.to_be_bytes());
        sent.refused += u64::from(socket.send_to(&packet, to).is_err());
        sent.sent += 1;
        told.store(sent.sent, Ordering::Relaxed);
        due += interval;
    }
    sent
}

fn receiver(
    socket: &UdpSocket,
    from: SocketAddr,
    stop: &AtomicBool,
    arrived: &AtomicU64,
    end: Instant,
) -> Tally {
    let mut tally = Tally::default();
    let mut packet = [0; SIZE];
    let mut idle_since = Instant::now();
    loop {
        match socket.recv_from(&mut packet) {
            Ok((SIZE, source)) if source == from && packet[..8] == MAGIC => {
                let mut sequence = [0; 8];
                sequence.copy_from_slice(&packet[8..16]);
                tally.arrived(u64::from_be_bytes(sequence));
                arrived.fetch_add(1, Ordering::Relaxed);
                idle_since = Instant::now();
            }
            _ => {
                let over = stop.load(Ordering::Relaxed) || Instant::now() >= end;
                // Bounded even if strangers keep sending: silence of ours is what counts.
                if over && idle_since.elapsed() >= DRAIN {
                    return tally;
                }
            }
        }
    }
}
