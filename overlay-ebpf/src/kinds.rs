//! What peers send in other ways than VXLAN: in Geneve, in GRE, as IP in IP, or in no tunnel.
//!
//! Geneve has a port of ours, like VXLAN. The others have none: what is of no peer, or not for our containers, may be of
//! another tunnel between the same two hosts, and is the kernel's.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    Be16, DropReason, Encap, Kinds, Mac,
    addr::MapIp,
    map::{Node, Peer, PeerKey, peer_flag},
    packet::Packet,
    parse::{self, Inner, L3},
    tunnel::{self, Network, Opened},
    vni::VniKey,
    wire::{
        EthHeader, Ipv4Header, Ipv6Header,
        eth::{ETHERTYPE_ARP, ETHERTYPE_FRAME, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    },
};

use crate::{
    accept::{Outer, Sender},
    carried::Carried,
    decap::{Incoming, Place, Wrapping},
    deliver, maps, mss, neighbours,
    packet::{Skb, Tag},
    verdict::Verdict,
};

/// How a packet came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In none of these.
    Other,
    /// To a container of ours, in no tunnel.
    Direct,
    /// To this host, perhaps in a tunnel.
    Tunnel,
}

/// Tells how a packet came that came in on an uplink with Ethernet headers, as far as its outer headers do.
#[inline(always)]
pub(crate) fn way(ctx: &TcContext) -> Way {
    let skb = Skb::new(ctx);
    let Some(node) = maps::node().filter(|node| node.kinds != 0) else { return Way::Other };
    if !skb.is_for_us() || skb.untag() != Tag::None {
        return Way::Other;
    }
    skb.pull(mss::LEN);
    let Some(eth) = skb.read::<EthHeader>(0) else { return Way::Other };
    match eth.ethertype {
        ETHERTYPE_IPV4 => way_of::<Ipv4Header>(&skb, node),
        ETHERTYPE_IPV6 => way_of::<Ipv6Header>(&skb, node),
        _ => Way::Other,
    }
}

#[inline(always)]
fn way_of<O: Outer + Carried>(skb: &Skb<'_>, node: &Node) -> Way {
    let Some(ip) = parse::outer_ip::<_, O, L3>(skb) else { return Way::Other };
    if Kinds::from_bits(node.kinds).contains(Encap::Direct) && O::subnet(node.vni, ip.dst()).is_some() {
        return Way::Direct;
    }
    if tunnel::may_follow(&ip) { Way::Tunnel } else { Way::Other }
}

/// A packet to this host that may be in a tunnel.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some(node) = maps::node() else { return Ok(Verdict::Pass) };
    let incoming = match skb.protocol() {
        ETHERTYPE_IPV4 => from_ip::<Ipv4Header>(&skb, node),
        _ => from_ip::<Ipv6Header>(&skb, node),
    }?;
    incoming.map_or(Ok(Verdict::Pass), |incoming| incoming.arrive::<L3>(&skb))
}

#[inline(always)]
fn from_ip<O: Outer>(skb: &Skb<'_>, node: &Node) -> Result<Option<Incoming>, DropReason> {
    let Some(ip) = to_this_host::<O>(skb) else { return Ok(None) };
    // What of VXLAN comes here is its device's, or resolves an address.
    let opened = open(skb, node, &ip)?.filter(|opened| opened.encap != Encap::Vxlan);
    let Some(opened) = opened else { return Ok(None) };
    let Some(peer) = sender(&opened, O::map_ip(ip.src()))? else { return Ok(None) };
    let (mut l3, mut carries, mut speaker) = (opened.at, opened.carries, Mac::BROADCAST);
    if carries == ETHERTYPE_FRAME {
        let eth: EthHeader = skb.read_at(opened.at).ok_or(DropReason::InnerMalformed)?;
        // The next program takes it.
        if parse::is_resolution(skb, opened.at, &eth) {
            return Ok(None);
        }
        if eth.dst != node.vtep_mac && eth.dst != Mac::BROADCAST {
            return strange(opened.is_udp(), parse::not_for_us(eth.dst));
        }
        (l3, carries) = (l3 + EthHeader::LEN, eth.ethertype);
        if peer.flags & peer_flag::LEARN != 0 {
            speaker = eth.src;
        }
    }
    skb.pull_all(l3 + mss::LEN);
    let arrived = Arrived {
        sender: Sender { peer: peer.id, network: peer.network },
        speaker,
        tos: ip.tos(),
        wrapping: Wrapping { port: opened.port, len: l3 - L3, ethertype: O::ETHERTYPE },
        end: opened.end,
    };
    match carries {
        ETHERTYPE_IPV4 => arrived.judge(skb, Inner::V4),
        ETHERTYPE_IPV6 => arrived.judge(skb, Inner::V6),
        _ => strange(arrived.wrapping.is_udp(), DropReason::InnerProtocol),
    }
}

