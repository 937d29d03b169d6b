//! What `uplink_ingress` leaves to the kernel, and what `tunnel_ingress` takes from it. A test run cannot give a
//! packet the metadata of a tunnel device: what `tunnel_ingress` accepts is shown with real devices.

use overlay_common::{
    DropReason,
    map::{
        TunnelDevice,
        program::{TUNNEL_INGRESS, UPLINK_INGRESS},
        tunnel_device_flag::SHARED,
    },
};
use overlay_user::datapath::map::Maps;

use crate::{
    case::{Case, run_table},
    packet::{IPV4, Ipv4, Vxlan, eth},
    world::{
        A, CONTAINER, FROM_UPLINK_MARK, LISTEN_PORT, LOCAL_VNI, PORT_NUMBER, TO_HOST_MARK, VTEP_MAC, dev,
        from_peer,
    },
};

fn packet() -> Vxlan {
    from_peer(&A, Ipv4::udp(A.container, CONTAINER).bytes())
}

fn case(name: &str, packet: &Vxlan) -> Case {
    Case::new(name, UPLINK_INGRESS, dev::UPLINK, packet.bytes())
}

fn ours(maps: &mut Maps) {
    maps.put_tunnel_device(PORT_NUMBER.into(), TunnelDevice { ifindex: dev::STRAY, flags: 0 }).unwrap();
}

fn shared(maps: &mut Maps) {
    maps.put_tunnel_device(PORT_NUMBER.into(), TunnelDevice { ifindex: 0, flags: SHARED }).unwrap();
}

#[test]
fn what_the_device_shall_take_is_marked() {
    let first = Vxlan { flags_fragment: 0x2000, ..packet() };
    let options = Vxlan { ip_options: vec![1; 8], ..packet() };
    run_table(&[
        case("a first fragment", &first).with(ours).mark_out(FROM_UPLINK_MARK),
        case("IP options", &options).with(ours).mark_out(FROM_UPLINK_MARK),
        case("an aggregate that the kernel does not shrink", &packet())
            .gso(20, 3)
            .with(ours)
            .mark_out(FROM_UPLINK_MARK),
        case("a first fragment, without device", &first),
        case("IP options, without device", &options),
        // Nothing in it tells whose it is; the reassembled packet has the first fragment's mark.
        case("a later fragment", &Vxlan { flags_fragment: 0x0010, ..packet() }).with(ours),
        case("a first fragment on another port", &Vxlan { dst_port: LISTEN_PORT, ..first.clone() })
            .with(ours),
        case("IP options on another port", &Vxlan { dst_port: LISTEN_PORT, ..options.clone() }).with(ours),
        case("options for another host", &Vxlan { dst: [10, 0, 0, 4], ..options.clone() }).with(ours),
    ]);
}

#[test]
fn first_fragments_are_refused_by_name() {
    let first = || Vxlan { flags_fragment: 0x2000, ..packet() };
    let drops = |name: &str, packet: &Vxlan, reason| case(name, packet).with(ours).drops(reason);
    run_table(&[
        drops("a stranger's", &Vxlan { src: [10, 0, 0, 99], ..first() }, DropReason::UnknownPeer),
        drops("another VNI", &Vxlan { vni: 9, ..first() }, DropReason::WrongVni),
        drops("another VXLAN", &Vxlan { flags: 0x0c, ..first() }, DropReason::VxlanFlags),
        // So short that the VXLAN header is in the next one.
        Case::new("eight bytes", UPLINK_INGRESS, dev::UPLINK, first().bytes()[..42].to_vec())
            .with(ours)
            .mark_out(FROM_UPLINK_MARK),
    ]);
}

#[test]
fn vnis_of_the_ports_other_owner_are_left_to_it() {
    let drops = |name: &str, packet: &Vxlan, reason| case(name, packet).with(shared).drops(reason);
    let passes = |name: &str, packet: &Vxlan| case(name, packet).with(shared);
    let stranger = Vxlan { src: [10, 0, 0, 99], ..packet() };
    run_table(&[
        passes("a peer's other VNI", &Vxlan { vni: 9, ..packet() }),
        passes("a stranger's VNI", &Vxlan { vni: 9, ..stranger.clone() }),
        passes("flags of its", &Vxlan { flags: 0x88, ..packet() }),
        passes("its first fragment", &Vxlan { vni: 9, flags_fragment: 0x2000, ..stranger.clone() }),
        drops("our VNI from a stranger", &Vxlan { vni: LOCAL_VNI, ..stranger }, DropReason::UnknownPeer),
        drops(
            "our VNI from a peer with another",
            &Vxlan { vni: LOCAL_VNI, ..packet() },
            DropReason::WrongVni,
        ),
        drops("an aggregate that the kernel does not shrink", &packet(), DropReason::DecapFailed).gso(20, 3),
    ]);
}

#[test]
fn the_device_takes_nothing_that_did_not_come_in_on_the_uplink() {
    let inner = eth(VTEP_MAC, A.vtep_mac, IPV4, &Ipv4::udp(A.container, CONTAINER).bytes());
    let refused = |name: &str| {
        Case::new(name, TUNNEL_INGRESS, dev::STRAY, inner.clone()).drops(DropReason::NotFromUplink)
    };
    run_table(&[
        refused("no mark"),
        refused("another mark").mark(1),
        refused("the other mark of ours").mark(TO_HOST_MARK),
        refused("the mark without a tunnel's metadata").mark(FROM_UPLINK_MARK),
    ]);
}
