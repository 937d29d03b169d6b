//! The two versions of IP that the overlay carries: where the programs look up what belongs to each.

use bytemuck::Pod;
use overlay_common::{
    Be16, DropReason, checksum,
    map::{Port, Route, Subnet, port_flag},
    parse::{self, masked, masked_v6},
    template::{DECAP_TO_V4, DECAP_TO_V6},
    vni::VniKey,
    wire::{IpHeader, Ipv4Header, Ipv6Header, ipv6::ON_LINK},
};

use crate::{maps, packet::Skb};

/// An IP version of packets between containers.
pub(crate) trait Carried: IpHeader {
    /// Flag of `bpf_skb_adjust_room` where what is left is of this version and what is taken away was not.
    const DECAP_TO: u64;
    /// Flag of a port past whose bridge this version may go. None for IPv6: whether a host filters it between its
    /// bridge's ports the daemon does not find out.
    const LOCAL: Option<u32>;

    /// The peer's subnet that covers an address.
    fn route(vni: VniKey, addr: Self::Addr) -> Option<&'static Route>;

    /// The local subnet that covers an address.
    fn subnet(vni: VniKey, addr: Self::Addr) -> Option<&'static Subnet>;

    /// True for an address of a bridge's subnet.
    fn is_in_subnet(port: &Port, addr: Self::Addr) -> bool;

    /// True for the bridge's own address.
    fn is_gateway(port: &Port, addr: Self::Addr) -> bool;

    /// True for addresses of a bridge's subnet that no host may have.
    fn is_reserved(port: &Port, addr: Self::Addr) -> bool;

    /// The address that a frame claims to be its sender's own, by ARP or neighbour discovery.
    ///
    /// # Errors
    /// [`DropReason::GatewayClaimed`] where it claims to be the router, [`DropReason::ExtensionChain`] where it cannot
    /// be told.
    fn claimed(skb: &Skb<'_>) -> Result<Option<Self::Addr>, DropReason>;

    /// The start of a header, up to the count of hops and the checksum over it.
    type Start: Pod;

    /// The start of this header with one hop fewer: the overlay is one.
    fn one_hop_less(&self) -> Self::Start;

    /// True for a packet that a receiver may take for a neighbour's word about itself.
    fn is_on_link(&self) -> bool;

    /// Lets a packet that came out of the overlay, whose header is at `offset`, not pass for one of the link.
    fn deny_on_link(&self, skb: &Skb<'_>, offset: usize) -> Result<(), i64>;
}

impl Carried for Ipv4Header {
    const DECAP_TO: u64 = DECAP_TO_V4;
    const LOCAL: Option<u32> = Some(port_flag::LOCAL);

    type Start = [u32; 3];

    #[inline(always)]
    fn route(vni: VniKey, addr: [u8; 4]) -> Option<&'static Route> {
        maps::route_v4(vni, addr)
    }

    #[inline(always)]
    fn subnet(vni: VniKey, addr: [u8; 4]) -> Option<&'static Subnet> {
        maps::subnet_v4(vni, addr)
    }

    #[inline(always)]
    fn is_in_subnet(port: &Port, addr: [u8; 4]) -> bool {
        masked(addr, port.mask) == port.subnet
    }

    #[inline(always)]
    fn is_gateway(port: &Port, addr: [u8; 4]) -> bool {
        addr == port.gateway
    }

    /// The network and broadcast addresses; a /31 has neither (RFC 3021).
    #[inline(always)]
    fn is_reserved(port: &Port, addr: [u8; 4]) -> bool {
        let host_bits = !u32::from_be_bytes(port.mask);
        let host = u32::from_be_bytes(addr) & host_bits;
        host_bits > 1 && (host == 0 || host == host_bits)
    }

    #[inline(always)]
    fn claimed(skb: &Skb<'_>) -> Result<Option<[u8; 4]>, DropReason> {
        Ok(parse::arp_sender(skb))
    }

    #[inline(always)]
    fn one_hop_less(&self) -> [u32; 3] {
        let mut header = *self;
        header.ttl -= 1;
        let word = |ttl: u8| u16::from_be_bytes([ttl, self.protocol]);
        header.checksum = Be16::new(checksum::update(self.checksum.get(), word(self.ttl), word(header.ttl)));
        let [a, b, c, ..]: [u32; 5] = bytemuck::must_cast(header);
        [a, b, c]
    }

    /// ARP is no IPv4.
    #[inline(always)]
    fn is_on_link(&self) -> bool {
        false
    }

    #[inline(always)]
    fn deny_on_link(&self, _skb: &Skb<'_>, _offset: usize) -> Result<(), i64> {
        Ok(())
    }
}

impl Carried for Ipv6Header {
    const DECAP_TO: u64 = DECAP_TO_V6;
    const LOCAL: Option<u32> = None;

    type Start = [u32; 2];

    #[inline(always)]
    fn route(vni: VniKey, addr: [u8; 16]) -> Option<&'static Route> {
        maps::route_v6(vni, addr)
    }

    #[inline(always)]
    fn subnet(vni: VniKey, addr: [u8; 16]) -> Option<&'static Subnet> {
        maps::subnet_v6(vni, addr)
    }

    #[inline(always)]
    fn is_in_subnet(port: &Port, addr: [u8; 16]) -> bool {
        masked_v6(addr, port.mask_v6) == port.subnet_v6
    }

    #[inline(always)]
    fn is_gateway(port: &Port, addr: [u8; 16]) -> bool {
        addr == port.gateway_v6
    }

    /// The subnet-router anycast address (RFC 4291 section 2.6.1): the routers', all of them.
    #[inline(always)]
    fn is_reserved(port: &Port, addr: [u8; 16]) -> bool {
        addr == port.subnet_v6
    }

    #[inline(always)]
    fn claimed(skb: &Skb<'_>) -> Result<Option<[u8; 16]>, DropReason> {
        parse::nd_sender(skb)
    }

    #[inline(always)]
    fn one_hop_less(&self) -> [u32; 2] {
        let header = Self { hop_limit: self.hop_limit - 1, ..*self };
        let [a, b, ..]: [u32; 10] = bytemuck::must_cast(header);
        [a, b]
    }

    /// Neighbour discovery believes what has all 255 hops left, behind whatever headers: through a router nobody could
    /// speak to a neighbour like that, and through the overlay a peer's container shall not either.
    #[inline(always)]
    fn is_on_link(&self) -> bool {
        self.hop_limit == ON_LINK
    }

    #[inline(always)]
    fn deny_on_link(&self, skb: &Skb<'_>, offset: usize) -> Result<(), i64> {
        if self.is_on_link() { skb.store(offset, &self.one_hop_less()) } else { Ok(()) }
    }
}
