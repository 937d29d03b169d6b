//! Where the packets of an uplink are decapsulated, and what the two programs there have to agree on.

use bytemuck::{Pod, Zeroable};

use crate::Mac;

/// Bytes of the text in [`Decap`].
pub const REASON_BYTES: usize = 256;

/// Probes that `uplink_decap` sends out in a trial: as many as a ring or two hold, so that none of them is unheard
/// of only because it waits.
pub const MAX_PROBES: u32 = 256;

/// How an uplink's packets are decapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum DecapState {
    /// By `uplink_ingress`.
    #[default]
    Tc = 0,
    /// By `uplink_ingress`, while `uplink_decap` finds out whether metadata reaches it.
    Trial = 1,
    /// By `uplink_decap`.
    Xdp = 2,
    /// By `uplink_ingress`, which still takes what `uplink_decap` decapsulated before.
    Draining = 3,
}

impl DecapState {
    /// The state stored under a number; [`Self::Tc`], which believes nothing, under any other.
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Trial,
            2 => Self::Xdp,
            3 => Self::Draining,
            _ => Self::Tc,
        }
    }

    /// The name in the CLI and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Trial => "trial",
            Self::Xdp => "xdp",
            Self::Draining => "draining",
        }
    }
}

/// An uplink as its programs see it. An uplink without an entry is [`DecapState::Tc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Decap {
    /// Drawn by the daemon: what a [`crate::handover::Record`] on this uplink has to bear.
    pub token: [u32; 2],
    /// A [`DecapState`].
    pub state: u32,
    /// Packets that `uplink_decap` passed with a probe in this trial.
    pub probes: u32,
    /// Probes that reached `uplink_ingress`.
    pub heard: u32,
    /// Packets for which the driver had no room for metadata.
    pub refused: u32,
    /// The uplink's MAC address: XDP is told of no packet type.
    pub mac: Mac,
    /// Zero.
    pub padding: [u8; 2],
    /// Why it is so, UTF-8 padded with zeroes; the programs never read it.
    pub reason: [u8; REASON_BYTES],
}

const _: () = assert!(size_of::<Decap>() == 288);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_frozen_and_an_unknown_one_believes_nothing() {
        for (number, state) in
            [(0, DecapState::Tc), (1, DecapState::Trial), (2, DecapState::Xdp), (3, DecapState::Draining)]
        {
            assert_eq!((state as u32, DecapState::from_number(number)), (number, state));
        }
        assert_eq!(DecapState::from_number(4), DecapState::Tc);
    }
}
