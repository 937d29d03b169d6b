//! A loaded program: test runs, and the time that the kernel says they took.

use anyhow::{Context, Result};
use aya::programs::{ProgramInfo, SchedClassifier, TestRun, TestRunOptions, Xdp};
use overlay_bed::{skb, xdp};

/// More than any packet of the bed grows to.
const BUFFER: usize = 4096;

/// A program of the traffic-control hooks, or of XDP.
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    Tc(&'a SchedClassifier),
    Xdp(&'a Xdp),
}

/// What goes in.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) packet: Vec<u8>,
    context: Vec<u8>,
}

impl Input {
    /// A packet that a tc program meets on a device.
    pub(super) fn skb(ifindex: u32, packet: Vec<u8>) -> Self {
        let context = skb::Context { ifindex, ..skb::Context::default() };
        Self { packet, context: context.to_bytes().to_vec() }
    }

    /// A packet that XDP meets on the uplink.
    pub(super) fn xdp(packet: Vec<u8>) -> Self {
        let context = xdp::context(0, packet.len()).to_vec();
        Self { packet, context }
    }
}

/// The kernel's own count (`BPF_ENABLE_STATS`): what it measures is the program, without the system call around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    nanoseconds: u128,
    runs: u64,
}

impl Count {
    /// Nanoseconds a run since then; `None` where there were more runs, or fewer, than these.
    pub(super) fn since(self, before: Self, runs: u64) -> Option<f64> {
        let ran = self.runs - before.runs;
        (ran == runs).then(|| (self.nanoseconds - before.nanoseconds) as f64 / runs as f64)
    }
}

impl Handle<'_> {
    fn info(&self) -> Result<ProgramInfo> {
        let info = match self {
            Self::Tc(program) => program.info(),
            Self::Xdp(program) => program.info(),
        };
        info.context("cannot read the program's run time")
    }

    pub(super) fn count(&self) -> Result<Count> {
        let info = self.info()?;
        Ok(Count { nanoseconds: info.run_time().as_nanos(), runs: info.run_count() })
    }

    fn test_run(&self, options: TestRunOptions<'_>) -> Result<(i32, usize)> {
        let result = match self {
            Self::Tc(program) => program.test_run(options),
            Self::Xdp(program) => program.test_run(options),
        };
        let result = result.context("the kernel refuses a test run")?;
        Ok((result.return_value.cast_signed(), result.data_size_out as usize))
    }

    /// One run: the verdict, and by how many bytes the packet has grown.
    pub(super) fn once(&self, input: &Input) -> Result<(i32, isize)> {
        let (mut packet, mut context) = (vec![0; BUFFER], input.context.clone());
        let options = TestRunOptions {
            data_in: Some(&input.packet),
            data_out: Some(&mut packet),
            ctx_in: Some(&input.context),
            ctx_out: Some(&mut context),
            ..TestRunOptions::default()
        };
        let (verdict, len) = self.test_run(options)?;
        Ok((verdict, len.cast_signed() - input.packet.len().cast_signed()))
    }

    /// Runs a program that leaves packets alone so many times: the last verdict, and nanoseconds a run.
    pub(super) fn repeat(&self, runs: u32) -> Result<(i32, f64)> {
        let packet = [0; 64];
        let options = TestRunOptions { data_in: Some(&packet), repeat: runs, ..TestRunOptions::default() };
        let result = match self {
            Self::Tc(program) => program.test_run(options),
            Self::Xdp(program) => program.test_run(options),
        };
        let result = result.context("the kernel refuses a test run")?;
        Ok((result.return_value.cast_signed(), result.duration.as_nanos() as f64))
    }

    /// Nanoseconds a run, of so many, each with a packet of its own. `None` where somebody else ran the program
    /// meanwhile.
    pub(super) fn batch(&self, input: &Input, runs: u64) -> Result<Option<f64>> {
        let before = self.count()?;
        for _ in 0..runs {
            let options = TestRunOptions {
                data_in: Some(&input.packet),
                ctx_in: Some(&input.context),
                ..TestRunOptions::default()
            };
            self.test_run(options)?;
        }
        Ok(self.count()?.since(before, runs))
    }
}
