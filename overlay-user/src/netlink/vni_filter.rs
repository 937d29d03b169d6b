//! Which VNIs a VXLAN device takes (kernel 5.18): RTM_NEWTUNNEL and its kin, which netlink-packet-route does
//! not know. Layouts are those of <linux/if_link.h>.

use std::{collections::BTreeSet, convert::Infallible, ops::RangeInclusive};

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator, parse_u32,
};
use nix::errno::Errno;

use super::{Netlink, NetlinkError};

const AF_BRIDGE: u8 = 7;
const RTM_NEWTUNNEL: u16 = 120;
const RTM_DELTUNNEL: u16 = 121;
const RTM_GETTUNNEL: u16 = 122;
const VXLAN_VNIFILTER_ENTRY: u16 = 1;
const VXLAN_VNIFILTER_ENTRY_START: u16 = 1;
const VXLAN_VNIFILTER_ENTRY_END: u16 = 2;

/// Bytes of `struct tunnel_msg`: family, flags, two reserved, ifindex.
const HEADER_BYTES: usize = 8;

/// Ranges in one request: far below what a socket takes at once, and an attribute's 64 KiB do not matter,
/// since every range is an attribute of its own.
const RANGES_AT_ONCE: usize = 1000;

/// What is to be done, or what a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    New,
    Delete,
    Get,
    /// Of a type that is not known here.
    Other(u16),
}

/// A message about VNIs of a device.
#[derive(Clone, Debug)]
pub(super) struct TunnelMessage {
    kind: Kind,
    ifindex: u32,
    vnis: Vec<RangeInclusive<u32>>,
}

impl TunnelMessage {
    fn attributes(&self) -> Vec<DefaultNla> {
        self.vnis.iter().map(entry).collect()
    }
}

/// One range as a nested attribute; the kernel's strict parser wants the flag that says so.
fn entry(vnis: &RangeInclusive<u32>) -> DefaultNla {
    let number = |kind, value: u32| DefaultNla::new(kind, u32::to_ne_bytes(value).to_vec());
    let numbers =
        [number(VXLAN_VNIFILTER_ENTRY_START, *vnis.start()), number(VXLAN_VNIFILTER_ENTRY_END, *vnis.end())];
    // A range of one has no end.
    let numbers = if vnis.start() == vnis.end() { &numbers[..1] } else { &numbers[..] };
    let mut value = vec![0; numbers.buffer_len()];
    numbers.emit(&mut value);
    DefaultNla::new(VXLAN_VNIFILTER_ENTRY | NLA_F_NESTED, value)
}

impl NetlinkSerializable for TunnelMessage {
    fn message_type(&self) -> u16 {
        match self.kind {
            Kind::New => RTM_NEWTUNNEL,
            Kind::Delete => RTM_DELTUNNEL,
            Kind::Get => RTM_GETTUNNEL,
            Kind::Other(number) => number,
        }
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes().as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER_BYTES);
        header.fill(0);
        header[0] = AF_BRIDGE;
        header[4..].copy_from_slice(&self.ifindex.to_ne_bytes());
        self.attributes().as_slice().emit(rest);
    }
}

impl NetlinkDeserializable for TunnelMessage {
    type Error = Infallible;

    /// What cannot be read is of no device.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let kind = match header.message_type {
            RTM_NEWTUNNEL => Kind::New,
            RTM_DELTUNNEL => Kind::Delete,
            RTM_GETTUNNEL => Kind::Get,
            other => Kind::Other(other),
        };
        let ifindex = payload.get(4..HEADER_BYTES).and_then(|bytes| parse_u32(bytes).ok()).unwrap_or(0);
        let attributes = NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default());
        let entries = attributes.map_while(Result::ok).filter(|nla| nla.kind() == VXLAN_VNIFILTER_ENTRY);
        Ok(Self { kind, ifindex, vnis: entries.filter_map(|nla| range(nla.value())).collect() })
    }
}

fn range(entry: &[u8]) -> Option<RangeInclusive<u32>> {
    let number = |kind| {
        let mut attributes = NlasIterator::new(entry).map_while(Result::ok);
        attributes.find(|nla| nla.kind() == kind).and_then(|nla| parse_u32(nla.value()).ok())
    };
    let start = number(VXLAN_VNIFILTER_ENTRY_START)?;
    Some(start..=number(VXLAN_VNIFILTER_ENTRY_END).unwrap_or(start))
}

