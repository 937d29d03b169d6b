//! The flows that this CPU remembers. What is not remembered, or not any more, is judged by the tables.

use core::ptr;

use overlay_common::{
    Be16, Mac,
    addr::MapIp,
    map::{EgressFlow, Generation, IngressFlow, slot},
    vni::VniKey,
    wire::EthHeader,
};

use crate::{accept::Sender, deliver::Destination, maps, packet::Skb};

/// From whom to whom a container's packet goes.
pub(crate) struct Egress {
    generation: Generation,
    ifindex: u32,
    src: MapIp,
    dst: MapIp,
    mac: Mac,
    gateway_mac: Mac,
    version: Be16,
}

impl Egress {
    /// To be made before any table is asked: an answer that changes meanwhile is remembered as an old one.
    #[inline(always)]
    pub(crate) fn new(ifindex: u32, eth: &EthHeader, src: MapIp, dst: MapIp) -> Self {
        let EthHeader { src: mac, dst: gateway_mac, ethertype: version } = *eth;
        Self { generation: maps::generation(), ifindex, src, dst, mac, gateway_mac, version }
    }

    /// The tunnel that the flow may take.
    #[inline(always)]
    pub(crate) fn tunnel(&self) -> Option<u32> {
        let flow = maps::egress_flow(slot(self.src, self.dst))?;
        // SAFETY: the entry is this CPU's own, and programs on one CPU do not preempt each other here.
        let flow: &EgressFlow = unsafe { &*flow };
        let known = self.generation != 0
            && flow.generation == self.generation
            && flow.ifindex == self.ifindex
            && flow.src.words() == self.src.words()
            && flow.dst.words() == self.dst.words()
            && flow.mac == self.mac
            && flow.gateway_mac == self.gateway_mac
            && flow.version == self.version;
        known.then_some(flow.tunnel)
    }

    /// Remembers it. The frame is for the bridge.
    #[inline(always)]
    pub(crate) fn keep(&self, tunnel: u32) {
        let Some(flow) = maps::egress_flow(slot(self.src, self.dst)) else { return };
        let Self { generation, ifindex, src, dst, mac, gateway_mac, version } = *self;
        let padding = [0; 2];
        // SAFETY: as in `tunnel`.
        unsafe {
            *flow = EgressFlow { generation, ifindex, src, dst, mac, gateway_mac, version, padding, tunnel }
        }
    }
}

/// What a tunnel packet says of its flow.
pub(crate) struct OnWire {
    pub(crate) uplink: u32,
    pub(crate) versions: [Be16; 2],
    pub(crate) outer_src: MapIp,
    pub(crate) outer_dst: MapIp,
    pub(crate) port: Be16,
    pub(crate) vni: VniKey,
    pub(crate) inner_mac: Mac,
    pub(crate) src: MapIp,
    pub(crate) dst: MapIp,
}

/// This CPU's entry for a peer's packet, if there is one. No `Option`: of one, LLVM may store what no variant has.
#[derive(Clone, Copy)]
pub(crate) struct Ingress {
    flow: *mut IngressFlow,
    generation: Generation,
}

impl Ingress {
    /// No entry.
    pub(crate) const NONE: Self = Self { flow: ptr::null_mut(), generation: 0 };

    /// Takes the entry for this flow, whichever it remembered. To be done before any table is asked: an answer that
    /// changes meanwhile is remembered as an old one.
    #[inline(always)]
    pub(crate) fn take(wire: &OnWire) -> Self {
        let generation = maps::generation();
        let flow = maps::ingress_flow(slot(wire.src, wire.dst)).unwrap_or(ptr::null_mut());
        // SAFETY: as in `Egress::tunnel`.
        if let Some(known) = unsafe { flow.as_mut() } {
            let same = known.generation == generation
                && known.vni == wire.vni
                && known.versions == wire.versions
                && known.outer_src.words() == wire.outer_src.words()
                && known.outer_dst.words() == wire.outer_dst.words()
                && known.src.words() == wire.src.words()
                && known.dst.words() == wire.dst.words()
                && known.uplink == wire.uplink
                && known.port == wire.port
                && known.inner_mac == wire.inner_mac;
            if !same {
                known.generation = 0;
                (known.vni, known.versions) = (wire.vni, wire.versions);
                (known.outer_src, known.outer_dst) = (wire.outer_src, wire.outer_dst);
                (known.src, known.dst) = (wire.src, wire.dst);
                (known.uplink, known.port, known.inner_mac) = (wire.uplink, wire.port, wire.inner_mac);
            }
        }
        Self { flow, generation }
    }

    /// The sender, which may send this, and the container that it is for, where they are remembered.
    #[inline(always)]
    pub(crate) fn ends(&self, skb: &Skb<'_>) -> Option<(Sender, Destination)> {
        // SAFETY: as in `Egress::tunnel`.
        let flow = unsafe { self.flow.as_ref() }?;
        let known = self.generation != 0 && flow.generation == self.generation;
        // An interface may be gone of which no daemon has told.
        if !known || !skb.device_exists(flow.ifindex) {
            return None;
        }
        let sender = Sender { peer: flow.peer, network: flow.network };
        let (ifindex, mac, gateway_mac) = (flow.ifindex, flow.mac, flow.gateway_mac);
        Some((sender, Destination::Endpoint { ifindex, peer: true, mac, gateway_mac }))
    }

    /// The inner frame's destination as it was found right; of no entry, nobody's.
    #[inline(always)]
    pub(crate) fn inner_mac(&self) -> Mac {
        // SAFETY: as in `Egress::tunnel`.
        unsafe { self.flow.as_ref() }.map_or(Mac([0; 6]), |flow| flow.inner_mac)
    }

    /// Remembers them. Other destinations than containers take the kernel's way, where a lookup is the least.
    #[inline(always)]
    pub(crate) fn keep(&self, sender: Sender, destination: Destination) {
        let Destination::Endpoint { ifindex, peer: true, mac, gateway_mac } = destination else { return };
        // SAFETY: as in `Egress::tunnel`.
        let Some(flow) = (unsafe { self.flow.as_mut() }) else { return };
        (flow.peer, flow.network) = (sender.peer, sender.network);
        (flow.ifindex, flow.mac, flow.gateway_mac) = (ifindex, mac, gateway_mac);
        flow.generation = self.generation;
    }
}
