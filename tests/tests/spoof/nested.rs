//! Tunnels in the tunnel: what containers send each other in VXLAN is theirs, carried as the UDP it is and never
//! decapsulated by a host.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use harness::{
    Topology,
    container::{Container, docker_mac},
    frame::{self, Ipv4, Tunnel},
    host::Host,
    traffic::{DatagramSocket, Frame, Injector, Sniffer, iperf, ping},
};

use crate::bed::{
    self, Account, FORGED, PORT, VNI, assert_none, clean, gateway_mac, inner, nobody, probe, tunnel, vtep,
};

const COUNT: usize = 100;

/// A tunnel packet for host `to`, as a third host would send it to reach its second container, in a frame of the
/// second container of host 1.
fn disguised(topology: &Topology, to: &Host, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let h1 = topology.h(1);
    let outer = Tunnel {
        eth_dst: gateway_mac(h1),
        eth_src: frame::mac(&docker_mac(h1.c(2).ip)),
        src,
        dst,
        inner_dst: vtep(to),
        inner_src: vtep(topology.h(3)),
        inner: inner(nobody(topology.h(3)), to.c(2).ip, FORGED).bytes(),
        ..tunnel(topology, FORGED)
    };
    outer.bytes()
}

/// A frame that is what was inside, and not a tunnel packet or an ICMP error around it.
fn unpacked(frame: &Frame) -> bool {
    let ports = [bed::PORTS[0].to_be_bytes(), bed::PORTS[1].to_be_bytes()].concat();
    frame.bytes.get(34..38) == Some(&ports[..]) && frame.contains(FORGED)
}

/// Nobody unpacks what `send` sends: the second containers see nothing of it, and whoever it is sent to sees it as
/// it was sent.
fn watched(topology: &Topology, send: impl FnOnce(&Injector)) -> Vec<Frame> {
    let (h1, h2) = (topology.h(1), topology.h(2));
    let probe = probe(topology);
    let seconds = [h1, h2].map(|host| Sniffer::everywhere(&host.c(2).ns).unwrap());
    let first = Sniffer::everywhere(&h2.c(1).ns).unwrap();
    send(&Injector::open(&h1.c(2).ns, "eth0").unwrap());
    clean(probe);
    for sniffer in seconds {
        assert_none("a second container", sniffer.finish().unwrap(), unpacked);
    }
    first.finish().unwrap().into_iter().filter(|f| !f.outgoing && f.contains(FORGED)).collect()
}

#[test]
fn a_tunnel_packet_to_a_remote_container_is_plain_udp() {
    let topology = bed::hosts(3);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let accounts = [h1, h2].map(Account::of);
    let ip = h2.c(1).ip;
    let socket = h2.c(1).ns.run(move || UdpSocket::bind((ip, PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(bed::SOON)).unwrap();
    let sent = disguised(&topology, h2, h1.c(2).ip, ip);
    let arrived = watched(&topology, |injector| {
        for _ in 0..COUNT {
            injector.send(&sent).unwrap();
        }
    });
    assert_eq!(arrived.len(), COUNT, "each of them once");
    let mut buffer = [0; 2048];
    for _ in 0..COUNT {
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&sent[42..], h1.c(2).ip.into()), "as it was sent");
    }
    accounts.into_iter().for_each(Account::close);
}

/// The tunnel device's socket is open to whoever reaches the host: to containers too.
#[test]
fn a_tunnel_packet_to_a_hosts_own_address_is_not_unpacked() {
    let topology = bed::hosts(3);
    let (h1, h2, h3) = (topology.h(1), topology.h(2), topology.h(3));
    let own = h1.c(2).ip;
    let mut accounts = [h1, h2].map(Account::of);
    let arrived = watched(&topology, |injector| {
        let mut send = |to: &Host, src, dst, at: usize, reason: &str| {
            let frame = disguised(&topology, to, src, dst);
            accounts[at].send(&format!("{src} to {dst}"), injector, &vec![frame; COUNT], reason);
        };
        // As itself, to the remote host's bridge and to its own host's addresses.
        send(h2, own, h2.bridge.ip, 1, "not_from_uplink");
        send(h1, own, h1.bridge.ip, 0, "not_from_uplink");
        send(h1, own, h1.ip, 0, "not_from_uplink");
        // In a peer's name, to its own host: loose reverse path filtering lets it by, and no program looks at
        // what a container sends to its own host.
        send(h1, h3.ip, h1.bridge.ip, 0, "not_from_uplink");
        send(h1, h3.ip, h1.ip, 0, "not_from_uplink");
        // In a peer's name, to a remote host's bridge.
        send(h2, h3.ip, h2.bridge.ip, 0, "source_spoofed");
    });
    assert_eq!(arrived, []);
    accounts.into_iter().for_each(Account::close);
}

