//! A sampled drop as a row: for people one line, for programs one JSON object.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use overlay_common::{
    DropReason,
    map::{Sample, program},
    packet::Packet,
    parse::{L3, OuterUdp, VXLAN},
    wire::{EthHeader, IpHeader, Ipv6Header, VxlanHeader},
};
use serde::Serialize;

use super::decode::{Place, Summary};

/// Offset of the VXLAN header behind Ethernet and IPv6.
const VXLAN_OVER_V6: usize = OuterUdp::<Ipv6Header, L3>::VXLAN;

/// A dropped packet. The field names are the JSON's, and stay.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// When: UTC, RFC 3339.
    pub time: String,
    /// The reason's name.
    pub reason: &'static str,
    /// The reason's number.
    pub code: u32,
    /// The program that dropped it.
    pub program: &'static str,
    /// The interface's name; `null` where it is gone.
    pub interface: Option<String>,
    /// The interface's index.
    pub ifindex: u32,
    /// Bytes, from the Ethernet header on.
    pub length: u32,
    /// What its headers say.
    #[serde(flatten)]
    pub packet: Summary,
}

/// The two clocks at one moment: samples bear the one, people read the other.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic: u64,
    /// The time of day.
    pub wall: SystemTime,
}

impl Clocks {
    fn wall_at(&self, monotonic: u64) -> SystemTime {
        let apart = Duration::from_nanos(self.monotonic.abs_diff(monotonic));
        let wall = if monotonic < self.monotonic {
            self.wall.checked_sub(apart)
        } else {
            self.wall.checked_add(apart)
        };
        wall.unwrap_or(self.wall)
    }
}

impl Row {
    /// What a sample tells. Whatever its numbers are, there is a row.
    pub fn of(sample: &Sample, interface: Option<String>, clocks: Clocks) -> Self {
        let program = program::ALL.get(sample.program as usize).copied().unwrap_or("unknown");
        let captured = sample.bytes.get(..sample.captured as usize).unwrap_or(&sample.bytes);
        Self {
            time: rfc3339(clocks.wall_at(sample.time)),
            reason: DropReason::from_number(sample.reason).map_or("unknown", DropReason::name),
            code: sample.reason,
            program,
            interface,
            ifindex: sample.ifindex,
            length: sample.len,
            packet: Summary::of(captured, place(program, sample.reason, captured)),
        }
    }
}

/// What comes in on the uplink is a tunnel packet, but for what XDP has stripped before: that can only be refused
/// for where it goes.
fn place(program: &str, reason: u32, captured: &[u8]) -> Place {
    let stripped = || {
        let over_v6 = captured.read::<EthHeader>(0).is_some_and(|eth| eth.ethertype == Ipv6Header::ETHERTYPE);
        let vxlan = captured.read::<VxlanHeader>(if over_v6 { VXLAN_OVER_V6 } else { VXLAN });
        !vxlan.is_some_and(|header| header.is_plain())
    };
    match (program, DropReason::from_number(reason)) {
        // XDP has none there to run on.
        (program::UPLINK_L3, _) => Place::BareUnderlay,
        (program::UPLINK_DECAP, _) => Place::Underlay,
        (
            program::UPLINK_INGRESS,
            Some(DropReason::NotLocal | DropReason::InnerMulticast | DropReason::NotFromUplink),
        ) if stripped() => Place::Inside,
        (program::UPLINK_INGRESS, _) => Place::Underlay,
        _ => Place::Inside,
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, reason, program, ifindex, length, packet, .. } = self;
        write!(f, "{time} {reason} {program} ")?;
        match &self.interface {
            Some(name) => f.write_str(name)?,
            None => write!(f, "#{ifindex}")?,
        }
        write!(f, " {length} bytes {packet}")
    }
}

/// UTC to the microsecond. The date is counted in eras of 400 years from March on, so that the leap day comes
/// last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @N +%FT%T`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_200, "2024-03-01T00:00:00"),
            (1_767_225_599, "2025-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, 1_234_000);
            assert_eq!(rfc3339(time), format!("{text}.001234Z"));
        }
    }

    #[test]
    fn a_row_names_all_it_knows() {
        let clocks = Clocks { monotonic: 5_000_000_000, wall: UNIX_EPOCH + Duration::from_secs(10) };
        let sample = Sample { time: 4_000_000_000, reason: 2, ifindex: 7, program: 2, len: 60, ..zeroed() };
        let row = Row::of(&sample, Some("eth0".to_owned()), clocks);
        assert_eq!(
            row.to_string(),
            "1970-01-01T00:00:09.000000Z unknown_peer uplink_ingress eth0 60 bytes no frame"
        );
        let row = Row::of(&Sample { program: 9, reason: 63, ..sample }, None, clocks);
        assert!(row.to_string().contains(" unknown unknown #7 "), "{row}");
    }

    #[test]
    fn what_xdp_has_stripped_is_no_tunnel_packet() {
        let not_local = DropReason::NotLocal.number();
        let mut bytes = [0; 128];
        assert_eq!(place(program::UPLINK_INGRESS, not_local, &bytes), Place::Inside);
        bytes[VXLAN] = 8;
        assert_eq!(place(program::UPLINK_INGRESS, not_local, &bytes), Place::Underlay);
        assert_eq!(place(program::WORKLOAD_EGRESS, not_local, &bytes), Place::Inside);
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(place(program::UPLINK_INGRESS, not_local, &bytes), Place::Inside);
        (bytes[VXLAN], bytes[VXLAN_OVER_V6]) = (0, 8);
        assert_eq!(place(program::UPLINK_INGRESS, not_local, &bytes), Place::Underlay);
        let flags = DropReason::VxlanFlags.number();
        assert_eq!(place(program::UPLINK_INGRESS, flags, &[0; 60]), Place::Underlay);
        assert_eq!(place(program::UPLINK_DECAP, DropReason::WrongVni.number(), &[0; 60]), Place::Underlay);
        assert_eq!(place(program::UPLINK_L3, not_local, &[0; 60]), Place::BareUnderlay);
    }

    fn zeroed() -> Sample {
        Sample::zeroed()
    }

    proptest! {
        #[test]
        fn no_sample_is_too_much(bytes in prop::collection::vec(any::<u8>(), size_of::<Sample>())) {
            let sample: Sample = bytemuck::pod_read_unaligned(&bytes);
            let clocks = Clocks { monotonic: 1 << 40, wall: UNIX_EPOCH + Duration::from_secs(1 << 30) };
            let row = Row::of(&sample, None, clocks);
            prop_assert!(!row.to_string().contains('\n'));
            prop_assert!(serde_json::to_string(&row).is_ok());
        }
    }
}
