//! A tunnel as the daemon keeps it in mind: without what it says eight times over. Of most tunnels all hops are one, and the
//! end of the template is empty; of ten thousand peers that is a third of all that is kept.

use overlay_common::map::{Hop, MAX_HOPS, TEMPLATE_BYTES, Tunnel};

/// A tunnel, in fewer bytes. Equal tunnels are kept equally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Box<[u8]>);

/// Where the hops begin: they end the tunnel, as the template begins it.
const HOPS: usize = size_of::<Tunnel>() - MAX_HOPS * size_of::<Hop>();
/// What is between them.
const BETWEEN: usize = HOPS - TEMPLATE_BYTES;

impl Kept {
    /// The tunnel as it stands in its map.
    pub fn get(&self) -> Tunnel {
        let mut tunnel: Tunnel = bytemuck::Zeroable::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut tunnel);
        let (between, rest) = self.0.split_at(BETWEEN.min(self.0.len()));
        bytes[TEMPLATE_BYTES..TEMPLATE_BYTES + between.len()].copy_from_slice(between);
        let one = rest.first() == Some(&1);
        let length = if one { size_of::<Hop>() } else { MAX_HOPS * size_of::<Hop>() };
        let (hops, template) = rest.get(1..).unwrap_or_default().split_at(length);
        for (to, from) in
            bytes[HOPS..].chunks_mut(size_of::<Hop>()).zip(hops.chunks(size_of::<Hop>()).cycle())
        {
            to.copy_from_slice(from);
        }
        bytes[..template.len()].copy_from_slice(template);
        tunnel
    }
}

impl From<&Tunnel> for Kept {
    fn from(tunnel: &Tunnel) -> Self {
        let bytes = bytemuck::bytes_of(tunnel);
        let one = tunnel.hops.iter().all(|hop| *hop == tunnel.hops[0]);
        let hops = if one { &bytes[HOPS..HOPS + size_of::<Hop>()] } else { &bytes[HOPS..] };
        let used = tunnel.template.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let between = &bytes[TEMPLATE_BYTES..HOPS];
        Self([between, &[u8::from(one)], hops, &tunnel.template[..used]].concat().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_comes_back(
            bytes in prop::collection::vec(any::<u8>(), size_of::<Tunnel>()),
            one: bool,
            used in 0..=TEMPLATE_BYTES,
        ) {
            let mut tunnel: Tunnel = bytemuck::pod_read_unaligned(&bytes);
            tunnel.template.bytes[used..].fill(0);
            if one {
                tunnel.hops = [tunnel.hops[0]; MAX_HOPS];
            }
            let kept = Kept::from(&tunnel);
            prop_assert_eq!(kept.get(), tunnel);
            prop_assert_eq!(Kept::from(&kept.get()), kept);
        }
    }
}
