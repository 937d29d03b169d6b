//! What overlayctl tells, by row: how a test asks the daemon's maps.

use std::{collections::BTreeMap, iter::once, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Topology, container::Bridge, eventually, frame, host::Host, overlayd::Overlayd, tcx};

/// How long news may take from one daemon to the others, on a machine with much to do.
const HEARD: Duration = Duration::from_secs(5);

/// A row of `overlayctl endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The interface behind which it lives.
    pub ifindex: u32,
    /// Who says so.
    pub source: String,
}

/// Packets to and from a peer, as `overlayctl peers` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Sent to it.
    pub to: u64,
    /// Received from it.
    pub from: u64,
}

impl Overlayd {
    /// The endpoint with this address, if it is known.
    ///
    /// # Errors
    /// overlayctl failed.
    pub fn endpoint(&self, ip: impl Into<IpAddr>) -> Result<Option<Endpoint>> {
        let ip: IpAddr = ip.into();
        let rows = self.rows("endpoints")?;
        let Some(row) = rows.iter().find(|row| row["ip"] == ip.to_string()) else { return Ok(None) };
        let ifindex = row["ifindex"].as_u64().context("an endpoint without ifindex")?;
        let source = row["source"].as_str().context("an endpoint without source")?;
        Ok(Some(Endpoint { ifindex: u32::try_from(ifindex)?, source: source.to_owned() }))
    }

    /// Packets exchanged with the peer at an underlay address.
    ///
    /// # Errors
    /// overlayctl failed, or there is no such peer.
    pub fn traffic(&self, peer: impl Into<IpAddr>) -> Result<Traffic> {
        let peer: IpAddr = peer.into();
        let rows = self.rows("peers")?;
        let row = rows.iter().find(|row| row["public_ip"] == peer.to_string());
        let row = row.with_context(|| format!("{peer} is no peer"))?;
        let count = |field: &str| row[field].as_u64().with_context(|| format!("a peer without {field}"));
        Ok(Traffic { to: count("packets_to")?, from: count("packets_from")? })
    }

    /// The largest packet that fits the tunnel to an underlay address.
    ///
    /// # Errors
    /// overlayctl failed, or nothing is sent there.
    pub fn mtu_to(&self, peer: impl Into<IpAddr>) -> Result<u32> {
        let peer: IpAddr = peer.into();
        let rows = self.rows("peers")?;
        let row = rows.iter().find(|row| row["public_ip"] == peer.to_string());
        let mtu = row.with_context(|| format!("nothing is sent to {peer}"))?["mtu"].as_u64();
        Ok(u32::try_from(mtu.context("a peer without MTU")?)?)
    }

    /// Packets dropped, by reason; reasons that never occurred are left out.
    ///
    /// # Errors
    /// overlayctl failed.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let mut drops = BTreeMap::new();
        for row in self.rows("drops")? {
            let reason = row["reason"].as_str().context("a drop without reason")?;
            let packets = row["packets"].as_u64().context("a drop without packets")?;
            if packets > 0 {
                drops.insert(reason.to_owned(), packets);
            }
        }
        Ok(drops)
    }

    fn rows(&self, table: &str) -> Result<Vec<Value>> {
        let Value::Array(rows) = self.ctl(&[table, "-o", "json"])? else {
            anyhow::bail!("overlayctl {table} is no array")
        };
        Ok(rows)
    }
}

impl Topology {
    /// Waits until every daemon has a route to every subnet of every other one that it can reach: the first to start
    /// has to hear of those after it.
    ///
    /// # Errors
    /// One did not hear in time.
    pub fn await_routes(&self) -> Result<()> {
        for host in self.hosts.iter().filter(|host| host.overlayd.is_some()) {
            let others = self.hosts.iter().filter(|other| {
                other.overlayd.is_some() && other.name != host.name && other.underlay.meets(host.underlay)
            });
            let v6 = |bridge: &Bridge| bridge.subnet_v6().filter(|_| host.bridge.ip_v6.is_some());
            let subnets = |other: &Host| once(other.bridge.subnet()).chain(v6(&other.bridge)).collect();
            let wanted: Vec<String> = others.flat_map::<Vec<_>, _>(subnets).collect();
            let complete = || {
                host.overlayd()
                    .routes()
                    .is_ok_and(|routes| wanted.iter().all(|subnet| routes.contains(subnet)))
            };
            eventually(&format!("{} has routes to {}", host.name, wanted.join(", ")), HEARD, complete)?;
        }
        Ok(())
    }
}

impl Host {
    /// The index of a device; 0, which no device has, where there is none.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn ifindex(&self, name: &str) -> Result<u32> {
        let devices = self.ns.run(tcx::devices)??;
        Ok(devices.into_iter().find(|(_, other)| other == name).map_or(0, |(index, _)| index))
    }

    /// The Ethernet address of a device.
    ///
    /// # Errors
    /// There is no such device.
    pub fn mac(&self, device: &str) -> Result<frame::Mac> {
        let links: Value = serde_json::from_str(&self.ns.ip(&format!("-j link show {device}"))?.stdout)?;
        links[0]["address"].as_str().map(frame::mac).with_context(|| format!("{device} has no address"))
    }

    /// The index of a container's bridge port.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn port_index(&self, container: u32) -> Result<u32> {
        self.ifindex(&self.c(container).port)
    }

    /// Whether a container's IPv4 address is known to live behind its own port.
    #[must_use]
    pub fn knows(&self, container: u32) -> bool {
        self.knows_at(container, self.c(container).ip)
    }

    /// Whether its IPv6 address is.
    #[must_use]
    pub fn knows_v6(&self, container: u32) -> bool {
        self.c(container).ip_v6.is_some_and(|ip| self.knows_at(container, ip))
    }

    fn knows_at(&self, container: u32, ip: impl Into<IpAddr>) -> bool {
        let endpoint = self.overlayd().endpoint(ip);
        let port = self.port_index(container);
        matches!((endpoint, port), (Ok(Some(endpoint)), Ok(port)) if endpoint.ifindex == port)
    }

    /// Whether overlayd has a program on a device.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn attached(&self, device: &str) -> Result<bool> {
        Ok(tcx::attachments_in(&self.ns)?.iter().any(|attachment| attachment.ifname == device))
    }
}
