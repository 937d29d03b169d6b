//! Addresses that mean something to somebody.

use crate::{
    ipv6::{
        packet::{Addr6, addr},
        world::{B6, CONTAINER6, GATEWAY6, NEW6, OF_A, OF_B, OTHER6, SUBNET6, UNDERLAY6, V4_OF_B},
    },
    packet::Addr,
    world::{
        A, B, BROADCAST, CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, NEW, OTHER, OTHER_MAC,
        OVERLAY_NEIGHBOUR, SUBNET, UNDERLAY, UPLINK_MAC, VTEP_MAC,
    },
};

pub(super) const ADDRESSES4: [Addr; 19] = [
    A.underlay,
    B.underlay,
    UNDERLAY,
    A.container,
    B.container,
    V4_OF_B,
    A.subnet,
    CONTAINER,
    OTHER,
    NEW,
    GATEWAY,
    SUBNET,
    BROADCAST,
    [0; 4],
    [0xff; 4],
    [127, 0, 0, 1],
    [224, 0, 0, 1],
    [172, 30, 0, 9],
    [8, 8, 8, 8],
];

pub(super) const ADDRESSES6: [Addr6; 28] = [
    B6,
    UNDERLAY6,
    CONTAINER6,
    OTHER6,
    NEW6,
    GATEWAY6,
    SUBNET6,
    OF_A,
    OF_B,
    // A host that is no peer, a subnet beside ours, and one beside a peer's.
    addr([0xfd00, 0x10, 0, 0, 0, 0, 0, 9]),
    addr([0xfd17, 0, 0, 1, 0, 0, 0, 2]),
    addr([0xfd28, 0, 0, 1, 0, 0, 0, 9]),
    addr([0x2001, 0, 0, 0, 0, 0, 0, 1]),
    // IPv4 addresses in IPv6's clothes: v4-mapped, v4-compatible, of NAT64, of 6to4.
    mapped(A.underlay),
    mapped(B.underlay),
    mapped(UNDERLAY),
    mapped(A.container),
    mapped(CONTAINER),
    mapped(GATEWAY),
    addr([0, 0, 0, 0, 0, 0, 0xac11, 2]),
    addr([0x64, 0xff9b, 0, 0, 0, 0, 0xac1b, 9]),
    addr([0x2002, 0xac1b, 9, 0, 0, 0, 0, 1]),
    [0; 16],
    addr([0, 0, 0, 0, 0, 0, 0, 1]),
    addr([0xfe80, 0, 0, 0, 0, 0, 0, 2]),
    addr([0xff02, 0, 0, 0, 0, 0, 0, 1]),
    addr([0xff02, 0, 0, 0, 0, 1, 0xff00, 1]),
    [0xff; 16],
];

/// ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
const fn mapped([a, b, c, d]: Addr) -> Addr6 {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

pub(super) const MACS: [[u8; 6]; 9] = [
    UPLINK_MAC,
    VTEP_MAC,
    GATEWAY_MAC,
    CONTAINER_MAC,
    OTHER_MAC,
    OVERLAY_NEIGHBOUR,
    [0xff; 6],
    [0x01, 0, 0x5e, 0, 0, 1],
    [0x33, 0x33, 0, 0, 0, 1],
];
