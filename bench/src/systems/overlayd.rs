//! overlayd as it is shipped: the release binaries, a real etcd, every check and counter on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{
    Scope,
    etcd::Etcd,
    eventually,
    overlayd::{Config, Overlayd, Store},
    topology::ETCD_PREFIX,
    traffic::tap::Like,
};
use overlay_common::{
    Encap,
    wire::{geneve, gre::PROTOCOL_GRE, ipv4::PROTOCOL_IPV4},
};
use overlay_user::path_mtu::overhead;

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    cpu,
    host_gw::BRIDGE,
    proof::{Counter, DataPath, between},
    versions,
};

const VNI: u32 = 1;
const PORT: u16 = 4789;
/// Of the uplinks.
const MTU: u32 = 1500;

/// How long the daemons may take to hear of each other and to settle on a place to decapsulate.
const SETTLED: Duration = Duration::from_secs(10);

struct Daemons {
    words: String,
    encap: Encap,
    /// In the order of the hosts; before the store they write their last words to.
    overlayd: Vec<Overlayd>,
    _etcd: Etcd,
}

/// `decap` is what `--decap` gets, `encap` what `--encap` does.
pub(super) fn up(
    name: &'static str,
    scope: Scope,
    wire: Wire,
    decap: &str,
    encap: Encap,
) -> Result<Box<dyn System>> {
    let mut bed = Bed::lay(scope, wire)?;
    let [first, _] = &bed.hosts;
    let etcd = Etcd::start(&first.ns, first.ip, &bed.scope.dir().join("etcd"))?;
    cpu::pin(etcd.pid().context("etcd has just ended")?.cast_signed(), first.cpu)?;
    bed.start_engines(&[])?;
    let sides = bed.start_containers(None)?;
    let start = |host: &Host| -> Result<Overlayd> {
        let overlayd = Overlayd::start(&host.ns, config(&bed, host, &etcd, decap, encap))?;
        cpu::pin(overlayd.pid().context("overlayd has just ended")?.cast_signed(), host.cpu)?;
        Ok(overlayd)
    };
    let overlayd: Vec<Overlayd> = bed.hosts.iter().map(start).collect::<Result<_>>()?;
    let mut places = Vec::new();
    for (daemon, (_, other)) in overlayd.iter().zip(bed.pairs()) {
        let heard = || daemon.routes().is_ok_and(|routes| routes.contains(&other.subnet));
        eventually(&format!("a route to {}", other.subnet), SETTLED, heard)?;
        places.push(settle(daemon, decap)?);
    }
    ensure!(places[0] == places[1], "the hosts decapsulate differently: {}", places.join(" and "));
    let words = format!(
        "{}, --decap {decap} (decapsulates in {}), --encap {encap}; {}, {}, containers on {BRIDGE} at Docker's MTU of 1500{}",
        versions::line(&harness::binaries::find("overlayd")?)?,
        places[0],
        versions::etcd()?,
        versions::docker(&bed)?,
        match MTU - overhead(encap, None, bed.hosts[0].ip.into()) {
            MTU => String::new(),
            less => format!(" (the overlay's is {less})"),
        }
    );
    Compared::ready(name, bed, sides, Daemons { words, encap, overlayd, _etcd: etcd })
}

fn config(bed: &Bed, host: &Host, etcd: &Etcd, decap: &str, encap: Encap) -> Config {
    let dir = bed.scope.dir();
    Config {
        ifaces: vec![UPLINK.to_owned()],
        bridges: vec![BRIDGE.to_owned()],
        node_name: host.name.to_owned(),
        public_ips: vec![host.ip.into()],
        vni: VNI,
        port: PORT,
        store: Store::Etcd { endpoint: etcd.endpoint(), prefix: ETCD_PREFIX.to_owned() },
        pin_dir: bed.scope.pin_dir(host.name),
        state_dir: dir.join(host.name).join("state"),
        log: dir.join(format!("{}.overlayd.log", host.name)),
        args: vec![format!("--decap={decap}"), format!("--encap={encap}")],
        env: Vec::new(),
        build: None,
    }
}

/// Where it decapsulates, once it has decided: XDP is on trial at first.
fn settle(daemon: &Overlayd, decap: &str) -> Result<String> {
    let place = || {
        let status = daemon.ctl(&["status", "-o", "json"]).ok()?;
        status["uplinks"][0]["decap"].as_str().map(str::to_owned)
    };
    let decided = |place: &str| place == decap || (decap == "auto" && matches!(place, "tc" | "xdp"));
    let what = format!("overlayd on {} decapsulates as --decap {decap} says", daemon.config.node_name);
    let settled = eventually(&what, SETTLED, || place().is_some_and(|place| decided(&place)));
    settled.with_context(|| format!("it says `{}`", place().unwrap_or_default()))?;
    place().context("overlayctl status has no uplink")
}

impl DataPath for Daemons {
    fn describe(&self) -> String {
        self.words.clone()
    }

    fn outer(&self, from: &Side, to: &Side) -> Result<Like> {
        match self.encap {
            Encap::Vxlan => Ok(Like::UdpTo(PORT)),
            Encap::Geneve => Ok(Like::UdpTo(geneve::PORT)),
            Encap::Gre | Encap::GreL3 => Ok(Like::Protocol(PROTOCOL_GRE)),
            Encap::Ipip => Ok(Like::Protocol(PROTOCOL_IPV4)),
            Encap::Direct => between(from, to),
        }
    }

    /// Geneve needs a socket for that, which only a kernel with Geneve devices has.
    fn merges(&self) -> bool {
        self.encap != Encap::Geneve
    }

    fn counters(&self, host: &Host, other: &Host) -> Result<Vec<Counter>> {
        let daemon = self.overlayd.iter().find(|daemon| daemon.config.node_name == host.name);
        let daemon = daemon.with_context(|| format!("no overlayd on {}", host.name))?;
        let traffic = daemon.traffic(other.ip)?;
        let mut counters = vec![
            Counter::carries("overlayd's packets to its peer", traffic.to),
            Counter::carries("overlayd's packets from its peer", traffic.from),
            Counter::never("overlayd's drops", daemon.drops()?.values().sum()),
        ];
        // Straight from veth to uplink and back: Docker's bridge and rules have nothing to do with it.
        counters.extend(Counter::device_rests(&host.ns, BRIDGE)?);
        Ok(counters)
    }
}
