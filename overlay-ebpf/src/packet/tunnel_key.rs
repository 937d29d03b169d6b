//! A packet's tunnel metadata: what a tunnel device is told of the outer headers, and what it tells.

use aya_ebpf::{
    bindings::{BPF_F_DONT_FRAGMENT, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers,
};
use overlay_common::{
    addr::MapIp,
    map::{Tunnel, tunnel_flag},
};

use super::{Skb, done};

impl Skb<'_> {
    /// Drops the route that the kernel found for the packet before it had outer headers. A packet that waits
    /// for an underlay neighbour's MAC address would be given that route's neighbour instead when the answer
    /// comes (neigh_update looks the neighbour up again by the packet's route). Only metadata routes have no
    /// neighbour, hence a tunnel key which nobody reads.
    #[inline(always)]
    pub(crate) fn forget_route(&self) {
        /// The start of `struct bpf_tunnel_key`: id and IPv4 address, the smallest size that kernels take.
        type Key = [u32; 2];
        let mut key: Key = [0; 2];
        // SAFETY: the context is valid; the helper reads as many bytes as it is told, and `key` outlives the
        // call. A failure leaves the route, which matters only to packets that have to wait.
        let _ = unsafe {
            helpers::bpf_skb_set_tunnel_key(
                self.ctx.skb.skb,
                (&raw mut key).cast(),
                size_of::<Key>() as u32,
                0,
            )
        };
    }

    /// Has the tunnel device that the packet goes to put a tunnel's outer headers on.
    #[inline(always)]
    pub(crate) fn set_tunnel_key(&self, tunnel: &Tunnel, tos: u8, ttl: u8) -> Result<(), i64> {
        // SAFETY: plain integers, for which zero is a value.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = tunnel.vni.get();
        (key.tunnel_tos, key.tunnel_ttl) = (tos, ttl);
        let mut flags = u64::from(BPF_F_DONT_FRAGMENT);
        if tunnel.flags & tunnel_flag::UDP_CHECKSUM == 0 {
            flags |= u64::from(BPF_F_ZERO_CSUM_TX);
        }
        // The helper takes IPv4 addresses in host order, and IPv6 ones as they are on the wire.
        if tunnel.remote.is_v4() {
            key.__bindgen_anon_1.remote_ipv4 = v4_of(tunnel.remote);
            key.__bindgen_anon_3.local_ipv4 = v4_of(tunnel.local);
        } else {
            flags |= u64::from(BPF_F_TUNINFO_IPV6);
            key.__bindgen_anon_1.remote_ipv6 = tunnel.remote.words();
            key.__bindgen_anon_3.local_ipv6 = tunnel.local.words();
        }
        // SAFETY: the context is valid, and the helper copies the key.
        let result = unsafe {
            helpers::bpf_skb_set_tunnel_key(
                self.ctx.skb.skb,
                &raw mut key,
                size_of::<bpf_tunnel_key>() as u32,
                flags,
            )
        };
        done(result)
    }

    /// The VNI and the outer source of a packet that a tunnel device decapsulated.
    #[inline(always)]
    pub(crate) fn tunnel_source(&self) -> Option<(u32, MapIp)> {
        // The helper answers only who knows which version it was.
        if let Some(key) = self.tunnel_key(0) {
            // SAFETY: the helper has filled the key, with an IPv4 address.
            let addr = unsafe { key.__bindgen_anon_1.remote_ipv4 };
            return Some((key.tunnel_id, MapIp::v4(addr.to_be_bytes())));
        }
        let key = self.tunnel_key(u64::from(BPF_F_TUNINFO_IPV6))?;
        // SAFETY: as above, with an IPv6 address.
        let addr = unsafe { key.__bindgen_anon_1.remote_ipv6 };
        Some((key.tunnel_id, MapIp::new(bytemuck::cast(addr))))
    }

    #[inline(always)]
    fn tunnel_key(&self, flags: u64) -> Option<bpf_tunnel_key> {
        // SAFETY: plain integers, for which zero is a value.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        // SAFETY: the context is valid, `key` outlives the call, and its whole size is told.
        let result = unsafe {
            helpers::bpf_skb_get_tunnel_key(
                self.ctx.skb.skb,
                &raw mut key,
                size_of::<bpf_tunnel_key>() as u32,
                flags,
            )
        };
        (result == 0).then_some(key)
    }
}

/// An IPv4 address in host order.
#[inline(always)]
fn v4_of(ip: MapIp) -> u32 {
    let [.., a, b, c, d] = ip.bytes();
    u32::from_be_bytes([a, b, c, d])
}
