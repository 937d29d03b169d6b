//! Every map, and the few ways in which the programs use them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    macros::btf_map,
};
use overlay_common::{
    Be16, DropReason, Encap,
    addr::MapIp,
    event::Event,
    map::{
        Decap, Direction, EVENTS_BYTES, EgressFlow, Endpoint, EndpointKey, Generation, IngressFlow,
        MAX_ENDPOINTS, MAX_FLOWS, MAX_LISTEN_PORTS, MAX_NEIGHBOURS, MAX_NOTES, MAX_PEER_KEYS, MAX_PEERS,
        MAX_PORTS, MAX_ROUTES, MAX_SUBNETS, MAX_TUNNELS, MAX_UPLINKS, Neighbour, NeighbourKey, Node, Note,
        PathMtu, Peer, PeerKey, Port, PrefixV4, PrefixV6, Route, SAMPLES_BYTES, Sample, Sampling, Status,
        Subnet, Traffic, Tunnel, TunnelDevice, Uplink, VNI_BITS, tunnel_device_flag,
    },
    vni::VniKey,
};

#[btf_map]
pub(crate) static PORTS: HashMap<u32, Port, MAX_PORTS> = HashMap::new();
#[btf_map]
pub(crate) static ENDPOINTS: HashMap<EndpointKey, Endpoint, MAX_ENDPOINTS> = HashMap::new();
#[btf_map]
static ROUTES_V4: LpmTrie<PrefixV4, Route, MAX_ROUTES> = LpmTrie::new();
#[btf_map]
static SUBNETS_V4: LpmTrie<PrefixV4, Subnet, MAX_SUBNETS> = LpmTrie::new();
#[btf_map]
static ROUTES_V6: LpmTrie<PrefixV6, Route, MAX_ROUTES> = LpmTrie::new();
#[btf_map]
static SUBNETS_V6: LpmTrie<PrefixV6, Subnet, MAX_SUBNETS> = LpmTrie::new();
#[btf_map]
static TUNNELS: Array<Tunnel, MAX_TUNNELS> = Array::new();
#[btf_map]
static PEERS: HashMap<PeerKey, Peer, MAX_PEER_KEYS> = HashMap::new();
#[btf_map]
static UPLINKS: HashMap<u32, Uplink, MAX_UPLINKS> = HashMap::new();
#[btf_map]
static LISTEN_PORTS: HashMap<u32, u32, MAX_LISTEN_PORTS> = HashMap::new();
#[btf_map]
static NODE: Array<Node, 1> = Array::new();
/// The daemon's; no program touches it.
#[btf_map]
static STATUS: Array<Status, 1> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<Traffic, { Traffic::CAPACITY }> = PerCpuArray::new();
#[btf_map]
static DROPS: PerCpuArray<u64, { DropReason::CAPACITY as usize }> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, EVENTS_BYTES> = RingBuf::new();
#[btf_map]
pub(crate) static PATH_MTUS: HashMap<MapIp, PathMtu, MAX_PEERS> = HashMap::new();
#[btf_map]
static TUNNEL_DEVICES: HashMap<u32, TunnelDevice, MAX_LISTEN_PORTS> = HashMap::new();
/// The daemon's; no program touches it.
#[btf_map]
static NOTES: Array<Note, MAX_NOTES> = Array::new();
#[btf_map]
pub(crate) static SAMPLING: Array<Sampling, 1> = Array::new();
#[btf_map]
pub(crate) static SAMPLED: PerCpuArray<u64, { DropReason::CAPACITY as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Sample, SAMPLES_BYTES> = RingBuf::new();

#[btf_map]
static DECAPS: HashMap<u32, Decap, MAX_UPLINKS> = HashMap::new();
#[btf_map]
static GENERATION: Array<Generation, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static EGRESS_FLOWS: PerCpuArray<EgressFlow, MAX_FLOWS> = PerCpuArray::new();
#[btf_map]
static INGRESS_FLOWS: PerCpuArray<IngressFlow, MAX_FLOWS> = PerCpuArray::new();

#[btf_map]
pub(crate) static NEIGHBOURS: LruHashMap<NeighbourKey, Neighbour, MAX_NEIGHBOURS> = LruHashMap::new();

/// The bridge or bridge port with this index.
#[inline(always)]
pub(crate) fn port(ifindex: u32) -> Option<&'static Port> {
    // SAFETY: the daemon replaces whole entries; a reader sees the old or the new one.
    unsafe { PORTS.get(ifindex) }
}

