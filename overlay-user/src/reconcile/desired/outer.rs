//! Between which addresses a tunnel is, and its outer headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use overlay_common::{
    Be16, Encap, Mac,
    addr::MapIp,
    map::{Tunnel, tunnel_flag},
    template::{self, Ends, Headers, Macs, Shell},
    wire::eth::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use crate::{hops::Slots, local::Local, path_mtu, store::PeerSubnet, underlay::Underlay};

/// Our address and the peer's, of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outer {
    /// Over IPv4.
    V4 {
        /// Ours.
        src: Ipv4Addr,
        /// The peer's.
        dst: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Ours.
        src: Ipv6Addr,
        /// The peer's.
        dst: Ipv6Addr,
    },
}

/// Over which version of IP a host's subnet is reached: its own, where both hosts speak it, else the other one.
pub(super) fn outer(local: Underlay, host: Underlay, subnet: IpNet) -> Option<Outer> {
    let v4 = local.v4().zip(host.v4()).map(|(src, dst)| Outer::V4 { src, dst });
    let v6 = local.v6().zip(host.v6()).map(|(src, dst)| Outer::V6 { src, dst });
    match subnet {
        IpNet::V4(_) => v4.or(v6),
        IpNet::V6(_) => v6.or(v4),
    }
}

impl Outer {
    /// Our address.
    pub(super) const fn local(self) -> IpAddr {
        match self {
            Self::V4 { src, .. } => IpAddr::V4(src),
            Self::V6 { src, .. } => IpAddr::V6(src),
        }
    }

    /// The peer's address.
    pub(super) const fn remote(self) -> IpAddr {
        match self {
            Self::V4 { dst, .. } => IpAddr::V4(dst),
            Self::V6 { dst, .. } => IpAddr::V6(dst),
        }
    }

    const fn template(self) -> template::Underlay {
        match self {
            Self::V4 { src, dst } => template::Underlay::V4 { src: src.octets(), dst: dst.octets() },
            Self::V6 { src, dst } => template::Underlay::V6 { src: src.octets(), dst: dst.octets() },
        }
    }

    /// How the packets of a subnet travel. Directly only to a neighbour of the packets' own version of IP, since they
    /// are all that a router on the way would see, and it knows nothing of their addresses.
    pub(super) fn encap(self, local: &Local, record: &PeerSubnet, hops: &Slots) -> Encap {
        let same = matches!(
            (self, record.subnet),
            (Self::V4 { .. }, IpNet::V4(_)) | (Self::V6 { .. }, IpNet::V6(_))
        );
        match record.encap {
            Encap::Direct if same && local.is_on_link(self.remote(), hops) => Encap::Direct,
            Encap::Direct => Encap::Vxlan,
            tunnel => tunnel,
        }
    }

    /// Bytes of outer headers in front of the packets of a subnet.
    pub(super) fn overhead(self, encap: Encap, record: &PeerSubnet) -> u32 {
        path_mtu::overhead(encap, record.gre_key, self.remote())
    }

    /// The tunnel to a subnet.
    pub(super) fn tunnel(
        self,
        local: &Local,
        record: &PeerSubnet,
        encap: Encap,
        hops: Slots,
        mtu: u32,
    ) -> Tunnel {
        let vni = record.vni.unwrap_or(local.vni);
        let port = port(local, record, encap);
        let ends = Ends {
            port: port.unwrap_or_default(),
            vni,
            gre_key: record.gre_key,
            macs: Macs { src: local.vtep_mac, dst: record.vtep_mac.unwrap_or(Mac::BROADCAST) },
        };
        let carries = match record.subnet {
            IpNet::V4(_) => ETHERTYPE_IPV4,
            IpNet::V6(_) => ETHERTYPE_IPV6,
        };
        let template = Shell::of(encap, ends).map_or(template::DIRECT, |shell| {
            Headers { underlay: self.template(), carries, shell }.compile()
        });
        let over_v6 = matches!(self, Self::V6 { .. });
        let learns = learns(record, encap);
        let needs_checksum = port.is_some() && over_v6 && !record.zero_checksum;
        Tunnel {
            template: template.bytes,
            room_flags: template.room_flags,
            template_len: template.len as u32,
            checksum: template.checksum,
            mtu,
            peer: 0,
            encap: encap as u32,
            flags: template.flags
                | if needs_checksum { tunnel_flag::UDP_CHECKSUM } else { 0 }
                | if learns { tunnel_flag::LEARN } else { 0 },
            local: self.local().into(),
            remote: self.remote().into(),
            gateway: if learns { gateway(record.subnet).into() } else { MapIp::default() },
            vni: vni.key(),
            port: Be16::new(port.unwrap_or_default()),
            padding: [0; 2],
            hops,
        }
    }
}

/// The UDP port that a kind of tunnel to a peer is for; `None` for one without UDP.
fn port(local: &Local, record: &PeerSubnet, encap: Encap) -> Option<u16> {
    // The network's port is VXLAN's.
    let assigned = encap.assigned_port()?;
    let usual = if encap == Encap::Vxlan { local.port } else { assigned };
    Some(record.port.unwrap_or(usual))
}

/// Whether the neighbours behind a peer are to be learned: frames go to a bridge there, and nobody told of a VTEP.
fn learns(record: &PeerSubnet, encap: Encap) -> bool {
    let bridge = record.bridge.unwrap_or(encap == Encap::Gre) && record.vtep_mac.is_none();
    bridge && encap.carries_frames()
}

/// Where bridges of containers are in their subnet, unless somebody says otherwise: at its first address.
fn gateway(subnet: IpNet) -> IpAddr {
    let mut hosts = subnet.hosts();
    // All routers of a subnet have the first of its IPv6 addresses (RFC 4291 section 2.6.1).
    let first = if matches!(subnet, IpNet::V6(_)) { hosts.nth(1) } else { hosts.next() };
    first.unwrap_or(subnet.network())
}
