//! Runs inputs, judges what comes of them, and counts.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    hash::{BuildHasherDefault, Hasher},
    path::PathBuf,
};

use harness::binaries::target_dir;
use overlay_common::map::{Sampling, TunnelDevice};

use super::{
    hosts,
    input::Input,
    mutate::mutate,
    oracle::{
        RESOLUTION_INSIDE, is_for_nobody, is_left, is_plain_tunnel, judge, mix, refusal, sender, stripped_as,
    },
    random::Random,
    seed,
};
use crate::{
    bed::Bed,
    case::{DROP, NEXT, REDIRECT},
    packet::IPV6,
    uplink_decap::record,
    world::{PORT_NUMBER, dev},
    xdp,
};

/// One valid packet among so many.
const VALID_EVERY: u64 = 16;
/// Runs between two looks at the counters.
const BATCH: usize = 512;

/// Keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What has been run.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Distinct mutated inputs.
    pub(super) distinct: u64,
    /// Valid packets among them, each of which was right.
    pub(super) valid: u64,
    /// Runs of mutated inputs by program, mix of IP versions and verdict.
    pub(super) verdicts: BTreeMap<(&'static str, &'static str, i32), u64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.distinct += other.distinct;
        self.valid += other.valid;
        for (key, runs) in &other.verdicts {
            *self.verdicts.entry(*key).or_default() += runs;
        }
    }
}

/// One of several; each has a bed of its own, and inputs of its own by their hash.
pub(super) struct Worker<'a> {
    bed: &'a mut Bed,
    out: Vec<u8>,
    batch: Vec<Input>,
    before: (u64, u64),
    expected: (u64, u64),
}

impl<'a> Worker<'a> {
    /// All that is in both worlds, and a tunnel device.
    pub(super) fn new(bed: &'a mut Bed) -> Self {
        let device = TunnelDevice { ifindex: dev::STRAY, flags: 0 };
        bed.maps.put_tunnel_device(PORT_NUMBER.into(), device).unwrap();
        hosts::fill(&mut bed.maps);
        let before = bed.totals();
        Self { bed, out: Vec::new(), batch: Vec::new(), before, expected: (0, 0) }
    }

    /// Runs `packets` mutated inputs whose hashes leave the remainder `number` when divided by `of`: no two
    /// workers run the same.
    pub(super) fn campaign(&mut self, packets: u64, seed: u64, number: u64, of: u64) -> Tally {
        let mut random = Random::new(seed, number);
        let mut seen: HashSet<u64, BuildHasherDefault<Identity>> = HashSet::default();
        seen.reserve(packets as usize);
        let mut tally = Tally::default();
        while (seen.len() as u64) < packets {
            if (seen.len() as u64 + tally.valid).is_multiple_of(VALID_EVERY) {
                let input = seed::valid(&mut random);
                let wanted = if is_left(&input) { NEXT } else { REDIRECT };
                assert_eq!(self.run(input), wanted);
                tally.valid += 1;
                continue;
            }
            let mut input = seed::any(&mut random);
            mutate(&mut random, &mut input);
            let hash = input.hash();
            if hash % of != number || !seen.insert(hash) {
                continue;
            }
            let (name, mix) = (input.name(), mix(&input));
            *tally.verdicts.entry((name, mix, self.run(input))).or_default() += 1;
        }
        self.settle();
        tally.distinct = seen.len() as u64;
        tally
    }

    /// Runs one input, and returns the verdict.
    pub(super) fn run(&mut self, input: Input) -> i32 {
        let (verdict, mark, _) =
            self.bed.run_into(input.name(), input.context(), &input.packet, &mut self.out);
        if let Err(fault) = judge(&input, verdict, mark, &self.out) {
            fail(&input, &fault);
        }
        match verdict {
            DROP => self.expected.0 += 1,
            REDIRECT => self.expected.1 += if input.gso_size == 0 { 1 } else { 2 },
            _ => {}
        }
        self.run_in_xdp(&input, verdict);
        self.batch.push(input);
        if self.batch.len() == BATCH {
            self.settle();
        }
        verdict
    }

