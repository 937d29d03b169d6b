//! Out of the overlay: from a peer to a container or to this host. Nothing is changed before everything
//! has been checked.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    Be16, DropReason,
    addr::MapIp,
    checksum, ecn,
    map::{Direction, Node, PeerKey, Route},
    mark,
    packet::Packet,
    parse::{self, INNER_L3, L3, OUTER_UDP, OuterUdp, VXLAN_V4_OVERHEAD},
    template::DECAP_FLAGS,
    vni::VniKey,
    wire::{EthHeader, Ipv4Header, UdpHeader, ipv4},
};

use crate::{
    deliver::{self, Destination},
    maps, mss,
    packet::Skb,
    path_mtu,
    verdict::Verdict,
};

/// A packet that came in on the uplink.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some((outer, node)) = tunnel_packet(&skb) else { return Ok(Verdict::Pass) };
    if !outer.is_plain() {
        return refuse_early(&skb, &outer, node).map(|()| leave_to_device(&skb, outer.port()));
    }
    skb.pull(INNER_L3 - L3 + mss::LEN);
    let vni = match parse::vxlan(&skb, &outer) {
        Err(DropReason::VxlanFlags) if maps::port_is_shared(outer.port()) => return Ok(Verdict::Pass),
        vni => vni?,
    };
    let Some(sender) = Sender::find(vni, outer.ip.src, outer.port(), node)? else { return Ok(Verdict::Pass) };
    let mut inner = parse::vxlan_inner(&skb, &outer, node.vtep_mac)?;
    let arrival = Arrival::judge(&skb, sender, &inner, outer.ip.tos)?;
    let bytes = u64::from(inner.total_len.get());
    if skb.adjust_room(-(VXLAN_V4_OVERHEAD as i32), DECAP_FLAGS).is_err() {
        return match leave_to_device(&skb, outer.port()) {
            Verdict::Pass if skb.mark() == mark::FROM_UPLINK => Ok(Verdict::Pass),
            _ => Err(DropReason::DecapFailed),
        };
    }
    skb.outer_checksum_removed();
    if arrival.tos != inner.tos {
        set_tos(&skb, &mut inner, arrival.tos).map_err(|_| DropReason::DecapFailed)?;
    }
    arrival.hand_over(&skb, &inner, bytes)
}

/// A packet that the kernel reassembled and decapsulated. The kernel has carried the outer congestion mark inward.
#[inline(always)]
pub(crate) fn from_device(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    if skb.mark() != mark::FROM_UPLINK {
        return Err(DropReason::NotFromUplink);
    }
    let (Some((vni, remote)), Some(node)) = (skb.tunnel_source(), maps::node()) else {
        return Err(DropReason::NotFromUplink);
    };
    let [_, a, b, c] = vni.to_be_bytes();
    let key = PeerKey { vni: VniKey::from_wire([a, b, c]), ip: MapIp::v4(remote) };
    let peer = maps::peer(key)?;
    let sender = Sender { peer: peer.id, network: peer.network };
    skb.pull(mss::LEN);
    let inner = parse::inner::<_, 0>(&skb, skb.len(), node.vtep_mac)?;
    let arrival = Arrival::judge(&skb, sender, &inner, ecn::NOT_ECT)?;
    skb.set_mark(0);
    skb.take_as_ours();
    arrival.hand_over(&skb, &inner, u64::from(inner.total_len.get()))
}

/// The outer headers and this host, where the packet is addressed to one of our tunnels.
#[inline(always)]
fn tunnel_packet(skb: &Skb<'_>) -> Option<(OuterUdp, &'static Node)> {
    let uplink = maps::uplink(skb.ifindex())?;
    // A tagged frame is another interface's.
    if !skb.is_for_us() || !skb.untag() {
        return None;
    }
    skb.pull(OUTER_UDP + UdpHeader::LEN);
    let ip = parse::outer_ipv4(skb)?;
    if ip.dst != uplink.addr {
        return None;
    }
    if ip.protocol == ipv4::PROTOCOL_ICMP {
        path_mtu::learn(skb, &ip, uplink.addr);
        return None;
    }
    let outer = parse::outer_udp(skb, ip)?;
    let node = maps::node()?;
    maps::is_tunnel_port(node, outer.port()).then_some((outer, node))
}

