//! Neighbour discovery that asks, advertises and claims (RFC 4861), plain and behind extension headers, from a
//! container and out of a tunnel.

use super::{Outer, UPLINK, WORKLOAD, input};
use crate::{
    fuzz::{
        hosts::{Way, v6},
        input::Input,
        ip::Ip,
        random::Random,
        special::ADDRESSES6,
    },
    ipv6::{
        packet::{Addr6, Ipv6, addr},
        world::{CONTAINER6, GATEWAY6, NEW6, OF_B, OTHER6},
    },
    packet::{IPV6, eth},
    world::{CONTAINER_MAC, GATEWAY_MAC, OTHER_MAC},
};

const ALL_NODES: Addr6 = addr([0xff02, 0, 0, 0, 0, 0, 0, 1]);
const LINK_LOCAL: Addr6 = addr([0xfe80, 0, 0, 0, 0, 0, 0, 2]);

pub(super) fn discovery(random: &mut Random) -> Input {
    // Router solicitation and advertisement, neighbour solicitation and advertisement, redirect.
    let kind = random.pick(&[135, 136, 135, 136, 136, 133, 134, 137]);
    let src = random.pick(&[CONTAINER6, CONTAINER6, LINK_LOCAL, [0; 16], GATEWAY6, NEW6]);
    let dst = random.pick(&[ALL_NODES, OTHER6, GATEWAY6, OF_B, addr([0xff02, 0, 0, 0, 0, 1, 0xff00, 1])]);
    let target = random.pick(&[GATEWAY6, GATEWAY6, CONTAINER6, OTHER6, NEW6]);
    let mut message = Ipv6::neighbour(kind, src, dst, target);
    if random.once_in(4) {
        message.hop_limit = random.pick(&[0, 1, 64, 254]);
    }
    if random.once_in(2) {
        // The option with the link-layer address.
        message.payload.extend([2, 1]);
        message.payload.extend(random.pick(&[CONTAINER_MAC, OTHER_MAC]));
    }
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2, 3, 6, 7, 8, 9]) {
        message = behind(random, &message);
    }
    if random.once_in(6) {
        let way = Way::to(v6(OF_B)).unwrap();
        message.src = random.pick(&[OF_B, OF_B, GATEWAY6, LINK_LOCAL]);
        let odd = random.pick(&ADDRESSES6);
        message.dst = random.pick(&[CONTAINER6, GATEWAY6, odd]);
        return input(UPLINK, Outer::of(random, &way).around(&Ip::V6(message)));
    }
    let to = random.pick(&[[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 1], OTHER_MAC, GATEWAY_MAC]);
    input(WORKLOAD, eth(to, CONTAINER_MAC, IPV6, &message.bytes()))
}

/// Behind an extension header, mostly one that kernels look behind.
fn behind(random: &mut Random, message: &Ipv6) -> Ipv6 {
    let kind = random.pick(&[0, 43, 60, 60, 60, 60, 60, 44]);
    let words = if kind == 44 { 0 } else { random.pick(&[0, 0, 0, 1, 4]) };
    let mut header = vec![0; 8 * (usize::from(words) + 1)];
    (header[0], header[1]) = (message.next_header, words);
    if kind != 44 {
        // PadN over all that is left of it, as far as one option reaches.
        (header[2], header[3]) = (1, words * 8 + 4);
    }
    Ipv6 { next_header: kind, payload: [&header, &message.payload[..]].concat(), ..message.clone() }
}