impl Netlink {
    /// The VNIs that a VXLAN device with a filter takes, in ranges. Kernel 6.18 tells no more ranges of a device
    /// than fit into one message, some 1600.
    pub async fn vnis(&self, ifindex: u32) -> Result<Vec<RangeInclusive<u32>>, NetlinkError> {
        let request = TunnelMessage { kind: Kind::Get, ifindex, vnis: Vec::new() };
        let answers = match self.tunnel_requests.dump(request).await {
            Ok(answers) => answers,
            Err(cause) if cause.is_any(&[Errno::ENODEV]) => Vec::new(),
            Err(cause) => {
                let device = self.device(ifindex).await;
                return Err(NetlinkError::new(format!("list the VNIs of {device}"), cause));
            }
        };
        let of_device = answers.into_iter().filter(|answer| answer.ifindex == ifindex);
        Ok(of_device.flat_map(|answer| answer.vnis).collect())
    }

    /// Makes a VXLAN device with a filter take exactly these VNIs. Returns whether it took others before. To
    /// add a VNI that is there is no error.
    pub async fn set_vnis(&self, ifindex: u32, wanted: &BTreeSet<u32>) -> Result<bool, NetlinkError> {
        let present = self.vnis(ifindex).await?;
        let (missing, extra) = difference(&present, wanted);
        // Deletions first: a VNI that is extra may be one that another device is waiting for.
        self.change_vnis(Kind::Delete, ifindex, &extra).await?;
        self.change_vnis(Kind::New, ifindex, &missing).await?;
        Ok(!missing.is_empty() || !extra.is_empty())
    }

    async fn change_vnis(
        &self,
        kind: Kind,
        ifindex: u32,
        vnis: &[RangeInclusive<u32>],
    ) -> Result<(), NetlinkError> {
        for some in vnis.chunks(RANGES_AT_ONCE) {
            let request = TunnelMessage { kind, ifindex, vnis: some.to_vec() };
            if let Err(cause) = self.tunnel_requests.change(request, 0).await {
                let device = self.device(ifindex).await;
                let what = if kind == Kind::New { "add VNIs to" } else { "take VNIs from" };
                return Err(NetlinkError::new(format!("{what} {device}"), cause));
            }
        }
        Ok(())
    }
}

/// The ranges to add to `present`, and those to take away, for it to become `wanted`.
fn difference(
    present: &[RangeInclusive<u32>],
    wanted: &BTreeSet<u32>,
) -> (Vec<RangeInclusive<u32>>, Vec<RangeInclusive<u32>>) {
    let has = |vni: &u32| present.iter().any(|range| range.contains(vni));
    let missing = wanted.iter().filter(|vni| !has(vni)).map(|vni| *vni..=*vni).collect();
    let mut extra = Vec::new();
    for range in present {
        let mut next = *range.start();
        for kept in wanted.range(range.clone()) {
            if next < *kept {
                extra.push(next..=kept - 1);
            }
            next = kept + 1;
        }
        if next <= *range.end() {
            extra.push(next..=*range.end());
        }
    }
    (missing, extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand from <linux/if_link.h>, for a little-endian machine.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_request_has_the_kernels_layout_and_can_be_read_again() {
        let message = TunnelMessage { kind: Kind::New, ifindex: 9, vnis: vec![1..=3, 5..=5] };
        let mut bytes = vec![0xff; message.buffer_len()];
        message.serialize(&mut bytes);
        let expected: [&[u8]; 6] = [
            &[7, 0, 0, 0, 9, 0, 0, 0],
            &[20, 0, 1, 0x80],
            &[8, 0, 1, 0, 1, 0, 0, 0],
            &[8, 0, 2, 0, 3, 0, 0, 0],
            &[12, 0, 1, 0x80],
            &[8, 0, 1, 0, 5, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
        let mut header = NetlinkHeader::default();
        header.message_type = message.message_type();
        let Ok(read) = TunnelMessage::deserialize(&header, &bytes);
        assert_eq!((read.kind, read.ifindex, read.vnis), (Kind::New, 9, message.vnis));
    }

    #[test]
    fn a_message_cut_anywhere_is_read_without_a_panic() {
        let message = TunnelMessage { kind: Kind::New, ifindex: 9, vnis: vec![1..=3] };
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut header = NetlinkHeader::default();
        header.message_type = RTM_NEWTUNNEL;
        for length in 0..bytes.len() {
            let Ok(read) = TunnelMessage::deserialize(&header, &bytes[..length]);
            assert!(read.vnis.is_empty(), "cut to {length}");
        }
    }

    #[test]
    fn the_difference_is_in_ranges_where_the_kernel_has_some() {
        let wanted = BTreeSet::from([1, 5, 9, 10]);
        let (missing, extra) = difference(&[2..=6, 9..=9, 0xff_fff0..=0xff_ffff], &wanted);
        assert_eq!(missing, [1..=1, 10..=10]);
        assert_eq!(extra, [2..=4, 6..=6, 0xff_fff0..=0xff_ffff]);
        assert_eq!(difference(&[1..=1, 5..=5, 9..=10], &wanted), (vec![], vec![]));
        assert_eq!(difference(&[], &BTreeSet::new()), (vec![], vec![]));
    }
}
