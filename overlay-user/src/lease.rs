//! `overlayd lease`: a subnet of the network's for this host's bridge, before Docker makes it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use ipnet::Ipv4Net;
use nix::unistd::geteuid;
use overlay_common::Mac;

use crate::{
    config::{Config, StoreConfig},
    exit,
    local::Local,
    netlink::Netlink,
    state::{State, StateDir, derive_vtep_mac},
    store::{Announcement, EtcdOptions, EtcdStore, Store, etcd::Wish},
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
    let remembered = previous.first().map(|own| own.subnets.v4);
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
    let announcement = |subnet: Ipv4Net| Announcement {
        subnets: subnet.into(),
        host: local.public,
        vni: local.vni.get(),
        vtep_mac: vtep_mac.to_string(),
        encap: local.encap,
    };
    let wish = Wish { host: local.public, remembered, node: &config.node_name, announcement };
    let (leased, network) = store.lease(&wish).await?;
    let mut state = before.unwrap_or_else(|| State::new(&config.node_name, vtep_mac));
    state.note_announcements(std::slice::from_ref(&leased));
    state.network = Some((local.vni.get(), local.port));
    state.note_store(&config.store);
    state.pin_dir = Some(config.pin_dir.clone());
    state_dir.write(&state)?;
    let subnet = leased.subnets.v4;
    let bip = subnet.hosts().next().context("the subnet has room for a bridge")?;
    let bip = format!("{bip}/{}", subnet.prefix_len());
    write(file, &settings(network, &bip, local.mtu))?;
    println!("{bip}");
    Ok(exit::OK)
}

/// What Docker needs to know, under our names and flannel's.
fn settings(network: Ipv4Net, bip: &str, mtu: u32) -> String {
    let of = |name: &str| format!("{name}_NETWORK={network}\n{name}_SUBNET={bip}\n{name}_MTU={mtu}\n");
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
        let text = settings("10.5.0.0/16".parse().unwrap(), "10.5.52.1/24", 1450);
        let expected = "OVERLAYD_NETWORK=10.5.0.0/16\nOVERLAYD_SUBNET=10.5.52.1/24\nOVERLAYD_MTU=1450\n\
                        FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        assert_eq!(text, expected);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("run/subnet.env");
        write(&file, &text).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    }
}