/// The generation of the tables; 0 before there is any.
#[inline(always)]
pub(crate) fn generation() -> Generation {
    // SAFETY: a word, which the daemon counts up; what is read is the old or the new one.
    GENERATION.get_ptr(0).map_or(0, |generation| unsafe { generation.read_volatile() })
}

/// This CPU's entry of `EGRESS_FLOWS`.
#[inline(always)]
pub(crate) fn egress_flow(slot: u32) -> Option<*mut EgressFlow> {
    EGRESS_FLOWS.get_ptr_mut(slot)
}

/// This CPU's entry of `INGRESS_FLOWS`.
#[inline(always)]
pub(crate) fn ingress_flow(slot: u32) -> Option<*mut IngressFlow> {
    INGRESS_FLOWS.get_ptr_mut(slot)
}

/// A whole address inside a network, as the tries take it.
#[inline(always)]
fn key_v4(vni: VniKey, addr: [u8; 4]) -> Key<PrefixV4> {
    Key::new(VNI_BITS + 32, PrefixV4 { vni, addr })
}

#[inline(always)]
fn key_v6(vni: VniKey, addr: [u8; 16]) -> Key<PrefixV6> {
    Key::new(VNI_BITS + 128, PrefixV6 { vni, addr })
}

/// The peer's subnet that covers an address.
#[inline(always)]
pub(crate) fn route_v4(vni: VniKey, addr: [u8; 4]) -> Option<&'static Route> {
    ROUTES_V4.get(&key_v4(vni, addr))
}

/// As [`route_v4`].
#[inline(always)]
pub(crate) fn route_v6(vni: VniKey, addr: [u8; 16]) -> Option<&'static Route> {
    ROUTES_V6.get(&key_v6(vni, addr))
}

/// The local subnet that covers an address.
#[inline(always)]
pub(crate) fn subnet_v4(vni: VniKey, addr: [u8; 4]) -> Option<&'static Subnet> {
    SUBNETS_V4.get(&key_v4(vni, addr))
}

/// As [`subnet_v4`].
#[inline(always)]
pub(crate) fn subnet_v6(vni: VniKey, addr: [u8; 16]) -> Option<&'static Subnet> {
    SUBNETS_V6.get(&key_v6(vni, addr))
}

/// The tunnel with this id, if one is in use under it.
#[inline(always)]
pub(crate) fn tunnel(id: u32) -> Result<&'static Tunnel, DropReason> {
    TUNNELS.get(id).filter(|tunnel| tunnel.template_len != 0).ok_or(DropReason::NoTunnel)
}

/// True where a UDP port on a host is the far end of a tunnel of ours: the host is a peer, whatever VNI it sends
/// with, and the port carries tunnels.
#[inline(always)]
pub(crate) fn is_peers_tunnel(ip: MapIp, port: Be16) -> bool {
    node().is_some_and(|node| is_tunnel_port(node, port)) && is_peers_host(ip)
}

/// True for the underlay address of a peer.
#[inline(always)]
pub(crate) fn is_peers_host(ip: MapIp) -> bool {
    host(ip).is_some()
}

/// The peer with this underlay address.
#[inline(always)]
pub(crate) fn host(ip: MapIp) -> Option<&'static Peer> {
    // SAFETY: as in `port`.
    unsafe { PEERS.get(PeerKey { vni: VniKey::NONE, ip }) }
}

