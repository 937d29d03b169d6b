//! Out of the overlay: from a peer to a container or to this host. Nothing is changed before everything
//! has been checked.

use aya_ebpf::programs::TcContext;
use overlay_common::{
    Be16, DropReason, Encap, Mac, ecn,
    handover::Record,
    map::{DecapState, Direction, Node, PeerKey},
    mark,
    packet::Packet,
    parse::{self, Inner, L3, OuterUdp, vxlan_overhead},
    template::DECAP_FLAGS,
    vni::VniKey,
    wire::{
        EthHeader, IpHeader, Ipv4Header, Ipv6Header, UdpHeader, VxlanHeader,
        eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4,
    },
};

use crate::{
    accept::{self, Outer, Sender},
    carried::Carried,
    deliver::{self, Destination},
    flows::{Ingress, OnWire},
    maps, mss,
    packet::{Skb, Tag},
    path_mtu,
    verdict::Verdict,
};

/// Bytes of link-layer header on an uplink that has none.
const BARE: usize = 0;

/// A packet that came in on an uplink with Ethernet headers.
#[inline(always)]
pub(crate) fn from_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    let incoming = match handed_over(&skb) {
        Some(record) => Some(Incoming::from_xdp(&skb, &record)?),
        None => from_ethernet(&skb)?,
    };
    incoming.map_or(Ok(Verdict::Pass), |incoming| incoming.arrive::<L3>(&skb))
}

#[inline(always)]
fn from_ethernet(skb: &Skb<'_>) -> Result<Option<Incoming>, DropReason> {
    // A tagged frame is another interface's.
    if !skb.is_for_us() || skb.untag() != Tag::None {
        return Ok(None);
    }
    skb.pull(L3 + OUTER_HEADERS);
    let Some(eth) = skb.read::<EthHeader>(0) else { return Ok(None) };
    from_wire::<L3>(skb, eth.ethertype)
}

/// A packet that came in on an uplink without Ethernet headers.
#[inline(always)]
pub(crate) fn from_l3_uplink(ctx: &TcContext) -> Result<Verdict, DropReason> {
    let skb = Skb::new(ctx);
    skb.pull(OUTER_HEADERS);
    let incoming = from_wire::<BARE>(&skb, skb.protocol())?;
    incoming.map_or(Ok(Verdict::Pass), |incoming| incoming.arrive::<BARE>(&skb))
}

/// Bytes of the longest headers that are read before the packet is known to be ours.
const OUTER_HEADERS: usize = Ipv6Header::LEN + UdpHeader::LEN + UdpHeader::LEN;

#[inline(always)]
fn from_wire<const LINK: usize>(skb: &Skb<'_>, ethertype: Be16) -> Result<Option<Incoming>, DropReason> {
    match ethertype {
        ETHERTYPE_IPV4 => Incoming::from_wire::<Ipv4Header, LINK>(skb),
        ETHERTYPE_IPV6 => Incoming::from_wire::<Ipv6Header, LINK>(skb),
        _ => Ok(None),
    }
}

/// The outer headers of a packet, still to be stripped.
#[derive(Clone, Copy)]
pub(crate) struct Wrapping {
    /// The UDP port that it was sent to; 0 where there is no UDP header.
    pub(crate) port: Be16,
    /// Bytes, the inner Ethernet header included.
    pub(crate) len: usize,
    /// EtherType of the outer IP version.
    pub(crate) ethertype: Be16,
}

impl Wrapping {
    /// True where there is a UDP header.
    #[inline(always)]
    pub(crate) fn is_udp(&self) -> bool {
        self.port != Be16::new(0)
    }
}

/// A packet that may come in, if it has a destination here.
pub(crate) struct Incoming {
    pub(crate) sender: Sender,
    pub(crate) inner: Inner,
    /// The TOS byte that the inner header is to have.
    pub(crate) tos: u8,
    pub(crate) wrapping: Option<Wrapping>,
    pub(crate) place: Place,
}

/// Where an incoming packet goes.
pub(crate) enum Place {
    Known(Destination),
    /// To be looked up, and remembered for a flow.
    Sought(Ingress),
}

