//! From one container to another on the same bridge: from veth to veth, past the bridge, where nothing filters
//! or rewrites what the bridge forwards. What is not plainly such a packet is left to the bridge.

use overlay_common::{
    map::{Direction, EndpointKey, Port, Traffic, endpoint_flag, port_flag},
    packet::Packet,
    parse::{Frame, L3},
};

use crate::{carried::Carried, maps, packet::Skb, verdict::Verdict};

/// A frame from a bridge port that is not for the gateway's MAC address.
#[inline(always)]
pub(crate) fn deliver<H: Carried>(
    skb: &Skb<'_>,
    port: &Port,
    frame: &Frame<H>,
    sender_is_true: bool,
) -> Verdict {
    let Some(flag) = H::LOCAL else { return Verdict::Pass };
    // On the bridge itself the sender is not known. A container that routes for others sends from addresses that
    // are not its own.
    let permitted = port.flags & (flag | port_flag::BRIDGE) == flag;
    if !permitted || !sender_is_true || !H::is_in_subnet(port, frame.ip.dst()) {
        return Verdict::Pass;
    }
    let key = EndpointKey { vni: port.vni, ip: H::map_ip(frame.ip.dst()) };
    // SAFETY: entries are preallocated; a torn read at worst misdelivers one packet at the moment an
    // endpoint moves, as the bridge would.
    let Some(endpoint) = (unsafe { maps::ENDPOINTS.get(key) }) else { return Verdict::Pass };
    let (ifindex, flags, mac) = (endpoint.ifindex, endpoint.flags, endpoint.mac);
    // The next hop may be another than the destination: a router, a VPN, a virtual IP.
    if flags & endpoint_flag::PEER == 0 || mac != frame.eth.dst || ifindex == skb.ifindex() {
        return Verdict::Pass;
    }
    if !skb.device_exists(ifindex) {
        return Verdict::Pass;
    }
    // The frame is for another MAC address than the port's, and before 6.15 bpf_redirect_peer leaves it marked so: the
    // container's stack would take it for somebody else's.
    skb.take_as_ours();
    maps::count_traffic(Traffic::LOCAL, Direction::ToPeer, skb.wire_packets(), (skb.len() - L3) as u64);
    Verdict::ToPeer { ifindex }
}
