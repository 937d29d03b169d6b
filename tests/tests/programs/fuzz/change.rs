//! The changes that a packet may come out with: a checksum that follows a word, and a clamped SYN.

use crate::{
    packet::checksum,
    world::{A, CONTAINER, MTU},
};

/// The MSS that a segment without options fits the overlay with.
const MSS: u16 = MTU as u16 - 40;

/// Whether the only difference is a SYN's MSS, lowered to what fits, and its checksum to match.
pub(super) fn is_clamped(before: &[u8], after: &[u8], ip: usize) -> bool {
    let tcp = ip + 20;
    let is_syn = before.len() >= tcp + 20
        && before[ip] == 0x45
        && before[ip + 9] == 6
        && word(before, ip + 6) & 0x1fff == 0
        && before[tcp + 13] & 2 != 0;
    let end = if is_syn { tcp + usize::from(before[tcp + 12] >> 4) * 4 } else { return false };
    let mut restored = after.to_vec();
    (tcp + 20..end.min(before.len())).filter(|at| at + 4 <= end).any(|option| {
        if before.get(option..option + 2) != Some(&[2, 4]) || option + 4 > before.len() {
            return false;
        }
        let (was, is) = (word(before, option + 2) as u16, word(after, option + 2) as u16);
        let sum = updated(word(before, tcp + 16) as u16, was, is);
        restored.copy_from_slice(after);
        restored[option + 2..option + 4].copy_from_slice(&was.to_be_bytes());
        restored[tcp + 16..tcp + 18].copy_from_slice(&before[tcp + 16..tcp + 18]);
        // The option may stand at an odd byte, where the halves of the checksum's words are swapped.
        let odd = option % 2 != tcp % 2;
        let swapped = updated(word(before, tcp + 16) as u16, was.swap_bytes(), is.swap_bytes());
        let right = |sum: u16| sum == word(after, tcp + 16) as u16 || (sum == 0 || sum == 0xffff);
        was > is && is == MSS && restored == before && right(if odd { swapped } else { sum })
    })
}

pub(super) fn word(bytes: &[u8], offset: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[offset], bytes[offset + 1]]))
}

/// A checksum after one word has changed: RFC 1624, by the obvious way of taking the old word out of the sum
/// and the new one in.
pub(super) fn updated(sum: u16, old: u16, new: u16) -> u16 {
    let parts = [!sum, !old, new].map(u16::to_be_bytes).concat();
    checksum(&parts)
}

#[test]
fn a_clamped_syn_is_told_from_any_other_change() {
    use crate::packet::{Ipv4, TCP, tcp};
    let mut segment = tcp(1, 2, 24, &[]);
    segment[13] = 2;
    segment[20..24].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    let ip = Ipv4 { protocol: TCP, payload: segment, ..Ipv4::udp(CONTAINER, A.container) };
    let before = crate::world::from_container(&ip);
    let mut after = before.clone();
    after[56..58].copy_from_slice(&MSS.to_be_bytes());
    let sum = updated(word(&before, 50) as u16, 1460, MSS);
    assert!(!is_clamped(&before, &after, 14), "the checksum is still the old one");
    after[50..52].copy_from_slice(&sum.to_be_bytes());
    assert!(is_clamped(&before, &after, 14));
    after[38] ^= 1;
    assert!(!is_clamped(&before, &after, 14));
}
