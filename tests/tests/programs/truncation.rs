//! Tunnel packets cut off at every byte.

use overlay_common::{
    DropReason,
    map::program::{BRIDGE_EGRESS, UPLINK_INGRESS, WORKLOAD_EGRESS},
};

use crate::{
    bed::with_bed,
    case::{Case, DROP, NEXT, run_table},
    packet::{Ipv4, at, patched},
    skb::Context,
    uplink_decap::run_in_xdp,
    world::{A, CONTAINER, GATEWAY, dev, from_container, from_host, from_peer},
};

/// An Ethernet and an IPv4 header: the kernel builds no shorter IPv4 packet for a test run.
const SHORTEST: usize = 34;

fn tunnel_packet() -> Vec<u8> {
    from_peer(&A, Ipv4::udp(A.container, CONTAINER).bytes()).bytes()
}

fn case(name: String, packet: Vec<u8>) -> Case {
    Case::new(name, UPLINK_INGRESS, dev::UPLINK, packet)
}

#[test]
fn cut_off_packets_are_never_taken() {
    let whole = tunnel_packet();
    let cases: Vec<_> = (SHORTEST..whole.len())
        .map(|len| {
            let case = case(format!("cut to {len} bytes"), whole[..len].to_vec());
            // Without a UDP header it is not known to be a tunnel's.
            if len < at::VXLAN { case } else { case.drops(DropReason::OuterMalformed) }
        })
        .collect();
    run_table(&cases);
    run_in_xdp(&cases);
}

#[test]
fn packets_that_were_cut_off_before_they_were_sent() {
    let whole = tunnel_packet();
    let cases: Vec<_> = (SHORTEST..whole.len())
        .map(|len| {
            let ip_len = (len - at::OUTER_IP) as u16;
            let mut cut = patched(whole[..len].to_vec(), at::OUTER_IP + 2, ip_len);
            if len < at::VXLAN {
                return case(format!("{len} bytes, no UDP header"), cut);
            }
            cut[at::OUTER_UDP + 4..at::OUTER_UDP + 6].copy_from_slice(&(ip_len - 20).to_be_bytes());
            let reason =
                if len < at::INNER_ETH { DropReason::OuterMalformed } else { DropReason::InnerMalformed };
            case(format!("{len} bytes, lengths to match"), cut).drops(reason)
        })
        .collect();
    run_table(&cases);
    run_in_xdp(&cases);
}

#[test]
fn frames_that_are_not_even_ip() {
    with_bed(|bed| {
        for (program, ifindex, whole) in [
            (WORKLOAD_EGRESS, dev::PORT, from_container(&Ipv4::udp(CONTAINER, A.container))),
            (BRIDGE_EGRESS, dev::BRIDGE, from_host(&Ipv4::udp(GATEWAY, A.container))),
            (UPLINK_INGRESS, dev::UPLINK, tunnel_packet()),
        ] {
            // The kernel refuses to build IPv4 packets shorter than a header, so these are of a protocol it
            // does not know, and the program reads the length alone.
            for len in 14..SHORTEST {
                let mut frame = whole[..len].to_vec();
                frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
                let ran = bed.run(program, Context { ifindex, ..Context::default() }, &frame);
                assert_eq!((ran.verdict, &ran.packet), (NEXT, &frame), "{program}, {len} bytes");
                assert_ne!(ran.verdict, DROP);
            }
        }
    });
}
