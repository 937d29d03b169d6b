//! UDP and TCP sockets whose path MTU is the test's business.

use std::{
    io::ErrorKind,
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread::sleep,
    time::{Duration, Instant},
};

use harness::{Netns, container::Container, traffic::pattern};
use nix::{errno::Errno, libc};

use crate::bed::{SOON, Version};

const POLL: Duration = Duration::from_millis(20);

/// How often a sender that does not hear anything tries again.
const RESEND: Duration = Duration::from_millis(300);

/// How long a datagram is waited for.
const ARRIVAL: Duration = Duration::from_secs(3);

/// A sender in one container, connected to a receiver in another, nothing known of the path between.
pub(crate) struct Ends {
    sender: UdpSocket,
    receiver: UdpSocket,
    version: Version,
}

impl Ends {
    /// `whole` datagrams may not be fragmented, neither by the sender nor on the way.
    pub(crate) fn new(from: &Container, to: &Container, version: Version, whole: bool) -> Self {
        for container in [from, to] {
            forget(&container.ns);
        }
        let receiver = bind(&to.ns, version.ip(to));
        receiver.set_read_timeout(Some(POLL)).unwrap();
        let sender = bind(&from.ns, version.ip(from));
        match version {
            Version::V4 => {
                let mode = if whole { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
                set(&sender, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode);
            }
            // Over IPv6 only the sender fragments, and it does so unless it is told not to.
            Version::V6 if whole => {
                set(&sender, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO);
                set(&sender, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1);
            }
            Version::V6 => {}
        }
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        Self { sender, receiver, version }
    }

    /// A datagram whose IP packet, were it one, would have so many bytes.
    pub(crate) fn payload(&self, size: u32) -> Vec<u8> {
        let headers = if self.version == Version::V4 { 28 } else { 48 };
        pattern(size, (size - headers) as usize)
    }

    /// It arrives at the first attempt, as it was sent.
    pub(crate) fn arrives(&self, size: u32) -> Result<(), String> {
        let payload = self.payload(size);
        // What the network said of earlier ones would come as an error of this call.
        let _ = self.sender.take_error();
        self.send(&payload).map_err(|e| format!("{size} bytes: send: {e}"))?;
        if self.arrived(&payload, ARRIVAL) { Ok(()) } else { Err(format!("{size} bytes do not arrive")) }
    }

    /// It arrives in the end, the sender told meanwhile to fragment it smaller.
    pub(crate) fn arrives_in_the_end(&self, size: u32) -> Result<(), String> {
        let (payload, start) = (self.payload(size), Instant::now());
        while start.elapsed() < SOON {
            // What a sender is told comes as an error of a later call, once.
            if self.send(&payload).is_ok() && self.arrived(&payload, RESEND) {
                return Ok(());
            }
        }
        Err(format!("{size} bytes never arrive"))
    }

    /// It is lost, and the sender is told the MTU: further ones are refused by its own kernel.
    pub(crate) fn told(&self, size: u32, mtu: u32) -> Result<(), String> {
        let (payload, start) = (self.payload(size), Instant::now());
        self.send(&payload).map_err(|e| format!("{size} bytes: the first send: {e}"))?;
        let mut last = Instant::now();
        while self.mtu() != mtu {
            if start.elapsed() > SOON {
                return Err(format!("{size} bytes: the sender believes in {}, not {mtu}", self.mtu()));
            }
            sleep(POLL);
            if last.elapsed() > RESEND {
                last = Instant::now();
                let _ = self.send(&payload);
            }
        }
        if self.arrived(&payload, Duration::from_millis(100)) {
            return Err(format!("{size} bytes arrive, though the path takes {mtu}"));
        }
        // What the sender was told may come first, as an error of this call.
        match (self.send(&payload), self.send(&payload)) {
            (_, Err(Errno::EMSGSIZE)) => Ok(()),
            other => Err(format!("{size} bytes, told {mtu}: {other:?}, not EMSGSIZE")),
        }
    }

    /// The path MTU as the sender's kernel has it.
    pub(crate) fn mtu(&self) -> u32 {
        let (level, option) = match self.version {
            Version::V4 => (libc::IPPROTO_IP, libc::IP_MTU),
            Version::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        u32::try_from(get(&self.sender, level, option)).unwrap()
    }

    fn send(&self, payload: &[u8]) -> Result<(), Errno> {
        let sent = self.sender.send(payload);
        sent.map(drop).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    }

    fn arrived(&self, payload: &[u8], patience: Duration) -> bool {
        let (mut buffer, start) = (vec![0; 1 << 16], Instant::now());
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(len) if buffer[..len] == *payload => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if start.elapsed() >= patience {
                        return false;
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// A namespace forgets all path MTUs that it was told.
pub(crate) fn forget(ns: &Netns) {
    for family in ["-4", "-6"] {
        ns.ip(&format!("{family} route flush cache")).unwrap();
    }
}

/// The MSS option of a SYN that came from the one container to the other, and the segments that the connection's two
/// ends have settled on.
pub(crate) fn mss(from: &Container, to: &Container, version: Version) -> (u32, [u32; 2]) {
    for container in [from, to] {
        forget(&container.ns);
    }
    let ip = version.ip(to);
    let listener = to.ns.run(move || TcpListener::bind((ip, 0))).unwrap().unwrap();
    set(&listener, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1);
    let address = listener.local_addr().unwrap();
    let client = from.ns.run(move || TcpStream::connect_timeout(&address, SOON)).unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    let segment =
        |socket: &TcpStream| u32::try_from(get(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG)).unwrap();
    (mss_of_syn(&server, version), [segment(&client), segment(&server)])
}

/// The MSS option is the first one of every SYN of this kernel's (RFC 9293 section 3.2: kind 2, length 4).
fn mss_of_syn(server: &TcpStream, version: Version) -> u32 {
    let mut syn = [0_u8; 160];
    let mut len = libc::socklen_t::try_from(syn.len()).unwrap();
    // SAFETY: the kernel writes at most `len` bytes into `syn`, which is that long, and the length into `len`; both
    // live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            server.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            syn.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(result).unwrap();
    let options = if version == Version::V4 { 40 } else { 60 };
    assert_eq!(syn[options..options + 2], [2, 4], "{:02x?}", &syn[..len as usize]);
    u32::from(u16::from_be_bytes([syn[options + 2], syn[options + 3]]))
}

fn bind(ns: &Netns, ip: IpAddr) -> UdpSocket {
    ns.run(move || UdpSocket::bind((ip, 0))).unwrap().unwrap()
}

fn set(socket: &impl AsRawFd, level: i32, option: i32, value: i32) {
    let size = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    // SAFETY: the option is an int, and `value` outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    Errno::result(result).unwrap();
}

fn get(socket: &impl AsRawFd, level: i32, option: i32) -> i32 {
    let mut value = 0_i32;
    let mut size = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    // SAFETY: the option is an int, and both pointers are to locals that outlive the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut size)
    };
    Errno::result(result).unwrap();
    value
}
