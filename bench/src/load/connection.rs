//! The TCP sockets of both ends.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result};
use nix::{
    libc,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};

use super::{MESSAGE, PATIENCE};

/// Opens a connection that sends at once.
pub(super) fn open(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    Ok(stream)
}

/// Makes the close a reset: neither end keeps the pair of ports in TIME_WAIT, so they do not run out, and a firewall
/// that tracks connections forgets it within seconds.
pub(super) fn reset_at_close(stream: &TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &linger).context("cannot set SO_LINGER")
}

/// Listens on a free port, with an end to the patience of `accept` too.
pub(super) fn listen(address: IpAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind((address, 0)).with_context(|| format!("cannot listen on {address}"))?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&listener, sockopt::ReceiveTimeout, &patience).context("cannot set SO_RCVTIMEO")?;
    Ok(listener)
}

/// The end that asks.
pub(super) fn ask(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> Result<()> {
    stream.write_all(message).context("cannot send a request")?;
    stream.read_exact(message).context("no response")
}

/// The end that answers; `false` where nobody asks any more.
pub(super) fn answer(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> Result<bool> {
    let first = stream.read(message).context("no request")?;
    if first == 0 {
        return Ok(false);
    }
    stream.read_exact(&mut message[first..]).context("half a request")?;
    stream.write_all(message).context("cannot send a response")?;
    Ok(true)
}
