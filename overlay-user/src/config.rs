//! What the daemon is told: flags first, then the configuration file, then defaults.

mod access;
mod flannel;
mod list;
mod store;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use overlay_common::{
    Encap, Kinds, Vni,
    map::MAX_UPLINKS,
    wire::{geneve, vxlan},
};
use serde::Deserialize;

pub use self::{access::EtcdFlags, store::StoreConfig};

/// Where things are kept unless told otherwise.
pub mod default {
    /// The directory of pins.
    pub const PIN_DIR: &str = "/sys/fs/bpf/overlayd";
    /// The directory of state.
    pub const STATE_DIR: &str = "/var/lib/overlayd";
    /// The API socket.
    pub const SOCKET: &str = "/run/overlayd/overlayd.sock";
    /// The prefix of keys in etcd.
    pub const ETCD_PREFIX: &str = "/overlayd/network";
    /// Where etcd is.
    pub const ETCD_ENDPOINT: &str = "http://127.0.0.1:2379";
    /// For how long the disappearance of most subnets at once is doubted.
    pub const PRUNE_DELAY: std::time::Duration = std::time::Duration::from_secs(60);
    /// Docker's own bridge.
    pub const BRIDGE: &str = "docker0";
}

/// What happens to the data path when the daemon ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// It goes on forwarding, and the next daemon adopts it.
    #[default]
    Keep,
    /// Every trace is removed.
    Detach,
}