/// A packet as it is, with an IP option, and in two fragments, the first of which ends behind the VXLAN header.
fn evasions(plain: &Ipv4, id: u16) -> Vec<Ipv4> {
    let option = Ipv4 { options: vec![1; 4], ..plain.clone() };
    let (first, second) = plain.payload.split_at(24);
    let part = |flags_fragment, payload: &[u8]| Ipv4 {
        id,
        flags_fragment,
        payload: payload.to_vec(),
        ..plain.clone()
    };
    vec![plain.clone(), option, part(0x2000, first), part(24 / 8, second)]
}

/// Docker masquerades what containers send to other networks: it leaves with the host's own address, a peer's.
#[test]
fn a_tunnel_packet_in_the_hosts_own_name_does_not_leave() {
    let topology = bed::hosts(3);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let subnet = h1.bridge.subnet();
    let masquerade =
        ["-t", "nat", "-A", "POSTROUTING", "-s", &subnet, "!", "-o", "docker0", "-j", "MASQUERADE"];
    h1.ns.cmd("iptables").args(masquerade).check().unwrap();
    // From the host's subnet, for that is what its peers believe of it.
    let forged = Tunnel {
        inner_dst: vtep(h2),
        inner_src: vtep(h1),
        inner: inner(h1.c(1).ip, h2.c(2).ip, FORGED).bytes(),
        ..tunnel(&topology, FORGED)
    };
    let (from, to) = (SocketAddrV4::new(h1.c(2).ip, 50_000), SocketAddrV4::new(h2.ip, PORT));
    let plain = Ipv4::udp(from, to, &forged.payload());
    let frame = |ip: &Ipv4| {
        frame::eth(gateway_mac(h1), frame::mac(&docker_mac(h1.c(2).ip)), frame::IPV4, &ip.bytes())
    };
    // Everything else of its may leave, and in that name.
    let (address, stranger) = (h2.ip, DatagramSocket::bind(&h1.c(2).ns, h1.c(2).ip, 0).unwrap());
    let outside = DatagramSocket::bind(&h2.ns, address, PORT + 1).unwrap();
    let dropped = || h1.overlayd().drops().unwrap();
    assert_eq!(dropped(), BTreeMap::new());
    let arrived = watched(&topology, |injector| {
        for id in 0..COUNT as u16 {
            evasions(&plain, id).iter().for_each(|ip| injector.send(&frame(ip)).unwrap());
            stranger.send(outside.address(), &forged.payload()).unwrap();
            let heard = outside.receive(bed::SOON).unwrap().unwrap();
            assert_eq!((heard.from.ip(), heard.payload), (&h1.ip, forged.payload()));
        }
    });
    assert_eq!(arrived, []);
    // Of the two fragments the first says what it is.
    assert_eq!(dropped(), BTreeMap::from([("tunnel_forged".to_owned(), 3 * COUNT as u64)]));
}

/// A vxlan device inside a container, whose peer is a container of the other host.
fn device(container: &Container, peer: &Container, ip: Ipv4Addr) {
    container
        .ns
        .ip_batch(&[
            format!(
                "link add vx0 mtu 1400 type vxlan id {VNI} local {} remote {} dstport {PORT} dev eth0",
                container.ip, peer.ip
            ),
            format!("addr add {ip}/24 dev vx0"),
            "link set vx0 up".to_owned(),
        ])
        .unwrap();
}

/// The kernel marks what its own tunnels have encapsulated, and refuses the programs to do so again.
#[test]
fn a_containers_own_vxlan_device_works_through_the_overlay() {
    let topology = bed::hosts(2);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let (a, b) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
    device(h1.c(2), h2.c(2), a);
    device(h2.c(2), h1.c(2), b);
    let (probe, accounts) = (probe(&topology), [h1, h2].map(Account::of));
    for (from, to) in [(h1, b), (h2, a)] {
        let ping = ping(&from.c(2).ns, to, 3).unwrap();
        assert!(ping.clean(), "{}", ping.text);
    }
    let tcp = iperf::tcp(1).bidirectional().run(&h1.c(2).ns, &h2.c(2).ns, b).unwrap();
    assert!(tcp.flow.bits_per_second > 1e6 && tcp.back.unwrap().bits_per_second > 1e6, "{tcp:?}");
    clean(probe);
    accounts.into_iter().for_each(Account::close);
}
