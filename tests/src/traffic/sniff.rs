//! Frames as they pass a device, or all devices of a namespace, both ways.

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    sys::{
        socket::{LinkAddr, recvfrom, setsockopt, sockopt},
        time::{TimeVal, TimeValLike},
    },
};

use super::packet_socket;
use crate::{Netns, wait::eventually};

/// Longer than any frame of a device without GSO, and than most aggregates.
const LARGEST: usize = 1 << 17;

/// How long a look at the socket may take.
const POLL: i64 = 20;

/// A frame that passed. A VLAN tag that the device strips is not in its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The device's index.
    pub ifindex: u32,
    /// Whether it went out rather than came in.
    pub outgoing: bool,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Whether these bytes are somewhere in it.
    #[must_use]
    pub fn contains(&self, mark: &[u8]) -> bool {
        self.bytes.windows(mark.len()).any(|window| window == mark)
    }
}

/// Collects frames until it is finished.
#[derive(Debug)]
pub struct Sniffer {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    ns: String,
}

impl Sniffer {
    /// Listens on one device.
    ///
    /// # Errors
    /// No root, or there is no such device.
    pub fn on(ns: &Netns, device: &str) -> Result<Self> {
        Self::start(ns, packet_socket::ifindex(ns, device)?)
    }

    /// Listens on all devices of a namespace.
    ///
    /// # Errors
    /// No root.
    pub fn everywhere(ns: &Netns) -> Result<Self> {
        Self::start(ns, 0)
    }

    fn start(ns: &Netns, device: u32) -> Result<Self> {
        let socket = packet_socket::open(ns, device, libc::ETH_P_ALL)?;
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(POLL))?;
        let (frames, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (collected, ends) = (Arc::clone(&frames), Arc::clone(&stop));
        let thread = thread::spawn(move || collect(&socket, &collected, &ends));
        Ok(Self { frames, stop, thread: Some(thread), ns: ns.name() })
    }

    /// How many frames so far are like this.
    ///
    /// # Panics
    /// The thread that listens has panicked.
    #[must_use]
    pub fn count(&self, like: impl Fn(&Frame) -> bool) -> usize {
        let frames = self.frames.lock().unwrap_or_else(|_| panic!("the sniffer in {} panicked", self.ns));
        frames.iter().filter(|frame| like(frame)).count()
    }

    /// Waits until so many frames like this have passed.
    ///
    /// # Errors
    /// They have not in time.
    pub fn await_count(
        &self,
        what: &str,
        count: usize,
        deadline: Duration,
        like: impl Fn(&Frame) -> bool,
    ) -> Result<()> {
        let waited = eventually(what, deadline, || self.count(&like) >= count);
        waited.with_context(|| format!("{} of {count} passed in {}", self.count(&like), self.ns))
    }

    /// Ends it, and hands over all frames in the order they passed.
    ///
    /// # Errors
    /// The kernel had no room for one: then nobody knows what it was.
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        self.end()?;
        let frames = mem::take(&mut *self.frames.lock().map_err(|_| anyhow!("the sniffer panicked"))?);
        Ok(frames)
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join().map_err(|_| anyhow!("the sniffer in {} panicked", self.ns))?;
        ended.with_context(|| format!("sniffing in {}", self.ns))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Until it is told to stop and the socket is empty.
fn collect(socket: &OwnedFd, frames: &Mutex<Vec<Frame>>, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; LARGEST];
    loop {
        // Before the look at the socket: what came in until then is still read.
        let last = stop.load(Ordering::Relaxed);
        if last {
            // Traffic may go on: nothing that comes later is waited for.
            fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((len, Some(from))) => {
                let frame = Frame {
                    ifindex: u32::try_from(from.ifindex())?,
                    outgoing: from.pkttype() == libc::PACKET_OUTGOING,
                    bytes: buffer[..len].to_vec(),
                };
                frames.lock().map_err(|_| anyhow!("another thread panicked"))?.push(frame);
            }
            Ok((_, None)) => bail!("a frame without a device"),
            Err(Errno::EAGAIN) if last => return nothing_missed(socket),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(e) => return Err(e).context("cannot receive"),
        }
    }
}

/// The socket's own account of what it had no room for.
fn nothing_missed(socket: &OwnedFd) -> Result<()> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = mem::size_of_val(&stats) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `stats`, which is plain data of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).context("no packet statistics")?;
    ensure!(stats.tp_drops == 0, "{} of {} frames missed", stats.tp_drops, stats.tp_packets);
    Ok(())
}
