//! What an uplink does for the kernel: segmentation, merging, and on which CPU.

use anyhow::{Result, ensure};
use harness::Netns;

/// Makes a veth's end as good as a cable's: nothing larger than its MTU leaves it, tunnel packets neither, and what comes
/// is merged (GRO). Checksums are still left to the device, as to a network card.
pub(super) fn mtu_sized(ns: &Netns, device: &str) -> Result<()> {
    let features = ns.exec(&["ethtool", "-k", device])?.stdout;
    let segmenting = segmenting(&features);
    let off = segmenting.iter().flat_map(|feature| [*feature, "off"]);
    ns.cmd("ethtool").args(["-K", device]).args(off).args(["gro", "on"]).check()?;
    Ok(())
}

/// The features by which a device takes frames larger than its MTU, of those that are on and can be changed.
/// `tcp-segmentation-offload` is but a name for several of them.
fn segmenting(features: &str) -> Vec<&str> {
    let lines = features.lines().filter_map(|line| line.trim().split_once(": "));
    let on = lines.filter(|(name, state)| *state == "on" && !name.starts_with("rx-"));
    let names = on.map(|(name, _)| name);
    names
        .filter(|name| name.ends_with("-segmentation") || name.starts_with("tx-gso-") || *name == GSO)
        .collect()
}

const GSO: &str = "generic-segmentation-offload";

/// Whether packets are worked on where they arrive: no threads for it (threaded NAPI), and not sent on to another CPU (RPS).
pub(super) fn ensure_plain(ns: &Netns, device: &str) -> Result<()> {
    // The sysfs of this process shows other devices: those of the namespace it was mounted in.
    let show = format!(
        "mount -t sysfs sysfs /sys && cd /sys/class/net/{device} && grep -H . threaded queues/rx-*/rps_cpus"
    );
    let said = ns.exec(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &show])?.stdout;
    for line in said.lines() {
        let (file, value) = line.split_once(':').unwrap_or((line, ""));
        let zero = !value.is_empty() && value.chars().all(|c| matches!(c, '0' | ','));
        ensure!(zero, "{device} in {}: {file} is {value}, not 0", ns.name());
    }
    ensure!(said.contains("rps_cpus:"), "{device} in {} has no receive queue in sysfs", ns.name());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_segments_is_turned_off_and_nothing_else() {
        let features = "Features for eth0:\nrx-checksumming: on\ntx-checksumming: on\n\
            \ttx-checksum-ip-generic: on\ntcp-segmentation-offload: on\n\ttx-tcp-segmentation: on\n\
            \ttx-tcp6-segmentation: off\ngeneric-segmentation-offload: on\n\
            tx-udp_tnl-segmentation: on\ntx-gso-partial: off [fixed]\ntx-gso-list: on\nrx-gro-list: on\n\
            tx-esp-segmentation: on [fixed]\n";
        assert_eq!(
            segmenting(features),
            ["tx-tcp-segmentation", "generic-segmentation-offload", "tx-udp_tnl-segmentation", "tx-gso-list"]
        );
    }
}
