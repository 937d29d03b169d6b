//! The TCP maximum segment size option (RFC 9293 section 3.7.1): what a SYN promises to take in one segment.
//! Lowered to what fits the tunnel, it keeps both sides from sending what would have to be refused.

use crate::wire::{IpHeader, TcpHeader};

/// Kind of the option that ends the list.
const END: u8 = 0;
/// Kind of the one-byte option between others.
const NOP: u8 = 1;
/// Kind of the option.
const MSS: u8 = 2;
/// Bytes of the option.
const MSS_LEN: usize = 4;
/// Options looked at before the search is given up. Every stack in use sends MSS first; a bound keeps the
/// verifier's work small.
const MAX_LOOKED_AT: usize = 8;

/// The largest segment whose packet of IP version `H` has at most `mtu` bytes, with headers without options.
#[inline(always)]
pub const fn for_mtu<H: IpHeader>(mtu: u32) -> u16 {
    let headers = (H::LEN + TcpHeader::LEN) as u32;
    let mss = mtu.saturating_sub(headers);
    if mss > u16::MAX as u32 { u16::MAX } else { mss as u16 }
}

/// The option's value and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes from the start of the options to the value.
    pub offset: usize,
    /// The value, host order.
    pub value: u16,
}

/// Looks for the option among the first `len` bytes of `options`. `None` where there is none, or where what
/// stands before it is malformed: judging that is the receiver's business.
#[inline(always)]
pub fn find(options: &[u8; TcpHeader::MAX_OPTIONS], len: usize) -> Option<Found> {
    // The last place where it can be. Compared with the position itself: of a sum, verifiers before 6.12 do not
    // conclude anything about what was added.
    let last = len.checked_sub(MSS_LEN)?;
    let mut at = 0;
    for _ in 0..MAX_LOOKED_AT {
        if at > last || at > TcpHeader::MAX_OPTIONS - MSS_LEN {
            return None;
        }
        match options[at] {
            END => return None,
            NOP => at += 1,
            MSS => {
                let value = u16::from_be_bytes([options[at + 2], options[at + 3]]);
                return (options[at + 1] as usize == MSS_LEN).then_some(Found { offset: at + 2, value });
            }
            _ => {
                let option = options[at + 1] as usize;
                if option < 2 {
                    return None;
                }
                at += option;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Ipv4Header, Ipv6Header};

    fn options(bytes: &[u8]) -> ([u8; TcpHeader::MAX_OPTIONS], usize) {
        let mut options = [0; TcpHeader::MAX_OPTIONS];
        options[..bytes.len()].copy_from_slice(bytes);
        (options, bytes.len())
    }

    fn found(bytes: &[u8]) -> Option<Found> {
        let (options, len) = options(bytes);
        find(&options, len)
    }

    #[test]
    fn where_stacks_put_it() {
        let linux = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(found(&linux), Some(Found { offset: 2, value: 1460 }));
        assert_eq!(found(&[1, 1, 1, 2, 4, 1, 0]), Some(Found { offset: 5, value: 256 }));
        assert_eq!(found(&[3, 3, 7, 2, 4, 1, 0]), Some(Found { offset: 5, value: 256 }));
    }

    #[test]
    fn where_it_is_not() {
        for bytes in [
            &[][..],
            &[2, 4, 5],
            &[0, 2, 4, 5, 180],
            &[2, 3, 5, 180],
            &[3, 0, 0, 0, 2, 4, 5, 180],
            &[3, 1, 2, 4, 5, 180],
            &[8, 255, 0, 0, 2, 4, 5, 180],
            &[1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 5, 180],
        ] {
            assert_eq!(found(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn segments_fit_the_mtu() {
        assert_eq!(for_mtu::<Ipv4Header>(1450), 1410);
        assert_eq!(for_mtu::<Ipv4Header>(10), 0);
        assert_eq!(for_mtu::<Ipv6Header>(1430), 1370);
        assert_eq!(for_mtu::<Ipv4Header>(100_000), u16::MAX);
    }

    proptest! {
        #[test]
        fn never_outside_the_options(bytes in prop::collection::vec(any::<u8>(), 0..=40)) {
            if let Some(Found { offset, value }) = found(&bytes) {
                prop_assert!(offset + 2 <= bytes.len());
                prop_assert_eq!(value.to_be_bytes(), [bytes[offset], bytes[offset + 1]]);
                prop_assert_eq!([bytes[offset - 2], bytes[offset - 1]], [2, 4]);
            }
        }
    }
}
