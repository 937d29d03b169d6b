//! The programs' main paths: which packet takes each, and what must come of it.

use overlay_bed::{
    bed::has_decap_across,
    ipv6::{
        packet::Ipv6,
        world::{CONTAINER6, GATEWAY6, NEW6, OF_A, OF_B, V4_OF_B, Via, from_container6, from_host6},
    },
    kinds_on_wire::incoming,
    packet::{IPV4, Ipv4, TCP, Vxlan, eth, pattern, tcp},
    world::{
        A, CONTAINER, CONTAINER_MAC, GATEWAY, NEW, OTHER, OTHER_MAC, UNDERLAY, UPLINK_MAC, dev,
        from_container, from_host, from_peer,
    },
};
use overlay_common::map::program::{
    BRIDGE_EGRESS, TUNNEL_INGRESS, UPLINK_DECAP, UPLINK_INGRESS, UPLINK_KINDS, UPLINK_L3, WORKLOAD_EGRESS,
};
use overlay_common::{Encap, handover::Record};
use overlay_user::datapath::attach::has_tcx;

use super::handle::Input;

/// `TCX_NEXT`.
const NEXT: i32 = -1;
/// `TCX_REDIRECT`.
const REDIRECT: i32 = 7;
/// `XDP_PASS`.
const PASS: i32 = 2;

/// What `uplink_decap` puts in front of a packet for `uplink_ingress`, and a test run counts to the packet.
const RECORD: isize = size_of::<Record>().cast_signed();

/// What a tunnel adds over IPv4, and over IPv6.
const OVER_V4: isize = 50;
const OVER_V6: isize = 70;

/// A way through a program.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) program: &'static str,
    pub(super) name: &'static str,
    pub(super) how: How,
}

/// How a packet comes to take it.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// By a test run, of which this must come: the verdict, and the bytes by which the packet grows.
    TestRun { input: Input, verdict: i32, growth: isize },
    /// By a tap, where it is delivered: from its IP header on, with the UDP port.
    Tap(fn(u16) -> Vec<u8>),
}

fn tc(program: &'static str, name: &'static str, ifindex: u32, packet: Vec<u8>) -> Path {
    let input = Input::skb(ifindex, packet);
    Path { program, name, how: How::TestRun { input, verdict: NEXT, growth: 0 } }
}

fn xdp(name: &'static str, packet: Vec<u8>) -> Path {
    let input = Input::xdp(packet);
    Path { program: UPLINK_DECAP, name, how: How::TestRun { input, verdict: PASS, growth: 0 } }
}

impl Path {
    fn redirects(self, bytes: isize) -> Self {
        self.ends(Some(REDIRECT), bytes)
    }

    fn strips(self, bytes: isize) -> Self {
        self.ends(None, RECORD - bytes)
    }

    fn ends(mut self, as_verdict: Option<i32>, by: isize) -> Self {
        if let How::TestRun { verdict, growth, .. } = &mut self.how {
            (*verdict, *growth) = (as_verdict.unwrap_or(*verdict), by);
        }
        self
    }
}

/// All of them that this kernel can do.
pub(super) fn all() -> Vec<Path> {
    let mut all = workload_egress();
    all.extend(bridge_egress());
    all.extend(uplink_ingress());
    all.extend(uplink_kinds());
    all.extend(uplink_decap());
    if has_tcx() {
        all.extend(taps());
    }
    all
}

/// Whether some of these paths are taken by taps.
pub(super) fn need_taps(paths: &[Path]) -> bool {
    paths.iter().any(|path| matches!(path.how, How::Tap(_)))
}

fn workload_egress() -> Vec<Path> {
    let path = |name, packet| tc(WORKLOAD_EGRESS, name, dev::PORT, packet);
    let v4 = |dst| from_container(&Ipv4::udp(CONTAINER, dst));
    let v6 = |dst| from_container6(&Ipv6::udp(CONTAINER6, dst));
    let segment = Ipv4 {
        protocol: TCP,
        payload: tcp(1111, 2222, 20, &pattern(1000)),
        ..Ipv4::udp(CONTAINER, A.container)
    };
    let neighbour = eth(OTHER_MAC, CONTAINER_MAC, IPV4, &Ipv4::udp(CONTAINER, OTHER).bytes());
    vec![
        tc(WORKLOAD_EGRESS, "interface of nobody", dev::STRAY, v4(A.container)),
        path("IPv4 to a peer", v4(A.container)).redirects(OVER_V4),
        path("IPv4 to a peer, TCP, 1040 bytes", from_container(&segment)).redirects(OVER_V4),
        path("IPv4 to a peer over IPv6", v4(V4_OF_B)).redirects(OVER_V6),
        path("IPv6 to a peer over IPv4", v6(OF_A)).redirects(OVER_V4),
        path("IPv6 to a peer over IPv6", v6(OF_B)).redirects(OVER_V6),
        path("IPv4, no route", v4([8, 8, 8, 8])),
        path("IPv6, no route", v6([0x20; 16])),
        path("IPv4 to a container of the bridge", neighbour).redirects(0),
    ]
}

