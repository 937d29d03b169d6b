//! Requests and responses over TCP.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Driven, MESSAGE, PATIENCE, Served,
    connection::{answer, ask, listen, open, reset_at_close},
    latency::Latencies,
    window::WARM_UP,
};
use crate::measure::cpu::Idle;

/// The first byte of a request: another one follows, or none.
const MORE: u8 = 0;
const LAST: u8 = 1;

pub(super) fn over_one_connection(to: SocketAddr, time: Duration) -> Result<Driven> {
    let mut stream = open(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = [MORE; MESSAGE];
    drive(time, || ask(&mut stream, &mut message))
}

pub(super) fn over_connections(to: SocketAddr, time: Duration) -> Result<Driven> {
    let transact = |first: u8| {
        let mut stream = open(to)?;
        reset_at_close(&stream)?;
        let mut message = [first; MESSAGE];
        ask(&mut stream, &mut message)
    };
    let mut driven = drive(time, || transact(MORE))?;
    transact(LAST)?;
    driven.total += 1;
    Ok(driven)
}

/// One transaction after the other. The end of one is the start of the next, so the clock is read once for each.
fn drive(time: Duration, mut transact: impl FnMut() -> Result<()>) -> Result<Driven> {
    let mut latencies = Latencies::with_room(time);
    let (mut warm_up, mut counted) = (0, 0);
    let warm = Instant::now() + WARM_UP;
    while Instant::now() < warm {
        transact()?;
        warm_up += 1;
    }
    let idle = Idle::now()?;
    let begin = Instant::now();
    let mut before = begin;
    while before < begin + time {
        transact()?;
        let now = Instant::now();
        latencies.note(now - before);
        before = now;
        counted += 1;
    }
    let busy_seconds = idle.busy_since()?;
    let [p50_us, p99_us] = latencies.percentiles_us([50.0, 99.0]);
    let seconds = (before - begin).as_secs_f64();
    Ok(Driven { total: warm_up + counted, counted, refused: 0, seconds, busy_seconds, p50_us, p99_us })
}

pub(super) fn serve_one_connection(
    address: IpAddr,
    listening: impl FnOnce(u16) -> Result<()>,
) -> Result<Served> {
    let listener = listen(address)?;
    listening(listener.local_addr()?.port())?;
    let (mut stream, _) = listener.accept().context("nobody connects")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut message, mut total) = ([MORE; MESSAGE], 0);
    while answer(&mut stream, &mut message)? {
        total += 1;
    }
    Ok(Served { total, ..Served::default() })
}

pub(super) fn serve_connections(
    address: IpAddr,
    listening: impl FnOnce(u16) -> Result<()>,
) -> Result<Served> {
    let listener = listen(address)?;
    listening(listener.local_addr()?.port())?;
    let (mut message, mut total) = ([MORE; MESSAGE], 0);
    while message[0] != LAST {
        let (mut stream, _) = listener.accept().context("nobody connects")?;
        stream.set_nodelay(true)?;
        total += u64::from(answer(&mut stream, &mut message)?);
    }
    Ok(Served { total, ..Served::default() })
}
