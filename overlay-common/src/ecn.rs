//! Explicit congestion notification across a tunnel (RFC 6040).

use crate::DropReason;

/// The ECN bits of a TOS byte.
pub const MASK: u8 = 0b11;
/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable transport (0).
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The outer TOS byte for an inner one: DSCP kept, ECN copied, CE sent as ECT(0) as the kernel's tunnels do
/// (`INET_ECN_encapsulate`; the "compatible" ingress of RFC 3168 that RFC 6040 section 4.1 allows).
#[inline(always)]
pub const fn outer_tos(inner: u8) -> u8 {
    if inner & MASK == CE { (inner & !MASK) | ECT_0 } else { inner }
}

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

    #[test]
    fn encapsulation_keeps_dscp_and_resets_ce() {
        assert_eq!(outer_tos(0xb8), 0xb8);
        assert_eq!(outer_tos(0xb8 | CE), 0xb8 | ECT_0);
        assert_eq!(outer_tos(0b01), 0b01);
    }
}
