//! Two hosts, the first of them ours, and a socket in a container of each.

use std::{fs, net::Ipv4Addr, time::Duration};

use harness::{
    Topology, eventually,
    frame::{self, Ipv4, Mac, Tunnel},
    host::{Host, UPLINK},
    kernel_vtep::{KernelVtep, Remote},
    topology::StoreKind,
    traffic::{Datagram, DatagramSocket, Frame, Injector, ping},
};

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) const VNI: u32 = 1;
pub(crate) const PORT: u16 = 4789;

/// Who the second host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// One with overlayd.
    Ours,
    /// One with the kernel's device, as flanneld sets it up.
    Kernel,
}

/// Two hosts that reach each other.
pub(crate) struct Bed {
    pub(crate) topology: Topology,
    pub(crate) peer: Peer,
    /// The VTEPs' MAC addresses.
    vteps: [Mac; 2],
}

fn vtep(host: &Host) -> String {
    let status = host.overlayd().ctl(&["status", "-o", "json"]).unwrap();
    status["vtep_mac"].as_str().unwrap().to_owned()
}

impl Bed {
    /// Hosts with two containers each, all of which are known.
    pub(crate) fn up(peer: Peer) -> Self {
        let builder = Topology::builder().containers(2);
        let (topology, vteps) = match peer {
            Peer::Ours => {
                let topology = builder.up().unwrap();
                let vteps = [1, 2].map(|n| vtep(topology.h(n)));
                (topology, vteps)
            }
            Peer::Kernel => {
                let builder = builder.store(StoreKind::Peers).without_overlayd().container_mtu(1450);
                kernel(builder.up().unwrap())
            }
        };
        let bed = Self { topology, peer, vteps: vteps.map(|mac| frame::mac(&mac)) };
        for number in [1, 2] {
            let (near, far) = (bed.h(1).c(number), bed.h(2).c(number));
            let ping = ping(&near.ns, far.ip, 2).unwrap();
            assert!(ping.clean(), "{}", ping.text);
            eventually("the endpoint is known", SOON, || bed.h(1).knows(number)).unwrap();
        }
        bed
    }

    pub(crate) fn h(&self, number: usize) -> &Host {
        self.topology.h(number)
    }

    /// Hosts that have overlayd.
    pub(crate) fn ours(&self) -> usize {
        if self.peer == Peer::Ours { 2 } else { 1 }
    }

    /// Sockets in the first containers of both hosts.
    pub(crate) fn sockets(&self) -> [DatagramSocket; 2] {
        [1, 2].map(|n| DatagramSocket::bind(&self.h(n).c(1).ns, self.h(n).c(1).ip, 0).unwrap())
    }

    /// Where frames come to a host from.
    pub(crate) fn wire(&self, host: usize) -> Injector {
        Injector::open(self.topology.wire.ns().unwrap(), &self.h(host).name).unwrap()
    }

    /// What the other host would send to this one, around a packet.
    pub(crate) fn tunnel(&self, to: usize, inner: &Ipv4) -> Tunnel {
        let (host, other) = (self.h(to), self.h(3 - to));
        Tunnel {
            eth_dst: host.mac(UPLINK).unwrap(),
            eth_src: other.mac(UPLINK).unwrap(),
            tos: 0,
            src: other.ip,
            dst: host.ip,
            src_port: 50_000,
            port: PORT,
            flags: [8, 0, 0, 0],
            vni: VNI,
            reserved: 0,
            inner_dst: self.vteps[to - 1],
            inner_src: self.vteps[2 - to],
            inner_ethertype: frame::IPV4,
            inner: inner.bytes(),
        }
    }

    /// Whether a frame is a tunnel packet that a host sent.
    pub(crate) fn is_from(&self, host: usize, frame: &Frame) -> bool {
        outer(frame).is_some_and(|outer| outer.src == self.h(host).ip)
    }
}

/// The second host gets a kernel's device, each hears of the other.
fn kernel(mut topology: Topology) -> (Topology, [String; 2]) {
    let device = KernelVtep::create(topology.h(2), VNI, PORT).unwrap();
    let (subnet, ip, mac) = (topology.h(2).bridge.subnet(), topology.h(2).ip, &device.mac);
    let text = format!("[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{ip}\"\nvtep_mac = \"{mac}\"\n");
    fs::write(topology.peers_file(0), text).unwrap();
    topology.start_overlayd(0).unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    let ours = vtep(h1);
    let remote = Remote { subnet: &h1.bridge.subnet(), ip: h1.ip.into(), mac: &ours };
    device.add_peer(h2, &remote).unwrap();
    (topology, [ours, device.mac])
}

/// The outer header of a tunnel packet on the wire, and where the inner IP packet begins.
pub(crate) struct Outer {
    pub(crate) src: Ipv4Addr,
    pub(crate) tos: u8,
    pub(crate) src_port: u16,
}

/// Reads the outer header, where there is one.
pub(crate) fn outer(frame: &Frame) -> Option<Outer> {
    let bytes = &frame.bytes;
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let tunnel = bytes.len() > frame::INNER_IP + 20
        && word(12) == frame::IPV4
        && bytes[23] == frame::UDP
        && word(36) == PORT;
    tunnel.then(|| Outer {
        src: Ipv4Addr::new(bytes[26], bytes[27], bytes[28], bytes[29]),
        tos: bytes[15],
        src_port: word(34),
    })
}

/// The inner IP packet of a tunnel packet.
pub(crate) fn carried(frame: &Frame) -> &[u8] {
    &frame.bytes[frame::INNER_IP..]
}

/// The next datagram; there must be one.
pub(crate) fn receive(socket: &DatagramSocket, what: &str) -> Datagram {
    socket.receive(SOON).unwrap().unwrap_or_else(|| panic!("{what} did not arrive"))
}
