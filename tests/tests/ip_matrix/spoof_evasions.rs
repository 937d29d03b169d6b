//! Ways around the programs' look at a tunnel packet over IPv6: extension headers, fragments, and the tunnel device's
//! socket, which is open to whoever reaches the host. Valid packets of both versions flow meanwhile.

use std::net::{IpAddr, Ipv6Addr};

use harness::{
    Topology, Versions,
    account::{Account, assert_none},
    container::docker_mac,
    frame::{self, Ipv6, Tunnel},
    host::{BRIDGE, Host},
    traffic::{Frame, Injector, Sniffer},
};

use crate::{
    bed::{Probes, SOON, VERSIONS, Version},
    spoof_wire::{FORGED, Forgery, VALID, hosts, inner, vtep},
    wire::PORT,
};

const COUNT: usize = 20;

/// The first fragment ends behind the VXLAN header.
const FIRST: usize = 16;

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => panic!("{ip} is no IPv6 address"),
    }
}

/// With every shape that an outer packet can have, the fragments of each under an identification of its own.
fn shapes(plain: &Ipv6, id: &mut u32) -> [(&'static str, Vec<Ipv6>); 4] {
    let mut next = || {
        *id += 1;
        *id
    };
    let behind_options = plain.with_options();
    [
        ("behind options", vec![behind_options.clone()]),
        ("in one fragment", plain.in_fragments(next(), 0)),
        ("in two fragments", plain.in_fragments(next(), FIRST)),
        ("in two fragments, behind options", behind_options.in_fragments(next(), FIRST)),
    ]
}

/// The kernel puts fragments together, and the tunnel device judges what comes of them. What has other headers in front
/// of UDP is nothing that a peer sends: no program has seen what it is, so the device lets it not in.
#[test]
fn fragments_are_judged_as_a_whole_and_options_keep_out() {
    let topology = hosts(Versions::V6);
    let (h1, h3) = (topology.h(1), topology.h(3));
    let sniffers = [1, 2].map(|n| Sniffer::everywhere(&h1.c(n).ns).unwrap());
    let (probes, mut account) = (Probes::start(&topology), Account::of(h1));
    let injector = Injector::open(topology.wire.ns().unwrap(), "h1").unwrap();
    let (mut id, mut valid) = (0, 0);
    for version in VERSIONS {
        let good = Forgery::new(&topology, Version::V6, version, VALID);
        let mut bad = Forgery::new(&topology, Version::V6, version, FORGED);
        bad.inner(version.nobody(h3), version.ip(h1.c(1)));
        let mut send = |forgery: &Forgery, plain: &Ipv6, reason: &'static str| {
            send_in_all_shapes(&injector, &mut account, forgery, (plain, &mut id), reason)
        };
        for (forgery, in_fragments) in [(&good, ""), (&bad, "inner_source")] {
            let (src, dst) = (v6(forgery.src), v6(forgery.dst));
            let plain = [forgery.tunnel.ip_v6(src, dst), forgery.tunnel.checksummed_v6(src, dst)];
            valid += plain.iter().map(|plain| send(forgery, plain, in_fragments)).sum::<usize>();
        }
    }
    let arrived = |f: &Frame| !f.outgoing && f.contains(VALID);
    sniffers[0].await_count("valid fragments arrive", valid, SOON, arrived).unwrap();
    assert_eq!(sniffers[0].count(arrived), valid, "valid fragments arrive once");
    for (place, sniffer) in ["container 1", "container 2"].into_iter().zip(sniffers) {
        assert_none(place, sniffer.finish().unwrap(), |frame| frame.contains(FORGED));
    }
    probes.clean();
    account.close();
}

/// Each shape of an outer packet, dropped for this reason, or for none, where the kernel puts it together. Returns how
/// many are to arrive.
fn send_in_all_shapes(
    injector: &Injector,
    account: &mut Account<'_>,
    forgery: &Forgery,
    (plain, id): (&Ipv6, &mut u32),
    in_fragments: &'static str,
) -> usize {
    let mut arrive = 0;
    for number in 0..4 {
        let mut name = "";
        for _ in 0..COUNT {
            let (shape, packets) = shapes(plain, id)[number].clone();
            name = shape;
            for ip in packets {
                let Tunnel { eth_dst, eth_src, .. } = forgery.tunnel;
                injector.send(&frame::eth(eth_dst, eth_src, frame::IPV6, &ip.bytes())).unwrap();
            }
        }
        let reason = if name.contains("options") { "not_from_uplink" } else { in_fragments };
        let expected = [(reason, COUNT as u64)];
        let case = format!("{name}, to be {in_fragments:?} in fragments");
        account.dropped(&case, if reason.is_empty() { &[] } else { &expected });
        arrive += if reason.is_empty() { COUNT } else { 0 };
    }
    arrive
}

/// UDP with a tunnel packet in it, from the second container of host 1, as a third host would send it to reach the second
/// container of host `to`.
fn disguised(topology: &Topology, to: usize, src: Ipv6Addr, dst: Ipv6Addr) -> Ipv6 {
    let mut forgery = Forgery::new(topology, Version::V6, Version::V6, FORGED);
    forgery.tunnel.inner_dst = vtep(topology, to);
    forgery.tunnel.inner_src = vtep(topology, 3);
    let from = Version::V6.nobody(topology.h(3));
    forgery.inner(from, Version::V6.ip(topology.h(to).c(2)));
    forgery.tunnel.checksummed_v6(src, dst)
}

fn from_container(h1: &Host, ip: &Ipv6) -> Vec<u8> {
    frame::eth(h1.mac(BRIDGE).unwrap(), frame::mac(&docker_mac(h1.c(2).ip)), frame::IPV6, &ip.bytes())
}