impl Incoming {
    /// `None` for what is not ours, or better handled by the kernel.
    #[inline(always)]
    fn from_wire<O: Outer, const LINK: usize>(skb: &Skb<'_>) -> Result<Option<Self>, DropReason> {
        let Some(ip) = parse::outer_ip::<_, O, LINK>(skb) else { return Ok(None) };
        if !ip.is_plain() || ip.protocol() != ipv4::PROTOCOL_UDP {
            return beside_tunnels::<O, LINK>(skb, ip).map(|()| None);
        }
        let Some(outer) = parse::outer_udp::<_, O, LINK>(skb, ip) else { return Ok(None) };
        let flow = flow_of(skb, &outer);
        let outer_tos = outer.ip.tos();
        let (sender, place, vtep_mac) = match flow.ends(skb) {
            Some((sender, destination)) => (sender, Place::Known(destination), flow.inner_mac()),
            None => {
                let Some(node) = to_tunnel(skb, &outer) else { return Ok(None) };
                let Some(vni) = accept::vni(skb, &outer)? else { return Ok(None) };
                let src = O::map_ip(outer.ip.src());
                let Some(sender) = Sender::find(vni, src, outer.port(), node)? else { return Ok(None) };
                (sender, Place::Sought(flow), node.vtep_mac)
            }
        };
        let judged = parse::vxlan_inner(skb, &outer, vtep_mac).and_then(|inner| {
            let tos = match place {
                Place::Known(_) => ecn::inner_tos(outer_tos, inner.tos()),
                Place::Sought(_) => sender.may_send(&inner, outer_tos),
            };
            tos.map(|tos| (inner, tos))
        });
        let (inner, tos) = match judged {
            // `uplink_resolve` takes it.
            Err(reason)
                if LINK != BARE && parse::resolves_after_all(skb, OuterUdp::<O, LINK>::INNER_ETH, reason) =>
            {
                return Ok(None);
            }
            judged => judged?,
        };
        let wrapping = Wrapping { port: outer.port(), len: vxlan_overhead::<O>(), ethertype: O::ETHERTYPE };
        Ok(Some(Self { sender, inner, tos, wrapping: Some(wrapping), place }))
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
        let gso_size = skb.gso_size();
        let v4 = parse::frame::<_, Ipv4Header>(skb, gso_size).map(|frame| Inner::V4(frame.ip));
        let v6 = || parse::frame::<_, Ipv6Header>(skb, gso_size).map(|frame| Inner::V6(frame.ip));
        let inner = v4.or_else(v6).ok_or(DropReason::InnerMalformed)?;
        let sender = Sender { peer: record.peer, network: record.network };
        Ok(Self { sender, tos: inner.tos(), inner, wrapping: None, place: Place::Sought(Ingress::NONE) })
    }

    #[inline(always)]
    pub(crate) fn arrive<const LINK: usize>(self, skb: &Skb<'_>) -> Result<Verdict, DropReason> {
        let Self { sender, inner, tos, wrapping, place } = self;
        match inner {
            Inner::V4(inner) => arrive::<_, LINK>(skb, place.of(skb, sender, &inner)?, inner, tos, wrapping),
            Inner::V6(inner) => arrive::<_, LINK>(skb, place.of(skb, sender, &inner)?, inner, tos, wrapping),
        }
    }
}

impl Place {
    #[inline(always)]
    fn of<H: Carried>(self, skb: &Skb<'_>, sender: Sender, inner: &H) -> Result<Arrival, DropReason> {
        match self {
            Self::Known(destination) => Ok(Arrival { sender, destination }),
            Self::Sought(flow) => {
                let arrival = Arrival::find(skb, sender, inner)?;
                flow.keep(sender, arrival.destination);
                Ok(arrival)
            }
        }
    }
}

