//! A port that somebody else has: the kernel gives a UDP port to one VXLAN configuration in a namespace, and to one kind of
//! Geneve devices.

use std::{collections::BTreeSet, io, net::UdpSocket};

use overlay_common::Encap;

use crate::netlink::UdpTunnel;

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A VXLAN or Geneve device that is not ours.
    Device {
        /// Which of the two.
        encap: Encap,
        /// Its name.
        name: String,
        /// Its VNI; none where it takes every one.
        vni: Option<u32>,
    },
    /// A socket of some program.
    Socket,
}

impl Holder {
    /// The device among `others` that keeps us off a port. One that is down holds nothing. One that receives as ours
    /// does (external, with a VNI filter, taking zero checksums over IPv6) shares its socket with us.
    pub(super) fn among(others: &[UdpTunnel], port: u16) -> Option<Self> {
        let shares = |vxlan: &UdpTunnel| vxlan.external && vxlan.vni_filter && vxlan.udp6_zero_checksum;
        // The kernel refuses to make a second external Geneve device for a port, even where the first is down.
        let active = |device: &UdpTunnel| device.link.up || device.encap == Encap::Geneve;
        let holds = |device: &&UdpTunnel| active(device) && device.port == port && !shares(device);
        others.iter().find(holds).map(|device| Self::Device {
            encap: device.encap,
            name: device.link.name.clone(),
            vni: (!device.external).then_some(device.vni),
        })
    }

    /// What is wrong, where it wants packets that are ours.
    pub(super) fn trouble(&self, port: u16, vnis: &BTreeSet<u32>) -> Option<String> {
        match self {
            Self::Device { encap, name, vni: Some(vni) } if vnis.contains(vni) => Some(format!(
                "{} device {name} has UDP port {port} and VNI {vni}, which are this network's: overlayd takes \
                 its packets; delete it, or choose another VNI or port for one of the two",
                title(*encap)
            )),
            _ => None,
        }
    }

    /// What is to be known where nothing is wrong.
    pub(super) fn note(&self, port: u16) -> String {
        let (whose, to) = match self {
            Self::Device { encap, name, vni: Some(vni) } => {
                (format!("{} device {name} (VNI {vni})", title(*encap)), name.as_str())
            }
            Self::Device { encap, name, vni: None } => {
                (format!("{} device {name}", title(*encap)), name.as_str())
            }
            Self::Socket => ("another socket".to_owned(), "it"),
        };
        format!(
            "UDP port {port} belongs to {whose}, so overlayd has no tunnel device on it: tunnel packets that \
             arrive as fragments or with IP options are lost; VNIs that are not overlayd's are left to {to}"
        )
    }
}

/// A kind's name at the start of a sentence.
fn title(encap: Encap) -> &'static str {
    if encap == Encap::Geneve { "Geneve" } else { "VXLAN" }
}

/// True where a socket, of whatever kind, is bound to a UDP port: asked before a device is made for nothing.
pub(super) fn by_a_socket(port: u16) -> bool {
    UdpSocket::bind(("0.0.0.0", port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use overlay_common::map::NOTE_BYTES;

    use super::*;
    use crate::tunnel_devices::device::tests::vxlan;

    #[test]
    fn only_a_device_that_is_up_and_not_like_ours_holds_a_port() {
        let mut other = vxlan("flannel.1");
        other.vni = 7;
        let holder = Holder::among(std::slice::from_ref(&other), 4789).unwrap();
        assert_eq!(holder, Holder::Device { encap: Encap::Vxlan, name: "flannel.1".into(), vni: Some(7) });
        assert_eq!(Holder::among(std::slice::from_ref(&other), 8472), None);
        (other.external, other.vni_filter, other.udp6_zero_checksum) = (true, true, true);
        assert_eq!(Holder::among(std::slice::from_ref(&other), 4789), None);
        for (vni_filter, udp6_zero_checksum) in [(false, true), (true, false)] {
            let other = UdpTunnel { vni_filter, udp6_zero_checksum, ..other.clone() };
            let holder = Holder::among(&[other], 4789).unwrap();
            assert_eq!(holder, Holder::Device { encap: Encap::Vxlan, name: "flannel.1".into(), vni: None });
        }
        other.vni_filter = false;
        other.link.up = false;
        assert_eq!(Holder::among(&[other], 4789), None);
    }

    #[test]
    fn words_name_the_device_and_fit_a_note() {
        let holder =
            Holder::Device { encap: Encap::Vxlan, name: "a-name-of-15-by".into(), vni: Some(16_777_215) };
        let note = holder.note(65_535);
        assert!(note.contains("a-name-of-15-by (VNI 16777215)") && note.len() < NOTE_BYTES, "{}", note.len());
        assert_eq!(holder.trouble(4789, &BTreeSet::from([1])), None);
        let trouble = holder.trouble(4789, &BTreeSet::from([1, 16_777_215])).unwrap();
        assert!(trouble.contains("4789") && trouble.contains("a-name-of-15-by"), "{trouble}");
    }
}
