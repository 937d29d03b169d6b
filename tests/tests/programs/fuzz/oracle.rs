//! What may become of a packet, by rules written from the documents and not from the programs: one set for both IP
//! versions, over a small view of a header.

mod claim;
mod expected;
mod inward;
mod outward;

use expected::Expected;
pub(super) use inward::{RESOLUTION_INSIDE, is_for_nobody, is_plain_tunnel, refusal, sender, stripped_as};

use super::{
    change::word,
    header::Header,
    input::Input,
    seed::{BRIDGE, TUNNEL, UPLINK, WORKLOAD},
};
use crate::{
    bed::has_decap_across,
    case::{DROP, NEXT, REDIRECT},
    world::{FROM_UPLINK_MARK, TO_HOST_MARK, dev},
};

/// What a run must come to.
#[derive(Debug)]
enum Judgement {
    /// It must not be redirected, and why.
    Never(&'static str),
    /// It must be dropped.
    Dropped(&'static str),
    /// It is left to whoever comes next.
    Passed(&'static str),
    /// It is left to our tunnel device, and marked for it.
    Left(&'static str),
    /// Whether it is redirected hangs on what was learned before; if so, as this.
    May(Expected),
    /// It must be redirected as this.
    Must(Expected),
}
use Judgement::{Dropped, Left, May, Must, Never, Passed};

/// A frame with a whole IP packet in it.
struct Frame<'a> {
    bytes: &'a [u8],
    ip: Header<'a>,
}

impl<'a> Frame<'a> {
    fn of(input: &'a Input) -> Option<Self> {
        let bytes = &input.packet[..];
        let ip = Header::behind(word(bytes, 12), &bytes[14..])?;
        ip.is_whole(input.gso_size != 0).then_some(Self { bytes, ip })
    }

    fn mac(&self, offset: usize) -> [u8; 6] {
        std::array::from_fn(|i| self.bytes[offset + i])
    }
}

/// Says what is wrong with a run.
pub(super) fn judge(input: &Input, verdict: i32, mark: u32, out: &[u8]) -> Result<(), String> {
    match (verdict, expectation(input)) {
        (REDIRECT, Never(reason) | Dropped(reason) | Passed(reason) | Left(reason)) => {
            Err(format!("redirected, though {reason}"))
        }
        (REDIRECT, May(expected) | Must(expected)) => expected.compare(mark, out),
        (NEXT | DROP, Must(_)) => {
            Err(format!("not redirected but {verdict}, though nothing is wrong with it"))
        }
        (NEXT, Dropped(reason)) => Err(format!("let past, though {reason}")),
        (DROP, Passed(reason) | Left(reason)) => Err(format!("dropped, though {reason}")),
        (NEXT, Left(_)) => {
            Expected { mark: FROM_UPLINK_MARK, ..Expected::as_it_came(input) }.compare(mark, out)
        }
        (NEXT | DROP, _) => unchanged(input, verdict, mark, out),
        _ => Err(format!("verdict {verdict} is none of ours")),
    }
}

fn expectation(input: &Input) -> Judgement {
    let judgement = match input.program {
        WORKLOAD => outward::workload(input),
        BRIDGE => outward::bridge(input),
        UPLINK if crosses(input) && !has_decap_across() => match inward::uplink(input) {
            May(_) | Must(_) => Left("this kernel cannot strip it"),
            other => other,
        },
        UPLINK => inward::uplink(input),
        _ => Dropped("no tunnel brought it"),
    };
    match judgement {
        // The kernel makes no room in an aggregate without a type, which those of test runs are.
        Must(expected) if input.gso_size != 0 && (input.program != WORKLOAD || expected.is_tunnel()) => {
            May(expected)
        }
        other => other,
    }
}

/// Whether the two IP versions of a tunnel packet differ.
pub(super) fn crosses(input: &Input) -> bool {
    matches!(mix(input), "IPv4 over IPv6" | "IPv6 over IPv4")
}

/// Whether a packet is left to the tunnel device, though nothing is wrong with it.
pub(super) fn is_left(input: &Input) -> bool {
    matches!(expectation(input), Left(_))
}

/// What is passed on or dropped stays as it is, but for the marks, and a SYN that was clamped before the kernel
/// refused to make room.
fn unchanged(input: &Input, verdict: i32, mark: u32, out: &[u8]) -> Result<(), String> {
    let mut expected = Expected::as_it_came(input);
    if input.program == WORKLOAD && input.ifindex == dev::BRIDGE && input.mark == TO_HOST_MARK {
        expected.mark = 0;
    }
    if mark == FROM_UPLINK_MARK && verdict == NEXT && inward::is_for_our_device(input) {
        expected.mark = mark;
    }
    if input.gso_size != 0 && [WORKLOAD, BRIDGE].contains(&input.program) {
        expected.fits = outward::way(input).map(|way| way.mtu());
    }
    expected.compare(mark, out)
}

/// Which mix of versions an input is of, for the statistics.
pub(super) fn mix(input: &Input) -> &'static str {
    let inner = match Header::behind(word(&input.packet, 12), &input.packet[14..]) {
        None => return "no IP",
        Some(ip) if input.program == TUNNEL => return if ip.is_v6() { "IPv6" } else { "IPv4" },
        Some(ip) if input.program == UPLINK => return inward::mix(input, &ip),
        Some(ip) => ip,
    };
    name_of_mix(inner.is_v6(), outward::way(input).map(|way| way.over_v6))
}

fn name_of_mix(inner: bool, outer: Option<bool>) -> &'static str {
    match (inner, outer) {
        (false, None) => "IPv4",
        (true, None) => "IPv6",
        (false, Some(false)) => "IPv4 over IPv4",
        (false, Some(true)) => "IPv4 over IPv6",
        (true, Some(false)) => "IPv6 over IPv4",
        (true, Some(true)) => "IPv6 over IPv6",
    }
}
