//! Which uplinks are better served by XDP.

use crate::{config::DecapMode, netlink::Link};

/// Drivers of network cards that a hypervisor makes. With XDP they turn off what makes them fast: the host hands over
/// whole aggregates otherwise.
const PARAVIRTUAL: [&str; 5] = ["virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "vif"];

/// A place to decapsulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tc,
    Xdp,
}

/// A place, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) place: Place,
    pub(super) why: String,
}

/// Chooses by what an uplink is. Whether its driver can is found out by trying.
pub(super) fn choose(mode: DecapMode, link: &Link, driver: Option<&str>) -> Choice {
    let name = &link.name;
    let tc = |why| Choice { place: Place::Tc, why };
    match (mode, link.kind.as_deref(), driver) {
        (DecapMode::Tc, ..) => tc("asked for by --decap tc".to_owned()),
        (DecapMode::Xdp, ..) => Choice { place: Place::Xdp, why: "asked for by --decap xdp".to_owned() },
        (DecapMode::Auto, Some("veth"), _) => {
            tc(format!("{name} is a veth, and XDP on it would turn its sender's segmentation offload off"))
        }
        (DecapMode::Auto, Some(kind), _) => tc(format!("{name} is a {kind}, not a physical interface")),
        (DecapMode::Auto, None, None) => tc(format!("{name} does not say which driver it has")),
        (DecapMode::Auto, None, Some(driver)) if PARAVIRTUAL.contains(&driver) => {
            tc(format!("{name} is a hypervisor's ({driver}), and XDP on it would turn offloads off"))
        }
        (DecapMode::Auto, None, Some(driver)) => {
            Choice { place: Place::Xdp, why: format!("{name} is a physical interface ({driver})") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(mode: DecapMode, kind: Option<&str>, driver: Option<&str>) -> Place {
        let link = Link {
            index: 2,
            name: "eth0".into(),
            kind: kind.map(str::to_owned),
            ethernet: true,
            mac: None,
            mtu: 1500,
            up: true,
            master: None,
            peer_elsewhere: false,
        };
        let choice = choose(mode, &link, driver);
        assert!(!choice.why.is_empty());
        choice.place
    }

    #[test]
    fn physical_interfaces_get_xdp_and_nothing_else() {
        assert_eq!(place(DecapMode::Auto, None, Some("ixgbe")), Place::Xdp);
        for (kind, driver) in [
            (Some("veth"), Some("veth")),
            (Some("bond"), Some("bonding")),
            (Some("vlan"), None),
            (Some("wireguard"), None),
            (None, Some("virtio_net")),
            (None, Some("hv_netvsc")),
            (None, None),
        ] {
            assert_eq!(place(DecapMode::Auto, kind, driver), Place::Tc, "{kind:?} {driver:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_tried() {
        assert_eq!(place(DecapMode::Xdp, Some("veth"), Some("veth")), Place::Xdp);
        assert_eq!(place(DecapMode::Tc, None, Some("ixgbe")), Place::Tc);
    }
}
