//! flannel's data plane: the kernel's VXLAN device, routed to from docker0.

use anyhow::{Context, Result};
use harness::{Scope, traffic::tap::Like};

use super::{
    Side, System, Wire,
    bed::{Bed, Host, UPLINK},
    compared::Compared,
    host_gw::{BRIDGE, let_through},
    proof::{Counter, DataPath},
    versions,
};

/// What flanneld names its device: the VNI is 1.
const DEVICE: &str = "flannel.1";

/// The kernel's own VXLAN port, which flannel leaves as it is.
const PORT: u16 = 8472;

/// flanneld writes this MTU to the file that dockerd's flags are made of.
const MTU: &str = "--mtu=1450";

struct KernelVxlan {
    docker: String,
}

pub(super) fn up(name: &'static str, scope: Scope, wire: Wire) -> Result<Box<dyn System>> {
    let mut bed = Bed::lay(scope, wire)?;
    bed.start_engines(&[MTU])?;
    bed.hosts.iter().try_for_each(add_device)?;
    for (host, other) in bed.pairs() {
        add_peer(host, other)?;
        let_through(host, other, DEVICE)?;
    }
    let sides = bed.start_containers(None)?;
    let docker = versions::docker(&bed)?;
    Compared::ready(name, bed, sides, KernelVxlan { docker })
}

/// flannel's address for a host's device: the first of its subnet.
fn vtep(host: &Host) -> Result<&str> {
    Ok(host.subnet.split_once('/').context("a subnet has a length")?.0)
}

fn add_device(host: &Host) -> Result<()> {
    let kind = format!("type vxlan id 1 dev {UPLINK} local {} dstport {PORT} nolearning", host.ip);
    host.ns.ip_batch(&[
        format!("link add {DEVICE} {kind}"),
        format!("addr add {}/32 dev {DEVICE}", vtep(host)?),
        format!("link set {DEVICE} up"),
    ])
}

fn add_peer(host: &Host, other: &Host) -> Result<()> {
    let said = other.ns.ip(&format!("-j link show {DEVICE}"))?.stdout;
    let links: serde_json::Value = serde_json::from_str(&said)?;
    let mac = links[0]["address"].as_str().with_context(|| format!("{DEVICE} has no address"))?;
    let gateway = vtep(other)?;
    host.ns.ip(&format!("neigh replace {gateway} lladdr {mac} dev {DEVICE} nud permanent"))?;
    host.ns.exec(&["bridge", "fdb", "replace", mac, "dev", DEVICE, "dst", &other.ip.to_string()])?;
    host.ns.ip(&format!("route replace {} via {gateway} dev {DEVICE} onlink", other.subnet)).map(drop)
}

impl DataPath for KernelVxlan {
    fn describe(&self) -> String {
        format!(
            "flannel's data plane: the kernel's vxlan device {DEVICE} (no learning, permanent neighbour and FDB entries), \
             {}, containers on {BRIDGE} at MTU 1450; DOCKER-USER accepts and NAT returns what goes between the container \
             subnets",
            self.docker
        )
    }

    fn outer(&self, _from: &Side, _to: &Side) -> Result<Like> {
        Ok(Like::UdpTo(PORT))
    }

    fn counters(&self, host: &Host, _other: &Host) -> Result<Vec<Counter>> {
        let mut counters = Counter::device_carries(&host.ns, DEVICE)?;
        counters.extend(Counter::device_carries(&host.ns, BRIDGE)?);
        Ok(counters)
    }
}
