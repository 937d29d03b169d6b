//! What one run is given, and how it is kept in a file.

use overlay_common::map::program;

use crate::skb::Context;

/// Bytes in front of the packet in a file: program, ifindex, segment size (little-endian), mark
/// (little-endian).
const HEADER: usize = 8;

/// A packet, and where it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// The position in `program::ALL`.
    pub(super) program: usize,
    pub(super) ifindex: u32,
    pub(super) mark: u32,
    /// 0 for a single packet; an aggregate has two segments.
    pub(super) gso_size: u16,
    pub(super) packet: Vec<u8>,
}

impl Input {
    pub(super) fn name(&self) -> &'static str {
        program::ALL[self.program]
    }

    pub(super) fn context(&self) -> Context {
        let gso_segs = if self.gso_size == 0 { 0 } else { 2 };
        Context { ifindex: self.ifindex, mark: self.mark, gso_size: self.gso_size.into(), gso_segs }
    }

    /// The kernel builds no frame shorter than its headers for a test run: IPv4's, IPv6's, Ethernet's.
    pub(super) fn lengthen(&mut self) {
        let shortest = match self.packet.get(12..14) {
            Some([0x08, 0x00]) => 34,
            Some([0x86, 0xdd]) => 54,
            _ => 14,
        };
        if self.packet.len() < shortest {
            self.packet.resize(shortest, 0);
            // Zeroes may have made an EtherType of it.
            if shortest == 14 {
                self.lengthen();
            }
        }
    }

    /// Two different inputs have the same with a probability of 2^-64.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        let mut mix = |word: u64| {
            hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash ^= hash >> 32;
        };
        let (words, rest) = self.packet.as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last));
        mix(self.packet.len() as u64 | u64::from(self.gso_size) << 32 | (self.program as u64) << 48);
        mix(u64::from(self.ifindex) | u64::from(self.mark) << 32);
        hash
    }

    pub(super) fn to_file(&self) -> Vec<u8> {
        let mut bytes = vec![self.program as u8, self.ifindex as u8];
        bytes.extend(self.gso_size.to_le_bytes());
        bytes.extend(self.mark.to_le_bytes());
        bytes.extend(&self.packet);
        bytes
    }

    /// What [`Input::to_file`] wrote; says what is wrong otherwise.
    pub(super) fn from_file(bytes: &[u8]) -> Result<Self, String> {
        let (header, packet) = bytes.split_first_chunk::<HEADER>().ok_or("shorter than its header")?;
        let [number, ifindex, gso @ .., a, b, c, d] = *header;
        let program = usize::from(number);
        if program >= program::ALL.len() {
            return Err(format!("there is no program {program}"));
        }
        Ok(Self {
            program,
            ifindex: ifindex.into(),
            mark: u32::from_le_bytes([a, b, c, d]),
            gso_size: u16::from_le_bytes(gso),
            packet: packet.to_vec(),
        })
    }
}

#[test]
fn files_are_read_as_they_were_written() {
    let input = Input { program: 2, ifindex: 14, mark: 0x0102_0304, gso_size: 1000, packet: vec![1; 20] };
    assert_eq!(Input::from_file(&input.to_file()), Ok(input.clone()));
    assert!(Input::from_file(&input.to_file()[..7]).is_err());
    assert!(Input::from_file(&[9; 30]).is_err());
    let mut other = input.clone();
    other.packet[19] = 2;
    assert_ne!(other.hash(), input.hash());
    assert_ne!(Input { mark: 0, ..input.clone() }.hash(), input.hash());
}