/// A packet that came in on an uplink with Ethernet headers, and that nobody has taken: a peer that resolves an address, perhaps.
#[inline(always)]
pub(crate) fn resolution(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let Some(node) = maps::node().filter(|node| node.kinds != 0) else { return Ok(Verdict::Pass) };
    if !skb.is_for_us() || skb.tag() != Tag::None {
        return Ok(Verdict::Pass);
    }
    let over_v4 = skb.protocol() == ETHERTYPE_IPV4;
    let found = match skb.protocol() {
        ETHERTYPE_IPV4 => resolution_over::<Ipv4Header>(&skb, node),
        ETHERTYPE_IPV6 => resolution_over::<Ipv6Header>(&skb, node),
        _ => Ok(None),
    };
    let Some(Resolving { opened, peer, ethertype }) = found? else { return Ok(Verdict::Pass) };
    // One copy of each, whatever the outer version: a copy more is more than the stack takes.
    let answered = if ethertype == ETHERTYPE_ARP {
        neighbours::arp(&skb, node, &opened, peer)
    } else {
        neighbours::discovery(&skb, node, &opened, peer)
    };
    if !answered? {
        return Ok(Verdict::Taken);
    }
    if over_v4 {
        neighbours::turn_back::<Ipv4Header>(&skb, &opened)
    } else {
        neighbours::turn_back::<Ipv6Header>(&skb, &opened)
    }
}

/// A frame of a peer's that resolves an address.
struct Resolving {
    opened: Opened,
    peer: &'static Peer,
    ethertype: Be16,
}

#[inline(always)]
fn resolution_over<O: Outer>(skb: &Skb<'_>, node: &Node) -> Result<Option<Resolving>, DropReason> {
    let ip = to_this_host::<O>(skb).filter(tunnel::may_follow);
    let Some(ip) = ip else { return Ok(None) };
    let opened = open(skb, node, &ip)?.filter(|opened| opened.carries == ETHERTYPE_FRAME);
    let Some(opened) = opened else { return Ok(None) };
    let Some(eth) = skb.read_at::<EthHeader>(opened.at) else { return Ok(None) };
    // Broadcast is a multicast address, too.
    let may_be_ours = eth.dst == node.vtep_mac || eth.dst.is_multicast();
    if !may_be_ours || !parse::is_resolution(skb, opened.at, &eth) {
        return Ok(None);
    }
    let peer = sender(&opened, O::map_ip(ip.src()))?;
    Ok(peer.map(|peer| Resolving { opened, peer, ethertype: eth.ethertype }))
}

/// The outer header of a packet to this host's own address.
#[inline(always)]
fn to_this_host<O: Outer>(skb: &Skb<'_>) -> Option<O> {
    let ip = parse::outer_ip::<_, O, L3>(skb)?;
    let uplink = maps::uplink(skb.ifindex())?;
    (ip.dst() == O::own(uplink)).then_some(ip)
}

/// The headers of a tunnel of a kind that this host takes.
#[inline(always)]
fn open<O: Outer>(skb: &Skb<'_>, node: &Node, ip: &O) -> Result<Option<Opened>, DropReason> {
    let opened = tunnel::open(skb, ip, L3, &|port| maps::kind_of(node, port))?;
    let takes =
        |opened: &Opened| opened.encap == Encap::Vxlan || Kinds::from_bits(node.kinds).contains(opened.encap);
    Ok(opened.filter(takes))
}

/// What becomes of a peer's packet that is not as ours are. On our own port it is refused; elsewhere another tunnel's.
#[inline(always)]
fn strange(ours: bool, reason: DropReason) -> Result<Option<Incoming>, DropReason> {
    if ours { Err(reason) } else { Ok(None) }
}

/// The peer that sent a tunnel packet. `None` for who else may send such packets to this host.
#[inline(always)]
fn sender(opened: &Opened, src: MapIp) -> Result<Option<&'static Peer>, DropReason> {
    if opened.network == Network::Vni {
        let vni = VniKey { bytes: opened.number.to_be_bytes() };
        let peer = maps::peer(PeerKey { vni, ip: src });
        // VXLAN's own program has refused whom it had to refuse.
        return if opened.encap == Encap::Vxlan { Ok(peer.ok()) } else { peer.map(Some) };
    }
    Ok(maps::host(src).filter(|peer| agrees(peer, opened)))
}

/// Whether a packet has the GRE key that its sender's packets have, or none.
#[inline(always)]
fn agrees(peer: &Peer, opened: &Opened) -> bool {
    if peer.flags & peer_flag::GRE_KEY != 0 && opened.encap != Encap::Ipip {
        opened.network == Network::Key && opened.number == peer.gre_key
    } else {
        opened.network == Network::Unnamed
    }
}

/// What is known of a tunnel packet before its inner IP header is read.
struct Arrived {
    sender: Sender,
    /// The MAC address that speaks for the inner source; broadcast where that is not asked.
    speaker: Mac,
    /// The outer TOS byte.
    tos: u8,
    wrapping: Wrapping,
    /// Offset of the byte behind what the tunnel carries.
    end: usize,
}

impl Arrived {
    #[inline(always)]
    fn judge<H: Carried>(
        self,
        skb: &Skb<'_>,
        version: impl Fn(H) -> Inner,
    ) -> Result<Option<Incoming>, DropReason> {
        let Self { sender, speaker, tos, wrapping, end } = self;
        let inner: H = parse::inner_at(skb, L3 + wrapping.len, end)?;
        let destination = match deliver::find::<H>(skb, sender.network, inner.dst()) {
            Ok(destination) => destination,
            Err(reason) => return strange(wrapping.is_udp(), reason),
        };
        let tos = sender.may_send_ip(&inner, tos)?;
        if speaker != Mac::BROADCAST {
            neighbours::hear(sender.peer, H::map_ip(inner.src()), speaker);
        }
        let (wrapping, place) = (Some(wrapping), Place::Known(destination));
        Ok(Some(Incoming { sender, inner: version(inner), tos, wrapping, place }))
    }
}
