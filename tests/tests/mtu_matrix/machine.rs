//! What the machine itself lost: a CPU's backlog that overflows while others keep it busy is no fault of the
//! overlay's.

use std::fs;

/// Attempts at something that must arrive, where the machine lost packets meanwhile.
const ATTEMPTS: u32 = 5;

/// Runs `attempt` until it succeeds. A failure counts at once, unless the kernel itself dropped packets of its
/// backlog meanwhile.
pub(crate) fn excused<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    for _ in 1..ATTEMPTS {
        let before = backlog_drops();
        let result = attempt();
        if result.is_ok() || backlog_drops() == before {
            return result;
        }
    }
    attempt()
}

/// Packets dropped for want of room in a backlog: the second column, of all CPUs.
fn backlog_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    text.lines().map(dropped).sum()
}
