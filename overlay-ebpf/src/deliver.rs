//! Delivery of what came out of the overlay: into a container, to this host, or onto the bridge.

use overlay_common::{
    DropReason, Mac,
    addr::MapIp,
    map::{EndpointKey, endpoint_flag, subnet_flag},
    mark,
    vni::VniKey,
    wire::EthHeader,
};

use crate::{carried::Carried, maps, packet::Skb, verdict::Verdict};

/// Where a packet goes on this host.
#[derive(Clone, Copy)]
pub(crate) enum Destination {
    /// A container whose interface and MAC address are known.
    Endpoint { ifindex: u32, peer: bool, mac: Mac, gateway_mac: Mac },
    /// The bridge's own address.
    Host { bridge: u32, mac: Mac },
    /// Nobody knows where on the bridge it is: the kernel asks for it, and the very first packet arrives.
    Bridge { bridge: u32, addr: MapIp },
}

impl Destination {
    /// True where the packet goes to a stack at once, and not out of a device.
    #[inline(always)]
    pub(crate) fn ends_here(&self) -> bool {
        matches!(self, Self::Endpoint { peer: true, .. } | Self::Host { .. })
    }
}

/// Finds a local address.
///
/// # Errors
/// [`DropReason::InnerMulticast`] and [`DropReason::NotLocal`].
#[inline(always)]
pub(crate) fn find<H: Carried>(skb: &Skb<'_>, vni: VniKey, addr: H::Addr) -> Result<Destination, DropReason> {
    let ip = H::map_ip(addr);
    let key = EndpointKey { vni, ip };
    // SAFETY: entries are preallocated; a torn read at worst misdelivers one packet at the moment an
    // endpoint moves, as the bridge would.
    if let Some(endpoint) = unsafe { maps::ENDPOINTS.get(key) } {
        let (ifindex, mac) = (endpoint.ifindex, endpoint.mac);
        if endpoint.flags & endpoint_flag::HOST != 0 {
            return Ok(Destination::Host { bridge: ifindex, mac });
        }
        // A container that came back while no daemon was there has another interface: redirecting to the
        // dead one is a silent loss.
        if skb.device_exists(ifindex) {
            let peer = endpoint.flags & endpoint_flag::PEER != 0;
            return Ok(Destination::Endpoint { ifindex, peer, mac, gateway_mac: endpoint.gateway_mac });
        }
    }
    if H::is_group(addr) {
        return Err(DropReason::InnerMulticast);
    }
    let subnet = H::subnet(vni, addr).ok_or(DropReason::NotLocal)?;
    if subnet.flags & subnet_flag::ROUTED != 0 {
        let bridge = subnet.bridge;
        let mac = maps::port(bridge).ok_or(DropReason::NotLocal)?.gateway_mac;
        return Ok(Destination::Host { bridge, mac });
    }
    if ip == subnet.broadcast {
        return Err(DropReason::InnerMulticast);
    }
    Ok(Destination::Bridge { bridge: subnet.bridge, addr: ip })
}

/// Addresses a decapsulated packet to its destination.
///
/// # Errors
/// [`DropReason::DecapFailed`] where the Ethernet header cannot be written.
#[inline(always)]
pub(crate) fn to<H: Carried>(skb: &Skb<'_>, destination: Destination) -> Result<Verdict, DropReason> {
    let (dst, src, verdict) = match destination {
        Destination::Endpoint { ifindex, peer: true, mac, gateway_mac } => {
            (mac, gateway_mac, Verdict::ToPeer { ifindex })
        }
        Destination::Endpoint { ifindex, peer: false, mac, gateway_mac } => {
            (mac, gateway_mac, Verdict::ToPort { ifindex })
        }
        Destination::Host { bridge, mac } => {
            skb.set_mark(mark::TO_HOST);
            (mac, Mac::OVERLAY_NEIGHBOUR, Verdict::ToHost { bridge })
        }
        // The neighbour's entry gives the addresses.
        Destination::Bridge { bridge, addr } => {
            return Ok(Verdict::ToNeighbour { ifindex: bridge, next_hop: addr.words() });
        }
    };
    let eth = EthHeader { dst, src, ethertype: H::ETHERTYPE };
    skb.store(0, &eth).map_err(|_| DropReason::DecapFailed)?;
    Ok(verdict)
}