    /// Runs an input for the uplink in XDP as well, which must make the same of it as far as it decides.
    fn run_in_xdp(&mut self, input: &Input, verdict: i32) {
        if input.program != seed::UPLINK || input.ifindex != dev::UPLINK || input.gso_size != 0 {
            return;
        }
        let ran = self.bed.run_xdp(&[], &input.packet);
        let untouched = ran.metadata.is_empty() && ran.packet == input.packet;
        let refusal = refusal(&input.packet);
        // Outer IP, UDP, VXLAN and inner Ethernet header.
        let overhead = if input.packet[12..14] == IPV6.to_be_bytes() { 70 } else { 50 };
        let from = sender(&input.packet).map(|peer| record(peer.id));
        let stripped = refusal.is_none()
            && from.is_some_and(|record| record == ran.metadata)
            && ran.packet.len() + overhead == input.packet.len();
        let is_tunnel = is_plain_tunnel(&input.packet);
        let agrees = match (verdict, ran.verdict) {
            (NEXT, xdp::PASS) if is_left(input) => stripped,
            (NEXT, xdp::PASS) => untouched && (!is_tunnel || refusal == Some(RESOLUTION_INSIDE)),
            // Of the destination it sees only whether any host could have it.
            (DROP, xdp::DROP) => {
                untouched && is_tunnel && (refusal.is_some() || is_for_nobody(&input.packet))
            }
            // Where it goes XDP does not ask; and of a first fragment it looks at nothing.
            (DROP, xdp::PASS) => stripped || (untouched && !is_tunnel),
            (REDIRECT, xdp::PASS) => stripped && stripped_as(&ran.packet, &self.out),
            _ => false,
        };
        if !agrees {
            fail(input, &format!("tcx says {verdict}, and XDP {ran:02x?}"));
        }
        if ran.verdict == xdp::DROP {
            self.expected.0 += 1;
        }
    }

    /// Each run is to be counted once, as a drop or as traffic or not at all.
    pub(super) fn settle(&mut self) {
        let is = self.bed.totals();
        if is != (self.before.0 + self.expected.0, self.before.1 + self.expected.1) {
            self.find_miscounted();
        }
        self.before = is;
        self.expected = (0, 0);
        self.batch.clear();
        // Now and then somebody listens, and drops are sampled.
        let until = if (is.0 / BATCH as u64).is_multiple_of(2) { u64::MAX } else { 0 };
        self.bed.maps.put_sampling(Sampling { until }).unwrap();
    }

    /// Runs a batch again, one by one.
    fn find_miscounted(&mut self) {
        for input in std::mem::take(&mut self.batch) {
            let before = self.bed.totals();
            let (verdict, ..) =
                self.bed.run_into(input.name(), input.context(), &input.packet, &mut self.out);
            let is = self.bed.totals();
            let counted = (is.0 - before.0, is.1 - before.1);
            let traffic = if input.gso_size == 0 { 1 } else { 2 };
            let expected = (u64::from(verdict == DROP), if verdict == REDIRECT { traffic } else { 0 });
            if counted != expected {
                fail(&input, &format!("counted (dropped, traffic) {counted:?} instead of {expected:?}"));
            }
        }
        panic!("a batch was miscounted, but none of its packets was when run again");
    }
}

/// Keeps the input, and tells how to run it again.
fn fail(input: &Input, fault: &str) -> ! {
    let directory = target_dir().unwrap_or_else(|_| PathBuf::from("/tmp")).join("fuzz");
    let file = directory.join(format!("{}-{:016x}.bin", input.name(), input.hash()));
    let kept = fs::create_dir_all(&directory).and_then(|()| fs::write(&file, input.to_file()));
    let kept = kept.map_or_else(|error| error.to_string(), |()| file.display().to_string());
    panic!(
        "{} on device {}, mark {:#x}, segments of {}: {fault}\npacket {:02x?}\nkept in {kept}; run it again with \
         `cargo xtask fuzz --replay {kept}`",
        input.name(),
        input.ifindex,
        input.mark,
        input.gso_size,
        input.packet
    );
}
