//! Nexthop objects (kernel 5.3), which routes may name instead of hops: RTM_GETNEXTHOP, which netlink-packet-route
//! does not know. Layouts are those of <linux/nexthop.h>.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator, parse_u32,
};

use super::{Netlink, error::Cause};

pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// RTNH_F_DEAD and RTNH_F_LINKDOWN.
const GONE: u32 = 1 | 16;

/// Bytes of `struct nhmsg`: family, scope, protocol, one reserved, flags.
const HEADER_BYTES: usize = 8;
/// Bytes of `struct nexthop_grp`: id, weight less one, its high byte (kernel 6.12), two reserved.
const MEMBER_BYTES: usize = 8;

/// A request for all objects, or one of them.
#[derive(Clone, Debug, Default)]
pub(super) struct NexthopMessage {
    kind: u16,
    flags: u32,
    id: u32,
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    /// Of a group: its members' ids and weights.
    members: Vec<(u32, u32)>,
}

impl NetlinkSerializable for NexthopMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES
    }

    /// Requests alone are ever sent, and those for all objects have no attributes.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for NexthopMessage {
    type Error = Infallible;

    /// What cannot be read is no object: none has the id 0.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let mut message = Self { kind: header.message_type, ..Self::default() };
        let (Some(flags), Some(attributes)) = (payload.get(4..HEADER_BYTES), payload.get(HEADER_BYTES..))
        else {
            return Ok(message);
        };
        message.flags = parse_u32(flags).unwrap_or(0);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            match attribute.kind() {
                NHA_ID => message.id = parse_u32(attribute.value()).unwrap_or(0),
                NHA_GROUP => message.members = members(attribute.value()),
                NHA_OIF => message.ifindex = parse_u32(attribute.value()).ok(),
                NHA_GATEWAY => message.gateway = gateway(attribute.value()),
                _ => {}
            }
        }
        Ok(message)
    }
}

fn members(bytes: &[u8]) -> Vec<(u32, u32)> {
    let member = |bytes: &[u8]| {
        let weight = u32::from(u16::from_le_bytes([bytes[4], bytes[5]])) + 1;
        (u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), weight)
    };
    bytes.chunks_exact(MEMBER_BYTES).map(member).collect()
}

fn gateway(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).ok()
}

/// A hop of an object: the link, the router, and the weight.
pub(super) type ObjectHop = (u32, Option<IpAddr>, u32);

impl Netlink {
    /// The hops of a nexthop object, or of the members of a group, that are not dead. Empty where there is no such
    /// object: links that lose their carrier take their objects along.
    pub(super) async fn object_hops(&self, id: u32) -> Result<Vec<ObjectHop>, Cause> {
        let request = NexthopMessage { kind: RTM_GETNEXTHOP, ..NexthopMessage::default() };
        let objects = self.object_requests.dump(request).await?;
        let find = |id: u32| objects.iter().find(|object| object.kind == RTM_NEWNEXTHOP && object.id == id);
        let Some(object) = find(id) else { return Ok(Vec::new()) };
        if object.members.is_empty() {
            return Ok(object.hop(1).into_iter().collect());
        }
        Ok(object.members.iter().filter_map(|(id, weight)| find(*id)?.hop(*weight)).collect())
    }
}

impl NexthopMessage {
    fn hop(&self, weight: u32) -> Option<ObjectHop> {
        if self.flags & GONE != 0 {
            return None;
        }
        Some((self.ifindex?, self.gateway, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_with_its_weights() {
        let mut payload = vec![0; HEADER_BYTES];
        payload.extend([8, 0, 1, 0, 20, 0, 0, 0]);
        payload.extend([20, 0, 2, 0, 21, 0, 0, 0, 2, 0, 0, 0, 22, 0, 0, 0, 0, 1, 0, 0]);
        let header = NetlinkHeader::default();
        let read = |payload: &[u8]| NexthopMessage::deserialize(&header, payload).unwrap();
        let group = read(&payload);
        assert_eq!((group.id, group.members), (20, vec![(21, 3), (22, 257)]));
        for length in 0..payload.len() {
            assert!(read(&payload[..length]).members.is_empty(), "cut to {length}");
        }
        assert_eq!(read(&[0xff; 40]).id, 0);
    }
}
