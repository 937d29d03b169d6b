//! The neighbours behind peers that are bridges: who is wanted is asked for through the tunnel, by ARP in the name
//! of our own bridge, or by neighbour discovery in that of our VTEP. The answers go to the programs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use nix::{errno::Errno, libc};
use overlay_common::{
    Be16, Be32, Mac,
    event::{Event, NEIGHBOUR_WANTED},
    map::{NeighbourKey, Tunnel, tunnel_flag},
    parse::L3,
    wire::{
        ArpPacket, EthHeader, IpHeader as _, Ipv4Header, Ipv6Header, UdpHeader,
        eth::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
        ipv6::{ON_LINK, PROTOCOL_ICMPV6},
        nd::{self, Resolution},
    },
};
use tracing::debug;

use super::Daemon;
use crate::endpoints::monotonic_now;

/// When somebody was asked for who has not answered, and how long to wait for the next time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    last: Option<Instant>,
    wait: Duration,
}

/// The longest time between two requests to who does not answer.
const LONGEST: Duration = Duration::from_secs(30);

impl Asked {
    fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= self.wait)
    }

    /// Asked again now: the next time twice as long after.
    fn again(&self, now: Instant) -> Self {
        let wait = (self.wait * 2).clamp(Duration::from_millis(500), LONGEST);
        Self { last: Some(now), wait }
    }
}

impl Daemon {
    /// Asks for whom the programs want to know.
    pub(super) fn ask_for_neighbours(&self, told: &[Event]) {
        let wanted: BTreeSet<IpAddr> = told
            .iter()
            .filter(|event| event.kind == NEIGHBOUR_WANTED)
            .map(|event| IpAddr::from(event.ip))
            .collect();
        for ip in wanted {
            if let Some(tunnel) = self.tunnel_to(ip) {
                self.ask(&tunnel, ip);
            }
        }
    }

    /// Asks for who routes for each peer that is a bridge, until it has answered, and from time to time after: who is sent
    /// to is known before the first packet then.
    pub(super) fn ask_for_gateways(&mut self) {
        let Some(held) = self.reconciler.held() else { return };
        let now = Instant::now();
        let (mut there, mut due) = (BTreeSet::new(), Vec::new());
        for tunnel in held.learning() {
            let key = NeighbourKey { peer: tunnel.peer, ip: tunnel.gateway };
            let known = self.maps.neighbour(key).ok().flatten().unwrap_or_default();
            let asked = self.asked.get(&key).copied().unwrap_or_default();
            if there.insert(key) && known.is_wanted(monotonic_now()) && asked.is_due(now) {
                due.push((key, tunnel, asked.again(now)));
            }
        }
        self.asked.retain(|key, _| there.contains(key));
        for (key, tunnel, asked) in due {
            self.ask(&tunnel, tunnel.gateway.into());
            self.asked.insert(key, asked);
        }
    }

    /// The tunnel that learns its neighbours and leads to an address.
    fn tunnel_to(&self, ip: IpAddr) -> Option<Tunnel> {
        let (held, vni) = (self.reconciler.held()?, self.local.vni);
        let tunnel = held.tunnel_to(vni, IpNet::from(ip))?;
        (tunnel.flags & tunnel_flag::LEARN != 0).then_some(tunnel)
    }

    fn ask(&self, tunnel: &Tunnel, target: IpAddr) {
        let mac = self.local.vtep_mac;
        let question = match (target, self.local.bridges.first()) {
            (IpAddr::V4(target), Some(bridge)) => arp_request(mac, bridge.address.addr(), target),
            (IpAddr::V4(_), None) => return,
            (IpAddr::V6(target), _) => solicitation(mac, target),
        };
        let peer = IpAddr::from(tunnel.remote);
        match send(tunnel, &question) {
            Ok(()) => debug!(%peer, %target, "asked for a neighbour"),
            // Where the peer is not there, that is said elsewhere.
            Err(error) => debug!("cannot ask for {target} behind peer {peer}: {error}"),
        }
    }
}

/// The frame that asks for an IPv4 address.
fn arp_request(mac: Mac, src: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let eth = EthHeader { dst: Mac::BROADCAST, src: mac, ethertype: ETHERTYPE_ARP };
    let arp = ArpPacket::request(mac, src.octets(), target.octets());
    [bytemuck::bytes_of(&eth), bytemuck::bytes_of(&arp)].concat()
}

/// The frame that asks for an IPv6 address, from the link-local address that our VTEP's MAC address makes.
fn solicitation(mac: Mac, target: Ipv6Addr) -> Vec<u8> {
    let (src, dst) = (nd::link_local(mac), nd::solicited_node(target.octets()));
    let eth = EthHeader { dst: nd::multicast_mac(dst), src: mac, ethertype: ETHERTYPE_IPV6 };
    let ip = Ipv6Header {
        version_class_flow: Be32::new(6 << 28),
        payload_len: Be16::new(Resolution::LEN as u16),
        next_header: PROTOCOL_ICMPV6,
        hop_limit: ON_LINK,
        src,
        dst,
    };
    let asked = Resolution::solicitation(mac, src, target.octets());
    [bytemuck::bytes_of(&eth), bytemuck::bytes_of(&ip), bytemuck::bytes_of(&asked)].concat()
}

/// Sends a frame through a tunnel. The outer IP header, and UDP's, are the kernel's to make.
fn send(tunnel: &Tunnel, frame: &[u8]) -> std::io::Result<()> {
    let v6 = tunnel.flags & tunnel_flag::OVER_V6 != 0;
    let ip_len = if v6 { Ipv6Header::LEN } else { Ipv4Header::LEN };
    let udp = tunnel.flags & tunnel_flag::UDP != 0;
    let start = L3 + ip_len + if udp { UdpHeader::LEN } else { 0 };
    let end = tunnel.template_len as usize - EthHeader::LEN;
    let headers = tunnel.template.get(start..end).ok_or(Errno::EINVAL)?;
    let payload = [headers, frame].concat();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_less_and_less() {
        let start = Instant::now();
        let (mut asked, mut waits) = (Asked::default(), Vec::new());
        assert!(asked.is_due(start));
        for _ in 0..9 {
            asked = asked.again(start);
            assert!(!asked.is_due(start) && asked.is_due(start + asked.wait));
            waits.push(asked.wait.as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    }
}
