//! Entropy for the underlay: the outer UDP source port carries a hash of the inner flow.

/// The source ports used: the dynamic range, as RFC 7348 section 5 recommends.
pub const SOURCE_PORTS: core::ops::RangeInclusive<u16> = 49152..=65535;

/// The outer source port for a flow hash, in host byte order: one flow keeps one port, flows spread over
/// the whole range. The upper half of the hash is mixed in, since NICs differ in which half varies.
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    let mixed = hash ^ (hash << 16);
    0xc000 | (mixed >> 18) as u16
}

/// The position in a tunnel's [`crate::map::Tunnel::hops`] that a flow takes: one flow keeps one way.
#[inline(always)]
pub const fn hop(hash: u32) -> usize {
    // The upper bits of a 32-bit number: the verifier sees that they are no more than the array has.
    (hash >> (u32::BITS - crate::map::MAX_HOPS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_in_range_and_spread() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..50_000_u32 {
            let port = source_port(n.wrapping_mul(0x9e37_79b9));
            assert!(SOURCE_PORTS.contains(&port));
            seen.insert(port);
        }
        assert!(seen.len() > 12_000, "{} distinct ports", seen.len());
    }

    #[test]
    fn both_halves_of_the_hash_count() {
        assert_ne!(source_port(0x0001_0000), source_port(0x8001_0000));
        assert_ne!(source_port(0x0000_0000), source_port(0x0000_8000));
    }
}
