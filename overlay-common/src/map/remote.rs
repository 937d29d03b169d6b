//! The remote side: peers, their subnets, and the tunnels to them.

use bytemuck::{Pod, Zeroable};

use crate::{Be16, addr::MapIp, vni::VniKey};

/// Key of the LPM tries over IPv4: a prefix inside a network. The prefix length counts the 32 bits of the
/// VNI too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixV4 {
    /// The network: always matched whole.
    pub vni: VniKey,
    /// The address, network order.
    pub addr: [u8; 4],
}

/// Key of the LPM tries over IPv6, as [`PrefixV4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixV6 {
    /// The network: always matched whole.
    pub vni: VniKey,
    /// The address, network order.
    pub addr: [u8; 16],
}

/// Bits of the VNI in the prefix length of [`PrefixV4`] and [`PrefixV6`], in front of the address's own.
pub const VNI_BITS: u32 = 32;

/// Which store a route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum RouteSource {
    /// A key in etcd.
    Etcd = 1,
    /// The peers file.
    File = 2,
}

impl RouteSource {
    /// The name in the CLI and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::File => "file",
        }
    }

    /// The source stored under a number in a map.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Etcd),
            2 => Some(Self::File),
            _ => None,
        }
    }
}

/// A peer's subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Route {
    /// Index into `TUNNELS`.
    pub tunnel: u32,
    /// The peer that owns the subnet: the only one whose packets may have a source in it.
    pub peer: u32,
    /// A [`RouteSource`].
    pub source: u32,
}

/// Bytes of the longest header template.
pub const TEMPLATE_BYTES: usize = 96;

/// The bytes of a header template. Aligned to words, or the programs would copy it byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct TemplateBytes {
    /// Outer Ethernet header to inner Ethernet header. Named, so that `bpftool map dump` has a name for it.
    pub bytes: [u8; TEMPLATE_BYTES],
}

impl core::ops::Deref for TemplateBytes {
    type Target = [u8; TEMPLATE_BYTES];

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.bytes
    }
}

/// Ways that a [`Tunnel`] has room for; a power of two, so that the programs need no division.
pub const MAX_HOPS: usize = 8;

/// A way through the underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Hop {
    /// The uplink's ifindex.
    pub uplink: u32,
    /// The underlay next hop: the peer itself, or the gateway to it.
    pub next_hop: MapIp,
}

/// Flags of a [`Tunnel`].
pub mod tunnel_flag {
    /// The peer takes no UDP packets without checksum, which over IPv6 is its right (RFC 8200 section 8.1): packets go
    /// through the tunnel device, since the kernel fills checksums in and a program cannot ask it to.
    pub const UDP_CHECKSUM: u32 = 1 << 0;
    /// There is a UDP header: its source port and its length are to be stamped.
    pub const UDP: u32 = 1 << 1;
    /// The outer IP header is IPv6's.
    pub const OVER_V6: u32 = 1 << 2;
    /// The last header is an inner Ethernet header.
    pub const FRAME: u32 = 1 << 3;
    /// The peer is a bridge: its neighbours' MAC addresses are learned, and `NEIGHBOURS` has them.
    pub const LEARN: u32 = 1 << 4;
}

/// How to reach a peer in one network: its outer headers, compiled by [`crate::template`], and where they
/// go. Never overwritten while a route points to it, since the programs may be copying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Tunnel {
    /// Outer Ethernet header to inner Ethernet header, ready but for the fields that differ by packet.
    pub template: TemplateBytes,
    /// Flags of `bpf_skb_adjust_room`.
    pub room_flags: u64,
    /// Bytes of `template` in use; 0 marks an id that is free.
    pub template_len: u32,
    /// Unfolded checksum of the outer IPv4 header without TOS and total length; 0 over IPv6, which has none.
    pub checksum: u32,
    /// The largest inner IP packet, bytes.
    pub mtu: u32,
    /// The peer's id.
    pub peer: u32,
    /// An [`crate::Encap`].
    pub encap: u32,
    /// [`tunnel_flag`]s.
    pub flags: u32,
    /// Our outer address.
    pub local: MapIp,
    /// The peer's outer address, of the same version.
    pub remote: MapIp,
    /// Who routes for the peer's containers, by an address of its subnet: where `LEARN` is set, frames go to it until
    /// their own neighbour is known.
    pub gateway: MapIp,
    /// The VNI on the wire.
    pub vni: VniKey,
    /// The UDP destination port on the wire; 0 for a kind of tunnel without.
    pub port: Be16,
    /// Zero.
    pub padding: [u8; 2],
    /// The ways to the peer, one of which a flow takes (ECMP). All are filled: each as often as its weight asks.
    pub hops: [Hop; MAX_HOPS],
}

/// Key of `PEERS`. With [`VniKey::NONE`] the entry says only that the address is a peer's, which tells a
/// wrong VNI from a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PeerKey {
    /// The VNI on the wire, or none.
    pub vni: VniKey,
    /// The outer source address.
    pub ip: MapIp,
}

/// A host whose packets are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// Its id, 1 to [`MAX_PEERS`](super::MAX_PEERS) - 1.
    pub id: u32,
    /// The local network that its packets with this VNI belong to; in the entry for the host, those of tunnels that
    /// name no VNI.
    pub network: VniKey,
    /// The key of its GRE packets, where `flags` says that they have one.
    pub gre_key: u32,
    /// [`peer_flag`]s.
    pub flags: u32,
}

/// Flags of a [`Peer`].
pub mod peer_flag {
    /// GRE packets from and to it have a key.
    pub const GRE_KEY: u32 = 1 << 0;
    /// Who speaks from behind it is noted in `NEIGHBOURS`.
    pub const LEARN: u32 = 1 << 1;
}
