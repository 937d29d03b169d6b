//! What must hold over uplinks of each kind: reasoned out, and written down before it was run.
//!
//! | kind | made of | its MTU | overlay MTU |
//! |---|---|---|---|
//! | VLAN | VLAN 7 on a veth on the wire | 1500 | 1450 |
//! | bond | two veths on the wire, active-backup | 1500 | 1450 |
//! | WireGuard | `wireguard` over UDP over the wire | 1420 (its own default) | 1370 |
//! | tun | two tun devices, whose packets a program carries from one to the other | 1500 | 1450 |
//! | network card | a driver's device on an emulated wire | 1500 | 1450 |
//!
//! Over each of them:
//!
//! | traffic | outcome |
//! |---|---|
//! | ping, UDP at a steady rate, TCP with its bytes compared, both ways | all arrives; overlayd counts each datagram; the bridges carry none of it |
//! | ping with DF of the overlay MTU | answered |
//! | one byte more | the gateway says `mtu = ` the overlay MTU |
//! | ping and UDP of 3000 bytes without DF | arrive whole |
//! | forged tunnel packets: [`FORGED`] | each is a drop by its name, and none is delivered; a probe meanwhile loses nothing |
//! | inner packets without a tunnel | not delivered |
//! | the daemon restarted, and killed and started | nothing lost; as many programs as before |
//! | detach | no program left |
//!
//! The last four not over network cards whose packets tc decapsulates.
//!
//! And besides: what comes untagged to the VLAN's parent, where no reverse path filtering takes it, ends in the tunnel
//! device's guard, and what comes in another VLAN nowhere; of a bond whose active leg loses its carrier, only what was sent until the other leg carries is lost.

use crate::kind::Kind;

/// One kind of uplink, with how the daemon is told to decapsulate on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// `--decap`.
    pub(crate) mode: &'static str,
    /// The largest inner packet.
    pub(crate) mtu: u32,
    /// Where tunnel packets are decapsulated once some have come, and why, as status says it.
    pub(crate) decap: (&'static str, &'static str),
}

const fn auto(name: &'static str, kind: Kind, mtu: u32, decap: (&'static str, &'static str)) -> Case {
    Case { name, kind, mode: "auto", mtu, decap }
}

#[rustfmt::skip]
pub(crate) const CASES: [Case; 9] = [
    auto("vlan", Kind::Vlan, 1450, ("tc", "eth0 is a vlan, not a physical interface")),
    auto("bond", Kind::Bond, 1450, ("tc", "eth0 is a bond, not a physical interface")),
    auto("wireguard", Kind::WireGuard, 1370, ("tc", "eth0 is a wireguard, not a physical interface")),
    auto("tun", Kind::Tun, 1450, ("tc", "eth0 is a tun, not a physical interface")),
    auto("virtio_net", Kind::Nic("virtio_net"), 1450,
        ("tc", "eth0 is a hypervisor's (virtio_net), and XDP on it would turn offloads off")),
    auto("vmxnet3", Kind::Nic("vmxnet3"), 1450,
        ("tc", "eth0 is a hypervisor's (vmxnet3), and XDP on it would turn offloads off")),
    auto("e1000e", Kind::Nic("e1000e"), 1450, ("tc", "the driver of eth0 (e1000e) has no native XDP")),
    auto("igb", Kind::Nic("igb"), 1450, ("xdp", "eth0 is a physical interface (igb)")),
    Case { mode: "xdp", ..auto("virtio_net_xdp", Kind::Nic("virtio_net"), 1450, ("xdp", "asked for by --decap xdp")) },
];

/// Forged tunnel packets, by what is wrong with them; the drop reason, none for what is not ours to judge.
#[rustfmt::skip]
pub(crate) const FORGED: [(&str, &str); 16] = [
    ("a stranger", "unknown_peer"),
    ("our own address", "unknown_peer"),
    ("another VNI", "wrong_vni"),
    ("flags", "vxlan_flags"),
    ("a reserved byte", "vxlan_flags"),
    ("another VTEP", "inner_destination_mac"),
    ("no IP inside", "inner_protocol"),
    ("a length too large", "inner_malformed"),
    ("congestion that nobody hears", "ecn_ce_not_ect"),
    ("another host's address", ""),
    ("another port", ""),
    ("inner source of nobody", "inner_source"),
    ("inner source of the receiver's", "inner_source"),
    ("inner source of the underlay", "inner_source"),
    ("inner source loopback", "inner_martian"),
    ("inner source multicast", "inner_martian"),
];
