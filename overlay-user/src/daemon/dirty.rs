//! What changed since the last round.

use crate::reconcile::records::Touched;

/// What changed since the last round.
#[derive(Default)]
pub(super) struct Dirty {
    /// The store's records, or how peers are reached.
    pub(super) touched: Touched,
    /// What routers told of path MTUs.
    pub(super) path_mtus: bool,
    /// Tunnels that no route uses may be due to be cleared.
    pub(super) idle: bool,
    /// Links: ports came or went.
    pub(super) links: bool,
    /// Neighbours or the FDB.
    pub(super) endpoints: bool,
    /// Our own interfaces: address, MAC address or MTU may be others.
    pub(super) local: bool,
    /// Any routes of the underlay.
    pub(super) next_hops: bool,
    /// Everything is read back from the kernel.
    pub(super) whole: bool,
}

impl Dirty {
    /// What is in here, for the log.
    pub(super) fn words(&self) -> String {
        let Self { touched, path_mtus, idle, links, endpoints, local, next_hops, whole } = self;
        let (all, subnets, addresses) = (touched.all, touched.subnets.len(), touched.addresses.len());
        format!(
            "all {all}, subnets {subnets}, addresses {addresses}, path MTUs {path_mtus}, idle {idle}, links {links}, \
             endpoints {endpoints}, local {local}, next hops {next_hops}, whole {whole}"
        )
    }

    pub(super) fn all() -> Self {
        Self {
            touched: Touched::all(),
            path_mtus: true,
            idle: true,
            links: true,
            endpoints: true,
            local: true,
            next_hops: true,
            whole: false,
        }
    }
}
