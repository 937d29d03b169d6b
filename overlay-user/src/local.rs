//! This host in the overlay: its uplinks, its bridges, its VTEP.

mod uplink;

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::{
    Be16, Encap, Kinds, Mac, Vni,
    map::{Hop, Node},
};

use self::uplink::Addresses;
pub use self::uplink::Uplink;
use crate::{
    config::Config,
    hops::Slots,
    netlink::{Link, Netlink},
    path_mtu::{LEAST_OVERHEAD, overhead},
    store::{NetworkConfig, PeerSubnet, Subnets},
    underlay::Underlay,
};

/// The smallest MTU that IPv4 must be able to carry without fragmenting everything: RFC 791's 576 bytes.
const SMALLEST_MTU: u32 = 576;

/// A bridge whose subnet is part of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its ifindex.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address: the containers' gateway.
    pub mac: Mac,
    /// Its address and the length of its subnet.
    pub address: Ipv4Net,
    /// Its global or unique local IPv6 address and the length of that subnet, where it has one.
    pub address_v6: Option<Ipv6Net>,
}

impl Bridge {
    /// The addresses of the bridge itself: its containers' gateways.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.address_v6.map(|address| IpAddr::V6(address.addr()));
        std::iter::once(IpAddr::V4(self.address.addr())).chain(v6)
    }

    /// Its subnets, without host bits.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        let v6 = self.address_v6.map(|address| IpNet::V6(address.trunc()));
        std::iter::once(IpNet::V4(self.address.trunc())).chain(v6)
    }

    /// Its subnets, to be announced.
    pub fn announced(&self) -> Subnets {
        Subnets { v4: self.address.trunc(), v6: self.address_v6.map(|address| address.trunc()) }
    }

    /// Whether an address lies in one of the bridge's subnets.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.address.contains(&ip),
            IpAddr::V6(ip) => self.address_v6.is_some_and(|address| address.contains(&ip)),
        }
    }
}

/// This host, as far as the data path is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The network's VNI.
    pub vni: Vni,
    /// The network's UDP port.
    pub port: u16,
    /// Our VTEP's MAC address.
    pub vtep_mac: Mac,
    /// `--encap`: how packets are to come to us.
    pub encap: Encap,
    /// How packets may come to us: as the others have been told, now or before this start, and as they are sent to
    /// themselves.
    pub takes: Kinds,
    /// The UDP port we take Geneve on.
    pub geneve_port: u16,
    /// The addresses that peers send to: announced.
    pub public: Underlay,
    /// Other addresses that our packets come from at our peers: announced.
    pub src_ips: Vec<IpAddr>,
    /// Our own addresses in the underlay: the outer sources. They differ from `public` behind NAT.
    pub underlay: Underlay,
    /// The uplinks that there are, in the order of `--iface`; one at least.
    pub uplinks: Vec<Uplink>,
    /// Those that `--iface` names and that are not there.
    pub missing: Vec<String>,
    /// Further subnets that are this host's: its kernel routes for them.
    pub routed: BTreeSet<IpNet>,
    /// The overlay MTU: the largest inner packet that fits whichever way it goes, bytes.
    pub mtu: u32,
    /// `--mtu`: no tunnel takes more.
    pub mtu_limit: Option<u32>,
    /// The bridges, each with its subnet.
    pub bridges: Vec<Bridge>,
    /// The bridges' IPv6 subnets that are left out, since the network carries no IPv6.
    pub left_out: Vec<Ipv6Net>,
}

