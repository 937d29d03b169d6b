//! The routing tables of the bridges. The host's own packets, and those of the first bridge's containers, find
//! the peers' subnets in the main table; every further bridge has a table of its own, which a policy rule leads
//! its containers' packets to.
//!
//! One route per prefix would not do: a container's packet on the slow path would leave by another bridge than it
//! came from, and there Docker rewrites its source (`-s SUBNET ! -o BRIDGE -j MASQUERADE`) and isolates its networks.

use crate::netlink::MAIN_TABLE;

/// The rules' priority. Behind the local table's (0), so that the host's own addresses are found first; far before
/// the main table's (32766).
pub const RULE_PRIORITY: u32 = 7900;

/// Tables are this number and the bridge's ifindex, which is 31 bits at most: `790000004` is that of ifindex 4.
const FIRST: u32 = 790_000_000;

/// The table of a further bridge.
pub const fn of_bridge(ifindex: u32) -> u32 {
    FIRST.saturating_add(ifindex)
}

/// Whether routes of our protocol in a table are ours: in the main one, and in those of bridges.
pub const fn is_ours(table: u32) -> bool {
    table == MAIN_TABLE || (table > FIRST && table <= FIRST + i32::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bridge_has_a_table_that_is_no_other() {
        for ifindex in [1, 3, 254, i32::MAX.unsigned_abs()] {
            assert!(is_ours(of_bridge(ifindex)) && of_bridge(ifindex) != MAIN_TABLE);
        }
        assert!([0, 100, 253, 255, FIRST, u32::MAX].into_iter().all(|table| !is_ours(table)));
    }
}