/// Where tunnel packets are decapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DecapMode {
    /// In XDP on physical interfaces whose driver can, in tcx elsewhere.
    #[default]
    Auto,
    /// In XDP, or not at all.
    Xdp,
    /// In tcx.
    Tc,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The flags of `overlayd`, and at the same time the keys of its configuration file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// An uplink: an interface to the other hosts; may be repeated or a list joined by commas
    #[arg(long = "iface", env = "OVERLAYD_IFACE", value_name = "NAME", value_delimiter = ',')]
    #[serde(default, rename = "iface", deserialize_with = "list::one_or_more")]
    pub ifaces: Vec<String>,
    /// A bridge whose containers join the overlay; may be repeated, each has a subnet of its own [default: docker0]
    #[arg(long = "bridge", env = "OVERLAYD_BRIDGE", value_name = "NAME", value_delimiter = ',')]
    #[serde(default, rename = "bridge", deserialize_with = "list::one_or_more")]
    pub bridges: Vec<String>,
    /// This node's name [default: the host name]
    #[arg(long, env = "OVERLAYD_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// The address that peers send to; one of each IP version at most [default: the first uplink's first]
    #[arg(long = "public-ip", env = "OVERLAYD_PUBLIC_IP", value_name = "IP", value_delimiter = ',')]
    #[serde(default, rename = "public_ip", deserialize_with = "list::one_or_more")]
    pub public_ips: Vec<IpAddr>,
    /// An address that this host's packets come from at the others, where NAT makes it another than they send to; may be repeated
    #[arg(long = "src-ip", env = "OVERLAYD_SRC_IP", value_name = "IP", value_delimiter = ',')]
    #[serde(default, rename = "src_ip", deserialize_with = "list::one_or_more")]
    pub src_ips: Vec<IpAddr>,
    /// The network's VNI, 1 to 16777215, unless the store's configuration has one [default: 1]
    #[arg(long, env = "OVERLAYD_VNI", value_name = "N")]
    pub vni: Option<u32>,
    /// The network's UDP port, unless the store's configuration has one [default: 4789]
    #[arg(long, env = "OVERLAYD_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The overlay MTU in bytes, at most [default: the smallest uplink's less the encapsulation]
    #[arg(long, env = "OVERLAYD_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// How other hosts are to send to this one: in a kind of tunnel, or directly where they are on the same link (vxlan,
    /// geneve, gre, gre-l3, ipip, direct) [default: vxlan]
    #[arg(long, env = "OVERLAYD_ENCAP", value_name = "KIND")]
    #[serde(default, deserialize_with = "encap")]
    pub encap: Option<Encap>,
    /// Kinds in which other hosts may send besides, before they are told to; may be repeated or a list joined by commas
    #[arg(long, env = "OVERLAYD_ACCEPT", value_name = "KIND", value_delimiter = ',')]
    #[serde(default, deserialize_with = "list::parsed")]
    pub accept: Vec<Encap>,
    /// The UDP port on which Geneve is taken [default: 6081]
    #[arg(long, env = "OVERLAYD_GENEVE_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub geneve_port: Option<u16>,
    /// Where tunnel packets are decapsulated: in native XDP, in tc (tcx), or where the uplink is best served [default: auto]
    #[arg(long, env = "OVERLAYD_DECAP", value_name = "WHERE")]
    pub decap: Option<DecapMode>,
    /// An etcd endpoint; may be repeated or a list joined by commas [default: http://127.0.0.1:2379]
    #[arg(
        long,
        env = "OVERLAYD_ETCD_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ',',
        conflicts_with = "peers"
    )]
    #[serde(default)]
    pub etcd_endpoints: Vec<String>,
    /// The prefix of the network's keys in etcd [default: /overlayd/network]
    #[arg(long, env = "OVERLAYD_ETCD_PREFIX", value_name = "KEY", conflicts_with = "peers")]
    pub etcd_prefix: Option<String>,
    /// The certificates (PEM) that sign those of etcd's https:// endpoints [default: the system's]
    #[arg(long, env = "OVERLAYD_ETCD_CAFILE", value_name = "FILE", conflicts_with = "peers")]
    pub etcd_cafile: Option<PathBuf>,
    /// This host's certificate (PEM), where etcd asks for one; read again when it changes
    #[arg(long, env = "OVERLAYD_ETCD_CERTFILE", value_name = "FILE", conflicts_with = "peers")]
    pub etcd_certfile: Option<PathBuf>,
    /// The key (PEM) of this host's certificate
    #[arg(long, env = "OVERLAYD_ETCD_KEYFILE", value_name = "FILE", conflicts_with = "peers")]
    pub etcd_keyfile: Option<PathBuf>,
    /// This host's user in etcd
    #[arg(long, env = "OVERLAYD_ETCD_USERNAME", value_name = "NAME", conflicts_with = "peers")]
    pub etcd_username: Option<String>,
    /// A file with that user's password; read again when it changes
    #[arg(long, env = "OVERLAYD_ETCD_PASSWORD_FILE", value_name = "FILE", conflicts_with = "peers")]
    pub etcd_password_file: Option<PathBuf>,
    /// The environment variable with that password, where it is in none of overlayd's own.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) etcd_password_variable: Option<String>,
    /// Seconds for which routes stay in force when etcd has lost most of them at once; 0 believes it [default: 60]
    #[arg(long, env = "OVERLAYD_PRUNE_DELAY", value_name = "SECONDS", conflicts_with = "peers")]
    pub prune_delay: Option<u64>,
    /// A peers file (TOML) instead of etcd; watched, and applied on change
    #[arg(long, env = "OVERLAYD_PEERS", value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// The directory of pinned maps, programs and links [default: /sys/fs/bpf/overlayd]
    #[arg(long, env = "OVERLAYD_PIN_DIR", value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// The directory of what must outlive the daemon [default: /var/lib/overlayd]
    #[arg(long, env = "OVERLAYD_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The API socket, which tells of health and readiness over HTTP [default: /run/overlayd/overlayd.sock]
    #[arg(long, env = "OVERLAYD_SOCKET", value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// What happens to the data path when the daemon ends [default: keep]
    #[arg(long, env = "OVERLAYD_ON_EXIT", value_name = "WHAT")]
    pub on_exit: Option<OnExit>,
    /// The form of log lines on standard error [default: text]
    #[arg(long, env = "OVERLAYD_LOG_FORMAT", value_name = "FORM")]
    pub log_format: Option<LogFormat>,
}

/// A kind of tunnel by its name.
fn encap<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Encap>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(|error| serde::de::Error::custom(format!("encap {name:?} is {error}")))
}

