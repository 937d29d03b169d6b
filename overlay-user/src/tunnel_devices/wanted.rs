//! What is wanted: a device for each port that carries tunnels, and on those of VXLAN the VNIs that peers send with.

use std::collections::{BTreeMap, BTreeSet};

use overlay_common::{Encap, Mac, flow::SOURCE_PORTS, vni::VniKey};

use crate::{
    datapath::{DatapathError, map::Maps},
    local::Local,
    netlink::TunnelSettings,
};

/// By this the devices are known, besides by their MAC address. `ip link show` prints it.
pub(super) const ALIAS: &str = "overlayd";

/// The largest that a frame can be whose outer headers still fit: 65,535 less IPv6, UDP and VXLAN headers. A
/// longer aggregate is cut into its segments before it gets outer headers.
const LARGEST_FRAME: u32 = 65_535 - 40 - 8 - 8;

/// Ports, VNIs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The ports, the devices' names, and their kinds.
    pub(super) ports: BTreeMap<u16, (String, Encap)>,
    /// What peers may send with: the programs accept no other.
    pub(super) vnis: BTreeSet<u32>,
}

impl Wanted {
    /// What the programs listen to.
    pub(super) fn read(local: &Local, maps: &Maps) -> Result<Self, DatapathError> {
        let with_devices =
            |encap| [Encap::Vxlan, Encap::Geneve].into_iter().find(|kind| *kind as u32 == encap);
        let further = maps.listen_ports()?.into_iter();
        let further = further.filter_map(|(port, encap)| Some((port, with_devices(encap)?)));
        let vnis = maps.peers()?.into_iter().map(|(key, _)| key.vni).filter(|vni| *vni != VniKey::NONE);
        Ok(Self::of(local, further, vnis.map(VniKey::get)))
    }

    fn of(
        local: &Local,
        further: impl Iterator<Item = (u16, Encap)>,
        vnis: impl Iterator<Item = u32>,
    ) -> Self {
        let geneve = local.takes.contains(Encap::Geneve).then_some((local.geneve_port, Encap::Geneve));
        let named = |(port, encap)| (port, (format!("ovl{port}"), encap));
        let mut ports: BTreeMap<u16, (String, Encap)> = further.chain(geneve).map(named).collect();
        ports.insert(local.port, ("ovl0".to_owned(), Encap::Vxlan));
        Self { ports, vnis: vnis.chain([local.vni.get()]).collect() }
    }

    /// What the device on a port is to be; none where there is to be none.
    pub(super) fn settings(&self, port: u16, vtep_mac: Mac) -> Option<TunnelSettings> {
        let (name, encap) = self.ports.get(&port)?.clone();
        Some(TunnelSettings {
            encap,
            name,
            alias: ALIAS,
            // Inner frames for our VTEP are PACKET_HOST then, as they are on the kernel's own path.
            mac: vtep_mac,
            port,
            // What the kernel has put together again is not to be refused for its size.
            mtu: LARGEST_FRAME - 14,
            gso_max_size: LARGEST_FRAME,
            source_ports: (*SOURCE_PORTS.start(), *SOURCE_PORTS.end()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::local;

    #[test]
    fn the_nodes_own_port_is_ovl0_and_each_other_is_named_after_itself() {
        let further = [(8472, Encap::Vxlan), (4790, Encap::Geneve)];
        let wanted = Wanted::of(&local(), further.into_iter(), [7, 1].into_iter());
        let named = |(port, (name, encap)): (&u16, &(String, Encap))| (*port, name.clone(), *encap);
        let ports: Vec<_> = wanted.ports.iter().map(named).collect();
        let of = |port, name: &str, encap| (port, name.to_owned(), encap);
        assert_eq!(
            ports,
            [
                of(4789, "ovl0", Encap::Vxlan),
                of(4790, "ovl4790", Encap::Geneve),
                of(8472, "ovl8472", Encap::Vxlan)
            ]
        );
        assert_eq!(wanted.vnis, BTreeSet::from([1, 7]));
        assert_eq!(wanted.settings(4791, Mac::default()), None);
        let geneve = Local { takes: [Encap::Geneve].into_iter().collect(), ..local() };
        let wanted = Wanted::of(&geneve, [].into_iter(), [].into_iter());
        assert_eq!(wanted.ports[&6081], ("ovl6081".to_owned(), Encap::Geneve));
    }

    #[test]
    fn a_node_without_peers_takes_its_own_vni() {
        let wanted = Wanted::of(&local(), [].into_iter(), [].into_iter());
        assert_eq!((wanted.ports.len(), wanted.vnis), (1, BTreeSet::from([1])));
    }
}
