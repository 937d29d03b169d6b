//! Who else is on the hooks that our programs are on: tcx programs, filters of the older tc, XDP programs.

pub(super) mod query;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use aya::programs::loaded_programs;
use overlay_common::map::program;

use self::query::tcx_programs;
pub use self::words::tell;
use super::load::Programs;
use crate::{
    local::Local,
    netlink::{Filtered, Hook, Link, Netlink, XdpMode, XdpProgram},
};

/// What an interface is to the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A way to the peers.
    Uplink,
    /// A bridge of ours.
    Bridge,
    /// One of its ports.
    Port,
}

/// The mechanism by which a program is on a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// XDP: before all others.
    Xdp(XdpMode),
    /// tcx (kernel 6.6).
    Tcx,
    /// A `bpf` filter of the older tc: after tcx.
    Bpf,
    /// Another filter of the older tc, of this priority.
    Filter(u16),
}

/// Where a program runs, compared with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Before our program of this name.
    Before(&'static str),
    /// On a hook that what we forward leaves by, where we have no program.
    OnTheWayOut,
    /// After our program of this name.
    After(&'static str),
}

/// A program, or a filter, that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// What its interface is to us.
    pub role: Role,
    /// Where it runs.
    pub place: Place,
    /// How it is there.
    pub mechanism: Mechanism,
    /// Its name; of a filter that is no program the kind.
    pub name: String,
    /// The program's id; a filter may have none.
    pub id: Option<u32>,
    /// Its interface.
    pub interface: String,
    /// Of a port: its bridge.
    pub bridge: Option<String>,
}

/// An interface of the data path.
struct Site<'a> {
    role: Role,
    /// Our program on its ingress.
    ingress: &'static str,
    link: &'a Link,
    bridge: Option<&'a str>,
}

/// A program on a hook, in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Occupant {
    mechanism: Mechanism,
    name: Option<String>,
    id: Option<u32>,
}

/// Looks; what programs are called is kept from one look to the next.
#[derive(Debug, Default)]
pub struct Lookout {
    /// By id; the kernel gives no id out again for a long time.
    names: BTreeMap<u32, String>,
}

impl Lookout {
    /// Everybody else on the hooks of the uplinks, the bridges and their ports, in the order of [`Place`] and
    /// [`Role`]: who matters most comes first.
    ///
    /// # Errors
    /// The kernel did not tell.
    pub async fn look(
        &mut self,
        local: &Local,
        programs: &Programs,
        netlink: &Netlink,
    ) -> anyhow::Result<Vec<Stranger>> {
        let ours = programs.ids();
        let (links, filtered) = (netlink.links().await?, netlink.filtered().await?);
        let xdp = netlink.xdp_programs().await?;
        let mut strangers = Vec::new();
        for site in sites(local, &links) {
            strangers.extend(before_tc(&site, &xdp, &ours));
            for hook in [Hook::Ingress, Hook::Egress] {
                let occupants = occupants(&site, hook, &filtered, netlink).await?;
                strangers.extend(placed(&site, hook, occupants, &ours));
            }
        }
        self.name(&mut strangers);
        strangers.sort_by_key(|stranger| (stranger.role, stranger.place));
        Ok(strangers)
    }

    /// Names the programs. One that went meanwhile keeps what its filter is called, or has no name.
    fn name(&mut self, strangers: &mut [Stranger]) {
        let ids: BTreeSet<u32> = strangers.iter().filter_map(|stranger| stranger.id).collect();
        self.names.retain(|id, _| ids.contains(id));
        if ids.iter().any(|id| !self.names.contains_key(id)) {
            // aya opens no program by its id.
            let all = loaded_programs().flatten().filter(|info| ids.contains(&info.id()));
            self.names = all.map(|info| (info.id(), name_of(info.name()))).collect();
        }
        for stranger in strangers {
            let known = stranger.id.and_then(|id| self.names.get(&id));
            if let Some(name) = known.filter(|name| !name.is_empty()) {
                stranger.name.clone_from(name);
            }
        }
    }
}

fn name_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn sites<'a>(local: &'a Local, links: &'a [Link]) -> Vec<Site<'a>> {
    let mut sites = Vec::new();
    for link in links {
        let bridge = |index| local.bridges.iter().find(|bridge| bridge.index == index);
        if let Some(uplink) = local.uplink(link.index) {
            let ingress = uplink.program();
            sites.push(Site { role: Role::Uplink, ingress, link, bridge: None });
        } else if bridge(link.index).is_some() {
            sites.push(Site { role: Role::Bridge, ingress: program::WORKLOAD_EGRESS, link, bridge: None });
        } else if let Some(bridge) = link.master.and_then(bridge) {
            let bridge = Some(bridge.name.as_str());
            sites.push(Site { role: Role::Port, ingress: program::WORKLOAD_EGRESS, link, bridge });
        }
    }
    sites
}

