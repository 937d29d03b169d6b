//! The `STATUS` map's value: texts in, texts out.

use std::time::{SystemTime, UNIX_EPOCH};

use bytemuck::Zeroable;
use overlay_common::map::{Status, StoreKind, StoreState};

/// How old a heartbeat may be, in seconds, before the daemon counts as dead. It beats once a second.
pub const STALE_AFTER: u64 = 5;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Fits a text into a field, cut at a character's edge, zero-padded and with at least one zero.
pub fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; N];
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

/// The text of a field.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A status of which nothing is known yet.
pub fn empty() -> Status {
    Status::zeroed()
}

/// The name of a [`StoreKind`].
pub fn store_kind(number: u32) -> &'static str {
    match number {
        n if n == StoreKind::Etcd as u32 => "etcd",
        n if n == StoreKind::File as u32 => "file",
        _ => "none",
    }
}

/// The name of a [`StoreState`].
pub fn store_state(number: u32) -> &'static str {
    match number {
        n if n == StoreState::Ok as u32 => "ok",
        n if n == StoreState::Degraded as u32 => "degraded",
        _ => "starting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip_and_are_cut_at_characters() {
        assert_eq!(text(&field::<8>("eth0")), "eth0");
        assert_eq!(text(&field::<8>("1234567890")), "1234567");
        assert_eq!(text(&field::<8>("äöüß")), "äöü");
        assert_eq!(text(&field::<8>("")), "");
    }
}
