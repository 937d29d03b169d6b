//! Out of the overlay: from a peer to a container or to this host. Nothing is changed before everything
//! has been checked.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    Be16, DropReason,
    addr::MapIp,
    ecn,
    handover::Record,
    map::{DecapState, Direction, Node, PeerKey},
    mark,
    packet::Packet,
    parse::{self, INNER_L3, L3, OUTER_UDP, OuterUdp, VXLAN_V4_OVERHEAD},
    template::DECAP_FLAGS,
    vni::VniKey,
    wire::{EthHeader, Ipv4Header, UdpHeader, ipv4},
};

use crate::{
    accept::{self, Accepted, Sender},
    deliver::{self, Destination},
    maps, mss,
    packet::{Skb, Tag},
    path_mtu,
    verdict::Verdict,
};

/// A packet that came in on the uplink.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let incoming = match handed_over(&skb) {
        Some(record) => Some(Incoming::from_xdp(&skb, &record)?),
        None => Incoming::from_wire(&skb)?,
    };
    let Some(Incoming { sender, mut inner, tos, port }) = incoming else { return Ok(Verdict::Pass) };
    let arrival = Arrival::find(&skb, sender, &inner)?;
    let bytes = u64::from(inner.total_len.get());
    if let Some(port) = port {
        if arrival.needs_device(&skb, &inner)
            || skb.adjust_room(-(VXLAN_V4_OVERHEAD as i32), DECAP_FLAGS).is_err()
        {
            return if leave_to_device(&skb, port) {
                Ok(Verdict::Pass)
            } else {
                Err(DropReason::DecapFailed)
            };
        }
        skb.outer_checksum_removed();
        if tos != inner.tos {
            accept::remark(&mut inner, tos);
            skb.store(L3, &inner).map_err(|_| DropReason::DecapFailed)?;
        }
    }
    arrival.hand_over(&skb, &inner, bytes)
}

/// A packet that may come in, if it has a destination here.
struct Incoming {
    sender: Sender,
    inner: Ipv4Header,
    /// The TOS byte that the inner header is to have.
    tos: u8,
    /// The UDP port of a tunnel packet that is still to be stripped.
    port: Option<Be16>,
}

impl Incoming {
    /// `None` for what is not ours, or better handled by the kernel.
    #[inline(always)]
    fn from_wire(skb: &Skb<'_>) -> Result<Option<Self>, DropReason> {
        let Some((outer, node)) = tunnel_packet(skb) else { return Ok(None) };
        if !outer.is_plain() {
            refuse_early(skb, &outer, node)?;
            leave_to_device(skb, outer.port());
            return Ok(None);
        }
        skb.pull(INNER_L3 - L3 + mss::LEN);
        let accepted = accept::plain(skb, &outer, node)?;
        Ok(accepted.map(|Accepted { sender, inner, tos }| Self {
            sender,
            inner,
            tos,
            port: Some(outer.port()),
        }))
    }

    /// A packet that `uplink_decap` has checked and stripped; GRO may have merged several since.
    #[inline(always)]
    fn from_xdp(skb: &Skb<'_>, record: &Record) -> Result<Self, DropReason> {
        // Where the hardware takes VLAN tags off, XDP does not see them. Without the outer headers there is no
        // interface any more that could have it.
        if !skb.is_for_us() || skb.untag() != Tag::None {
            return Err(DropReason::NotFromUplink);
        }
        skb.pull(mss::LEN);
        let inner = parse::ipv4_frame(skb, skb.gso_size()).ok_or(DropReason::InnerMalformed)?.ip;
        let sender = Sender { peer: record.peer, network: record.network };
        Ok(Self { sender, tos: inner.tos, inner, port: None })
    }
}

/// The record that `uplink_decap` put in front of a packet, where it runs on this uplink and the record is its.
/// Anything else in front of a packet says nothing about it.
#[inline(always)]
fn handed_over(skb: &Skb<'_>) -> Option<Record> {
    let record: Record = skb.metadata()?;
    let decap = maps::decap_mut(skb.ifindex())?;
    // SAFETY: an entry is read while the daemon may replace it; a torn token is at worst no token.
    let (token, state) = unsafe { ((*decap).token, DecapState::from_number((*decap).state)) };
    if !record.bears(token) {
        return None;
    }
    match (state, record.is_probe()) {
        (DecapState::Trial, true) => {
            // SAFETY: the entry stays allocated; a count that two CPUs write at once may lose one of them.
            unsafe { (*decap).heard = (*decap).heard.wrapping_add(1) };
            None
        }
        (DecapState::Xdp | DecapState::Draining, false) => Some(record),
        _ => None,
    }
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
    sender.may_send(&inner, ecn::NOT_ECT)?;
    let arrival = Arrival::find(&skb, sender, &inner)?;
    skb.set_mark(0);
    skb.take_as_ours();
    arrival.hand_over(&skb, &inner, u64::from(inner.total_len.get()))
}

/// The outer headers and this host, where the packet is addressed to one of our tunnels.
#[inline(always)]
fn tunnel_packet(skb: &Skb<'_>) -> Option<(OuterUdp, &'static Node)> {
    let uplink = maps::uplink(skb.ifindex())?;
    // A tagged frame is another interface's.
    if !skb.is_for_us() || skb.untag() != Tag::None {
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
    accept::tunnel(skb, ip)
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

/// Marks a tunnel packet, which is the kernel's then, for our tunnel device; false where we have none on the port.
/// A later fragment needs no mark: the reassembled packet has that of its first fragment.
#[inline(always)]
fn leave_to_device(skb: &Skb<'_>, port: Be16) -> bool {
    let ours = maps::tunnel_device(port).is_some_and(|device| device.ifindex != 0);
    if ours {
        skb.set_mark(mark::FROM_UPLINK);
    }
    ours
}

/// A packet that may come in, and has a destination here.
struct Arrival {
    sender: Sender,
    destination: Destination,
}

impl Arrival {
    #[inline(always)]
    fn find(skb: &Skb<'_>, sender: Sender, inner: &Ipv4Header) -> Result<Self, DropReason> {
        let destination = deliver::find(skb, sender.network, inner.dst)?;
        Ok(Self { sender, destination })
    }

    /// True for an aggregate that somebody will cut up again: a socket that wants single datagrams, or a device.
    /// `bpf_skb_adjust_room` leaves it marked as a tunnel's (before kernel 7.2, and BPF_F_ADJ_ROOM_DECAP_L4_UDP), and
    /// it would be cut at the wrong places.
    #[inline(always)]
    fn needs_device(&self, skb: &Skb<'_>, inner: &Ipv4Header) -> bool {
        skb.gso_size() != 0 && (inner.protocol != ipv4::PROTOCOL_TCP || !self.destination.ends_here())
    }

    /// Hands the packet over, whose inner IP header now stands behind its Ethernet header.
    #[inline(always)]
    fn hand_over(self, skb: &Skb<'_>, inner: &Ipv4Header, bytes: u64) -> Result<Verdict, DropReason> {
        let packets = skb.wire_packets();
        if mss::is_syn(skb, inner)
            && let Some(route) = maps::route(self.sender.network, inner.src)
            && let Ok(tunnel) = maps::tunnel(route.tunnel)
        {
            mss::clamp(skb, tunnel.mtu);
        }
        let verdict = deliver::to(skb, self.destination)?;
        maps::count_traffic(self.sender.peer, Direction::FromPeer, packets, bytes);
        Ok(verdict)
    }
}
