//! One device: whether it is ours, what is wrong with it, and making it.

use nix::errno::Errno;
use overlay_common::{Encap, Mac};

use super::{said, wanted::ALIAS};
use crate::{
    netlink::{Netlink, TunnelSettings, UdpTunnel},
    sysctl,
};

/// Ours is what bears our alias, or our VTEP's MAC address: between its creation and its alias a daemon can die.
pub(super) fn is_ours(device: &UdpTunnel, vtep_mac: Option<Mac>) -> bool {
    device.external
        && (device.alias.as_deref() == Some(ALIAS) || (vtep_mac.is_some() && device.link.mac == vtep_mac))
}

/// False for what only another device can mend.
pub(super) fn can_stay(device: &UdpTunnel, settings: &TunnelSettings) -> bool {
    device.link.name == settings.name
        && device.port == settings.port
        && device.encap == settings.encap
        && device.external
        && (device.vni_filter || device.encap == Encap::Geneve)
        && !device.learning
        && device.udp6_zero_checksum
}

/// What can be mended in place.
fn is_as_set(device: &UdpTunnel, settings: &TunnelSettings) -> bool {
    device.alias.as_deref() == Some(settings.alias)
        && device.link.mac == Some(settings.mac)
        && device.link.mtu == settings.mtu
        && device.gso_max_size == settings.gso_max_size
        && !device.arp
}

/// Mends in place what is not as it should be.
pub(super) async fn repair(
    device: &UdpTunnel,
    settings: &TunnelSettings,
    netlink: &Netlink,
) -> Result<(), String> {
    if is_as_set(device, settings) {
        return Ok(());
    }
    netlink.set_tunnel(device.link.index, settings).await.map_err(said)
}

/// Why there is no device.
pub(super) enum Uncreated {
    /// The kernel knows no such devices.
    Unsupported,
    /// One line.
    Failed(String),
}

impl From<String> for Uncreated {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Creates a device, down. What the kernel made is looked at: one that does not know of VNI filters ignores
/// the wish for one, and its device would be an open door.
pub(super) async fn create(settings: &TunnelSettings, netlink: &Netlink) -> Result<UdpTunnel, Uncreated> {
    let name = &settings.name;
    if let Some(other) = netlink.link_by_name(name).await.map_err(said)? {
        let kind = other.kind.as_deref().unwrap_or("physical");
        let reason =
            format!("there is a {kind} interface {name} that is not overlayd's: rename or delete it");
        return Err(reason.into());
    }
    match netlink.create_tunnel(settings).await {
        Err(error) if settings.encap == Encap::Geneve && error.errno() == Some(Errno::EOPNOTSUPP) => {
            return Err(Uncreated::Unsupported);
        }
        made => made.map_err(said)?,
    }
    let made = netlink.udp_tunnels().await.map_err(said)?.into_iter().find(|made| made.link.name == *name);
    let device = made.ok_or_else(|| format!("{name} vanished as soon as it was made"))?;
    let result = match can_stay(&device, settings) {
        true => finish(&device, settings, netlink).await,
        false => Err(format!(
            "this kernel makes no {} device as {name} has to be: it lacks VNI filters, or metadata",
            settings.encap
        )),
    };
    match result {
        Ok(()) => Ok(device),
        Err(reason) => {
            netlink.delete_link(device.link.index, name).await.map_err(said)?;
            Err(reason.into())
        }
    }
}

/// What the kernel does not take at creation. Nothing is ever to be sent by the device on its own account.
async fn finish(device: &UdpTunnel, settings: &TunnelSettings, netlink: &Netlink) -> Result<(), String> {
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
    pub(in crate::tunnel_devices) fn vxlan(name: &str) -> UdpTunnel {
        UdpTunnel {
            encap: Encap::Vxlan,
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
        let port = ("ovl0".to_owned(), Encap::Vxlan);
        let wanted = Wanted { ports: [(4789, port)].into(), vnis: [1].into() };
        wanted.settings(4789, local().vtep_mac).unwrap()
    }

    /// One of ours as it should be.
    fn ours() -> UdpTunnel {
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
        assert!(is_ours(&ours(), None) && is_ours(&UdpTunnel { alias: None, ..ours() }, mac));
        assert!(!is_ours(&UdpTunnel { alias: None, ..ours() }, None));
        assert!(!is_ours(&vxlan("ovl0"), mac) && !is_ours(&vxlan("ovl0"), None));
        assert!(!is_ours(&UdpTunnel { external: false, ..ours() }, mac));
    }

    #[test]
    fn every_drift_is_seen() {
        let (settings, good) = (settings(), ours());
        assert!(can_stay(&good, &settings) && is_as_set(&good, &settings));
        let for_good = [
            UdpTunnel { port: 4790, ..good.clone() },
            UdpTunnel { external: false, ..good.clone() },
            UdpTunnel { vni_filter: false, ..good.clone() },
            UdpTunnel { learning: true, ..good.clone() },
            UdpTunnel { udp6_zero_checksum: false, ..good.clone() },
            UdpTunnel { link: Link { name: "ovl1".into(), ..good.link.clone() }, ..good.clone() },
        ];
        assert!(for_good.iter().all(|vxlan| !can_stay(vxlan, &settings)));
        let in_place = [
            UdpTunnel { alias: None, ..good.clone() },
            UdpTunnel { arp: true, ..good.clone() },
            UdpTunnel { gso_max_size: 65_536, ..good.clone() },
            UdpTunnel { link: Link { mac: None, ..good.link.clone() }, ..good.clone() },
            UdpTunnel { link: Link { mtu: 1500, ..good.link.clone() }, ..good.clone() },
        ];
        assert!(in_place.iter().all(|vxlan| can_stay(vxlan, &settings) && !is_as_set(vxlan, &settings)));
    }
}
