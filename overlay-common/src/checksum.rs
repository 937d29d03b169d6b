//! The Internet checksum (RFC 1071), whole and incremental (RFC 1624).

/// Adds the 16-bit big-endian words of `bytes` to an unfolded sum. A last odd byte counts as its word's
/// high half.
#[inline(always)]
pub fn sum(bytes: &[u8], mut partial: u32) -> u32 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        partial += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        partial += u32::from(*last) << 8;
    }
    partial
}

/// Folds a sum to 16 bits, carries included. Three rounds are enough for any `u32`.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The value of a checksum field: the complement of the folded sum. Host byte order.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The checksum after one 16-bit word of the data changed from `old` to `new` (RFC 1624 equation 3).
/// All in host byte order.
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(!checksum as u32 + !old as u32 + new as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_ipv4_header() {
        // The worked example of the Internet checksum on Wikipedia's "IPv4 header checksum" page.
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(finish(sum(&header, 0)), 0xb861);
    }

    proptest! {
        #[test]
        fn update_equals_recomputation(mut words in prop::collection::vec(any::<u16>(), 2..12), at: prop::sample::Index, new: u16) {
            let bytes = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
            let before = finish(sum(&bytes(&words), 0));
            let at = at.index(words.len());
            let old = core::mem::replace(&mut words[at], new);
            // One's complement has two zeroes; over data that is not all zero they are the same sum.
            prop_assume!(words.iter().any(|w| *w != 0));
            let after = finish(sum(&bytes(&words), 0));
            prop_assert_eq!(fold(u32::from(!update(before, old, new))) % 0xffff, fold(u32::from(!after)) % 0xffff);
        }

        #[test]
        fn a_finished_checksum_verifies(mut bytes in prop::collection::vec(any::<u8>(), 20..=60)) {
            bytes[10] = 0;
            bytes[11] = 0;
            let even = bytes.len() & !1;
            let checksum = finish(sum(&bytes[..even], 0));
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(fold(sum(&bytes[..even], 0)), 0xffff);
        }
    }
}