fn bridge_egress() -> Vec<Path> {
    let path = |name, packet| tc(BRIDGE_EGRESS, name, dev::BRIDGE, packet);
    let to_container = eth(CONTAINER_MAC, [2, 0, 0, 0, 0, 1], IPV4, &Ipv4::udp(GATEWAY, CONTAINER).bytes());
    vec![
        path("IPv4 to a peer", from_host(&Ipv4::udp(GATEWAY, A.container))).redirects(OVER_V4),
        path("IPv6 to a peer over IPv4", from_host6(&Ipv6::udp(GATEWAY6, OF_A))).redirects(OVER_V4),
        path("IPv6 to a peer over IPv6", from_host6(&Ipv6::udp(GATEWAY6, OF_B))).redirects(OVER_V6),
        path("IPv4 to a container", to_container),
    ]
}

fn tunnel_v4(dst: [u8; 4]) -> Vec<u8> {
    from_peer(&A, Ipv4::udp(A.container, dst).bytes()).bytes()
}

/// What is not for the overlay: a TCP segment to this host.
fn foreign() -> Vec<u8> {
    let ip =
        Ipv4 { protocol: TCP, payload: tcp(1, 2, 20, &pattern(64)), ..Ipv4::udp([10, 0, 0, 9], UNDERLAY) };
    eth(UPLINK_MAC, [0x02, 0, 0, 0, 0, 0x20], IPV4, &ip.bytes())
}

fn uplink_ingress() -> Vec<Path> {
    let path = |name, packet| tc(UPLINK_INGRESS, name, dev::UPLINK, packet);
    let v6 = |via: Via, src, dst| via.incoming(&Ipv6::udp(src, dst).bytes());
    let mut paths = vec![
        path("not the overlay's", foreign()),
        path("IPv4 to a container", tunnel_v4(CONTAINER)).redirects(-OVER_V4),
        path("IPv4 to an unknown endpoint", tunnel_v4(NEW)).redirects(-OVER_V4),
        path("IPv4 to this host", tunnel_v4(GATEWAY)).redirects(-OVER_V4),
        path("IPv6 over IPv6 to a container", v6(Via::V6OverV6, OF_B, CONTAINER6)).redirects(-OVER_V6),
        path("IPv6 over IPv6 to an unknown endpoint", v6(Via::V6OverV6, OF_B, NEW6)).redirects(-OVER_V6),
        path("IPv6 over IPv6 to this host", v6(Via::V6OverV6, OF_B, GATEWAY6)).redirects(-OVER_V6),
    ];
    if has_decap_across() {
        let v4_over_v6 = Via::V4OverV6.incoming(&Ipv4::udp(V4_OF_B, CONTAINER).bytes());
        paths.push(path("IPv4 over IPv6 to a container", v4_over_v6).redirects(-OVER_V6));
        let v6_over_v4 = v6(Via::V6OverV4, OF_A, CONTAINER6);
        paths.push(path("IPv6 over IPv4 to a container", v6_over_v4).redirects(-OVER_V4));
    }
    paths
}

fn uplink_kinds() -> Vec<Path> {
    let path = |name, packet| tc(UPLINK_KINDS, name, dev::UPLINK, packet);
    let to_container = Ipv4::udp(A.container, CONTAINER).bytes();
    let of = |name, encap, over: isize| path(name, incoming(&A, encap, None, &to_container)).redirects(-over);
    vec![
        path("not the overlay's", foreign()),
        of("Geneve to a container", Encap::Geneve, 50),
        of("GRE to a container", Encap::Gre, 38),
        of("GRE without Ethernet to a container", Encap::GreL3, 24),
        of("IP in IP to a container", Encap::Ipip, 20),
    ]
}

fn uplink_decap() -> Vec<Path> {
    let v6 = Via::V6OverV6.incoming(&Ipv6::udp(OF_B, CONTAINER6).bytes());
    vec![
        xdp("not the overlay's", foreign()),
        xdp("IPv4 to a container", tunnel_v4(CONTAINER)).strips(OVER_V4),
        xdp("IPv6 over IPv6 to a container", v6).strips(OVER_V6),
    ]
}

/// A tunnel packet around IPv4, without its Ethernet header.
fn bare(port: u16, options: usize) -> Vec<u8> {
    let inner = Ipv4::udp(A.container, CONTAINER).bytes();
    let packet = Vxlan { dst_port: port, ip_options: vec![1; options], ..from_peer(&A, inner) };
    packet.bytes()[14..].to_vec()
}

/// What only a tap shows. Outer headers with options are the kernel's to take off.
fn taps() -> Vec<Path> {
    let path = |program, name, packet| Path { program, name, how: How::Tap(packet) };
    vec![
        path(UPLINK_L3, "IPv4 to a container", |port| bare(port, 0)),
        path(TUNNEL_INGRESS, "IPv4 to a container", |port| bare(port, 4)),
    ]
}