/// Our program on a hook; none where what leaves there is not for us to judge.
fn our_program(site: &Site<'_>, hook: Hook) -> Option<&'static str> {
    match (site.role, hook) {
        (_, Hook::Ingress) => Some(site.ingress),
        (Role::Bridge, Hook::Egress) => Some(program::BRIDGE_EGRESS),
        (Role::Uplink | Role::Port, Hook::Egress) => None,
    }
}

/// The XDP programs of others: they see what comes before any tc program does.
fn before_tc(site: &Site<'_>, xdp: &[XdpProgram], ours: &BTreeSet<u32>) -> Vec<Stranger> {
    let here = xdp.iter().filter(|xdp| xdp.ifindex == site.link.index && !ours.contains(&xdp.id));
    let occupant =
        |xdp: &XdpProgram| Occupant { mechanism: Mechanism::Xdp(xdp.mode), name: None, id: Some(xdp.id) };
    here.map(|xdp| stranger(site, Place::Before(site.ingress), occupant(xdp))).collect()
}

/// All that is on a hook, in the order in which it runs: tcx, then the filters.
async fn occupants(
    site: &Site<'_>,
    hook: Hook,
    filtered: &Filtered,
    netlink: &Netlink,
) -> anyhow::Result<Vec<Occupant>> {
    let ids = tcx_programs(site.link.index, hook)
        .with_context(|| format!("cannot ask which tcx programs {} has", site.link.name))?;
    let tcx = |id| Occupant { mechanism: Mechanism::Tcx, name: None, id: Some(id) };
    let mut all: Vec<Occupant> = ids.into_iter().map(tcx).collect();
    for filter in netlink.filters(filtered, site.link.index, hook).await? {
        let (mechanism, name) = match filter.program {
            Some(_) => (Mechanism::Bpf, filter.name),
            None => (Mechanism::Filter(filter.pref), Some(filter.kind)),
        };
        all.push(Occupant { mechanism, name, id: filter.program });
    }
    Ok(all)
}

/// The others among the occupants of a hook. Where our program is missing that should be there, none: that
/// is a trouble, and said elsewhere.
fn placed(site: &Site<'_>, hook: Hook, all: Vec<Occupant>, ours: &BTreeSet<u32>) -> Vec<Stranger> {
    let is_ours = |occupant: &Occupant| occupant.id.is_some_and(|id| ours.contains(&id));
    let position = all.iter().position(is_ours);
    let mut strangers = Vec::new();
    for (n, occupant) in all.into_iter().enumerate() {
        let place = match (our_program(site, hook), position) {
            _ if is_ours(&occupant) => continue,
            (None, _) => Place::OnTheWayOut,
            (Some(program), Some(position)) if n < position => Place::Before(program),
            (Some(program), Some(_)) => Place::After(program),
            (Some(_), None) => continue,
        };
        strangers.push(stranger(site, place, occupant));
    }
    strangers
}

fn stranger(site: &Site<'_>, place: Place, occupant: Occupant) -> Stranger {
    Stranger {
        role: site.role,
        place,
        mechanism: occupant.mechanism,
        name: occupant.name.unwrap_or_default(),
        id: occupant.id,
        interface: site.link.name.clone(),
        bridge: site.bridge.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::local;

    fn link(index: u32, master: Option<u32>) -> Link {
        Link {
            index,
            name: format!("if{index}"),
            kind: None,
            ethernet: true,
            mac: None,
            mtu: 1500,
            up: true,
            master,
            peer_elsewhere: false,
        }
    }

    fn occupant(mechanism: Mechanism, id: u32) -> Occupant {
        Occupant { mechanism, name: Some(format!("p{id}")), id: Some(id) }
    }

    fn places(role: Role, hook: Hook, ids: &[u32], ours: &[u32]) -> Vec<(String, Place)> {
        let link = link(2, None);
        let ingress = if role == Role::Uplink { program::UPLINK_INGRESS } else { program::WORKLOAD_EGRESS };
        let site = Site { role, ingress, link: &link, bridge: None };
        let all = ids.iter().map(|id| occupant(Mechanism::Tcx, *id)).collect();
        let placed = placed(&site, hook, all, &ours.iter().copied().collect());
        placed.into_iter().map(|stranger| (stranger.name, stranger.place)).collect()
    }

    #[test]
    fn others_are_placed_by_our_program() {
        let (before, after) = (Place::Before(program::UPLINK_INGRESS), Place::After(program::UPLINK_INGRESS));
        let found = places(Role::Uplink, Hook::Ingress, &[4, 9, 5], &[9, 10]);
        assert_eq!(found, [("p4".into(), before), ("p5".into(), after)]);
        assert_eq!(places(Role::Uplink, Hook::Ingress, &[9], &[9]), []);
        assert_eq!(places(Role::Bridge, Hook::Egress, &[4], &[9]), [], "ours is missing");
        assert_eq!(places(Role::Port, Hook::Egress, &[4], &[9]), [("p4".into(), Place::OnTheWayOut)]);
    }

    #[test]
    fn xdp_is_before_us_unless_it_is_ours() {
        let link = link(2, None);
        let site = Site { role: Role::Uplink, ingress: program::UPLINK_INGRESS, link: &link, bridge: None };
        let xdp =
            [(2, 4), (2, 9), (3, 5)].map(|(ifindex, id)| XdpProgram { ifindex, id, mode: XdpMode::Native });
        let found = before_tc(&site, &xdp, &BTreeSet::from([9]));
        assert_eq!(found.iter().map(|stranger| stranger.id).collect::<Vec<_>>(), [Some(4)]);
        assert_eq!(found[0].place, Place::Before(program::UPLINK_INGRESS));
    }

    #[test]
    fn sites_are_the_uplink_the_bridges_and_their_ports() {
        let links =
            [link(1, None), link(2, None), link(3, None), link(7, Some(3)), link(8, Some(9)), link(9, None)];
        let local = local();
        let found: Vec<_> =
            sites(&local, &links).iter().map(|site| (site.link.index, site.role, site.bridge)).collect();
        let port = (7, Role::Port, Some("docker0"));
        assert_eq!(found, [(2, Role::Uplink, None), (3, Role::Bridge, None), port]);
    }
}