impl Local {
    /// Looks this host up in the kernel. Changes nothing.
    ///
    /// # Errors
    /// One line for the first thing that does not fit the configuration.
    pub async fn discover(
        config: &Config,
        network: Option<NetworkConfig>,
        vtep_mac: Mac,
        netlink: &Netlink,
    ) -> anyhow::Result<Self> {
        let (uplinks, missing) = uplink::find(config, netlink).await?;
        let Addresses { public, underlay } = Addresses::find(config, &uplinks, netlink).await?;
        let mut bridges = Vec::new();
        for name in &config.bridges {
            bridges.push(bridge(name, netlink).await?);
        }
        refuse_overlaps(&bridges)?;
        let network = network.unwrap_or_default();
        let left_out = if network.ipv6.unwrap_or(true) { Vec::new() } else { leave_out_v6(&mut bridges) };
        refuse_without_ethernet(config, &uplinks)?;
        let smallest = smallest(&uplinks).context("one uplink at least is up")?;
        if let Some(wanted) = config.mtu {
            ensure!(
                wanted >= SMALLEST_MTU,
                "--mtu {wanted} is too small: {SMALLEST_MTU} to {} are possible over {} with MTU {}",
                smallest.mtu - cheapest(underlay),
                smallest.name,
                smallest.mtu
            );
        }
        let most = smallest.mtu.saturating_sub(dearest(underlay));
        Ok(Self {
            vni: network.vni.unwrap_or(config.vni),
            port: network.port.unwrap_or(config.port),
            vtep_mac,
            encap: config.encap,
            takes: Kinds::default().with(config.encap).or(config.accept),
            geneve_port: config.geneve_port,
            public,
            src_ips: config.src_ips.clone(),
            underlay,
            uplinks,
            missing,
            routed: BTreeSet::new(),
            mtu: config.mtu.map_or(most, |wanted| wanted.min(most)),
            mtu_limit: config.mtu,
            bridges,
            left_out,
        })
    }

    /// One line for each subnet that the network's configuration keeps out. flanneld without IPv6 ends when it meets a
    /// key with an IPv6 part (v0.28), so none is written until somebody says that there may be.
    pub fn left_out_notes(&self) -> impl Iterator<Item = String> {
        self.left_out.iter().map(|subnet| {
            format!(
                "{subnet} is not part of the overlay: the network's configuration has no \"EnableIPv6\": true; set it \
                 and restart overlayd, once every flanneld of the network has IPv6 or there is none"
            )
        })
    }

    /// One line where the configuration asks for more than the uplinks carry. What they carry is used then: the
    /// rest would be lost without a word.
    pub fn mtu_trouble(&self, config: &Config) -> Option<String> {
        let smallest = smallest(&self.uplinks)?;
        let most = smallest.mtu - cheapest(self.underlay);
        let wanted = config.mtu.filter(|wanted| *wanted > most)?;
        Some(format!(
            "--mtu {wanted} does not fit over {} with MTU {}: {SMALLEST_MTU} to {most} are possible; give one \
             of these, or raise the uplink's MTU",
            smallest.name, smallest.mtu
        ))
    }

    /// One line for each uplink that cannot be used while others can.
    pub fn uplink_troubles(&self) -> Vec<String> {
        let gone = self.missing.iter().map(|name| {
            format!("uplink {name} is gone and no peer is reached through it until it is made again")
        });
        let down = self.uplinks.iter().filter(|uplink| !uplink.up).map(|Uplink { name, .. }| {
            format!("uplink {name} is down and no peer is reached through it until `ip link set {name} up`")
        });
        gone.chain(down).collect()
    }

    /// The names of the uplinks.
    pub fn uplink_names(&self) -> String {
        self.uplinks.iter().map(|uplink| uplink.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The uplink with this index, if it is one.
    pub fn uplink(&self, index: u32) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.index == index)
    }

    /// The uplink for whatever the host's routes lead by none of them: the first that is up.
    pub fn first_uplink(&self) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.up).or(self.uplinks.first())
    }

    /// The largest inner packet that fits each of some ways behind this many bytes of outer headers, bytes.
    pub fn mtu_over(&self, hops: &Slots, overhead: u32) -> u32 {
        let carry = |index: u32| self.uplink(index).map(|uplink| uplink.mtu);
        let least = hops.iter().filter_map(|hop| carry(hop.uplink)).min();
        let outer = least.or(smallest(&self.uplinks).map(|uplink| uplink.mtu)).unwrap_or_default();
        let most = outer.saturating_sub(overhead);
        self.mtu_limit.map_or(most, |limit| limit.min(most))
    }

    /// Whether each of these ways ends at the peer itself, on a link with Ethernet headers.
    pub fn is_on_link(&self, peer: IpAddr, hops: &Slots) -> bool {
        let ends = |hop: &Hop| {
            hop.next_hop == peer.into() && self.uplink(hop.uplink).is_some_and(|uplink| uplink.ethernet)
        };
        hops.iter().all(ends)
    }

    /// What the programs need to know of this host.
    pub fn node(&self) -> Node {
        Node {
            vtep_mac: self.vtep_mac,
            port: Be16::new(self.port),
            vni: self.vni.key(),
            kinds: self.takes.bits(),
            geneve_port: Be16::new(self.geneve_port),
            padding: [0; 2],
        }
    }

    /// Takes packets in the kinds, too, in which records say that packets are to be sent: who is sent to in a kind sends
    /// in it, and may go on for a while when its record says another.
    pub fn take_kinds<'a>(&mut self, records: impl IntoIterator<Item = &'a PeerSubnet>) {
        self.takes = records.into_iter().fold(self.takes, |takes, record| takes.with(record.encap));
    }

    /// Whether a bridge has an IPv6 subnet.
    pub fn speaks_v6(&self) -> bool {
        self.bridges.iter().any(|bridge| bridge.address_v6.is_some())
    }

    /// The ifindexes of the bridges.
    pub fn bridge_indexes(&self) -> Vec<u32> {
        self.bridges.iter().map(|bridge| bridge.index).collect()
    }
}