/// Strips the outer headers, where they are there, and hands the packet over.
#[inline(always)]
fn arrive<H: Carried, const LINK: usize>(
    skb: &Skb<'_>,
    arrival: Arrival,
    mut inner: H,
    tos: u8,
    wrapping: Option<Wrapping>,
) -> Result<Verdict, DropReason> {
    let bytes = inner.packet_len() as u64;
    if let Some(wrapping) = wrapping {
        let Wrapping { port, len, ethertype } = wrapping;
        let flags = if ethertype == H::ETHERTYPE { DECAP_FLAGS } else { DECAP_FLAGS | H::DECAP_TO };
        let needs_device = wrapping.is_udp() && arrival.needs_device(skb, &inner);
        if needs_device || skb.adjust_room(-(len as i32), flags).is_err() {
            return if leave_to_device(skb, port) { Ok(Verdict::Pass) } else { Err(DropReason::DecapFailed) };
        }
        // What is known of the inner checksum is not counted on top of another's then.
        if wrapping.is_udp() {
            skb.outer_checksum_removed();
        }
        if LINK == BARE {
            skb.add_ethernet().map_err(|_| DropReason::DecapFailed)?;
        }
        if tos != inner.tos() {
            inner.set_tos(tos);
            skb.store(L3, &inner).map_err(|_| DropReason::DecapFailed)?;
        }
    }
    arrival.hand_over(skb, &inner, bytes)
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
    let key = PeerKey { vni: VniKey::from_wire([a, b, c]), ip: remote };
    let peer = maps::peer(key)?;
    let sender = Sender { peer: peer.id, network: peer.network };
    skb.pull(mss::LEN);
    let inner = parse::inner(&skb, 0, skb.len(), node.vtep_mac)?;
    sender.may_send(&inner, ecn::NOT_ECT)?;
    match inner {
        Inner::V4(inner) => from_device_ip(&skb, sender, inner),
        Inner::V6(inner) => from_device_ip(&skb, sender, inner),
    }
}

#[inline(always)]
fn from_device_ip<H: Carried>(skb: &Skb<'_>, sender: Sender, inner: H) -> Result<Verdict, DropReason> {
    let arrival = Arrival::find(skb, sender, &inner)?;
    skb.set_mark(0);
    skb.take_as_ours();
    arrival.hand_over(skb, &inner, inner.packet_len() as u64)
}

/// The flow of what looks like a tunnel packet. Makes the inner headers readable.
#[inline(always)]
fn flow_of<O: Outer, const LINK: usize>(skb: &Skb<'_>, outer: &OuterUdp<O, LINK>) -> Ingress {
    let Ok(vni) = parse::vxlan(skb, outer) else { return Ingress::NONE };
    skb.pull(OuterUdp::<O, LINK>::INNER_L3 - L3 + mss::LEN);
    let Some(eth) = skb.read::<EthHeader>(OuterUdp::<O, LINK>::INNER_ETH) else { return Ingress::NONE };
    match eth.ethertype {
        ETHERTYPE_IPV4 => flow_with::<O, Ipv4Header, LINK>(skb, outer, vni, eth.dst),
        ETHERTYPE_IPV6 => flow_with::<O, Ipv6Header, LINK>(skb, outer, vni, eth.dst),
        _ => Ingress::NONE,
    }
}

#[inline(always)]
fn flow_with<O: Outer, H: Carried, const LINK: usize>(
    skb: &Skb<'_>,
    outer: &OuterUdp<O, LINK>,
    vni: VniKey,
    inner_mac: Mac,
) -> Ingress {
    let Some((src, dst)) = parse::ends::<_, H>(skb, OuterUdp::<O, LINK>::INNER_L3) else {
        return Ingress::NONE;
    };
    Ingress::take(&OnWire {
        uplink: skb.ifindex(),
        versions: [O::ETHERTYPE, H::ETHERTYPE],
        outer_src: O::words(outer.ip.src()),
        outer_dst: O::words(outer.ip.dst()),
        port: outer.port(),
        vni,
        inner_mac,
        src,
        dst,
    })
}

