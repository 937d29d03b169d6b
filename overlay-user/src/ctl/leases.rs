//! `overlayctl leases`: the subnets' keys in etcd, for operators. Needs no daemon, and works from any host that reaches etcd.

use std::{net::IpAddr, time::Duration};

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;

use super::show;
use crate::{
    config::{EtcdFlags, StoreConfig},
    exit::{self, Failure},
    store::{
        EtcdOptions, EtcdStore,
        etcd::{Held, Overview, Release},
        schema::{Pool, Prefix},
    },
    underlay::Underlay,
};

/// `overlayctl leases`.
#[derive(Args, Debug)]
pub struct Leases {
    #[command(flatten)]
    etcd: EtcdFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Who holds which subnet, until when, and whether he lives; how many are free
    List,
    /// Keep a subnet for its host for good: its key hangs on no lease any more
    Reserve {
        /// The subnet, as in 10.5.52.0/24; with the IPv6 one of the same key behind a comma
        #[arg(value_name = "SUBNET", value_delimiter = ',', required = true, num_args = 1)]
        subnets: Vec<IpNet>,
        /// The host's addresses in the underlay; for a subnet that nobody holds yet
        #[arg(long = "public-ip", value_name = "IP", value_delimiter = ',')]
        public_ips: Vec<IpAddr>,
    },
    /// Have a host route for a subnet behind it that is no bridge's, for good; `release --delete` takes it back
    Route {
        /// The subnet, as in 192.168.50.0/24
        #[arg(value_name = "SUBNET")]
        subnet: IpNet,
        /// The host's address in the underlay
        #[arg(long = "public-ip", value_name = "IP", value_delimiter = ',', required = true)]
        public_ips: Vec<IpAddr>,
    },
    /// Give a reservation up: its key gets a lease of 24 hours again, which its host renews as long as it lives
    Release {
        /// The subnet, as in 10.5.52.0/24; with the IPv6 one of the same key behind a comma
        #[arg(value_name = "SUBNET", value_delimiter = ',', required = true, num_args = 1)]
        subnets: Vec<IpNet>,
        /// Delete the key, whether it is a reservation or not, unless its host lives
        #[arg(long)]
        delete: bool,
        /// Delete it though its host lives, which writes it again unless another host is faster
        #[arg(long, requires = "delete")]
        force: bool,
    },
}

/// One row of `overlayctl leases list`.
#[derive(Debug, Serialize)]
pub struct Lease {
    /// The subnets of the key: one of IPv4, and of IPv6 where it has one.
    pub subnets: Vec<String>,
    /// The key in etcd.
    pub key: String,
    /// The IPv4 address of the host that holds them.
    pub public_ip: Option<String>,
    /// Its IPv6 address.
    pub public_ipv6: Option<String>,
    /// Its node's name, while it lives and says who it is.
    pub node: Option<String>,
    /// flannel's `BackendType`; none where it is only kept for the host.
    pub kind: Option<String>,
    /// Whether it hangs on no lease.
    pub reserved: bool,
    /// Seconds until it expires; none for a reservation.
    pub expires_seconds: Option<u64>,
    /// Whether its node's key is there. Hosts of other makes have none.
    pub alive: bool,
}

/// Subnets that hosts lease.
#[derive(Debug, Serialize)]
pub struct Free {
    /// All of them lie in here.
    pub network: String,
    /// The length of their prefixes.
    pub subnet_len: u8,
    /// How many there are.
    pub total: u64,
    /// How many nobody holds.
    pub free: u64,
}

/// `overlayctl leases list`.
#[derive(Debug, Serialize)]
pub struct List {
    /// The keys.
    pub leases: Vec<Lease>,
    /// What hosts lease from; of each version of IP.
    pub pools: Vec<Free>,
    /// Why there is none.
    pub no_pool: Option<String>,
}

