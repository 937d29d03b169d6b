//! Leasing a subnet of the network's pool: the one that this host has or had, else any that is free.

use ipnet::Ipv4Net;

use super::{EtcdStore, claim::claim, list};
use crate::{
    local::overlaps,
    store::{Announcement, StoreError, schema},
    underlay::Underlay,
};

/// How often another subnet is chosen when others are faster.
const RACES: usize = 20;

/// What a host wants to lease a subnet for.
pub struct Wish<'a, F> {
    /// The host, by its addresses.
    pub host: Underlay,
    /// The subnet that it had, where it had one.
    pub remembered: Option<Ipv4Net>,
    /// What spreads hosts over the pool, so that they do not all ask for the same: its name.
    pub node: &'a str,
    /// What is announced of a subnet.
    pub announcement: F,
}

impl EtcdStore {
    /// Leases a subnet, and says of which network it is.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where the configuration has no pool, or nothing is free; else as for the store's own calls.
    pub async fn lease<F>(&self, wish: &Wish<'_, F>) -> Result<(Announcement, Ipv4Net), StoreError>
    where
        F: Fn(Ipv4Net) -> Announcement,
    {
        let mut lot =
            wish.node.bytes().fold(0_u32, |lot, byte| lot.wrapping_mul(31).wrapping_add(byte.into()));
        for _ in 0..RACES {
            let pool = self.pool().await?;
            let (own, taken) = self.taken(wish.host).await?;
            let is_free =
                |subnet: &Ipv4Net| !taken.iter().any(|taken| overlaps((*taken).into(), (*subnet).into()));
            let first = own.into_iter().chain(wish.remembered).filter(|subnet| pool.has(*subnet));
            let subnet = first.chain(pool.from(lot)).find(is_free).ok_or_else(|| {
                StoreError::Invalid(format!(
                    "no /{} of {} is free: {} are taken; enlarge the network, or delete the keys of hosts that are no more",
                    pool.len,
                    pool.network,
                    taken.len()
                ))
            })?;
            let announcement = (wish.announcement)(subnet);
            match claim(self, &announcement).await {
                Ok(_) => return Ok((announcement, pool.network)),
                Err(StoreError::Conflict(reason)) => tracing::debug!("{reason}"),
                Err(error) => return Err(error),
            }
            lot = lot.wrapping_add(1);
        }
        Err(StoreError::Conflict(format!(
            "{RACES} subnets were leased by others just before this host: try again"
        )))
    }

    async fn pool(&self) -> Result<schema::Pool, StoreError> {
        let key = schema::config_key(&self.prefix);
        let invalid = |error: &str| {
            StoreError::Invalid(format!("etcd key {key}: {error}; correct it with etcdctl put"))
        };
        let value = list::value(&self.link, &key).await?;
        let value = value.ok_or_else(|| invalid("there is none, and subnets are leased from its Network"))?;
        schema::parse_pool(&value).map_err(|error| invalid(&error))
    }

    /// The subnet that is this host's already, and those of others.
    async fn taken(&self, host: Underlay) -> Result<(Option<Ipv4Net>, Vec<Ipv4Net>), StoreError> {
        let prefix = self.subnets();
        let read = |pair: etcd_client::KeyValue| {
            let name = str::from_utf8(pair.key()).ok()?.strip_prefix(&prefix)?.to_owned();
            let subnets = schema::parse_subnet_name(&name).ok()?;
            let ours = schema::owner(pair.value()).is_some_and(|owner| owner.shares(host));
            Some((subnets.v4, ours))
        };
        let listed = list::all(&self.link, &prefix, read).await?.pairs;
        let (ours, others): (Vec<_>, Vec<_>) = listed.into_iter().flatten().partition(|(_, ours)| *ours);
        Ok((ours.first().map(|(subnet, _)| *subnet), others.into_iter().map(|(subnet, _)| subnet).collect()))
    }
}
