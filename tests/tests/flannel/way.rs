//! How a host's programs reach a subnet, read from their maps.

use std::net::IpAddr;

use harness::host::Host;
use overlay_common::{
    Encap, Mac,
    map::{Tunnel, tunnel_flag},
    vni::VniKey,
};
use overlay_user::datapath::{map::Maps, pin::Pins};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// The way to a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) encap: u32,
    pub(crate) peer: IpAddr,
    pub(crate) vni: u32,
    /// To whom the frames are, where there are any.
    pub(crate) vtep: Option<Mac>,
}

/// The maps of a host, opened once.
pub(crate) struct Ways(Maps);

impl Ways {
    pub(crate) fn of(host: &Host) -> Self {
        Self(Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap())
    }

    /// The way to a subnet, where there is one.
    pub(crate) fn to(&self, subnet: &str) -> Option<Way> {
        let (_, route) =
            self.0.routes().unwrap().into_iter().find(|(key, _)| key.prefix.to_string() == subnet)?;
        let tunnels = self.0.tunnels().unwrap();
        tunnels.into_iter().find(|(id, _)| *id == route.tunnel).map(|(_, tunnel)| way(&tunnel))
    }

    /// Whether packets from an address are believed to be a peer's.
    pub(crate) fn believes(&self, address: IpAddr) -> bool {
        let peers = self.0.peers().unwrap();
        peers.iter().any(|(key, _)| key.vni == VniKey::NONE && IpAddr::from(key.ip) == address)
    }
}

fn way(tunnel: &Tunnel) -> Way {
    let frame = (tunnel.flags & tunnel_flag::FRAME != 0).then(|| {
        let start = tunnel.template_len as usize - ETHERNET;
        Mac(tunnel.template[start..start + 6].try_into().unwrap())
    });
    let vni = if tunnel.encap == Encap::Direct as u32 { 0 } else { tunnel.vni.get() };
    Way { encap: tunnel.encap, peer: tunnel.remote.into(), vni, vtep: frame }
}
