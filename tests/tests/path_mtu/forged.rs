//! Forged "fragmentation needed": whoever is on the wire can send one, and only one that quotes a tunnel packet of
//! ours to a peer counts. Valid traffic runs meanwhile, and all of it arrives.

use std::{net::Ipv4Addr, os::fd::AsRawFd, time::Duration};

use harness::{Netns, eventually};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use overlay_common::map::MIN_PATH_MTU;

use crate::bed::{SOON, clean, mtus, path_mtus, probe, routed, said};

/// A message about a packet that was too large, as routers write it.
#[derive(Clone)]
struct Message {
    /// Who sends it.
    from: Ipv4Addr,
    icmp: (u8, u8),
    mtu: u16,
    /// The quoted packet.
    quoted: Quoted,
}

#[derive(Clone)]
struct Quoted {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    total_len: u16,
    flags_fragment: u16,
    ports: (u16, u16),
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, total_len: u16, flags_fragment: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(total_len.to_be_bytes());
    header.extend([0, 1]);
    header.extend(flags_fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    put_checksum(&mut header, 10);
    header
}

/// RFC 1071.
fn put_checksum(bytes: &mut [u8], at: usize) {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

impl Message {
    fn bytes(&self, to: Ipv4Addr) -> Vec<u8> {
        let Quoted { src, dst, protocol, total_len, flags_fragment, ports } = self.quoted.clone();
        let mut icmp = vec![self.icmp.0, self.icmp.1, 0, 0, 0, 0];
        icmp.extend(self.mtu.to_be_bytes());
        icmp.extend(ipv4(src, dst, protocol, total_len, flags_fragment));
        icmp.extend(ports.0.to_be_bytes());
        icmp.extend(ports.1.to_be_bytes());
        icmp.extend((total_len.saturating_sub(20)).to_be_bytes());
        icmp.extend([0, 0]);
        // The VXLAN header and some of what is behind it, as routers after RFC 1812 quote it.
        icmp.extend([8, 0, 0, 0, 0, 0, 1, 0]);
        icmp.extend([0x55; 32]);
        put_checksum(&mut icmp, 2);
        let mut packet = ipv4(self.from, to, 1, u16::try_from(20 + icmp.len()).unwrap(), 0);
        packet.extend(icmp);
        packet
    }
}

/// Sends whole IP packets, whatever source they claim.
fn send(ns: &Netns, to: Ipv4Addr, packets: &[Vec<u8>]) {
    ns.run(|| {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        let [a, b, c, d] = to.octets();
        for packet in packets {
            sendto(raw.as_raw_fd(), packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty()).unwrap();
        }
    })
    .unwrap();
}

#[test]
fn only_a_word_about_a_tunnel_packet_of_ours_counts() {
    let topology = routed().hosts(2).up().unwrap();
    let (h1, h2, router) = (topology.h(1), topology.h(2), topology.wire.ns().unwrap());
    let (ours, peer) = (h1.ip, h2.ip);
    let probe = probe(h1.c(1), h2.c(1));
    let good = Message {
        from: Ipv4Addr::new(198, 18, 0, 1),
        icmp: (3, 4),
        mtu: 1300,
        quoted: Quoted {
            src: ours,
            dst: peer,
            protocol: 17,
            total_len: 1500,
            flags_fragment: 0x4000,
            ports: (50_000, 4789),
        },
    };
    let changed = |change: fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    let stranger = Ipv4Addr::new(192, 0, 2, 9);
    let mut forged = vec![
        Message { quoted: Quoted { dst: stranger, ..good.quoted.clone() }, ..good.clone() },
        Message { quoted: Quoted { src: peer, dst: ours, ..good.quoted.clone() }, ..good.clone() },
        Message { quoted: Quoted { src: stranger, ..good.quoted.clone() }, ..good.clone() },
        Message { from: peer, quoted: Quoted { dst: stranger, ..good.quoted.clone() }, ..good.clone() },
    ];
    forged.extend(
        [
            (|m| m.quoted.ports.0 = 49_151) as fn(&mut Message),
            |m| m.quoted.ports.0 = 0,
            |m| m.quoted.ports.1 = 4788,
            |m| m.quoted.ports.1 = 8472,
            |m| m.quoted.protocol = 6,
            |m| m.quoted.flags_fragment = 0,
            |m| m.quoted.flags_fragment = 0x4001,
            |m| m.quoted.total_len = 1300,
            |m| m.quoted.total_len = 100,
            |m| m.mtu = 1500,
            |m| m.mtu = 65_535,
            |m| m.icmp = (3, 3),
            |m| m.icmp = (11, 0),
            |m| m.icmp = (0, 4),
        ]
        .map(changed),
    );
    let mut packets: Vec<Vec<u8>> = forged.iter().map(|message| message.bytes(ours)).collect();
    // The good one, cut off at every byte. Its own header says how long it is.
    let whole = good.bytes(ours);
    packets.extend((28..56).map(|len| {
        let mut cut = whole[..len].to_vec();
        cut[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        cut[10..12].fill(0);
        put_checksum(&mut cut[..20], 10);
        cut
    }));
    for _ in 0..5 {
        send(router, ours, &packets);
    }
    // Two rounds of the daemon and more.
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(path_mtus(h1.overlayd()), []);
    assert_eq!(mtus(h1, h2), (1450, 1450));
    assert_eq!(said(h1.overlayd()), [] as [String; 0]);

    // Too little for an IP host is taken for the least that is believed, as by the kernel (min_pmtu).
    for (mtu, path, inner) in
        [(1300, 1300, 1250), (1400, 1300, 1250), (68, MIN_PATH_MTU, 502), (0, MIN_PATH_MTU, 502)]
    {
        send(router, ours, &[Message { mtu, ..good.clone() }.bytes(ours)]);
        eventually(&format!("the word {mtu} counts"), SOON, || mtus(h1, h2) == (inner, inner)).unwrap();
        assert_eq!(path_mtus(h1.overlayd()), [(peer, path)]);
    }
    assert_eq!(mtus(h2, h1), (1450, 1450));
    clean(probe);
}