/// Runs it and prints its report. Returns the exit code.
///
/// # Errors
/// One line; with exit code 2 where it was called wrongly.
pub fn run(leases: &Leases, json: bool) -> anyhow::Result<u8> {
    let usage = |error: anyhow::Error| Failure::new(exit::USAGE, exit::one_line(&error));
    let StoreConfig::Etcd { access, prefix, .. } = leases.etcd.store().map_err(usage)? else {
        bail!("a peers file has no leases: they are in etcd, name it with --etcd-endpoints");
    };
    let store = EtcdStore::new(EtcdOptions {
        access,
        prefix,
        node: String::new(),
        prune_delay: Duration::ZERO,
        in_force: 0,
        previous: Vec::new(),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &leases.action {
        Action::List => show::print(json, &List::from(runtime.block_on(store.leases())?), table),
        Action::Reserve { subnets, public_ips } => {
            let host = host(public_ips).map_err(usage)?;
            let held = runtime.block_on(store.reserve(subnets, host))?;
            show::print(json, &Lease::from(held), |lease| {
                format!("{} is reserved for {}", lease.subnets.join(", "), lease.holder())
            })
        }
        Action::Route { subnet, public_ips } => {
            let Some(host) = host(public_ips).map_err(usage)? else { bail!("--public-ip names no host") };
            let held = runtime.block_on(store.route(*subnet, host))?;
            show::print(json, &Lease::from(held), |lease| {
                format!("{} is routed by {}", lease.subnets.join(", "), lease.holder())
            })
        }
        Action::Release { subnets, delete, force } => {
            let how = Release { delete: *delete, force: *force };
            let held = runtime.block_on(store.release(subnets, how))?;
            show::print(json, &Lease::from(held), |lease| {
                let (what, whose) = (lease.subnets.join(", "), lease.holder());
                if how.delete {
                    format!("{what} of {whose} is free")
                } else {
                    format!("{what} of {whose} is free in 24 hours, unless its host renews the lease")
                }
            })
        }
    }
}

/// One address of each version at most.
fn host(ips: &[IpAddr]) -> anyhow::Result<Option<Underlay>> {
    let (mut v4, mut v6) = (None, None);
    for ip in ips {
        ensure!(
            !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
            "--public-ip {ip} is not an address that peers could send to"
        );
        let before = match ip {
            IpAddr::V4(ip) => v4.replace(*ip).map(IpAddr::V4),
            IpAddr::V6(ip) => v6.replace(*ip).map(IpAddr::V6),
        };
        if let Some(before) = before {
            bail!("--public-ip is given as {before} and as {ip}: one IPv4 and one IPv6 address are possible");
        }
    }
    Ok(Underlay::new(v4, v6))
}

impl Lease {
    fn holder(&self) -> String {
        let addresses = [self.public_ip.as_deref(), self.public_ipv6.as_deref()];
        let addresses = addresses.into_iter().flatten().collect::<Vec<_>>().join(", ");
        match &self.node {
            Some(node) => format!("node {node} ({addresses})"),
            None => addresses,
        }
    }
}

impl From<Held> for Lease {
    fn from(held: Held) -> Self {
        let subnets = held.subnets.map(|subnets| subnets.each().map(|net| net.to_string()).collect());
        Self {
            subnets: subnets.unwrap_or_default(),
            public_ip: held.host.and_then(Underlay::v4).map(|ip| ip.to_string()),
            public_ipv6: held.host.and_then(Underlay::v6).map(|ip| ip.to_string()),
            alive: held.node.is_some(),
            node: held.node,
            kind: held.kind,
            reserved: held.expires.is_none(),
            expires_seconds: held.expires,
            key: held.key,
        }
    }
}

impl From<Overview> for List {
    fn from(overview: Overview) -> Self {
        let subnets: Vec<_> = overview.held.iter().filter_map(|held| held.subnets).collect();
        let (pools, no_pool) = match overview.pools {
            Ok(pools) => {
                let v4 = free(&pools.v4, &subnets.iter().map(|subnets| subnets.v4).collect::<Vec<_>>());
                let taken: Vec<_> = subnets.iter().filter_map(|subnets| subnets.v6).collect();
                (std::iter::once(v4).chain(pools.v6.map(|pool| free(&pool, &taken))).collect(), None)
            }
            Err(why) => (Vec::new(), Some(why)),
        };
        Self { leases: overview.held.into_iter().map(Lease::from).collect(), pools, no_pool }
    }
}

fn free<N: Prefix>(pool: &Pool<N>, taken: &[N]) -> Free {
    // Of IPv6 there may be more than anybody counts.
    let number = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    Free {
        network: pool.network.to_string(),
        subnet_len: pool.len,
        total: number(pool.count()),
        free: number(pool.count_free(taken)),
    }
}

/// The keys, and below them what is free.
fn table(list: &List) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let row = |lease: &Lease| {
        let addresses = [lease.public_ip.as_deref(), lease.public_ipv6.as_deref()];
        let addresses: Vec<&str> = addresses.into_iter().flatten().collect();
        vec![
            if lease.subnets.is_empty() { lease.key.clone() } else { lease.subnets.join(",") },
            if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") },
            or_dash(&lease.node),
            or_dash(&lease.kind),
            lease.expires_seconds.map_or_else(|| "reserved".to_owned(), show::duration),
            if lease.alive { "yes" } else { "no" }.to_owned(),
        ]
    };
    let header = ["SUBNET", "PUBLIC IP", "NODE", "KIND", "EXPIRES", "ALIVE"];
    let mut text = show::table(&header, &[], list.leases.iter().map(row));
    for Free { network, subnet_len, total, free } in &list.pools {
        text.push_str(&format!("{free} of {total} subnets of /{subnet_len} of {network} are free\n"));
    }
    if let Some(why) = &list.no_pool {
        text.push_str(&format!("no subnets to lease: {why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Subnets, schema::parse_pools};

    #[test]
    fn a_row_says_who_holds_what_and_until_when() {
        let v4: Subnets = "10.5.1.0/24".parse::<ipnet::Ipv4Net>().unwrap().into();
        let held = |subnets, expires, node: Option<&str>| Held {
            key: "/net/subnets/10.5.1.0-24".into(),
            subnets,
            host: Underlay::new("192.0.2.7".parse().ok(), None),
            kind: node.map(|_| "vxlan".into()),
            expires,
            node: node.map(str::to_owned),
        };
        let dual = Subnets { v6: "fd00:5:0:1::/64".parse().ok(), ..v4 };
        let pools = parse_pools(
            br#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetLen":120}"#,
        );
        let held = vec![held(Some(dual), Some(3600), Some("h1")), held(None, None, None)];
        let list = List::from(Overview { held, pools });
        let text = table(&list);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["10.5.1.0/24,fd00:5:0:1::/64", "192.0.2.7", "h1", "vxlan", "1h0m", "yes"]);
        assert_eq!(lines[2], ["/net/subnets/10.5.1.0-24", "192.0.2.7", "-", "-", "reserved", "no"]);
        assert!(text.contains("254 of 255 subnets of /24 of 10.5.0.0/16 are free"), "{text}");
        assert_eq!((list.pools[1].total, list.pools[1].free), (u64::MAX, u64::MAX));
        let none = List::from(Overview { held: Vec::new(), pools: Err("there is none".into()) });
        assert!(table(&none).contains("no subnets to lease: there is none"));
    }

    #[test]
    fn one_address_of_each_version() {
        let host = |ips: &[&str]| host(&ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(host(&[]).unwrap(), None);
        assert_eq!(host(&["192.0.2.7"]).unwrap(), Underlay::new("192.0.2.7".parse().ok(), None));
        for ips in [&["192.0.2.7", "192.0.2.8"][..], &["127.0.0.1"], &["::"]] {
            assert!(host(ips).unwrap_err().to_string().contains("--public-ip"), "{ips:?}");
        }
    }
}
