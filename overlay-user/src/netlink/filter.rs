//! Filters of the older tc, on the clsact and ingress qdiscs. Read here rather than by netlink-packet-route, which
//! gives up a message over any option of a filter that it does not know. Layouts are those of <linux/rtnetlink.h>,
//! <linux/pkt_sched.h> and <linux/pkt_cls.h>.

use std::{collections::BTreeMap, convert::Infallible};

use netlink_packet_core::{
    DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla, NlasIterator,
    parse_string, parse_u32,
};
use nix::errno::Errno;

use super::{Netlink, NetlinkError};

pub(super) const RTM_NEWQDISC: u16 = 36;
pub(super) const RTM_GETQDISC: u16 = 38;
pub(super) const RTM_NEWTFILTER: u16 = 44;
pub(super) const RTM_GETTFILTER: u16 = 46;
pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
pub(super) const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// The handle of both qdiscs, `ffff:`.
pub(super) const INGRESS_HANDLE: u32 = 0xffff_0000;
const MIN_INGRESS: u32 = 0xfff2;
const MIN_EGRESS: u32 = 0xfff3;

/// Bytes of `struct tcmsg`: family, three of padding, ifindex, handle, parent, info.
const HEADER_BYTES: usize = 20;

/// One of a device's two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// What the device receives.
    Ingress,
    /// What the device sends.
    Egress,
}

impl Hook {
    /// The hook, as a filter's parent.
    pub(super) fn parent(self) -> u32 {
        INGRESS_HANDLE
            | match self {
                Self::Ingress => MIN_INGRESS,
                Self::Egress => MIN_EGRESS,
            }
    }
}

/// A filter on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority: the lowest is asked first.
    pub pref: u16,
    /// Its kind: `bpf`, `flower`, `u32` …
    pub kind: String,
    /// Of a `bpf` filter: what its maker called it.
    pub name: Option<String>,
    /// Of a `bpf` filter: the program.
    pub program: Option<u32>,
}

/// Which hooks of a device have filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qdisc {
    /// `ingress`: what is received only.
    Ingress,
    /// `clsact`: both.
    Clsact,
}

/// A message about a qdisc or a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TrafficMessage {
    pub(super) kind: u16,
    pub(super) ifindex: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) info: u32,
    pub(super) attributes: Vec<DefaultNla>,
}

impl NetlinkSerializable for TrafficMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER_BYTES);
        header[..4].fill(0);
        for (place, field) in [self.ifindex, self.handle, self.parent, self.info].into_iter().enumerate() {
            header[4 + 4 * place..][..4].copy_from_slice(&field.to_ne_bytes());
        }
        self.attributes.as_slice().emit(rest);
    }
}

impl NetlinkDeserializable for TrafficMessage {
    type Error = Infallible;

    /// What cannot be read is of no device and no kind.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let (Some(fields), Some(attributes)) = (payload.get(4..HEADER_BYTES), payload.get(HEADER_BYTES..))
        else {
            return Ok(Self { kind: header.message_type, ..Self::default() });
        };
        let field = |n: usize| parse_u32(&fields[4 * n..4 * n + 4]).unwrap_or(0);
        let attributes = NlasIterator::new(attributes).map_while(Result::ok);
        Ok(Self {
            kind: header.message_type,
            ifindex: field(0),
            handle: field(1),
            parent: field(2),
            info: field(3),
            attributes: attributes.map(|nla| DefaultNla::new(nla.kind(), nla.value().to_vec())).collect(),
        })
    }
}

impl TrafficMessage {
    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        let attribute = self.attributes.iter().find(|attribute| attribute.kind() == kind)?;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        Some(value)
    }

    /// What kind of qdisc or filter it is about; empty where it does not say.
    fn discipline(&self) -> String {
        self.value(TCA_KIND).and_then(|value| parse_string(&value).ok()).unwrap_or_default()
    }

    /// A filter of which the kernel tells more than that its priority is in use. It tells of each priority first,
    /// without a handle, and then of its filters; other kinds than `bpf` have handles for more than filters.
    pub(super) fn filter(&self) -> Option<Filter> {
        let kind = self.discipline();
        let is_bpf = kind == "bpf";
        if self.kind != RTM_NEWTFILTER || kind.is_empty() || (self.handle != 0) != is_bpf {
            return None;
        }
        let pref = u16::try_from(self.info >> 16).unwrap_or(u16::MAX);
        let mut filter = Filter { pref, kind, name: None, program: None };
        let options = if is_bpf { self.value(TCA_OPTIONS) } else { None };
        for option in NlasIterator::new(options.unwrap_or_default().as_slice()).map_while(Result::ok) {
            match option.kind() {
                TCA_BPF_NAME => filter.name = parse_string(option.value()).ok(),
                TCA_BPF_ID => filter.program = parse_u32(option.value()).ok(),
                _ => {}
            }
        }
        Some(filter)
    }

    fn qdisc(&self) -> Option<(u32, Qdisc)> {
        let qdisc = match self.discipline().as_str() {
            "ingress" => Qdisc::Ingress,
            "clsact" => Qdisc::Clsact,
            _ => return None,
        };
        (self.kind == RTM_NEWQDISC).then_some((self.ifindex, qdisc))
    }
}

