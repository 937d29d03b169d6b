//! Open vSwitch with a GRE tunnel between bridges that docker0 is joined to, as the how-tos have it; but in userspace.
//!
//! The userspace datapath is not the one in the kernel that people run. It stands here because it runs on any kernel, and no
//! claim is made over it.

use anyhow::{Context, Result, anyhow};
use harness::{
    Scope,
    ovs::{Datapath, Switch},
    traffic::tap::Like,
};

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    cpu,
    host_gw::BRIDGE,
    proof::{Counter, DataPath},
    versions,
};

/// The tunnel's port.
const TUNNEL: &str = "gre1";

/// 1500 less the outer Ethernet, IPv4 and GRE headers of 14 + 20 + 4. With Docker's own 1500, larger packets are lost
/// without a word, and TCP moves nothing.
const MTU: &str = "--mtu=1462";

/// IP's number for GRE.
const GRE: u8 = 47;

struct OvsGre {
    words: String,
    /// By the hosts' CPUs.
    switches: Vec<Switch>,
}

pub(super) fn missing() -> Option<String> {
    harness::ovs::missing().map(|program| format!("{program} is not installed: run `cargo xtask setup`"))
}

pub(super) fn up(name: &'static str, scope: Scope, wire: Wire) -> Result<Box<dyn System>> {
    let mut bed = Bed::lay(scope, wire)?;
    bed.start_engines(&[MTU])?;
    let sides = bed.start_containers(None)?;
    let start = |(host, other): (&Host, &Host)| {
        let dir = bed.scope.dir().join(format!("{}-ovs", host.name));
        join(host, other, dir).with_context(|| format!("Open vSwitch on {}", host.name))
    };
    let switches: Vec<Switch> = bed.pairs().into_iter().map(start).collect::<Result<_>>()?;
    let words = format!(
        "{}, userspace datapath (not the kernel's, so that no claim is made over it), one GRE tunnel; {}, containers on \
         {BRIDGE} at MTU 1462",
        versions::line("ovs-vswitchd")?,
        versions::docker(&bed)?
    );
    Compared::ready(name, bed, sides, OvsGre { words, switches })
}

fn join(host: &Host, other: &Host, dir: std::path::PathBuf) -> Result<Switch> {
    let switch = Switch::start(&host.ns, dir, Some(host.cpu))?;
    switch.take_uplink(&host.ns, UPLINK, host.ip)?;
    switch.join(&host.ns, BRIDGE, Datapath::Userspace)?;
    switch.add_tunnel(TUNNEL, "gre", other.ip, "")?;
    host.ns.ip(&format!("route add {} dev {BRIDGE}", other.subnet))?;
    // docker0 is where containers of both hosts are, and the gateway of neither to the other.
    for device in ["all", BRIDGE] {
        host.ns.sysctl(&format!("ipv4/conf/{device}/send_redirects"), "0")?;
    }
    // Its packet threads start with the first bridge.
    cpu::pin(switch.pid().cast_signed(), host.cpu)?;
    Ok(switch)
}

/// What the tunnel's port has counted, received and sent.
fn tunnelled(switch: &Switch) -> Result<[u64; 2]> {
    let said = switch.port(TUNNEL)?;
    // `rx pkts=1, bytes=2, …` on a line, and the same with `tx` on the next.
    let counts: Vec<u64> =
        said.split("pkts=").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok()).collect();
    <[u64; 2]>::try_from(counts).map_err(|_| anyhow!("{TUNNEL} has no counters: {said}"))
}

impl DataPath for OvsGre {
    fn describe(&self) -> String {
        self.words.clone()
    }

    fn outer(&self, _from: &Side, _to: &Side) -> Result<Like> {
        Ok(Like::Protocol(GRE))
    }

    fn counters(&self, host: &Host, _other: &Host) -> Result<Vec<Counter>> {
        let [received, sent] = tunnelled(&self.switches[host.cpu])?;
        let tunnel = |way, packets| Counter::carries(format!("{TUNNEL} {way}"), packets);
        Ok(vec![tunnel("received", received), tunnel("sent", sent)])
    }

    /// The switch takes frames from the uplink as packet sockets do.
    fn merges(&self) -> bool {
        false
    }
}