/// Without an Ethernet header only VXLAN is taken; who is asked to send directly sends VXLAN there.
fn refuse_without_ethernet(config: &Config, uplinks: &[Uplink]) -> anyhow::Result<()> {
    let bare = uplinks.iter().find(|uplink| !uplink.ethernet);
    if let Some(uplink) = bare
        && !matches!(config.encap, Encap::Vxlan | Encap::Direct)
    {
        bail!(
            "uplink {} has no Ethernet header, and {} is not taken from there: --encap vxlan is possible",
            uplink.name,
            config.encap
        );
    }
    Ok(())
}

/// Finds a link, or says which there are.
async fn link(netlink: &Netlink, name: &str, flag: &str) -> anyhow::Result<Link> {
    if let Some(link) = netlink.link_by_name(name).await? {
        return Ok(link);
    }
    refuse_missing(netlink, name, flag).await
}

/// Says that there is no link of this name, and which there are.
async fn refuse_missing<T>(netlink: &Netlink, name: &str, flag: &str) -> anyhow::Result<T> {
    let mut names: Vec<String> = netlink.links().await?.into_iter().map(|link| link.name).collect();
    names.sort();
    bail!("interface {name} does not exist: name another with {flag}; there are {}", names.join(", "))
}

/// The uplink with the smallest MTU of those that are up.
fn smallest(uplinks: &[Uplink]) -> Option<&Uplink> {
    uplinks.iter().filter(|uplink| uplink.up).min_by_key(|uplink| uplink.mtu)
}

/// The most that outer headers take, bytes, over what we can be reached by.
fn dearest(underlay: Underlay) -> u32 {
    underlay.addresses().map(|ip| overhead(Encap::Vxlan, None, ip)).max().unwrap_or(LEAST_OVERHEAD)
}

/// The least that they take.
fn cheapest(underlay: Underlay) -> u32 {
    underlay.addresses().map(|ip| overhead(Encap::Vxlan, None, ip)).min().unwrap_or(LEAST_OVERHEAD)
}

async fn bridge(name: &str, netlink: &Netlink) -> anyhow::Result<Bridge> {
    let link = link(netlink, name, "--bridge").await?;
    ensure!(
        link.kind.as_deref() == Some("bridge"),
        "{name} is not a bridge but {}: name the bridge of your containers with --bridge",
        link.kind.as_deref().unwrap_or("a physical interface")
    );
    ensure!(link.up, "bridge {name} is down: bring it up first with `ip link set {name} up`");
    let addresses = netlink.addresses(link.index).await?;
    let v4 = addresses.iter().find_map(|address| match address {
        IpNet::V4(address) => Some(*address),
        IpNet::V6(_) => None,
    });
    let address = v4.with_context(|| {
        format!("bridge {name} has no IPv4 address: its subnet is what this host announces")
    })?;
    ensure!(
        address.prefix_len() <= 30,
        "bridge {name} has the address {address}: a subnet of at least four addresses is needed"
    );
    let mac = link.mac.with_context(|| format!("bridge {name} has no MAC address"))?;
    // The kernel lists the newest first: another one beside it changes nothing.
    let address_v6 = addresses.into_iter().rev().find_map(ipv6_subnet);
    Ok(Bridge { index: link.index, name: link.name, mac, address, address_v6 })
}

/// Takes the bridges' IPv6 subnets away, and returns them.
fn leave_out_v6(bridges: &mut [Bridge]) -> Vec<Ipv6Net> {
    bridges.iter_mut().filter_map(|bridge| bridge.address_v6.take()).map(|address| address.trunc()).collect()
}

