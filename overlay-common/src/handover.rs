//! What `uplink_decap` (XDP) tells `uplink_ingress` (tcx) about a packet that it has decapsulated: a record in the
//! metadata in front of the packet, the same for every packet of a flow. GRO merges no packets whose metadata
//! differ, so nothing that changes by packet may be in it.

use bytemuck::{Pod, Zeroable};

use crate::vni::VniKey;

/// A record.
///
/// Who else could write one? Metadata come from an XDP program on the interface, from one that redirects packets to it,
/// or with a packet from another namespace of this very machine. Hence the token, which nobody knows but who may read
/// our maps: without it a record is no record, whatever else it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Record {
    /// [`Record::MAGIC`].
    magic: u32,
    /// [`Record::VERSION`].
    version: u16,
    /// Bytes of the whole record.
    len: u16,
    /// The uplink's token.
    token: [u32; 2],
    /// The peer that sent the packet; 0 for a probe, in front of a packet that was left as it came.
    pub peer: u32,
    /// The local network that the packet belongs to.
    pub network: VniKey,
}

impl Record {
    /// "ovlx". Native byte order: a record never leaves the machine.
    pub const MAGIC: u32 = 0x6f76_6c78;
    /// Of this layout.
    pub const VERSION: u16 = 1;
    /// Bytes: a multiple of four, and no more than 32, the most that older kernels take.
    pub const LEN: usize = size_of::<Self>();

    /// The record of a packet from a peer.
    #[inline(always)]
    pub const fn new(token: [u32; 2], peer: u32, network: VniKey) -> Self {
        Self { magic: Self::MAGIC, version: Self::VERSION, len: Self::LEN as u16, token, peer, network }
    }

    /// A record that says nothing about its packet.
    #[inline(always)]
    pub const fn probe(token: [u32; 2]) -> Self {
        Self::new(token, 0, VniKey::NONE)
    }

    /// True for a record of this layout that bears the token. Zero is no token: an entry that was never filled
    /// must let nobody in.
    #[inline(always)]
    pub const fn bears(&self, token: [u32; 2]) -> bool {
        self.magic == Self::MAGIC
            && self.version == Self::VERSION
            && self.len == Self::LEN as u16
            && self.token[0] == token[0]
            && self.token[1] == token[1]
            && (token[0] | token[1]) != 0
    }

    /// True for a record of a packet that was not touched.
    #[inline(always)]
    pub const fn is_probe(&self) -> bool {
        self.peer == 0
    }
}

const _: () = assert!(Record::LEN == 24);

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u32; 2] = [0x0102_0304, 0x0506_0708];

    #[test]
    fn every_bit_of_the_head_counts() {
        let record = Record::new(TOKEN, 7, VniKey::from_wire([0, 0, 1]));
        assert!(record.bears(TOKEN) && !record.is_probe());
        // Magic, version, length and token are the first 16 bytes.
        for bit in 0..16 * 8 {
            let mut bytes: [u8; Record::LEN] = bytemuck::cast(record);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!bytemuck::cast::<_, Record>(bytes).bears(TOKEN), "bit {bit}");
        }
    }

    #[test]
    fn no_token_is_believed_by_nobody() {
        assert!(!Record::new([0, 0], 7, VniKey::NONE).bears([0, 0]));
        assert!(Record::new([0, 1], 7, VniKey::NONE).bears([0, 1]));
        assert!(!Record::new(TOKEN, 7, VniKey::NONE).bears([0, 0]));
    }

    #[test]
    fn probes_are_told_apart() {
        assert!(Record::probe(TOKEN).is_probe() && Record::probe(TOKEN).bears(TOKEN));
    }
}
