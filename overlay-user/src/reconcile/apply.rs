//! Carrying changes out. Each is idempotent: applying it twice is applying it once.

use futures::{StreamExt, stream};
use overlay_common::Mac;

use super::{change::Change, observe::ROUTE_PROTOCOL};
use crate::{
    datapath::{DatapathError, map::Maps},
    netlink::{Netlink, NetlinkError},
};

/// Changes of the kernel's tables that are asked for before the first is answered.
const AT_ONCE: usize = 64;

/// Why a change could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A map refused: what depends on it must wait.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The kernel's tables refused: nothing else depends on them.
    #[error(transparent)]
    KernelRoute(#[from] NetlinkError),
}

/// Applies changes of one kind, in their order, and tells what became of each. After the first that a map refuses there
/// are no more.
pub async fn apply(changes: &[Change], maps: &mut Maps, netlink: &Netlink) -> Vec<Result<(), ApplyError>> {
    if changes.first().is_some_and(is_for_kernel) {
        let applied = changes.iter().map(|change| to_kernel(change, netlink));
        return stream::iter(applied).buffered(AT_ONCE).collect().await;
    }
    let mut results = Vec::new();
    for change in changes {
        let result = to_maps(change, maps);
        let refused = result.is_err();
        results.push(result.map_err(ApplyError::from));
        if refused {
            break;
        }
    }
    results
}

fn is_for_kernel(change: &Change) -> bool {
    use Change::{DeleteKernelRoute, DeleteNeighbour, DeleteRule, PutKernelRoute, PutNeighbour, PutRule};
    matches!(
        change,
        PutNeighbour(_)
            | PutKernelRoute(_)
            | PutRule(_)
            | DeleteRule(_)
            | DeleteKernelRoute(_)
            | DeleteNeighbour(_)
    )
}

async fn to_kernel(change: &Change, netlink: &Netlink) -> Result<(), ApplyError> {
    match change {
        Change::PutNeighbour((ifindex, ip)) => {
            netlink.replace_permanent_neighbour(*ifindex, *ip, Mac::OVERLAY_NEIGHBOUR).await?;
        }
        Change::PutKernelRoute(route) => netlink.replace_route(route, ROUTE_PROTOCOL).await?,
        Change::PutRule(rule) => netlink.add_rule(rule, ROUTE_PROTOCOL).await?,
        Change::DeleteRule(rule) => netlink.delete_rule(rule, ROUTE_PROTOCOL).await?,
        Change::DeleteKernelRoute(route) => netlink.delete_route(route, ROUTE_PROTOCOL).await?,
        Change::DeleteNeighbour((ifindex, ip)) => netlink.delete_neighbour(*ifindex, *ip).await?,
        _ => {}
    }
    Ok(())
}

fn to_maps(change: &Change, maps: &mut Maps) -> Result<(), DatapathError> {
    match change {
        Change::PutPeer { key, peer, fresh } => {
            if *fresh {
                maps.reset_traffic(peer.id)?;
            }
            maps.put_peer(*key, *peer)
        }
        Change::PutListenPort(port, encap) => maps.put_listen_port(*port, *encap),
        Change::PutTunnel(id, tunnel) => maps.put_tunnel(*id, **tunnel),
        Change::PutRoute(key, route) => maps.put_route(*key, *route),
        Change::DeleteRoute(key) => maps.delete_route(*key),
        Change::DeletePeer(key) => maps.delete_peer(*key),
        Change::DeleteListenPort(port) => maps.delete_listen_port(*port),
        Change::ClearTunnel(id) => maps.put_tunnel(*id, bytemuck::Zeroable::zeroed()),
        _ => Ok(()),
    }
}
