//! `overlayctl drops --follow`: has the programs sample what they drop for as long as it listens.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io::{self, Write},
    os::fd::AsFd,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use overlay_common::{
    DropReason,
    map::{Sample, Sampling},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::sample::{Clocks, Row};
use crate::{
    datapath::{map::Maps, pin::Pins},
    endpoints::monotonic_now,
    exit::{self, Failure},
    netlink::{Netlink, netns},
};

/// How long the programs go on sampling after they were last asked to.
const LEASE: Duration = Duration::from_secs(2);
/// How often they are asked.
const RENEW: Duration = Duration::from_millis(500);

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// JSON, one object a line.
    pub json: bool,
    /// Only this reason.
    pub reason: Option<DropReason>,
}

/// Prints sampled drops until a signal, a closed pipe or a detach. Returns the exit code.
///
/// # Errors
/// Another one listens, or the maps or standard output cannot be used.
pub fn run(pins: &Pins, maps: Maps, wanted: Wanted) -> Result<u8> {
    // Held until the end; the kernel lets it go with the process, however that ends.
    let _lock = lock(pins)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut listener = Listener::new(pins, maps, wanted)?;
        let ended = listener.listen(pins).await;
        // Sooner than by itself; a detach may have taken the maps' meaning, not the maps.
        let stopped = listener.maps.put_sampling(Sampling { until: 0 });
        let code = ended?;
        stopped?;
        Ok(code)
    })
}

/// How long another one may go on listening: the daemon does so for a moment now and then.
const PATIENCE: Duration = Duration::from_secs(6);

/// A ring buffer has one reading position: two readers would each get half.
fn lock(pins: &Pins) -> Result<File> {
    let began = Instant::now();
    loop {
        if let Some(lock) = try_lock(pins)? {
            return Ok(lock);
        }
        if began.elapsed() >= PATIENCE {
            let message = format!(
                "another `overlayctl drops --follow` listens to {}: only one can; end it first",
                pins.root().display()
            );
            return Err(Failure::new(exit::ERROR, message).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The right to read samples; `None` where another one has it.
///
/// # Errors
/// The pin directory cannot be opened.
pub fn try_lock(pins: &Pins) -> Result<Option<File>> {
    let path = pins.root();
    let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// How it goes on.
enum Next {
    Listen,
    /// Nobody reads what it prints.
    Closed,
}

struct Listener {
    maps: Maps,
    samples: AsyncFd<RingBuf<MapData>>,
    /// None where overlayctl runs in another network namespace than the interfaces.
    netlink: Option<Netlink>,
    names: HashMap<u32, Option<String>>,
    wanted: Wanted,
    /// Samples from before are a former listener's.
    since: u64,
}

impl Listener {
    fn new(pins: &Pins, maps: Maps, wanted: Wanted) -> Result<Self> {
        // SAFETY: the ring buffer's descriptor is its own and stays open as long as it lives; nothing closes it
        // while it is registered.
        let samples = unsafe { AsyncFd::register_with_interest(Maps::samples(pins)?, Interest::READABLE) };
        let samples = samples.context("cannot wait for samples")?;
        let here =
            netns::is_here(maps.status()?.netns_cookie).context("cannot tell the network namespace")?;
        let netlink = if here { Some(Netlink::connect()?.0) } else { None };
        Ok(Self { maps, samples, netlink, names: HashMap::new(), wanted, since: monotonic_now() })
    }

    async fn listen(&mut self, pins: &Pins) -> Result<u8> {
        let mut renew = interval(RENEW);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let next = tokio::select! {
                _ = interrupt.recv() => return Ok(exit::OK),
                _ = terminate.recv() => return Ok(exit::OK),
                _ = renew.tick() => {
                    if !pins.is_here() {
                        let message = "overlayd has been detached: there is nothing more to follow";
                        return Err(Failure::new(exit::NOT_RUNNING, message).into());
                    }
                    self.renew()?
                }
                ready = self.samples.readable_mut() => {
                    let taken = take(ready.context("cannot wait for samples")?);
                    self.print(&taken).await?
                }
            };
            if matches!(next, Next::Closed) {
                return Ok(exit::OK);
            }
        }
    }

    /// Asks for more samples, unless nobody reads them any more.
    fn renew(&mut self) -> Result<Next> {
        if closed(&io::stdout())? {
            return Ok(Next::Closed);
        }
        // An index may be another interface's by now.
        self.names.clear();
        self.maps.put_sampling(Sampling { until: monotonic_now() + LEASE.as_nanos() as u64 })?;
        Ok(Next::Listen)
    }

    async fn print(&mut self, samples: &[Sample]) -> Result<Next> {
        let clocks = Clocks { monotonic: monotonic_now(), wall: SystemTime::now() };
        let reason = self.wanted.reason.map(DropReason::number);
        let mut text = String::new();
        for sample in samples {
            if sample.time < self.since || reason.is_some_and(|reason| reason != sample.reason) {
                continue;
            }
            let row = Row::of(sample, self.name(sample.ifindex).await?, clocks);
            text += &if self.wanted.json { serde_json::to_string(&row)? } else { row.to_string() };
            text.push('\n');
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(Next::Listen),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Next::Closed),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }

    /// The interface's name, `None` where it is gone or not of this namespace.
    async fn name(&mut self, ifindex: u32) -> Result<Option<String>> {
        let Some(netlink) = &self.netlink else { return Ok(None) };
        if let Some(name) = self.names.get(&ifindex) {
            return Ok(name.clone());
        }
        let name = netlink.link_by_index(ifindex).await?.map(|link| link.name);
        self.names.insert(ifindex, name.clone());
        Ok(name)
    }
}

/// All samples that are there.
fn take(mut ready: tokio::io::unix::AsyncFdReadyMutGuard<'_, RingBuf<MapData>>) -> Vec<Sample> {
    let mut samples = Vec::new();
    while let Some(item) = ready.get_inner_mut().next() {
        // Another size is another layout's, which is not pinned here.
        samples.extend(bytemuck::try_pod_read_unaligned::<Sample>(&item).ok());
    }
    ready.clear_ready();
    samples
}

/// Whether a pipe's reader has gone. Without drops nothing is written, and no write would tell.
fn closed(stdout: &impl AsFd) -> Result<bool> {
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).context("cannot poll standard output")?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_closed_when_its_reader_is_gone() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!closed(&writer).unwrap());
        drop(reader);
        assert!(closed(&writer).unwrap());
    }

    #[test]
    fn one_listener_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path());
        let first = lock(&pins).unwrap();
        let error = lock(&pins).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().map(|failure| failure.code), Some(exit::ERROR));
        assert!(error.to_string().contains("only one"), "{error}");
        drop(first);
        lock(&pins).unwrap();
    }
}
