//! What no container may say (docs/adr/0010): that it is the gateway, or, with the host's address, a peer.

use std::net::IpAddr;

use super::Frame;
use crate::{
    fuzz::{
        header::{Header, LOOKED_BEHIND, MOST_EXTENSIONS},
        hosts::{GATEWAYS, peer_at, v4, v6},
    },
    ipv6::packet::ICMPV6,
    packet::{ARP, GRE, IPIP, IPV6, UDP},
    world::{GATEWAY_MAC, GENEVE_PORT, PORT_NUMBER},
};

/// Whether a frame claims what is not its sender's to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    No,
    /// Nobody would believe it as it is; refused or not.
    Unclear,
    Yes,
}

pub(super) fn of_gateway(packet: &[u8]) -> Claim {
    let ethertype = u16::from_be_bytes([packet[12], packet[13]]);
    if packet[6..12] == GATEWAY_MAC {
        return Claim::Yes;
    }
    match ethertype {
        ARP => by_arp(&packet[14..]),
        IPV6 => by_neighbour_discovery(&packet[14..]),
        _ => Claim::No,
    }
}

/// RFC 826, over Ethernet and for IPv4.
fn by_arp(arp: &[u8]) -> Claim {
    let is_gateway = |addr: &[u8]| GATEWAYS.contains(&v4([addr[0], addr[1], addr[2], addr[3]]));
    match arp.get(..28) {
        Some(arp) if !is_gateway(&arp[14..18]) => Claim::No,
        Some([0, 1, 8, 0, 6, 4, ..]) => Claim::Yes,
        _ => Claim::Unclear,
    }
}

fn by_neighbour_discovery(bytes: &[u8]) -> Claim {
    let Some(ip) = Header::of_version(bytes).filter(Header::is_v6) else { return Claim::Unclear };
    // RFC 4861 section 7.1: what a router may have forwarded is no neighbour's.
    if ip.hops() != 255 {
        return Claim::No;
    }
    // What trails behind the packet no kernel reads.
    let whole = ip.is_whole(false);
    match claimed(ip.protocol(), &bytes[40..ip.total().min(bytes.len())], ip.src()) {
        Claim::No if whole && ip.total() == bytes.len() => Claim::No,
        Claim::No => match claimed(ip.protocol(), &bytes[40..], ip.src()) {
            Claim::No => Claim::No,
            _ => Claim::Unclear,
        },
        _ if !whole => Claim::Unclear,
        claim => claim,
    }
}

fn claimed(mut next: u8, mut rest: &[u8], src: IpAddr) -> Claim {
    for behind in 0..=MOST_EXTENSIONS {
        if !LOOKED_BEHIND.contains(&next) {
            return if next == ICMPV6 { by_message(rest, src) } else { Claim::No };
        }
        // RFC 8200 section 4.3: 8 bytes, and as many times 8 as the second one says.
        let Some(&[following, words]) = rest.first_chunk() else { return Claim::No };
        let Some(end) = rest.get((usize::from(words) + 1) * 8..) else {
            return if behind == MOST_EXTENSIONS { Claim::Unclear } else { Claim::No };
        };
        (next, rest) = (following, end);
    }
    Claim::Yes
}

/// A solicitation claims its source, an advertisement its target (RFC 4861 sections 4.3 and 4.4), and a router's
/// advertisement that it is the router (section 4.2, RFC 6105). Shorter ones no kernel believes.
fn by_message(message: &[u8], src: IpAddr) -> Claim {
    let Some(kind) = message.first() else { return Claim::No };
    let (is_claim, least) = match kind {
        134 => (true, 16),
        135 => (GATEWAYS.contains(&src), 24),
        136 => {
            let target = message.get(8..24).and_then(|target| <[u8; 16]>::try_from(target).ok());
            (target.is_some_and(|target| GATEWAYS.contains(&v6(target))), 24)
        }
        _ => (false, 0),
    };
    match is_claim {
        false => Claim::No,
        true if message.len() >= least && message[1] == 0 => Claim::Yes,
        true => Claim::Unclear,
    }
}

/// UDP for a tunnel's port on a peer's host, GRE, or IP in IP: the host's NAT would let it out with the host's address.
/// Behind more headers than anybody looks behind it may be just that.
pub(super) fn of_peer(frame: &Frame<'_>) -> Claim {
    let to_tunnel = |trailing| match frame.ip.hidden(trailing) {
        Ok(Some((UDP, at))) => {
            frame.ip.port_at(at, trailing).is_some_and(|port| [PORT_NUMBER, GENEVE_PORT].contains(&port))
        }
        Ok(Some((protocol, _))) => [IPIP, 41, GRE].contains(&protocol),
        Ok(None) => false,
        Err(_) => true,
    };
    match peer_at(frame.ip.dst()) {
        Some(_) if to_tunnel(false) => Claim::Yes,
        Some(_) if to_tunnel(true) => Claim::Unclear,
        _ => Claim::No,
    }
}