/// The peer that sends with this VNI from this address.
///
/// # Errors
/// [`DropReason::WrongVni`] for a peer that uses another VNI, [`DropReason::UnknownPeer`] for a stranger.
#[inline(always)]
pub(crate) fn peer(mut key: PeerKey) -> Result<&'static Peer, DropReason> {
    // SAFETY: as in `port`.
    if let Some(peer) = unsafe { PEERS.get(key) }.filter(|_| key.vni != VniKey::NONE) {
        return Ok(peer);
    }
    key.vni = VniKey::NONE;
    // SAFETY: as in `port`.
    Err(if unsafe { PEERS.get(key) }.is_some() { DropReason::WrongVni } else { DropReason::UnknownPeer })
}

/// The underlay interface with this index.
#[inline(always)]
pub(crate) fn uplink(ifindex: u32) -> Option<&'static Uplink> {
    // SAFETY: as in `port`.
    unsafe { UPLINKS.get(ifindex) }
}

/// How an uplink's packets are decapsulated.
#[inline(always)]
pub(crate) fn decap_mut(ifindex: u32) -> Option<*mut Decap> {
    DECAPS.get_ptr_mut(ifindex)
}

/// What this host is.
#[inline(always)]
pub(crate) fn node() -> Option<&'static Node> {
    NODE.get(0)
}

/// True for a UDP port that carries VXLAN: the node's own, or another that a peer listens on.
#[inline(always)]
pub(crate) fn is_vxlan_port(node: &Node, port: Be16) -> bool {
    node.port == port || listens(port) == Encap::Vxlan as u32
}

/// The kind of tunnel that a UDP port carries; `None` for none.
#[inline(always)]
pub(crate) fn kind_of(node: &Node, port: Be16) -> Option<Encap> {
    if node.geneve_port == port {
        return Some(Encap::Geneve);
    }
    if is_vxlan_port(node, port) {
        return Some(Encap::Vxlan);
    }
    (listens(port) == Encap::Geneve as u32).then_some(Encap::Geneve)
}

/// True for a UDP port that carries tunnels of any kind.
#[inline(always)]
fn is_tunnel_port(node: &Node, port: Be16) -> bool {
    node.port == port || node.geneve_port == port || listens(port) != 0
}

/// The kind of tunnel that a further port carries; 0 for none.
#[inline(always)]
fn listens(port: Be16) -> u32 {
    // SAFETY: as in `port`.
    unsafe { LISTEN_PORTS.get(u32::from(port.get())) }.copied().unwrap_or(0)
}

/// Who holds the socket of a UDP port.
#[inline(always)]
pub(crate) fn tunnel_device(port: Be16) -> Option<&'static TunnelDevice> {
    // SAFETY: as in `port`.
    unsafe { TUNNEL_DEVICES.get(u32::from(port.get())) }
}

/// True where a tunnel device that is not ours holds the port's socket, and VNIs that are not ours are its.
#[inline(always)]
pub(crate) fn port_is_shared(port: Be16) -> bool {
    tunnel_device(port).is_some_and(|device| device.flags & tunnel_device_flag::SHARED != 0)
}

/// Counts a dropped packet.
#[inline(always)]
pub(crate) fn count_drop(reason: DropReason) {
    if let Some(packets) = DROPS.get_ptr_mut(reason.number()) {
        // SAFETY: the entry is this CPU's own, and programs on one CPU do not preempt each other here.
        unsafe { *packets += 1 }
    }
}

/// Counts traffic with a peer.
#[inline(always)]
pub(crate) fn count_traffic(peer: u32, direction: Direction, packets: u64, bytes: u64) {
    if let Some(traffic) = COUNTERS.get_ptr_mut(Traffic::index(peer, direction)) {
        // SAFETY: as in `count_drop`.
        unsafe {
            (*traffic).packets += packets;
            (*traffic).bytes += bytes;
        }
    }
}

/// Tells the daemon. A full ring buffer loses the event: it is a hint, and the next packet repeats it.
#[inline(always)]
pub(crate) fn send_event(event: &Event) {
    let _ = EVENTS.output(event, 0);
}