/// A frame that is what was inside, and not a tunnel packet or an ICMP error around it.
fn is_unpacked(frame: &Frame, inner: &[u8]) -> bool {
    frame.bytes.get(14 + 40..).is_some_and(|behind| behind.starts_with(inner))
}

#[test]
fn a_tunnel_packet_to_a_hosts_own_address_is_not_unpacked() {
    let topology = hosts(Versions::V6);
    let (h1, h2, h3) = (topology.h(1), topology.h(2), topology.h(3));
    let own = h1.c(2).ip_v6.unwrap();
    let seconds = [h1, h2].map(|host| Sniffer::everywhere(&host.c(2).ns).unwrap());
    let (probes, mut accounts) = (Probes::start(&topology), [h1, h2].map(Account::of));
    let injector = Injector::open(&h1.c(2).ns, "eth0").unwrap();
    let mut send = |to: usize, src: Ipv6Addr, dst: Ipv6Addr, at: usize, reason: &str| {
        let frame = from_container(h1, &disguised(&topology, to, src, dst));
        accounts[at - 1].send(&format!("{src} to {dst}"), &injector, &vec![frame; COUNT], reason);
    };
    let gateways = [h1, h2].map(|host| host.bridge.ip_v6.unwrap());
    // As itself, to the remote host's bridge and to its own host's addresses.
    send(2, own, gateways[1], 2, "not_from_uplink");
    send(1, own, gateways[0], 1, "not_from_uplink");
    send(1, own, h1.ip_v6, 1, "not_from_uplink");
    // Those of the link, made of the MAC addresses (RFC 4291 appendix A).
    let [container, bridge] = ["fe80::42:acff:fe11:3", "fe80::42:acff:fe11:1"].map(|ip| ip.parse().unwrap());
    send(1, container, bridge, 1, "not_from_uplink");
    // In a peer's name, to its own host: IPv6 knows no reverse path filter.
    send(1, h3.ip_v6, gateways[0], 1, "not_from_uplink");
    send(1, h3.ip_v6, h1.ip_v6, 1, "not_from_uplink");
    // In a peer's name, to a remote host's bridge: no farther than its port.
    send(2, h3.ip_v6, gateways[1], 1, "source_spoofed");
    let (_, packet) = inner(Version::V6.nobody(h3), Version::V6.ip(h1.c(2)), FORGED);
    for (place, sniffer) in ["host 1", "host 2"].into_iter().zip(seconds) {
        // The ports of the inner UDP header are the same to either.
        assert_none(place, sniffer.finish().unwrap(), |f| !f.outgoing && is_unpacked(f, &packet[40..44]));
    }
    probes.clean();
    accounts.into_iter().for_each(Account::close);
}

fn masquerade(h1: &Host) {
    let subnet = h1.bridge.subnet_v6().unwrap();
    let masquerade =
        ["-w", "-t", "nat", "-A", "POSTROUTING", "-s", &subnet, "!", "-o", BRIDGE, "-j", "MASQUERADE"];
    h1.ns.cmd("ip6tables").args(masquerade).check().unwrap();
}

/// Docker can masquerade IPv6 (`--ip6tables`): what a container sends to other networks leaves with the host's own
/// address, a peer's.
#[test]
fn a_tunnel_packet_in_the_hosts_own_name_does_not_leave() {
    let topology = hosts(Versions::V6);
    let (h1, h2) = (topology.h(1), topology.h(2));
    masquerade(h1);
    // From the host's subnet, for that is what its peers believe of it.
    let mut forgery = Forgery::new(&topology, Version::V6, Version::V6, FORGED);
    forgery.tunnel.inner_dst = vtep(&topology, 2);
    forgery.tunnel.inner_src = vtep(&topology, 1);
    forgery.inner(Version::V6.ip(h1.c(1)), Version::V6.ip(h2.c(2)));
    let plain = forgery.tunnel.checksummed_v6(h1.c(2).ip_v6.unwrap(), h2.ip_v6);
    let second = Sniffer::everywhere(&h2.c(2).ns).unwrap();
    let (probes, mut accounts) = (Probes::start(&topology), [h1, h2].map(Account::of));
    let injector = Injector::open(&h1.c(2).ns, "eth0").unwrap();
    let send = |ip: &Ipv6| injector.send(&from_container(h1, ip)).unwrap();

    (0..COUNT).for_each(|_| send(&plain));
    accounts[0].dropped("as it is", &[("tunnel_forged", COUNT as u64)]);
    let mut id = 0;
    for number in 0..4 {
        let mut name = "";
        for _ in 0..COUNT {
            let (shape, packets) = shapes(&plain, &mut id)[number].clone();
            name = shape;
            packets.iter().for_each(send);
        }
        // Of two fragments the first says what it is.
        accounts[0].dropped(name, &[("tunnel_forged", COUNT as u64)]);
    }
    // Everything else of its does leave, in that name.
    let outside = Sniffer::on(&h2.ns, "eth0").unwrap();
    let other = Ipv6::udp((h1.c(2).ip_v6.unwrap(), 50_000), (h2.ip_v6, PORT + 1), VALID);
    send(&other);
    let named =
        |f: &Frame| !f.outgoing && f.contains(VALID) && f.bytes.get(22..38) == Some(&h1.ip_v6.octets()[..]);
    outside.await_count("what is no tunnel packet leaves", 1, SOON, named).unwrap();
    assert_none("container 2 of host 2", second.finish().unwrap(), |frame| frame.contains(FORGED));
    probes.clean();
    accounts.into_iter().for_each(Account::close);
}
