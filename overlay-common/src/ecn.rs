//! Explicit congestion notification across a tunnel (RFC 6040). On the way in, normal mode (section 4.1): the
//! outer header has the inner one's bits, CE included; all else is about the way out.

use crate::DropReason;

/// The ECN bits of a TOS byte.
pub const MASK: u8 = 0b11;
/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable transport (1).
pub const ECT_1: u8 = 0b01;
/// ECN-capable transport (0).
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The inner TOS byte after the tunnel (RFC 6040 section 4.2, figure 4).
///
/// # Errors
/// [`DropReason::EcnCeNotEct`] where the outer header says congestion and the inner sender cannot hear it.
#[inline(always)]
pub const fn inner_tos(outer: u8, inner: u8) -> Result<u8, DropReason> {
    match (outer & MASK, inner & MASK) {
        (CE, NOT_ECT) => Err(DropReason::EcnCeNotEct),
        (CE, _) => Ok(inner | CE),
        // A lesser mark of congestion to those who use it so (RFC 6660, RFC 9331 section 2).
        (ECT_1, ECT_0) => Ok((inner & !MASK) | ECT_1),
        _ => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040, figure 4.
    #[test]
    fn decapsulation_table() {
        let table = [
            // Inner, then what becomes of it under the outer Not-ECT, ECT(0), ECT(1), CE.
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for dscp in [0, 0x2e << 2] {
            for (inner, row) in table {
                for (outer, result) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                    let expected = result.map(|ecn| dscp | ecn).ok_or(DropReason::EcnCeNotEct);
                    assert_eq!(inner_tos(0x50 | outer, dscp | inner), expected, "{outer:#b} {inner:#b}");
                }
            }
        }
    }
}
