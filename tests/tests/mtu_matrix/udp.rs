//! UDP and UDP GSO between two containers.

use std::{
    io::ErrorKind,
    net::UdpSocket,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        getsockopt,
        sockopt::{IpMtu, RcvBufForce, UdpGsoSegment},
    },
};

use crate::{
    bed::Lane,
    expected::{Df, Outcome, TOLD_DEADLINE},
    machine,
    option::{self, IpMtuDiscover},
    payload,
};

/// IPv4 header and UDP header.
const HEADERS: u32 = 28;
/// How long what was sent is waited for.
const ARRIVAL: Duration = Duration::from_secs(2);
/// After this a sender tries again where its packets may be lost.
const RESEND: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(5);

/// What is sent at once: a datagram, or an aggregate of datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Of each datagram's IP packet.
    size: u32,
    /// Payload of the aggregate.
    total: Option<u32>,
}

impl Load {
    pub(crate) fn datagram(size: u32) -> Self {
        Self { size, total: None }
    }

    pub(crate) fn aggregate(size: u32, total: u32) -> Self {
        Self { size, total: Some(total) }
    }

    fn bytes(self) -> Vec<u8> {
        payload::fresh(self.total.unwrap_or(self.size - HEADERS) as usize)
    }
}

/// A socket at each end of a lane, nothing known of the path.
pub(crate) struct Ends {
    sender: UdpSocket,
    receiver: UdpSocket,
    df: Df,
}

impl Ends {
    pub(crate) fn new(lane: &Lane<'_>, df: Df) -> Self {
        lane.forget();
        let receiver = lane.to.ns.run(|| UdpSocket::bind((lane.to.ip, 0))).unwrap().unwrap();
        option::set(&receiver, RcvBufForce, &(8 << 20)).unwrap();
        receiver.set_read_timeout(Some(POLL)).unwrap();
        let sender = lane.from.ns.run(|| UdpSocket::bind((lane.from.ip, 0))).unwrap().unwrap();
        let mode = match df {
            Df::Always => libc::IP_PMTUDISC_DO,
            Df::Default => libc::IP_PMTUDISC_WANT,
            Df::Never => libc::IP_PMTUDISC_DONT,
        };
        option::set(&sender, IpMtuDiscover, &mode).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        Self { sender, receiver, df }
    }

    /// Sends it, and says what became of it where that is not what was expected.
    pub(crate) fn fire(&self, load: Load, outcome: Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Arrives => machine::excused(|| self.arrives(load)),
            Outcome::Refused { mtu } => self.refused(load, mtu),
            Outcome::Told { mtu } => self.told(load, mtu),
        }
    }

    /// Sends it again and again until it arrives once, as an application does whose answers fail to come.
    pub(crate) fn arrives_in_the_end(&self, load: Load) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let result = self.arrives_within(load, RESEND);
            if result.is_ok() || start.elapsed() >= TOLD_DEADLINE {
                return result;
            }
        }
    }

    fn send(&self, load: Load, bytes: &[u8]) -> Result<(), Errno> {
        let segment = load.total.map_or(0, |_| load.size - HEADERS);
        option::set(&self.sender, UdpGsoSegment, &i32::try_from(segment).unwrap()).unwrap();
        let sent = self.sender.send(bytes);
        sent.map(drop).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    }

    fn arrives(&self, load: Load) -> Result<(), String> {
        self.arrives_within(load, ARRIVAL)
    }

    fn arrives_within(&self, load: Load, patience: Duration) -> Result<(), String> {
        self.drain();
        let bytes = load.bytes();
        self.send(load, &bytes).map_err(|e| format!("send: {e}"))?;
        let mut missing: Vec<&[u8]> = bytes.chunks((load.size - HEADERS) as usize).collect();
        let (all, start) = (missing.len(), Instant::now());
        let mut buffer = vec![0; 65_536];
        while !missing.is_empty() {
            match self.receiver.recv(&mut buffer) {
                Ok(n) => match missing.iter().position(|chunk| *chunk == &buffer[..n]) {
                    Some(index) => drop(missing.remove(index)),
                    None => return Err(format!("{n} bytes arrived that were not sent so")),
                },
                Err(_) if start.elapsed() < patience => {}
                Err(_) => {
                    let error = self.sender.take_error().unwrap();
                    let told = error.map_or(String::new(), |e| format!(", the sender was told {e}"));
                    return Err(format!("{} of {all} datagrams did not arrive{told}", missing.len()));
                }
            }
        }
        Ok(())
    }

    fn refused(&self, load: Load, mtu: u32) -> Result<(), String> {
        match self.send(load, &load.bytes()) {
            Err(Errno::EMSGSIZE) => {}
            // Linux before 6.14 says so of segments that are too large.
            Err(Errno::EINVAL) if load.total.is_some() => {}
            other => return Err(format!("send: {other:?}, not EMSGSIZE")),
        }
        if self.mtu() == mtu { Ok(()) } else { Err(format!("IP_MTU is {}, not {mtu}", self.mtu())) }
    }

    /// The first is lost; the gateway tells the MTU; what is sent by it arrives.
    fn told(&self, load: Load, mtu: u32) -> Result<(), String> {
        self.drain();
        self.send(load, &load.bytes()).map_err(|e| format!("the first send: {e}"))?;
        let (start, mut last) = (Instant::now(), Instant::now());
        while self.mtu() != mtu {
            if start.elapsed() >= TOLD_DEADLINE {
                return Err(format!("lost, and IP_MTU is {} after {TOLD_DEADLINE:?}, not {mtu}", self.mtu()));
            }
            sleep(POLL);
            if last.elapsed() >= RESEND {
                last = Instant::now();
                // EMSGSIZE is what it waits for; IP_MTU tells more.
                let _ = self.send(load, &load.bytes());
            }
        }
        self.fails_with_emsgsize()?;
        if self.drain() > 0 {
            return Err(format!("it arrived, though the path takes {mtu}"));
        }
        let fitting = Load { size: load.size.min(mtu), ..load };
        let after = |e| format!("after it was told {mtu}: {e}");
        if self.df == Df::Default {
            return machine::excused(|| self.arrives(load)).map_err(after);
        }
        self.refused(load, mtu).map_err(after)?;
        machine::excused(|| self.arrives(fitting)).map_err(after)
    }

    /// The ICMP message reaches the socket too, not only the route. A later send may have taken the error.
    fn fails_with_emsgsize(&self) -> Result<(), String> {
        match self.sender.take_error().unwrap() {
            Some(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => Ok(()),
            None => Ok(()),
            Some(e) => Err(format!("the socket failed with {e}, not EMSGSIZE")),
        }
    }

    fn mtu(&self) -> u32 {
        u32::try_from(getsockopt(&self.sender, IpMtu).unwrap()).unwrap()
    }

    /// Takes what is there already.
    fn drain(&self) -> usize {
        let mut buffer = [0; 1];
        let mut count = 0;
        self.receiver.set_nonblocking(true).unwrap();
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(_) => count += 1,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        self.receiver.set_nonblocking(false).unwrap();
        count
    }
}
