//! One container of an engine.

use std::net::Ipv4Addr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::client::Client;

/// A container by name. The engine owns it: dropping this handle leaves the container as it is.
#[derive(Clone, Debug)]
pub struct Container {
    client: Client,
    name: String,
}

/// The host's end of a container's `eth0`: a bridge port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostVeth {
    /// The link's name in the engine's network namespace.
    pub name: String,
    /// The link's index there.
    pub ifindex: u32,
}

impl Container {
    pub(super) fn new(client: Client, name: &str) -> Self {
        Self { client, name: name.to_owned() }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command inside; its output and status whatever they are. After `limit` it is killed (status 137).
    pub fn exec(&self, command: &[&str], limit: Duration) -> Result<Output> {
        // The API cannot stop an exec, and killing the CLI leaves the command running: so a watchdog inside.
        let seconds = limit.as_secs().max(1).to_string();
        let mut args = vec!["exec", &self.name, "timeout", "-s", "KILL", &seconds];
        args.extend(command);
        self.client.docker_output(&args, limit + Duration::from_secs(15))
    }

    /// Its address on the default bridge.
    pub fn ip(&self) -> Result<Ipv4Addr> {
        let text = self.inspect("{{.NetworkSettings.IPAddress}}")?;
        text.parse().with_context(|| format!("container {} has no IPv4 address: '{text}'", self.name))
    }

    /// Its first process, seen from the machine: `/proc/PID/ns/net` is its network namespace.
    pub fn pid(&self) -> Result<i32> {
        let pid: i32 = self.inspect("{{.State.Pid}}")?.parse()?;
        anyhow::ensure!(pid > 0, "container {} does not run", self.name);
        Ok(pid)
    }

    /// The bridge port behind which it sits.
    pub fn host_veth(&self) -> Result<HostVeth> {
        let netns = format!("--net=/proc/{}/ns/net", self.pid()?);
        let limit = Duration::from_secs(10);
        let inside = self.client.in_netns(&["nsenter", &netns, "ip", "-j", "link", "show", "eth0"], limit)?;
        let inside: Value = serde_json::from_str(&inside)?;
        let ifindex = inside[0]["link_index"].as_u64().context("the container's eth0 is no veth")?;
        let outside: Value =
            serde_json::from_str(&self.client.in_netns(&["ip", "-j", "link", "show"], limit)?)?;
        let links = outside.as_array().context("ip -j link printed no array")?;
        let link = links.iter().find(|link| link["ifindex"].as_u64() == Some(ifindex));
        let name = link.and_then(|link| link["ifname"].as_str());
        let name = name.with_context(|| format!("no link {ifindex} in {}", self.client.netns().display()))?;
        Ok(HostVeth { name: name.to_owned(), ifindex: u32::try_from(ifindex)? })
    }

    /// Stops it; it keeps its file system, and gets its address and veth anew on the next start.
    pub fn stop(&self) -> Result<()> {
        self.client.docker(&["stop", &self.name]).map(drop)
    }

    /// Starts it after a stop.
    pub fn start(&self) -> Result<()> {
        self.client.docker(&["start", &self.name]).map(drop)
    }

    /// Stops it and starts it: a new veth, perhaps another address.
    pub fn restart(&self) -> Result<()> {
        self.client.docker(&["restart", &self.name]).map(drop)
    }

    /// Removes it, running or not.
    pub fn rm(self) -> Result<()> {
        self.client.docker(&["rm", "-f", &self.name]).map(drop)
    }

    fn inspect(&self, format: &str) -> Result<String> {
        self.client.docker(&["container", "inspect", "-f", format, &self.name])
    }
}
