//! Explicit congestion notification across a tunnel (RFC 6040). On the way in, normal mode (section 4.1): the
//! outer header has the inner one's bits, CE included; all else is about the way out.

use crate::DropReason;

/// The ECN bits of a TOS byte.
pub const MASK: u8 = 0b11;
/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0b00;
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
        _ => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decapsulation_table() {
        const ECT_0: u8 = 0b10;
        const ECT_1: u8 = 0b01;
        for dscp in [0, 0x2e << 2] {
            for inner in [NOT_ECT, ECT_0, ECT_1, CE] {
                for outer in [NOT_ECT, ECT_0, ECT_1] {
                    assert_eq!(inner_tos(outer, dscp | inner), Ok(dscp | inner));
                }
            }
            assert_eq!(inner_tos(CE, dscp | NOT_ECT), Err(DropReason::EcnCeNotEct));
            assert_eq!(inner_tos(CE, dscp | ECT_0), Ok(dscp | CE));
            assert_eq!(inner_tos(CE, dscp | ECT_1), Ok(dscp | CE));
            assert_eq!(inner_tos(CE, dscp | CE), Ok(dscp | CE));
        }
    }
}
