//! `overlayd lease`: a subnet of the network's for this host's bridge, before Docker makes it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use nix::unistd::geteuid;
use overlay_common::Mac;

use crate::{
    config::{Config, StoreConfig},
    exit,
    local::Local,
    netlink::Netlink,
    state::{State, StateDir, derive_vtep_mac},
    store::{
        Announcement, EtcdOptions, EtcdStore, Store, Subnets,
        etcd::{Leased, Wish},
    },
};

/// Where Docker's settings are written unless told otherwise.
pub const SUBNET_FILE: &str = "/run/overlayd/subnet.env";

/// Leases a subnet, remembers it, and writes what Docker needs to know. Returns the exit code.
///
/// # Errors
/// One line. What was leased before stays leased.
pub async fn run(config: Config, file: &Path) -> anyhow::Result<u8> {
    ensure!(geteuid().is_root(), "overlayd keeps its state as root: run it with sudo");
    let StoreConfig::Etcd { access, prefix, .. } = &config.store else {
        bail!("a peers file leases no subnets: choose one for this host, and give it to Docker as bip");
    };
    let state_dir = StateDir::lock(&config.state_dir)?;
    let before = state_dir.read()?;
    if let Some(before) = &before {
        before.refuse_other_pins(&config.pin_dir)?;
    }
    let previous = before.as_ref().map(|state| state.announcements.clone()).unwrap_or_default();
    let leased = before.as_ref().and_then(|state| state.leased);
    let remembered = leased.or(previous.first().map(|own| own.subnets));
    let store = EtcdStore::new(EtcdOptions {
        access: access.clone(),
        prefix: prefix.clone(),
        node: config.node_name.clone(),
        prune_delay: std::time::Duration::ZERO,
        in_force: 0,
        previous,
    })?;
    let network = store.network().await?;
    let (netlink, _) = Netlink::connect()?;
    let without_bridges = Config { bridges: Vec::new(), ..config.clone() };
    let local = Local::discover(&without_bridges, network, Mac::default(), &netlink).await?;
    let vtep_mac = match &before {
        Some(state) => state.vtep_mac.parse()?,
        None => derive_vtep_mac(&config.node_name, local.underlay),
    };
    let announcement = |subnets: Subnets| Announcement {
        subnets,
        host: local.public,
        src_ips: local.src_ips.clone(),
        vni: local.vni.get(),
        vtep_mac: vtep_mac.to_string(),
        encap: local.encap,
    };
    let wish = Wish { host: local.public, remembered, node: &config.node_name, announcement };
    let leased = store.lease(&wish).await?;
    let mut state = before.unwrap_or_else(|| State::new(&config.node_name, vtep_mac));
    state.note_announcements(std::slice::from_ref(&leased.announcement));
    state.leased = Some(leased.announcement.subnets);
    state.network = Some((local.vni.get(), local.port));
    state.note_store(&config.store);
    state.pin_dir = Some(config.pin_dir.clone());
    state_dir.write(&state)?;
    write(file, &settings(&leased, local.mtu))?;
    println!("{}", bip(leased.announcement.subnets));
    Ok(exit::OK)
}

/// The address of the bridge that these subnets are for: the first of the IPv4 one.
pub fn bip(Subnets { v4, .. }: Subnets) -> String {
    let first = v4.hosts().next().unwrap_or(v4.addr());
    format!("{first}/{}", v4.prefix_len())
}

/// What Docker needs to know, under our names and flannel's.
fn settings(leased: &Leased, mtu: u32) -> String {
    let Leased { announcement, network, network_v6 } = leased;
    let subnets = announcement.subnets;
    let bip = bip(subnets);
    // As flannel has it: the first address behind that of the subnet itself.
    let bip_v6 = subnets.v6.and_then(|v6| Some(format!("{}/{}", v6.hosts().nth(1)?, v6.prefix_len())));
    let of = |name: &str| {
        let v6 = network_v6.zip(bip_v6.as_ref()).map_or_else(String::new, |(network, bip)| {
            format!("{name}_IPV6_NETWORK={network}\n{name}_IPV6_SUBNET={bip}\n")
        });
        format!("{name}_NETWORK={network}\n{name}_SUBNET={bip}\n{v6}{name}_MTU={mtu}\n")
    };
    format!("{}{}FLANNEL_IPMASQ=false\n", of("OVERLAYD"), of("FLANNEL"))
}

/// Replaces a file in one step.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let replace = || {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = PathBuf::from(format!("{}.new", file.display()));
        fs::File::create(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, file)
    };
    replace().with_context(|| format!("cannot write --subnet-file {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_that_a_shell_and_systemd_read() {
        let mut leased = Leased {
            announcement: Announcement {
                subnets: Subnets { v4: "10.5.52.0/24".parse().unwrap(), v6: None },
                host: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
                src_ips: Vec::new(),
                vni: 1,
                vtep_mac: "02:00:00:00:00:01".into(),
                encap: overlay_common::Encap::Vxlan,
            },
            network: "10.5.0.0/16".parse().unwrap(),
            network_v6: None,
        };
        let text = settings(&leased, 1450);
        let expected = "OVERLAYD_NETWORK=10.5.0.0/16\nOVERLAYD_SUBNET=10.5.52.1/24\nOVERLAYD_MTU=1450\n\
                        FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        assert_eq!(text, expected);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("run/subnet.env");
        write(&file, &text).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        leased.announcement.subnets.v6 = "fd00:5:0:34::/64".parse().ok();
        leased.network_v6 = "fd00:5::/48".parse().ok();
        let lines = settings(&leased, 1430);
        for name in ["OVERLAYD", "FLANNEL"] {
            let expected = format!(
                "{name}_IPV6_NETWORK=fd00:5::/48\n{name}_IPV6_SUBNET=fd00:5:0:34::1/64\n{name}_MTU=1430\n"
            );
            assert!(lines.contains(&expected), "{lines}");
        }
    }
}