/// Refuses a first fragment, or a packet with IP options, that the tunnel device would refuse later: here the
/// refusal has a name, and nothing is reassembled in vain.
#[inline(always)]
fn refuse_early(skb: &Skb<'_>, outer: &OuterUdp, node: &Node) -> Result<(), DropReason> {
    skb.pull(INNER_L3 - EthHeader::LEN);
    let Some(vxlan) = parse::first_vxlan(skb, outer) else { return Ok(()) };
    if !vxlan.is_plain() {
        return if maps::port_is_shared(outer.port()) { Ok(()) } else { Err(DropReason::VxlanFlags) };
    }
    Sender::find(VniKey::from_wire(vxlan.vni), outer.ip.src, outer.port(), node).map(drop)
}

/// Leaves a tunnel packet to the kernel, marked for our tunnel device where we have one on the port. A later
/// fragment needs no mark: the reassembled packet has that of its first fragment.
#[inline(always)]
fn leave_to_device(skb: &Skb<'_>, port: Be16) -> Verdict {
    if maps::tunnel_device(port).is_some_and(|device| device.ifindex != 0) {
        skb.set_mark(mark::FROM_UPLINK);
    }
    Verdict::Pass
}

/// Who sent a tunnel packet.
#[derive(Clone, Copy)]
struct Sender {
    peer: u32,
    network: VniKey,
}

impl Sender {
    /// Finds the peer that sends with a VNI from an address. `None` for what another owner of the port may know.
    #[inline(always)]
    fn find(vni: VniKey, addr: [u8; 4], port: Be16, node: &Node) -> Result<Option<Self>, DropReason> {
        match maps::peer(PeerKey { vni, ip: MapIp::v4(addr) }) {
            Ok(peer) => Ok(Some(Self { peer: peer.id, network: peer.network })),
            Err(_) if vni != node.vni && maps::port_is_shared(port) => Ok(None),
            Err(reason) => Err(reason),
        }
    }
}

/// A packet that may come in.
struct Arrival {
    sender: Sender,
    route: &'static Route,
    destination: Destination,
    /// The TOS byte that the inner header is to have.
    tos: u8,
}

impl Arrival {
    /// Judges an inner packet: a peer speaks for its own subnets only, and what it says must have a destination
    /// here.
    #[inline(always)]
    fn judge(skb: &Skb<'_>, sender: Sender, inner: &Ipv4Header, outer_tos: u8) -> Result<Self, DropReason> {
        if ipv4::is_martian_source(inner.src) || ipv4::is_martian_destination(inner.dst) {
            return Err(DropReason::InnerMartian);
        }
        let route = maps::route(sender.network, inner.src)
            .filter(|route| route.peer == sender.peer)
            .ok_or(DropReason::InnerSource)?;
        let tos = ecn::inner_tos(outer_tos, inner.tos)?;
        let destination = deliver::find(skb, sender.network, inner.dst)?;
        Ok(Self { sender, route, destination, tos })
    }

    /// Hands the packet over, whose inner IP header now stands behind its Ethernet header.
    #[inline(always)]
    fn hand_over(self, skb: &Skb<'_>, inner: &Ipv4Header, bytes: u64) -> Result<Verdict, DropReason> {
        let packets = skb.wire_packets();
        if mss::is_syn(skb, inner)
            && let Ok(tunnel) = maps::tunnel(self.route.tunnel)
        {
            mss::clamp(skb, tunnel.mtu);
        }
        let verdict = deliver::to(skb, self.destination)?;
        maps::count_traffic(self.sender.peer, Direction::FromPeer, packets, bytes);
        Ok(verdict)
    }
}

/// Writes the TOS byte of the inner header, now behind the Ethernet header, and its checksum.
#[inline(always)]
fn set_tos(skb: &Skb<'_>, ip: &mut Ipv4Header, tos: u8) -> Result<(), i64> {
    let word = |tos: u8| u16::from_be_bytes([ip.version_ihl, tos]);
    ip.checksum = Be16::new(checksum::update(ip.checksum.get(), word(ip.tos), word(tos)));
    ip.tos = tos;
    skb.store(L3, ip)
}