/// The devices of a namespace that may have filters on their hooks.
#[derive(Clone, Debug, Default)]
pub struct Filtered(BTreeMap<u32, Qdisc>);

impl Netlink {
    /// Which devices may have filters on their hooks.
    pub async fn filtered(&self) -> Result<Filtered, NetlinkError> {
        let request = TrafficMessage { kind: RTM_GETQDISC, ..TrafficMessage::default() };
        let answers = self.traffic_requests.dump(request).await;
        let answers = answers.map_err(|cause| NetlinkError::new("list queueing disciplines", cause))?;
        Ok(Filtered(answers.iter().filter_map(TrafficMessage::qdisc).collect()))
    }

    /// The filters on a device's hook, in the order in which they are asked.
    pub async fn filters(
        &self,
        filtered: &Filtered,
        ifindex: u32,
        hook: Hook,
    ) -> Result<Vec<Filter>, NetlinkError> {
        match (filtered.0.get(&ifindex), hook) {
            (Some(_), Hook::Ingress) | (Some(Qdisc::Clsact), Hook::Egress) => {}
            // Asked for egress, the ingress qdisc would answer with its ingress.
            (Some(Qdisc::Ingress), Hook::Egress) | (None, _) => return Ok(Vec::new()),
        }
        let parent = hook.parent();
        let request = TrafficMessage { kind: RTM_GETTFILTER, ifindex, parent, ..TrafficMessage::default() };
        match self.traffic_requests.dump(request).await {
            Ok(answers) => Ok(answers.iter().filter_map(TrafficMessage::filter).collect()),
            // The device or its qdisc went meanwhile.
            Err(cause) if cause.is_any(&[Errno::ENODEV, Errno::EINVAL]) => Ok(Vec::new()),
            Err(cause) => {
                let device = self.device(ifindex).await;
                Err(NetlinkError::new(format!("list the tc filters of {device}"), cause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: u16, payload: &[u8]) -> TrafficMessage {
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        let Ok(message) = TrafficMessage::deserialize(&header, payload);
        message
    }

    /// A bpf filter of priority 10 on device 7, as the kernel tells it.
    #[cfg(target_endian = "little")]
    fn bpf() -> Vec<u8> {
        let parts: [&[u8]; 8] = [
            &[0, 0, 0, 0, 7, 0, 0, 0],
            &[1, 0, 0, 0, 0xf2, 0xff, 0xff, 0xff],
            &[0, 3, 10, 0],
            &[8, 0, 1, 0, b'b', b'p', b'f', 0],
            &[8, 0, 11, 0, 0, 0, 0, 0],
            &[24, 0, 2, 0],
            &[9, 0, 7, 0, b'm', b'i', b'n', b'e', 0, 0, 0, 0],
            &[8, 0, 11, 0, 77, 0, 0, 0],
        ];
        parts.concat()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_filter_is_told_with_its_program() {
        let message = read(RTM_NEWTFILTER, &bpf());
        assert_eq!((message.ifindex, message.parent), (7, INGRESS_HANDLE | MIN_INGRESS));
        let expected = Filter { pref: 10, kind: "bpf".into(), name: Some("mine".into()), program: Some(77) };
        assert_eq!(message.clone().filter(), Some(expected));
        // Only that the priority is in use.
        assert_eq!(TrafficMessage { handle: 0, ..message.clone() }.filter(), None);
        let other =
            TrafficMessage { attributes: vec![DefaultNla::new(TCA_KIND, b"u32\0".to_vec())], ..message };
        assert_eq!(other.clone().filter(), None, "a hash table of u32's, say");
        let told = TrafficMessage { handle: 0, ..other }.filter().unwrap();
        assert_eq!((told.kind.as_str(), told.pref, told.program), ("u32", 10, None));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_message_cut_anywhere_is_read_without_a_panic() {
        let whole = bpf();
        for length in 0..whole.len() {
            let message = read(RTM_NEWTFILTER, &whole[..length]);
            assert_eq!(message.filter().and_then(|filter| filter.program), None, "cut to {length}");
        }
    }

    #[test]
    fn a_request_has_the_kernels_layout() {
        let request =
            TrafficMessage { kind: RTM_GETTFILTER, ifindex: 7, parent: 0xffff_fff2, ..Default::default() };
        let mut bytes = vec![0xff; request.buffer_len()];
        request.serialize(&mut bytes);
        let fields = [0, 7, 0, 0xffff_fff2, 0].map(u32::to_ne_bytes);
        assert_eq!(bytes, fields.concat());
        assert_eq!(read(RTM_GETTFILTER, &bytes), request);
    }
}