/// This host, where the packet is addressed to one of its tunnels.
#[inline(always)]
fn to_tunnel<O: Outer, const LINK: usize>(skb: &Skb<'_>, outer: &OuterUdp<O, LINK>) -> Option<&'static Node> {
    let uplink = maps::uplink(skb.ifindex())?;
    if outer.ip.dst() != O::own(uplink) {
        return None;
    }
    maps::node().filter(|node| maps::is_vxlan_port(node, outer.port()))
}

/// What comes to this host beside whole tunnel packets: routers' words about them, and those that the kernel has to
/// reassemble or judge.
#[inline(always)]
fn beside_tunnels<O: Outer, const LINK: usize>(skb: &Skb<'_>, ip: O) -> Result<(), DropReason> {
    let Some(uplink) = maps::uplink(skb.ifindex()) else { return Ok(()) };
    let ours = O::own(uplink);
    if ip.dst() != ours {
        return Ok(());
    }
    if ip.protocol() == O::ICMP {
        path_mtu::learn::<O, LINK>(skb, &ip, ours);
        return Ok(());
    }
    let (Some(outer), Some(node)) = (parse::outer_udp::<_, _, LINK>(skb, ip), maps::node()) else {
        return Ok(());
    };
    match maps::kind_of(node, outer.port()) {
        Some(Encap::Vxlan) => refuse_early(skb, &outer, node)?,
        Some(Encap::Geneve) => {}
        _ => return Ok(()),
    }
    leave_to_device(skb, outer.port());
    Ok(())
}

/// Refuses a first fragment, or a packet with IP options, that the tunnel device would refuse later: here the
/// refusal has a name, and nothing is reassembled in vain.
#[inline(always)]
fn refuse_early<O: Outer, const LINK: usize>(
    skb: &Skb<'_>,
    outer: &OuterUdp<O, LINK>,
    node: &Node,
) -> Result<(), DropReason> {
    skb.pull(LINK + O::LEN + UdpHeader::LEN + VxlanHeader::LEN);
    let Some(vxlan) = parse::first_vxlan(skb, outer) else { return Ok(()) };
    if !vxlan.is_plain() {
        return if maps::port_is_shared(outer.port()) { Ok(()) } else { Err(DropReason::VxlanFlags) };
    }
    let src = O::map_ip(outer.ip.src());
    Sender::find(VniKey::from_wire(vxlan.vni), src, outer.port(), node).map(drop)
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
pub(crate) struct Arrival {
    sender: Sender,
    destination: Destination,
}

impl Arrival {
    #[inline(always)]
    pub(crate) fn find<H: Carried>(skb: &Skb<'_>, sender: Sender, inner: &H) -> Result<Self, DropReason> {
        let destination = deliver::find::<H>(skb, sender.network, inner.dst())?;
        Ok(Self { sender, destination })
    }

    /// True for an aggregate that somebody will cut up again: a socket that wants single datagrams, or a device.
    /// `bpf_skb_adjust_room` leaves it marked as a UDP tunnel's (before kernel 7.2, and BPF_F_ADJ_ROOM_DECAP_L4_UDP), and
    /// it would be cut at the wrong places. To the marks of other tunnels nobody looks there.
    #[inline(always)]
    fn needs_device<H: Carried>(&self, skb: &Skb<'_>, inner: &H) -> bool {
        skb.gso_size() != 0 && (inner.protocol() != ipv4::PROTOCOL_TCP || !self.destination.ends_here())
    }

    /// Hands the packet over, whose inner IP header now stands behind its Ethernet header.
    #[inline(always)]
    pub(crate) fn hand_over<H: Carried>(
        self,
        skb: &Skb<'_>,
        inner: &H,
        bytes: u64,
    ) -> Result<Verdict, DropReason> {
        let packets = skb.wire_packets();
        if mss::is_syn(skb, inner)
            && let Some(route) = H::route(self.sender.network, inner.src())
            && let Ok(tunnel) = maps::tunnel(route.tunnel)
        {
            mss::clamp::<H>(skb, tunnel.mtu);
        }
        inner.deny_on_link(skb, L3).map_err(|_| DropReason::DecapFailed)?;
        let verdict = deliver::to::<H>(skb, self.destination)?;
        maps::count_traffic(self.sender.peer, Direction::FromPeer, packets, bytes);
        Ok(verdict)
    }
}
