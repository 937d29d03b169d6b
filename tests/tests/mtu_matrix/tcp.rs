//! TCP between two containers: a transfer each way, its content, and the MSS on both sides.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use harness::wait::eventually_some;
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};

use crate::{
    bed::Lane,
    expected::{TRANSFER, TRANSFER_DEADLINE},
    option::{self, TcpSaveSyn},
    payload,
};

/// A transfer each way on one connection. The lane's sender connects.
pub(crate) fn transfer(lane: &Lane<'_>, check_mss: bool) -> Vec<String> {
    lane.forget();
    let deadline = Instant::now() + TRANSFER_DEADLINE;
    let mut failures = Vec::new();
    match connect(lane) {
        Ok((client, server)) => {
            if check_mss {
                failures.extend(mss(lane, &client, &server).err());
            }
            failures.extend(exchange(client, server, deadline));
        }
        Err(e) => failures.push(e),
    }
    failures.into_iter().map(|failure| format!("{}: tcp: {failure}", lane.name)).collect()
}

fn connect(lane: &Lane<'_>) -> Result<(TcpStream, TcpStream), String> {
    let listener = lane.to.ns.run(|| TcpListener::bind((lane.to.ip, 0))).unwrap().unwrap();
    option::set(&listener, TcpSaveSyn, &1).unwrap();
    listener.set_nonblocking(true).unwrap();
    let to: SocketAddr = listener.local_addr().unwrap();
    let client = lane.from.ns.run(|| TcpStream::connect_timeout(&to, TRANSFER_DEADLINE)).unwrap();
    let client = client.map_err(|e| format!("connect: {e}"))?;
    let accepted = eventually_some("a connection is accepted", TRANSFER_DEADLINE, || {
        Ok(listener.accept().ok().map(|(stream, _)| stream))
    });
    let server = accepted.map_err(|e| format!("{e:#}"))?;
    server.set_nonblocking(false).unwrap();
    Ok((client, server))
}

/// The MSS in the SYN as it arrived, and what the client makes of the one in the answer.
fn mss(lane: &Lane<'_>, client: &TcpStream, server: &TcpStream) -> Result<(), String> {
    let syn = option::mss_of_syn(server).map_err(|e| format!("{e:#}"))?;
    let payload = getsockopt(client, TcpMaxSeg).unwrap();
    let (row, seen) = (&lane.row, (syn, payload));
    if seen == (row.mss, row.payload) {
        return Ok(());
    }
    Err(format!("MSS {syn} in the SYN and segments of {payload}, not {} and {}", row.mss, row.payload))
}

fn exchange(client: TcpStream, server: TcpStream, deadline: Instant) -> Vec<String> {
    let (forth, back) = (payload::fresh(TRANSFER), payload::fresh(TRANSFER));
    let results = thread::scope(|scope| {
        let tasks = [
            scope.spawn(|| push(&client, &forth)),
            scope.spawn(|| push(&server, &back)),
            scope.spawn(|| pull(&server, &forth, deadline).map_err(|e| format!("there: {e}"))),
            scope.spawn(|| pull(&client, &back, deadline).map_err(|e| format!("back: {e}"))),
        ];
        tasks.map(|task| task.join().unwrap())
    });
    results.into_iter().filter_map(Result::err).collect()
}

fn push(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), String> {
    stream.set_write_timeout(Some(TRANSFER_DEADLINE)).unwrap();
    stream.write_all(bytes).map_err(|e| format!("write: {e}"))
}

fn pull(mut stream: &TcpStream, expected: &[u8], deadline: Instant) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut buffer, mut done) = (vec![0; 65_536], 0);
    while done < expected.len() {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(format!("ended after {done} bytes")),
            Ok(n) if expected.get(done..done + n) != Some(&buffer[..n]) => {
                return Err(format!("other bytes arrived than were sent, from {done} on"));
            }
            Ok(n) => done += n,
            Err(_) if Instant::now() < deadline => {}
            Err(e) => return Err(format!("stalled: {done} of {} bytes: {e}", expected.len())),
        }
    }
    Ok(())
}
