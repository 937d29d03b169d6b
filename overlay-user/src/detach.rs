//! Removing every trace: the announcement first, so that peers stop sending; then tunnel devices, links,
//! programs, maps, routes, neighbours and settings; the state directory last, since it tells a second try what is left.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use nix::unistd::geteuid;
use overlay_common::Mac;
use tracing::warn;

use crate::{
    api,
    datapath::{pin::Pins, takeover},
    exit,
    netlink::{Netlink, netns},
    reconcile::{observe::ROUTE_PROTOCOL, table},
    state::{State, StateDir},
    store::{EtcdOptions, EtcdStore, Store},
    tunnel_devices,
};

/// How long the data path outlives its announcements: peers hear within milliseconds, and need some for what they then do.
pub const DRAIN: Duration = Duration::from_secs(1);

/// How long a running daemon may take to end.
const DAEMON_ENDS: Duration = Duration::from_secs(15);

/// `overlayd detach`: ends a running daemon and removes everything. Returns the exit code.
///
/// # Errors
/// One line where something could not be removed; calling it again goes on from there.
pub async fn run(pin_dir: &Path, state_dir: &Path, socket: &Path, drain: Duration) -> anyhow::Result<u8> {
    ensure!(geteuid().is_root(), "overlayd changes the kernel's networking: run it as root, with sudo");
    let pins = Pins::new(pin_dir);
    // From in there the pins look gone, and the programs would stay behind with their daemon killed.
    pins.refuse_private()?;
    if !pins.exist() && !state_dir.exists() {
        eprintln!(
            "overlayd: nothing to detach: no pins under {}, no state in {}",
            pin_dir.display(),
            state_dir.display()
        );
        return Ok(exit::OK);
    }
    let (netlink, _monitor) = Netlink::connect()?;
    if pins.exist() {
        // Maps of another size cannot be read, and need not be, to be removed.
        let held = takeover::others(&pins)?.into_iter().next().unwrap_or_else(|| pins.clone());
        let cookie = takeover::status(&held).map_or(0, |status| status.netns_cookie);
        ensure!(
            netns::is_here(cookie)?,
            "pin directory {} belongs to overlayd in another network namespace: detach it there",
            pin_dir.display()
        );
    }
    if let Some(state) = StateDir::peek(state_dir)? {
        state.refuse_other_pins(pin_dir)?;
    }
    let state_dir = StateDir::take_over(state_dir, DAEMON_ENDS)?;
    let state = state_dir.read()?;
    // Of a daemon that was killed; it may have had another one than we are told of.
    api::remove(socket);
    state.as_ref().and_then(|state| state.socket.as_deref()).into_iter().for_each(api::remove);
    everything(&pins, state_dir, state.as_ref(), &netlink, drain).await
}

/// Removes everything. Returns [`exit::DEGRADED`], with the state kept, where a key in etcd is left.
///
/// # Errors
/// As [`run`].
pub async fn everything(
    pins: &Pins,
    state_dir: StateDir,
    state: Option<&State>,
    netlink: &Netlink,
    drain: Duration,
) -> anyhow::Result<u8> {
    let left = match state {
        Some(state) => withdraw(state).await.err(),
        None => None,
    };
    // What is under way, and what peers send until they have heard, still arrives.
    if left.is_none() && pins.exist() && state.is_some_and(|state| !state.announcements.is_empty()) {
        tokio::time::sleep(drain).await;
    }
    kernel(pins, state, netlink).await?;
    match (left, state) {
        (Some(left), Some(state)) => {
            // The kernel is as it was; only the announcements are left to take back.
            state_dir.write(&State { sysctls: Vec::new(), ..state.clone() })?;
            eprintln!("overlayd: detached from this host, but {left}");
            Ok(exit::DEGRADED)
        }
        _ => {
            state_dir.remove()?;
            Ok(exit::OK)
        }
    }
}

/// Takes our announcements back.
///
/// # Errors
/// One line that names each key left behind.
pub async fn withdraw(state: &State) -> anyhow::Result<()> {
    let Some(etcd) = &state.etcd else { return Ok(()) };
    if state.announcements.is_empty() {
        return Ok(());
    }
    let store = EtcdStore::new(EtcdOptions {
        access: etcd.access.clone(),
        prefix: etcd.prefix.clone(),
        previous: state.announcements.clone(),
        node: state.node_name.clone(),
        prune_delay: Duration::ZERO,
        in_force: 0,
    })?;
    Ok(store.withdraw(&state.announcements).await?)
}

/// Removes everything from the kernel.
///
/// # Errors
/// One line for the first thing that cannot be removed.
pub async fn kernel(pins: &Pins, state: Option<&State>, netlink: &Netlink) -> anyhow::Result<()> {
    // Before the pins: their programs guard them as long as they are up.
    let vtep_mac = state.and_then(|state| state.vtep_mac.parse().ok());
    tunnel_devices::remove_all(netlink, vtep_mac).await?;
    takeover::remove_all(pins)?;
    for rule in netlink.rules(ROUTE_PROTOCOL).await? {
        netlink.delete_rule(&rule, ROUTE_PROTOCOL).await?;
    }
    for route in netlink.routes(ROUTE_PROTOCOL).await?.into_iter().filter(|route| table::is_ours(route.table))
    {
        netlink.delete_route(&route, ROUTE_PROTOCOL).await?;
    }
    for bridge in netlink.links().await?.iter().filter(|link| link.kind.as_deref() == Some("bridge")) {
        for neighbour in netlink.neighbours(bridge.index).await? {
            if neighbour.mac == Some(Mac::OVERLAY_NEIGHBOUR) {
                netlink.delete_neighbour(bridge.index, neighbour.ip).await?;
            }
        }
    }
    for saved in state.into_iter().flat_map(|state| &state.sysctls) {
        // A bridge that is gone took its settings along.
        if let Err(error) = saved.restore() {
            warn!("{error}");
        }
    }
    Ok(())
}