/// Everything the daemon needs to know, checked as far as it can be without the kernel or the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The uplinks' names; at least one.
    pub ifaces: Vec<String>,
    /// The bridges' names; at least one.
    pub bridges: Vec<String>,
    /// This node's name.
    pub node_name: String,
    /// The IPv4 address that peers send to, where it was given.
    pub public_v4: Option<Ipv4Addr>,
    /// The IPv6 address that peers send to, where it was given.
    pub public_v6: Option<Ipv6Addr>,
    /// Other addresses that our packets come from.
    pub src_ips: Vec<IpAddr>,
    /// The VNI where the store has none.
    pub vni: Vni,
    /// The UDP port where the store has none.
    pub port: u16,
    /// The overlay MTU, where it was given.
    pub mtu: Option<u32>,
    /// How packets are to come to this host.
    pub encap: Encap,
    /// How they may come besides.
    pub accept: Kinds,
    /// The UDP port on which Geneve is taken.
    pub geneve_port: u16,
    /// Where tunnel packets are decapsulated.
    pub decap: DecapMode,
    /// Where routes come from.
    pub store: StoreConfig,
    /// The directory of pins.
    pub pin_dir: PathBuf,
    /// The directory of state.
    pub state_dir: PathBuf,
    /// The API socket.
    pub socket: PathBuf,
    /// What happens at the end.
    pub on_exit: OnExit,
}

/// Reads a configuration file.
///
/// # Errors
/// One line, with the file, the line and the column.
pub fn read_file(path: &Path) -> anyhow::Result<Flags> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read configuration file {}", path.display()))?;
    parse_file(&text).with_context(|| format!("configuration file {} is not valid", path.display()))
}

fn parse_file(text: &str) -> anyhow::Result<Flags> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..offset].matches('\n').count() + 1;
        anyhow::anyhow!("line {line}: {}", error.message().replace('\n', " "))
    })
}

impl Flags {
    /// Takes from `file` what no flag says.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        fn list<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
            if flags.is_empty() { file } else { flags }
        }
        // A store chosen by flag leaves no room for the file's other store.
        let etcd_by_flag = self.has_etcd();
        let file = if self.peers.is_some() { file.without_etcd() } else { file };
        Self {
            ifaces: list(self.ifaces, file.ifaces),
            bridges: list(self.bridges, file.bridges),
            node_name: self.node_name.or(file.node_name),
            public_ips: list(self.public_ips, file.public_ips),
            src_ips: list(self.src_ips, file.src_ips),
            vni: self.vni.or(file.vni),
            port: self.port.or(file.port),
            mtu: self.mtu.or(file.mtu),
            encap: self.encap.or(file.encap),
            accept: list(self.accept, file.accept),
            geneve_port: self.geneve_port.or(file.geneve_port),
            decap: self.decap.or(file.decap),
            etcd_endpoints: list(self.etcd_endpoints, file.etcd_endpoints),
            etcd_prefix: self.etcd_prefix.or(file.etcd_prefix),
            etcd_cafile: self.etcd_cafile.or(file.etcd_cafile),
            etcd_certfile: self.etcd_certfile.or(file.etcd_certfile),
            etcd_keyfile: self.etcd_keyfile.or(file.etcd_keyfile),
            etcd_username: self.etcd_username.or(file.etcd_username),
            etcd_password_file: self.etcd_password_file.or(file.etcd_password_file),
            etcd_password_variable: self.etcd_password_variable.or(file.etcd_password_variable),
            prune_delay: self.prune_delay.or(file.prune_delay),
            peers: if etcd_by_flag { None } else { self.peers.or(file.peers) },
            pin_dir: self.pin_dir.or(file.pin_dir),
            state_dir: self.state_dir.or(file.state_dir),
            socket: self.socket.or(file.socket),
            on_exit: self.on_exit.or(file.on_exit),
            log_format: self.log_format.or(file.log_format),
        }
    }

    /// Whether they say anything about etcd.
    fn has_etcd(&self) -> bool {
        let files = [&self.etcd_cafile, &self.etcd_certfile, &self.etcd_keyfile, &self.etcd_password_file];
        !self.etcd_endpoints.is_empty()
            || self.etcd_prefix.is_some()
            || self.etcd_username.is_some()
            || self.etcd_password_variable.is_some()
            || self.prune_delay.is_some()
            || files.into_iter().any(Option::is_some)
    }

    /// What they say besides.
    fn without_etcd(self) -> Self {
        Self {
            etcd_endpoints: Vec::new(),
            etcd_prefix: None,
            etcd_cafile: None,
            etcd_certfile: None,
            etcd_keyfile: None,
            etcd_username: None,
            etcd_password_file: None,
            etcd_password_variable: None,
            prune_delay: None,
            ..self
        }
    }

    /// Checks everything that can be checked without the kernel and the store.
    ///
    /// # Errors
    /// One line for the first value that cannot be used: a usage error.
    pub fn check(self) -> anyhow::Result<Config> {
        let store = StoreConfig::of(&self)?;
        let ifaces = ifaces(self.ifaces)?;
        let bridges = if self.bridges.is_empty() { vec![default::BRIDGE.to_owned()] } else { self.bridges };
        for (n, bridge) in bridges.iter().enumerate() {
            ensure!(!bridges[..n].contains(bridge), "--bridge {bridge} is given twice");
            ensure!(
                !ifaces.contains(bridge),
                "{bridge} cannot be an uplink (--iface) and a bridge (--bridge) at once"
            );
        }
        let vni = self.vni.map_or(Ok(Vni::DEFAULT), Vni::new).context("--vni")?;
        let port = self.port.unwrap_or(vxlan::PORT);
        ensure!(port != 0, "--port 0 is not a port: 1 to 65535 is expected");
        let geneve_port = self.geneve_port.unwrap_or(geneve::PORT);
        ensure!(geneve_port != 0, "--geneve-port 0 is not a port: 1 to 65535 is expected");
        ensure!(geneve_port != port, "--port and --geneve-port are both {port}: each needs one of its own");
        let node_name = match self.node_name {
            Some(name) => name,
            None => nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .context("this host has no name: give the node one with --node-name")?,
        };
        ensure!(
            !node_name.is_empty() && node_name.len() < overlay_common::map::NAME_BYTES,
            "--node-name must have 1 to {} bytes",
            overlay_common::map::NAME_BYTES - 1
        );
        let (public_v4, public_v6) = public_ips(&self.public_ips)?;
        for ip in &self.src_ips {
            ensure!(is_a_hosts(*ip), "--src-ip {ip} is not an address that packets could come from");
        }
        Ok(Config {
            ifaces,
            bridges,
            node_name,
            public_v4,
            public_v6,
            src_ips: self.src_ips,
            vni,
            port,
            mtu: self.mtu,
            encap: self.encap.unwrap_or_default(),
            accept: self.accept.into_iter().collect(),
            geneve_port,
            decap: self.decap.unwrap_or_default(),
            store,
            pin_dir: self.pin_dir.unwrap_or_else(|| default::PIN_DIR.into()),
            state_dir: self.state_dir.unwrap_or_else(|| default::STATE_DIR.into()),
            socket: self.socket.unwrap_or_else(|| default::SOCKET.into()),
            on_exit: self.on_exit.unwrap_or_default(),
        })
    }
}

