//! TCP with its content checked: throughput alone would not show a byte that arrived wrong.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::Endpoint;
use crate::wait::patient;

/// How long one side may hear nothing of the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends so many bytes each way at once, over one connection from the first endpoint to the second, and compares
/// every one.
///
/// # Errors
/// The connection failed or stalled, or a byte was another than was sent.
pub fn transfer<A: Into<IpAddr>>(from: Endpoint<'_, A>, to: Endpoint<'_, A>, bytes: usize) -> Result<()> {
    let (client_ip, server_ip) = (from.ip.into(), to.ip.into());
    let listener = to.ns.run(move || TcpListener::bind((server_ip, 0)))??;
    let address = listener.local_addr()?;
    // The handshake is the kernel's: it needs nobody to accept.
    let client = from.ns.run(move || TcpStream::connect_timeout(&address, patient(PATIENCE)))?;
    let client = client.with_context(|| format!("{client_ip} cannot connect to {address}"))?;
    let (server, peer) = listener.accept()?;
    ensure!(peer.ip() == client_ip, "the client is {client_ip}, but {peer} came");
    let [forth, back] = [1, 2].map(|seed| pattern(seed, bytes));
    thread::scope(|scope| {
        let client = scope.spawn(|| exchange(client, &forth, &back));
        let server = scope.spawn(|| exchange(server, &back, &forth));
        for (name, side) in [("client", client), ("server", server)] {
            side.join()
                .map_err(|_| anyhow!("the {name} panicked"))?
                .with_context(|| format!("the {name}"))?;
        }
        Ok(())
    })
}

/// Bytes that differ from their neighbours and from one seed to another.
#[must_use]
pub fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

fn exchange(stream: TcpStream, say: &[u8], hear: &[u8]) -> Result<()> {
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    stream.set_write_timeout(Some(patient(PATIENCE)))?;
    let mut writer = stream.try_clone()?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            writer.write_all(say).context("cannot send")?;
            writer.shutdown(std::net::Shutdown::Write).context("cannot end")
        });
        let mut heard = Vec::with_capacity(hear.len());
        let read = (&stream).read_to_end(&mut heard);
        read.with_context(|| format!("only {} of {} bytes came", heard.len(), hear.len()))?;
        writing.join().map_err(|_| anyhow!("the writer panicked"))??;
        let same = heard.iter().zip(hear).take_while(|(a, b)| a == b).count();
        ensure!(heard == hear, "wrong from byte {same} of {} on, {} came", hear.len(), heard.len());
        Ok(())
    })
}