/// An address whose subnet has meaning beyond the link, with room for containers.
fn ipv6_subnet(address: IpNet) -> Option<Ipv6Net> {
    let IpNet::V6(address) = address else { return None };
    let ip = address.addr();
    let everywhere = !ip.is_unicast_link_local() && !ip.is_multicast() && !ip.is_loopback();
    (everywhere && address.prefix_len() <= 126).then_some(address)
}

fn refuse_overlaps(bridges: &[Bridge]) -> anyhow::Result<()> {
    for (n, a) in bridges.iter().enumerate() {
        for b in &bridges[n + 1..] {
            let pairs = a.subnets().flat_map(|x| b.subnets().map(move |y| (x, y)));
            for (x, y) in pairs {
                ensure!(
                    !overlaps(x, y),
                    "bridges {} ({x}) and {} ({y}) overlap: each needs a subnet of its own",
                    a.name,
                    b.name,
                );
            }
        }
    }
    Ok(())
}

/// True where two prefixes share an address.
pub fn overlaps(a: IpNet, b: IpNet) -> bool {
    let (a, b) = (a.trunc(), b.trunc());
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use overlay_common::map::{Hop, MAX_HOPS};

    use super::*;

    /// An uplink that is up.
    pub(crate) fn uplink(index: u32, place: usize, mtu: u32) -> Uplink {
        Uplink { index, name: format!("eth{place}"), place, mtu, up: true, ethernet: true }
    }

    /// A host as tests see it: 172.16.199.17 with docker0 172.17.0.1/16.
    pub(crate) fn local() -> Local {
        Local {
            vni: Vni::DEFAULT,
            port: 4789,
            vtep_mac: Mac([2, 0, 0, 0, 0, 1]),
            encap: Encap::Vxlan,
            takes: Kinds::default().with(Encap::Vxlan),
            geneve_port: 6081,
            public: Ipv4Addr::new(172, 16, 199, 17).into(),
            src_ips: Vec::new(),
            underlay: Ipv4Addr::new(172, 16, 199, 17).into(),
            uplinks: vec![uplink(2, 0, 1500)],
            missing: Vec::new(),
            routed: BTreeSet::new(),
            mtu: 1450,
            mtu_limit: None,
            bridges: vec![Bridge {
                index: 3,
                name: "docker0".into(),
                mac: Mac([2, 0x42, 0, 0, 0, 1]),
                address: "172.17.0.1/16".parse().unwrap(),
                address_v6: None,
            }],
            left_out: Vec::new(),
        }
    }

    /// Through the first uplink of [`local`], to the peer itself.
    pub(crate) fn direct(peer: IpAddr) -> Slots {
        [Hop { uplink: 2, next_hop: peer.into() }; MAX_HOPS]
    }

    #[test]
    fn a_bridges_ipv6_subnet_is_global_or_unique_local_and_has_room() {
        let subnet = |text: &str| ipv6_subnet(text.parse().unwrap()).is_some();
        assert!(subnet("fd00:17::1/64") && subnet("2001:db8::1/112") && subnet("fd00:17::1/126"));
        assert!(!subnet("fe80::1/64") && !subnet("::1/128") && !subnet("fd00:17::1/127"));
        assert!(!subnet("172.17.0.1/16"));
    }

    #[test]
    fn a_network_without_ipv6_leaves_the_subnets_out() {
        let mut local = local();
        local.bridges[0].address_v6 = "fd00:17::1/64".parse().ok();
        local.left_out = leave_out_v6(&mut local.bridges);
        assert_eq!((local.bridges[0].announced().v6, local.bridges[0].subnets().count()), (None, 1));
        let notes: Vec<String> = local.left_out_notes().collect();
        assert!(notes.len() == 1 && notes[0].contains("fd00:17::/64") && notes[0].contains("EnableIPv6"));
    }

    #[test]
    fn overlapping_bridges_are_refused() {
        let mut bridges = local().bridges;
        bridges.push(Bridge {
            name: "br1".into(),
            address: "172.17.9.1/24".parse().unwrap(),
            ..bridges[0].clone()
        });
        let error = refuse_overlaps(&bridges).unwrap_err().to_string();
        assert!(error.contains("docker0") && error.contains("br1"), "{error}");
    }
}
