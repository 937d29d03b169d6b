//! One device: whether it is ours, what is wrong with it, and making it.

use overlay_common::Mac;

use super::{said, wanted::ALIAS};
use crate::{
    netlink::{Netlink, TunnelSettings, Vxlan},
    sysctl,
};

/// Ours is what bears our alias, or our VTEP's MAC address: between its creation and its alias a daemon can die.
pub(super) fn is_ours(vxlan: &Vxlan, vtep_mac: Option<Mac>) -> bool {
    vxlan.external
        && (vxlan.alias.as_deref() == Some(ALIAS) || (vtep_mac.is_some() && vxlan.link.mac == vtep_mac))
}

/// False for what only another device can mend.
pub(super) fn can_stay(vxlan: &Vxlan, settings: &TunnelSettings) -> bool {
    vxlan.link.name == settings.name
        && vxlan.port == settings.port
        && vxlan.external
        && vxlan.vni_filter
        && !vxlan.learning
        && vxlan.udp6_zero_checksum
}

/// What can be mended in place.
fn is_as_set(vxlan: &Vxlan, settings: &TunnelSettings) -> bool {
    vxlan.alias.as_deref() == Some(settings.alias)
        && vxlan.link.mac == Some(settings.mac)
        && vxlan.link.mtu == settings.mtu
        && vxlan.gso_max_size == settings.gso_max_size
        && !vxlan.arp
}

/// Mends in place what is not as it should be.
pub(super) async fn repair(
    vxlan: &Vxlan,
    settings: &TunnelSettings,
    netlink: &Netlink,
) -> Result<(), String> {
    if is_as_set(vxlan, settings) {
        return Ok(());
    }
    netlink.set_tunnel(vxlan.link.index, settings).await.map_err(said)
}

/// Creates a device, down. What the kernel made is looked at: one that does not know of VNI filters ignores
/// the wish for one, and its device would be an open door.
pub(super) async fn create(settings: &TunnelSettings, netlink: &Netlink) -> Result<Vxlan, String> {
    let name = &settings.name;
    if let Some(other) = netlink.link_by_name(name).await.map_err(said)? {
        let kind = other.kind.as_deref().unwrap_or("physical");
        return Err(format!(
            "there is a {kind} interface {name} that is not overlayd's: rename or delete it"
        ));
    }
    netlink.create_tunnel(settings).await.map_err(said)?;
    let made = netlink.vxlans().await.map_err(said)?.into_iter().find(|vxlan| vxlan.link.name == *name);
    let device = made.ok_or_else(|| format!("{name} vanished as soon as it was made"))?;
    let result = match can_stay(&device, settings) {
        true => finish(&device, settings, netlink).await,
        false => Err(format!("this kernel makes no VXLAN device as {name} has to be: it lacks VNI filters")),
    };
    match result {
        Ok(()) => Ok(device),
        Err(reason) => {
            netlink.delete_link(device.link.index, name).await.map_err(said)?;
            Err(reason)
        }
    }
}

/// What the kernel does not take at creation. Nothing is ever to be sent by the device on its own account.
async fn finish(device: &Vxlan, settings: &TunnelSettings, netlink: &Netlink) -> Result<(), String> {
    netlink.set_tunnel(device.link.index, settings).await.map_err(said)?;
    netlink.no_ipv6_addresses(device.link.index, &settings.name).await.map_err(said)?;
    let ipv6_off = sysctl::ipv6_conf(&settings.name, "disable_ipv6");
    sysctl::set_if_present(&ipv6_off, "1").map_err(|error| error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{local::tests::local, netlink::Link, tunnel_devices::wanted::Wanted};

    /// A plain device of somebody's on port 4789, up.
    pub(in crate::tunnel_devices) fn vxlan(name: &str) -> Vxlan {
        Vxlan {
            link: Link {
                index: 9,
                name: name.into(),
                kind: Some("vxlan".into()),
                ethernet: true,
                mac: Some(Mac([6, 0, 0, 0, 0, 9])),
                mtu: 1450,
                up: true,
                master: None,
                peer_elsewhere: false,
            },
            alias: None,
            arp: true,
            gso_max_size: 65_536,
            port: 4789,
            vni: 1,
            external: false,
            vni_filter: false,
            learning: true,
            udp6_zero_checksum: false,
        }
    }

    fn settings() -> TunnelSettings {
        let wanted = Wanted { ports: [(4789, "ovl0".to_owned())].into(), vnis: [1].into() };
        wanted.settings(4789, local().vtep_mac).unwrap()
    }

    /// One of ours as it should be.
    fn ours() -> Vxlan {
        let (settings, mut vxlan) = (settings(), vxlan("ovl0"));
        (vxlan.external, vxlan.vni_filter, vxlan.learning, vxlan.arp, vxlan.vni) =
            (true, true, false, false, 0);
        vxlan.udp6_zero_checksum = true;
        vxlan.alias = Some(ALIAS.into());
        vxlan.link.mac = Some(settings.mac);
        (vxlan.link.mtu, vxlan.gso_max_size) = (settings.mtu, settings.gso_max_size);
        vxlan
    }

    #[test]
    fn ours_is_known_by_alias_or_mac_and_nobody_elses_by_its_name() {
        let mac = Some(local().vtep_mac);
        assert!(is_ours(&ours(), None) && is_ours(&Vxlan { alias: None, ..ours() }, mac));
        assert!(!is_ours(&Vxlan { alias: None, ..ours() }, None));
        assert!(!is_ours(&vxlan("ovl0"), mac) && !is_ours(&vxlan("ovl0"), None));
        assert!(!is_ours(&Vxlan { external: false, ..ours() }, mac));
    }

    #[test]
    fn every_drift_is_seen() {
        let (settings, good) = (settings(), ours());
        assert!(can_stay(&good, &settings) && is_as_set(&good, &settings));
        let for_good = [
            Vxlan { port: 4790, ..good.clone() },
            Vxlan { external: false, ..good.clone() },
            Vxlan { vni_filter: false, ..good.clone() },
            Vxlan { learning: true, ..good.clone() },
            Vxlan { udp6_zero_checksum: false, ..good.clone() },
            Vxlan { link: Link { name: "ovl1".into(), ..good.link.clone() }, ..good.clone() },
        ];
        assert!(for_good.iter().all(|vxlan| !can_stay(vxlan, &settings)));
        let in_place = [
            Vxlan { alias: None, ..good.clone() },
            Vxlan { arp: true, ..good.clone() },
            Vxlan { gso_max_size: 65_536, ..good.clone() },
            Vxlan { link: Link { mac: None, ..good.link.clone() }, ..good.clone() },
            Vxlan { link: Link { mtu: 1500, ..good.link.clone() }, ..good.clone() },
        ];
        assert!(in_place.iter().all(|vxlan| can_stay(vxlan, &settings) && !is_as_set(vxlan, &settings)));
    }
}