fn ifaces(ifaces: Vec<String>) -> anyhow::Result<Vec<String>> {
    ensure!(
        !ifaces.is_empty(),
        "which interface leads to the other hosts? Name it with --iface, as in `overlayd --iface eth0`"
    );
    for (n, iface) in ifaces.iter().enumerate() {
        ensure!(!iface.is_empty(), "--iface has an empty name: give names joined by commas, without blanks");
        ensure!(!ifaces[..n].contains(iface), "--iface {iface} is given twice");
    }
    ensure!(ifaces.len() <= MAX_UPLINKS, "--iface: {} uplinks, {MAX_UPLINKS} are supported", ifaces.len());
    Ok(ifaces)
}

/// Whether a host may have an address that others know.
fn is_a_hosts(ip: IpAddr) -> bool {
    let usable = match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
    };
    usable && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// One address of each version at most.
fn public_ips(ips: &[IpAddr]) -> anyhow::Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let (mut v4, mut v6) = (None, None);
    for ip in ips {
        ensure!(is_a_hosts(*ip), "--public-ip {ip} is not an address that peers could send to");
        let before = match ip {
            IpAddr::V4(ip) => v4.replace(*ip).map(IpAddr::V4),
            IpAddr::V6(ip) => v6.replace(*ip).map(IpAddr::V6),
        };
        if let Some(before) = before {
            bail!("--public-ip is given as {before} and as {ip}: one IPv4 and one IPv6 address are possible");
        }
    }
    Ok((v4, v6))
}

#[cfg(test)]
mod tests;
