//! Why a packet was dropped: the one table that the programs, the counters, the CLI and the docs share.

/// Declares the reasons once: number, name and meaning.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why a packet was dropped. A number, once given, never changes its meaning and is never reused;
        /// a retired reason keeps its line.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the CLI, in JSON and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the reason means, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// Outer headers shorter than they claim, or lengths that contradict each other.
    OuterMalformed = 1, "outer_malformed";
    /// Tunnel packet from an address that is no peer.
    UnknownPeer = 2, "unknown_peer";
    /// Tunnel packet from a peer with a VNI that is not the network's.
    WrongVni = 3, "wrong_vni";
    /// VXLAN header with the I flag clear, or with flags this network does not use.
    VxlanFlags = 4, "vxlan_flags";
    /// Inner headers shorter than they claim, or lengths that contradict each other.
    InnerMalformed = 5, "inner_malformed";
    /// Inner frame of a protocol the overlay does not carry.
    InnerProtocol = 6, "inner_protocol";
    /// Inner frame addressed to another VTEP's MAC address.
    InnerDestinationMac = 7, "inner_destination_mac";
    /// Inner source address outside the subnets of the peer that sent it.
    InnerSource = 8, "inner_source";
    /// Inner destination address outside every subnet of this host.
    NotLocal = 9, "not_local";
    /// Inner destination is multicast or broadcast, which a routed overlay does not carry.
    InnerMulticast = 10, "inner_multicast";
    /// Local sender used a source address that is not its own.
    SourceSpoofed = 11, "source_spoofed";
    /// Packet larger than the overlay MTU where the kernel can no longer be asked to handle it.
    MtuExceeded = 12, "mtu_exceeded";
    /// The kernel refused to make room for the outer headers, or to have them written.
    EncapFailed = 13, "encap_failed";
    /// The kernel refused to have the outer headers removed, or the inner ones written.
    DecapFailed = 14, "decap_failed";
    /// A route points to a tunnel that is not there.
    NoTunnel = 15, "no_tunnel";
    /// Outer ECN says congestion, inner ECN says the sender cannot hear it (RFC 6040 section 4.2).
    EcnCeNotEct = 16, "ecn_ce_not_ect";
    /// The kernel routed a packet into the overlay that no peer's subnet covers.
    NoRoute = 17, "no_route";
    /// Inner source or destination that no host has: 0.0.0.0/8, loopback, or a multicast source.
    InnerMartian = 18, "inner_martian";
    /// Local sender used its own address with a MAC address that is not its own.
    SourceMacSpoofed = 19, "source_mac_spoofed";
    /// Local sender claims the bridge's own address, in a packet or by ARP.
    GatewayClaimed = 20, "gateway_claimed";
    /// Tunnel packet that came by another way than the uplink: to the tunnel device's socket, or in a VLAN.
    NotFromUplink = 21, "not_from_uplink";
    /// Local sender on a port that has as many learned addresses as it may have, or the endpoint table is full.
    PortFull = 22, "port_full";
    /// Local sender addresses a tunnel packet of its own to a peer's host, where it would arrive in this host's name.
    TunnelForged = 23, "tunnel_forged";
    /// Local sender put one priority tag (VLAN id 0) behind another.
    VlanStacked = 24, "vlan_stacked";
    /// Local sender hid what a packet is behind more IPv6 extension headers than overlayd looks behind.
    ExtensionChain = 25, "extension_chain";
    /// Geneve header of another version, of a control packet, or with options that must not be skipped.
    TunnelHeader = 26, "tunnel_header";
}

impl DropReason {
    /// Entries of the `DROPS` map: room for reasons of versions to come.
    pub const CAPACITY: u32 = 64;

    /// The number in the `DROPS` map.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The reason with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand: a reason whose number changes fails here.
    #[test]
    fn numbers_are_frozen() {
        let frozen = [
            (1, "outer_malformed"),
            (2, "unknown_peer"),
            (3, "wrong_vni"),
            (4, "vxlan_flags"),
            (5, "inner_malformed"),
            (6, "inner_protocol"),
            (7, "inner_destination_mac"),
            (8, "inner_source"),
            (9, "not_local"),
            (10, "inner_multicast"),
            (11, "source_spoofed"),
            (12, "mtu_exceeded"),
            (13, "encap_failed"),
            (14, "decap_failed"),
            (15, "no_tunnel"),
            (16, "ecn_ce_not_ect"),
            (17, "no_route"),
            (18, "inner_martian"),
            (19, "source_mac_spoofed"),
            (20, "gateway_claimed"),
            (21, "not_from_uplink"),
            (22, "port_full"),
            (23, "tunnel_forged"),
            (24, "vlan_stacked"),
            (25, "extension_chain"),
            (26, "tunnel_header"),
        ];
        let table: Vec<_> = DropReason::ALL.iter().map(|reason| (reason.number(), reason.name())).collect();
        assert_eq!(table, frozen);
    }

    #[test]
    fn every_reason_fits_the_map_and_says_what_it_means() {
        for reason in DropReason::ALL {
            assert!(reason.number() > 0 && reason.number() < DropReason::CAPACITY);
            assert!(!reason.meaning().trim().is_empty());
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
        }
    }
}
