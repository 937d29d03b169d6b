//! UDP one way: what leaves as fast as one socket sends, and what of it arrives at the other.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::libc;

use super::{Driven, MESSAGE, PATIENCE, Served, window::Window};

/// The sender outlasts the receiver's window by this, which starts with the first datagram and not with the send.
const TAIL: Duration = Duration::from_millis(100);

/// Nothing for so long means that the sender has ended.
const SILENCE: Duration = Duration::from_millis(200);

/// Datagrams between two looks at the clock.
const BURST: u64 = 32;

pub(super) fn send(to: SocketAddr, time: Duration) -> Result<Driven> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).context("cannot make a socket")?;
    socket.connect(to).with_context(|| format!("cannot send to {to}"))?;
    let window = Window::after_warm_up(time);
    let (mut total, mut counted, mut refused) = (0, 0, 0);
    let begin = Instant::now();
    let mut now = begin;
    while now < window.end + TAIL {
        let sent = match burst(&socket) {
            // The receiver has what it needs: its window ends before the tail does.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() > window.end => {
                break;
            }
            sent => sent.context("cannot send")?,
        };
        total += sent;
        refused += BURST - sent;
        counted += if (window.begin..window.end).contains(&now) { sent } else { 0 };
        now = Instant::now();
    }
    Ok(Driven { total, counted, refused, seconds: time.as_secs_f64(), ..Driven::default() })
}

/// How many of a burst the kernel took.
fn burst(socket: &UdpSocket) -> io::Result<u64> {
    let message = [0; MESSAGE];
    let mut sent = 0;
    for _ in 0..BURST {
        match socket.send(&message) {
            Ok(_) => sent += 1,
            // A full queue on the way out drops, as the network would.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Counts until the sender falls silent: in the window, which starts after a warm-up from the first datagram, and
/// altogether.
pub(super) fn receive(
    address: IpAddr,
    time: Duration,
    listening: impl FnOnce(u16) -> Result<()>,
) -> Result<Served> {
    let socket = UdpSocket::bind((address, 0)).with_context(|| format!("cannot listen on {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    listening(socket.local_addr()?.port())?;
    let mut message = [0; MESSAGE];
    socket.recv(&mut message).context("nothing arrives")?;
    socket.set_read_timeout(Some(SILENCE))?;
    let window = Window::after_warm_up(time);
    let mut served = Served { total: 1, counted: 0, seconds: time.as_secs_f64() };
    loop {
        match socket.recv(&mut message) {
            Ok(MESSAGE) => {}
            Ok(bytes) => bail!("a datagram of {bytes} bytes arrives, of {MESSAGE} were sent"),
            // Before that a sender may fall silent that gets no CPU.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() > window.end + TAIL {
                    return Ok(served);
                } else {
                    continue;
                }
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
        let now = Instant::now();
        served.total += 1;
        served.counted += u64::from(window.begin <= now && now < window.end);
        if now > window.end + PATIENCE {
            bail!("the sender does not end");
        }
    }
}
