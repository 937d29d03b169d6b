//! The neighbours behind peers that are bridges: who is wanted is asked for by ARP, through the tunnel, in the name of
//! our own bridge. The answers go to the programs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use ipnet::IpNet;
use nix::{errno::Errno, libc};
use overlay_common::{
    Mac,
    event::{Event, NEIGHBOUR_WANTED},
    map::{NeighbourKey, Tunnel, tunnel_flag},
    parse::L3,
    wire::{ArpPacket, EthHeader, IpHeader as _, Ipv4Header, Ipv6Header, UdpHeader, eth::ETHERTYPE_ARP},
};
use tracing::{debug, warn};

use super::Daemon;
use crate::endpoints::monotonic_now;

impl Daemon {
    /// Asks for whom the programs want to know.
    pub(super) fn ask_for_neighbours(&self, told: &[Event]) {
        let wanted: BTreeSet<IpAddr> = told
            .iter()
            .filter(|event| event.kind == NEIGHBOUR_WANTED)
            .map(|event| IpAddr::from(event.ip))
            .collect();
        for ip in wanted {
            if let (IpAddr::V4(ip), Some(tunnel)) = (ip, self.tunnel_to(ip)) {
                self.ask(&tunnel, ip);
            }
        }
    }

    /// Asks for who routes for each peer that is a bridge, until it has answered, and from time to time after: who is sent
    /// to is known before the first packet then.
    pub(super) fn ask_for_gateways(&self) {
        let Some(held) = self.reconciler.held() else { return };
        let now = monotonic_now();
        let mut asked = BTreeSet::new();
        for tunnel in held.learning() {
            let IpAddr::V4(gateway) = IpAddr::from(tunnel.gateway) else { continue };
            let key = NeighbourKey { peer: tunnel.peer, ip: tunnel.gateway };
            let known = self.maps.neighbour(key).ok().flatten().unwrap_or_default();
            if known.is_wanted(now) && asked.insert(key) {
                self.ask(&tunnel, gateway);
            }
        }
    }

    /// The tunnel that learns its neighbours and leads to an address.
    fn tunnel_to(&self, ip: IpAddr) -> Option<Tunnel> {
        let (held, vni) = (self.reconciler.held()?, self.local.vni);
        let tunnel = held.tunnel_to(vni, IpNet::from(ip))?;
        (tunnel.flags & tunnel_flag::LEARN != 0).then_some(tunnel)
    }

    fn ask(&self, tunnel: &Tunnel, target: Ipv4Addr) {
        let Some(bridge) = self.local.bridges.first() else { return };
        let mac = self.local.vtep_mac;
        let request = ArpPacket::request(mac, bridge.address.addr().octets(), target.octets());
        let peer = IpAddr::from(tunnel.remote);
        match send(tunnel, mac, &request) {
            Ok(()) => debug!(%peer, %target, "asked by ARP"),
            Err(error) => warn!("cannot ask for {target} behind peer {peer} by ARP: {error}"),
        }
    }
}

/// Sends a frame through a tunnel. The outer IP header, and UDP's, are the kernel's to make.
fn send(tunnel: &Tunnel, src: Mac, arp: &ArpPacket) -> std::io::Result<()> {
    let v6 = tunnel.flags & tunnel_flag::OVER_V6 != 0;
    let ip_len = if v6 { Ipv6Header::LEN } else { Ipv4Header::LEN };
    let udp = tunnel.flags & tunnel_flag::UDP != 0;
    let start = L3 + ip_len + if udp { UdpHeader::LEN } else { 0 };
    let end = tunnel.template_len as usize - EthHeader::LEN;
    let headers = tunnel.template.get(start..end).ok_or(Errno::EINVAL)?;
    let eth = EthHeader { dst: Mac::BROADCAST, src, ethertype: ETHERTYPE_ARP };
    let payload = [headers, bytemuck::bytes_of(&eth), bytemuck::bytes_of(arp)].concat();
    let (local, remote) = (IpAddr::from(tunnel.local), IpAddr::from(tunnel.remote));
    if udp {
        let socket = UdpSocket::bind((local, 0))?;
        socket.send_to(&payload, (remote, tunnel.port.get()))?;
        return Ok(());
    }
    let protocol = tunnel.template[L3 + if v6 { 6 } else { 9 }];
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: plain numbers; what comes back is a descriptor of ours, or an error.
    let fd = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
    // SAFETY: it is open, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(Errno::result(fd)?) };
    // A raw socket is a datagram socket, but for what it is called.
    let socket = UdpSocket::from(socket);
    bind(&socket, local)?;
    socket.send_to(&payload, (remote, 0))?;
    Ok(())
}

fn bind(socket: &UdpSocket, local: IpAddr) -> std::io::Result<()> {
    let address = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(local, 0));
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &address)?)
}
