//! Docker's own overlay driver: with a key-value store where the engines still have that, else in a swarm.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Scope, docker::Engine, etcd::Etcd, eventually, process::Cmd, traffic::tap::Like};

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    cpu,
    host_gw::BRIDGE,
    proof::{Counter, DataPath},
    versions,
};

/// Of the overlay network.
const NETWORK: &str = "bench";
const SUBNET: &str = "10.99.0.0/24";

/// Docker's VXLAN port.
const PORT: u16 = 4789;

/// By which an overlay container reaches what is outside.
const WAY_OUT: &str = "docker_gwbridge";

/// How long the other engine may take to hear of a network or to join a swarm.
const HEARD: Duration = Duration::from_secs(30);

/// The first version of Docker without `--cluster-store`.
const NO_STORE: u32 = 23;

/// How the engines know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// etcd, by its v2 API.
    Store,
    /// Each other.
    Swarm,
}

impl Control {
    /// A key-value store is what plain hosts use; it takes an old engine and an etcd that still has the old API.
    ///
    /// # Errors
    /// dockerd is not installed.
    pub(super) fn of_this_machine() -> Result<Self> {
        let old_engine = versions::docker_major()? < NO_STORE;
        // The option went with the API, in etcd 3.6.
        let old_etcd =
            || Cmd::new("etcd").arg("--help").run().is_ok_and(|said| said.text().contains("--enable-v2 "));
        Ok(if old_engine && old_etcd() { Self::Store } else { Self::Swarm })
    }
}

struct DockerOverlay {
    words: String,
    _etcd: Option<Etcd>,
}

pub(super) fn up(name: &'static str, scope: Scope, wire: Wire, control: Control) -> Result<Box<dyn System>> {
    let mut bed = Bed::lay(scope, wire)?;
    let (etcd, how) = match control {
        Control::Store => {
            let etcd = start_with_store(&mut bed)?;
            (Some(etcd), format!("{} as the key-value store", versions::etcd()?))
        }
        Control::Swarm => {
            bed.start_engines(&[])?;
            join_swarm(&bed)?;
            (None, "swarm".to_owned())
        }
    };
    let sides = bed.start_containers(Some(NETWORK))?;
    let docker = versions::docker(&bed)?;
    let words = format!("{docker}, overlay driver, {how}; containers at the driver's MTU of 1450");
    Compared::ready(name, bed, sides, DockerOverlay { words, _etcd: etcd })
}

fn start_with_store(bed: &mut Bed) -> Result<Etcd> {
    let [first, _] = &bed.hosts;
    let etcd = Etcd::start_with(&first.ns, first.ip, &bed.scope.dir().join("etcd"), &["--enable-v2=true"])?;
    let pid = etcd.pid().context("etcd has just ended")?;
    cpu::pin(pid.cast_signed(), first.cpu)?;
    let store = format!("--cluster-store=etcd://{}:2379", first.ip);
    bed.start_engines(&[&store, &format!("--cluster-advertise={UPLINK}:2376")])?;
    let [one, two] = [bed.hosts[0].engine()?, bed.hosts[1].engine()?];
    one.docker(&["network", "create", "-d", "overlay", "--subnet", SUBNET, NETWORK])?;
    let heard = || two.docker(&["network", "inspect", NETWORK]).is_ok();
    eventually("the second engine knows the overlay network", HEARD, heard)?;
    Ok(etcd)
}

fn join_swarm(bed: &Bed) -> Result<()> {
    let [first, second] = bed.hosts.each_ref().map(|host| host.ip.to_string());
    let [one, two]: [&Engine; 2] = [bed.hosts[0].engine()?, bed.hosts[1].engine()?];
    one.docker(&["swarm", "init", "--advertise-addr", &first])?;
    let token = one.docker(&["swarm", "join-token", "-q", "worker"])?;
    two.docker(&["swarm", "join", "--token", &token, "--advertise-addr", &second, &format!("{first}:2377")])?;
    one.docker(&["network", "create", "-d", "overlay", "--attachable", "--subnet", SUBNET, NETWORK])?;
    let ready =
        || one.docker(&["node", "ls", "-q", "--filter", "role=worker"]).is_ok_and(|ids| !ids.is_empty());
    eventually("the second engine is in the swarm", HEARD, ready)
}

impl DataPath for DockerOverlay {
    fn describe(&self) -> String {
        self.words.clone()
    }

    fn outer(&self, _from: &Side, _to: &Side) -> Result<Like> {
        Ok(Like::UdpTo(PORT))
    }

    fn counters(&self, host: &Host, _other: &Host) -> Result<Vec<Counter>> {
        // Its vxlan device is in a namespace that only the engine knows: what must not be passed tells as much.
        let mut counters = Counter::device_rests(&host.ns, BRIDGE)?;
        counters.extend(Counter::device_rests(&host.ns, WAY_OUT)?);
        Ok(counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_is_an_overlay_too() {
        let scope = Scope::unique().expect("root");
        let system =
            up(crate::systems::DOCKER_OVERLAY, scope, Wire::Mtu, Control::Swarm).expect("it comes up");
        assert!(system.describe().contains("swarm"), "{}", system.describe());
    }
}
