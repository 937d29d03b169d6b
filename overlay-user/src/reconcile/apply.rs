//! Carrying changes out. Each is idempotent: applying it twice is applying it once.

use overlay_common::{Encap, Mac};

use super::{change::Change, observe::ROUTE_PROTOCOL};
use crate::{
    datapath::{DatapathError, map::Maps},
    netlink::{Netlink, NetlinkError},
};

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

/// Applies one change.
///
/// # Errors
/// [`ApplyError`].
pub async fn apply(change: &Change, maps: &mut Maps, netlink: &Netlink) -> Result<(), ApplyError> {
    match change {
        Change::PutPeer { key, peer, fresh } => {
            if *fresh {
                maps.reset_traffic(peer.id)?;
            }
            maps.put_peer(*key, *peer)?;
        }
        Change::PutListenPort(port) => maps.put_listen_port(*port, Encap::Vxlan as u32)?,
        Change::PutTunnel(id, tunnel) => maps.put_tunnel(*id, **tunnel)?,
        Change::PutRoute(key, route) => maps.put_route(*key, *route)?,
        Change::PutNeighbour((ifindex, ip)) => {
            netlink.replace_permanent_neighbour(*ifindex, *ip, Mac::OVERLAY_NEIGHBOUR).await?;
        }
        Change::PutKernelRoute(route) => netlink.replace_route(route, ROUTE_PROTOCOL).await?,
        Change::PutRule(rule) => netlink.add_rule(rule, ROUTE_PROTOCOL).await?,
        Change::DeleteRule(rule) => netlink.delete_rule(rule, ROUTE_PROTOCOL).await?,
        Change::DeleteKernelRoute(route) => netlink.delete_route(route, ROUTE_PROTOCOL).await?,
        Change::DeleteNeighbour((ifindex, ip)) => netlink.delete_neighbour(*ifindex, *ip).await?,
        Change::DeleteRoute(key) => maps.delete_route(*key)?,
        Change::DeletePeer(key) => maps.delete_peer(*key)?,
        Change::DeleteListenPort(port) => maps.delete_listen_port(*port)?,
        Change::ClearTunnel(id) => maps.put_tunnel(*id, bytemuck::Zeroable::zeroed())?,
    }
    Ok(())
}
