//! The changes that a packet may come out with: a checksum that follows a word, and a clamped SYN.

use super::header::Header;
use crate::packet::{TCP, checksum};

/// Whether the only difference is a SYN's MSS, lowered to what fits `mtu`, and its checksum to match. The IP header
/// stands at `ip`.
pub(super) fn is_clamped(before: &[u8], after: &[u8], ip: usize, mtu: usize) -> bool {
    let Some(header) = Header::of_version(&before[ip..]) else { return false };
    let tcp = ip + header.len();
    let is_syn = before.len() >= tcp + 20
        && header.is_plain()
        && header.protocol() == TCP
        && before[tcp + 13] & 2 != 0
        && before.len() == after.len();
    let end = if is_syn { tcp + usize::from(before[tcp + 12] >> 4) * 4 } else { return false };
    // What a segment without options fits the tunnel with (RFC 9293 section 3.7.1).
    let most = mtu - header.len() - 20;
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
        was > is && usize::from(is) == most && restored == before && right(if odd { swapped } else { sum })
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
    use super::{hosts::WAYS, ip::Ip};
    use crate::packet::tcp;
    let mut segment = tcp(1, 2, 24, &[]);
    segment[13] = 2;
    segment[20..24].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    for way in WAYS {
        let headers = if way.container.is_ipv6() { 60 } else { 40 };
        let most = (way.mtu() - headers) as u16;
        let ip = Ip::udp(way.container, way.container).carrying(TCP, segment.clone());
        let before = ip.frame([0; 6], [0; 6]);
        let mut after = before.clone();
        let (option, check) = (14 + headers + 2, 14 + headers - 4);
        after[option..option + 2].copy_from_slice(&most.to_be_bytes());
        let sum = updated(word(&before, check) as u16, 1460, most);
        assert!(!is_clamped(&before, &after, 14, way.mtu()), "the checksum is still the old one");
        after[check..check + 2].copy_from_slice(&sum.to_be_bytes());
        assert!(is_clamped(&before, &after, 14, way.mtu()));
        assert!(!is_clamped(&before, &after, 14, way.mtu() + 1));
        after[check - 12] ^= 1;
        assert!(!is_clamped(&before, &after, 14, way.mtu()));
    }
}
