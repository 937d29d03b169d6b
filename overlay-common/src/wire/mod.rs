//! The headers on the wire: one file each, `repr(C)` with alignment 1, multi-byte fields big-endian.

pub mod arp;
pub mod eth;
pub mod geneve;
pub mod gre;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod tcp;
pub mod udp;
pub mod vxlan;

pub use arp::ArpPacket;
pub use eth::EthHeader;
pub use geneve::GeneveHeader;
pub use gre::GreHeader;
pub use icmp::{FragNeededHeader, TooBigHeader};
pub use ip::IpHeader;
pub use ipv4::Ipv4Header;
pub use ipv6::Ipv6Header;
pub use nd::NeighbourMessage;
pub use tcp::TcpHeader;
pub use udp::UdpHeader;
pub use vxlan::VxlanHeader;

/// Our headers against those of a library that we did not write.
#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use network_types::{eth::EthHdr, ip::IpProto, ip::Ipv4Hdr, udp::UdpHdr, vxlan::VxlanHdr};

    use crate::{
        Mac, Vni,
        parse::{INNER_ETH, INNER_L3, L3, OUTER_UDP, VXLAN},
        template::{Headers, Macs, Shell, Stamp, Underlay},
        wire::eth::ETHERTYPE_IPV4,
    };

    #[test]
    fn lengths_agree() {
        let theirs = [EthHdr::LEN, Ipv4Hdr::LEN, UdpHdr::LEN, VxlanHdr::LEN];
        let ours = [L3, OUTER_UDP - L3, VXLAN - OUTER_UDP, INNER_ETH - VXLAN];
        assert_eq!(ours, theirs);
        assert_eq!(INNER_L3 - INNER_ETH, EthHdr::LEN);
    }

    #[test]
    fn a_stamped_template_is_what_the_library_builds() {
        let template = Headers {
            underlay: Underlay::V4 { src: [192, 0, 2, 1], dst: [192, 0, 2, 2] },
            carries: ETHERTYPE_IPV4,
            shell: Shell::Vxlan {
                port: 8472,
                vni: Vni::new(0x00ab_cdef).unwrap(),
                macs: Macs { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac::BROADCAST },
            },
        }
        .compile();
        let bytes = template.stamped(Stamp { inner_len: 1000, tos: 0xb9, source_port: 55_555 });

        let mut ip = Ipv4Hdr {
            vihl: 0,
            tos: 0,
            tot_len: [0; 2],
            id: [0; 2],
            frags: [0; 2],
            ttl: 64,
            proto: 0,
            check: bytes[24..26].try_into().unwrap(),
            src_addr: [0; 4],
            dst_addr: [0; 4],
        };
        ip.set_vihl(4, 20);
        ip.set_tos(0xb9 >> 2, 0xb9 & 3);
        ip.set_tot_len(1050);
        ip.set_frags(0b010, 0);
        ip.set_proto(IpProto::Udp);
        ip.set_src_addr(Ipv4Addr::new(192, 0, 2, 1));
        ip.set_dst_addr(Ipv4Addr::new(192, 0, 2, 2));
        let Ipv4Hdr { vihl, tos, tot_len, id, frags, ttl, proto, check, src_addr, dst_addr } = ip;
        let mut expected = vec![vihl, tos];
        expected.extend([tot_len, id, frags].concat());
        expected.extend([ttl, proto]);
        expected.extend(check.iter().chain(&src_addr).chain(&dst_addr));

        let mut udp = UdpHdr { src: [0; 2], dst: [0; 2], len: [0; 2], check: [0; 2] };
        udp.set_src_port(55_555);
        udp.set_dst_port(8472);
        udp.set_len(1030);
        expected.extend([udp.src, udp.dst, udp.len, udp.check].concat());

        let vxlan = VxlanHdr::new(0x00ab_cdef);
        expected.push(vxlan.flags);
        expected.extend(vxlan._reserved1.iter().chain(&vxlan.vni));
        expected.push(vxlan._reserved2);
        assert_eq!(bytes[L3..INNER_ETH], expected);
    }
}
