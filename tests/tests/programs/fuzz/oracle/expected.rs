//! What a packet must look like afterwards, byte for byte.

use crate::fuzz::{change::is_clamped, input::Input};

/// Bytes that nobody can foretell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Free {
    Nothing,
    /// The Ethernet addresses, if they were learned meanwhile. Else the kernel makes a header of the neighbour's entry
    /// and of what it knows the packet to be, and until then the old one, this, stands there.
    Link([u8; 14]),
    /// The outer source port, which stands here.
    SourcePort(usize),
}

/// How a packet must look.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) bytes: Vec<u8>,
    pub(super) free: Free,
    pub(super) mark: u32,
    /// Where the IP packet stands whose SYN may have been clamped.
    pub(super) ip: usize,
    /// To what it may have been: the tunnel's MTU.
    pub(super) fits: Option<usize>,
}

impl Expected {
    pub(super) fn as_it_came(input: &Input) -> Self {
        Self { bytes: input.packet.clone(), free: Free::Nothing, mark: input.mark, ip: 14, fits: None }
    }

    pub(super) fn is_tunnel(&self) -> bool {
        matches!(self.free, Free::SourcePort(_))
    }

    pub(super) fn compare(&self, mark: u32, out: &[u8]) -> Result<(), String> {
        if mark != self.mark {
            return Err(format!("the mark is {mark:#x} instead of {:#x}", self.mark));
        }
        if self.bytes == out {
            return Ok(());
        }
        if out.len() != self.bytes.len() {
            return Err(format!("{} bytes instead of {}: {out:02x?}", out.len(), self.bytes.len()));
        }
        let mut expected = self.bytes.clone();
        let free = match self.free {
            Free::Nothing => 0..0,
            Free::Link(old) => 0..if out.starts_with(&old) { 14 } else { 12 },
            Free::SourcePort(at) => at..at + 2,
        };
        expected[free.clone()].copy_from_slice(&out[free.clone()]);
        // A tunnel's source port is a dynamic one, RFC 7348 section 5.
        if self.is_tunnel() && out[free.start] < 0xc0 {
            return Err("the outer source port is not a dynamic one".to_owned());
        }
        if expected == out || self.fits.is_some_and(|mtu| is_clamped(&expected, out, self.ip, mtu)) {
            return Ok(());
        }
        let differs = expected.iter().zip(out).position(|(a, b)| a != b).unwrap_or_default();
        Err(format!("differs from byte {differs} on:\n is {out:02x?}\nnot {expected:02x?}"))
    }
}
