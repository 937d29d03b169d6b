//! Leasing subnets of the network's pools: those that this host has or had, else any that are free.

use etcd_client::KeyValue;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{EtcdStore, claim::claim, list};
use crate::{
    local::overlaps,
    store::{Announcement, Store, StoreError, Subnets, schema},
    underlay::Underlay,
};

/// How often another subnet is chosen when others are faster.
const RACES: usize = 20;

/// What a host wants to lease a subnet for.
pub struct Wish<'a, F> {
    /// The host, by its addresses.
    pub host: Underlay,
    /// The subnets that it had, where it had some.
    pub remembered: Option<Subnets>,
    /// What spreads hosts over the pool, so that they do not all ask for the same: its name.
    pub node: &'a str,
    /// What is announced of subnets.
    pub announcement: F,
}

/// What a host has leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// As it is announced.
    pub announcement: Announcement,
    /// The network that the IPv4 subnet is of.
    pub network: Ipv4Net,
    /// The network that the IPv6 subnet is of, where there is one.
    pub network_v6: Option<Ipv6Net>,
}

/// A key that names subnets.
struct Taken {
    subnets: Subnets,
    /// It is this host's.
    ours: bool,
    /// It hangs on no lease.
    reserved: bool,
    /// The revision at which it came to be.
    created: i64,
}

impl EtcdStore {
    /// Leases subnets, and says of which networks they are.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] where the configuration has no pool, or nothing is free; else as for the store's own calls.
    pub async fn lease<F>(&self, wish: &Wish<'_, F>) -> Result<Leased, StoreError>
    where
        F: Fn(Subnets) -> Announcement,
    {
        let mut lot =
            wish.node.bytes().fold(0_u32, |lot, byte| lot.wrapping_mul(31).wrapping_add(byte.into()));
        for _ in 0..RACES {
            let pools = self.pools().await?;
            let taken = self.taken(wish.host).await?;
            let announcement = (wish.announcement)(choose(&pools, &taken, wish.remembered, lot)?);
            match claim(self, &announcement).await {
                Ok(_) if self.is_contested(&announcement).await? => {
                    tracing::debug!("{} was leased by others, too", announcement.subnets);
                }
                Ok(_) => {
                    let network_v6 = announcement.subnets.v6.and(pools.v6).map(|pool| pool.network);
                    return Ok(Leased { announcement, network: pools.v4.network, network_v6 });
                }
                // No other subnet would help.
                Err(StoreError::Conflict(reason)) if self.has_rival(&announcement).await? => {
                    return Err(StoreError::Conflict(reason));
                }
                Err(StoreError::Conflict(reason)) => tracing::debug!("{reason}"),
                Err(error) => return Err(error),
            }
            lot = lot.wrapping_add(1);
        }
        Err(StoreError::Conflict(format!(
            "{RACES} subnets were leased by others just before this host: try again"
        )))
    }

    /// Whether another node that lives gives itself our address.
    async fn has_rival(&self, announcement: &Announcement) -> Result<bool, StoreError> {
        let vtep_mac = announcement.vtep_mac.parse().unwrap_or_default();
        Ok(self.rival(announcement.host, vtep_mac).await?.is_some())
    }

    /// What subnets are leased from.
    pub(super) async fn pools(&self) -> Result<schema::Pools, StoreError> {
        let key = schema::config_key(&self.prefix);
        let invalid = |error: &str| {
            StoreError::Invalid(format!("etcd key {key}: {error}; correct it with etcdctl put"))
        };
        let value = list::value(&self.link, &key).await?;
        let value = value.ok_or_else(|| invalid("there is none, and subnets are leased from its Network"))?;
        schema::parse_pools(&value).map_err(|error| invalid(&error))
    }

    /// Whether somebody else leased the same IPv6 subnet with another IPv4 one, which is another key, and was first. What
    /// is seen of it is the same for both.
    async fn is_contested(&self, announcement: &Announcement) -> Result<bool, StoreError> {
        let Some(v6) = announcement.subnets.v6 else { return Ok(false) };
        let taken = self.taken(announcement.host).await?;
        let Some(own) = taken.iter().find(|key| key.ours && key.subnets == announcement.subnets) else {
            return Ok(true);
        };
        let is_first = |key: &Taken| !key.ours && key.created < own.created && has_part(key.subnets.v6, v6);
        Ok(taken.iter().any(is_first))
    }

    /// All keys, those of this host that are reserved first.
    async fn taken(&self, host: Underlay) -> Result<Vec<Taken>, StoreError> {
        let prefix = self.subnets();
        let read = |pair: KeyValue| {
            let name = str::from_utf8(pair.key()).ok()?.strip_prefix(&prefix)?;
            Some(Taken {
                subnets: schema::parse_subnet_name(name).ok()?,
                // What is behind the host is not its bridge's.
                ours: schema::owner(pair.value()).is_some_and(|owner| owner.shares(host))
                    && !schema::is_routed(pair.value()),
                reserved: pair.lease() == 0,
                created: pair.create_revision(),
            })
        };
        let listed = list::all(&self.link, &prefix, read).await?.pairs;
        let mut taken: Vec<_> = listed.into_iter().flatten().collect();
        taken.sort_by_key(|key| !(key.ours && key.reserved));
        Ok(taken)
    }
}

/// The subnets of this host: of IPv4 the one that it has, else the one that it had, else one that is free; of IPv6 what it
/// has or had with that, else the one of the same number: who has an IPv4 subnet to itself then has both.
fn choose(
    pools: &schema::Pools,
    taken: &[Taken],
    remembered: Option<Subnets>,
    lot: u32,
) -> Result<Subnets, StoreError> {
    let none = |len: u8, network: IpNet, taken: usize| {
        StoreError::Invalid(format!(
            "no /{len} of {network} is free: {taken} are taken; enlarge the network, or delete the keys of hosts that are \
             no more"
        ))
    };
    let own = || taken.iter().filter(|key| key.ours).map(|key| key.subnets);
    let others: Vec<Ipv4Net> = taken.iter().filter(|key| !key.ours).map(|key| key.subnets.v4).collect();
    let is_free = |subnet: &Ipv4Net| !others.iter().any(|other| overlaps((*other).into(), (*subnet).into()));
    let known = own().chain(remembered).map(|subnets| subnets.v4);
    let v4 = known.filter(|subnet| pools.v4.has(*subnet)).find(is_free);
    let v4 = v4.or_else(|| pools.v4.free(lot.into(), &others));
    let v4 = v4.ok_or_else(|| none(pools.v4.len, pools.v4.network.into(), others.len()))?;
    let Some(pool) = pools.v6 else { return Ok(v4.into()) };
    // Of this host's own keys this is about one.
    let others = taken.iter().filter(|key| !key.ours || key.subnets.v4 != v4);
    let others: Vec<Ipv6Net> = others.filter_map(|key| key.subnets.v6).collect();
    let is_free = |subnet: &Ipv6Net| !others.iter().any(|other| has_part(Some(*other), *subnet));
    let known = own().chain(remembered).filter(|subnets| subnets.v4 == v4).filter_map(|subnets| subnets.v6);
    let v6 = known.filter(|subnet| pool.has(*subnet)).find(is_free);
    let same = pools.v4.position(v4).unwrap_or_default();
    let v6 = v6.or_else(|| pool.free(same, &others));
    let v6 = v6.ok_or_else(|| none(pool.len, pool.network.into(), others.len()))?;
    Ok(Subnets { v4, v6: Some(v6) })
}

fn has_part(theirs: Option<Ipv6Net>, subnet: Ipv6Net) -> bool {
    theirs.is_some_and(|theirs| overlaps(theirs.into(), subnet.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(v4: &str, v6: Option<&str>) -> Subnets {
        Subnets { v4: v4.parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) }
    }

    fn taken(ours: bool, v4: &str, v6: Option<&str>) -> Taken {
        Taken { subnets: subnets(v4, v6), ours, reserved: false, created: 1 }
    }

    fn pools() -> schema::Pools {
        let value = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
        schema::parse_pools(value.as_bytes()).unwrap()
    }

    #[test]
    fn what_a_host_has_or_had_comes_first() {
        let other = || taken(false, "10.5.7.0/24", Some("fd00:5:0:7::/64"));
        let own = |v6| taken(true, "10.5.9.0/24", v6);
        let had = subnets("10.5.8.0/24", Some("fd00:5:0:88::/64"));
        let drawn = subnets("10.5.4.0/24", Some("fd00:5:0:4::/64"));
        for (keys, remembered, expected) in [
            (vec![other()], None, drawn),
            (vec![other()], Some(had), had),
            (
                vec![other()],
                Some(subnets("10.5.8.0/24", None)),
                subnets("10.5.8.0/24", Some("fd00:5:0:8::/64")),
            ),
            (vec![other(), own(None)], Some(had), subnets("10.5.9.0/24", Some("fd00:5:0:9::/64"))),
            (
                vec![other(), own(Some("fd00:5:0:99::/64"))],
                Some(had),
                subnets("10.5.9.0/24", Some("fd00:5:0:99::/64")),
            ),
            // Others have it by now.
            (vec![other()], Some(other().subnets), drawn),
            (vec![taken(false, "10.5.8.0/23", Some("fd00:5:0:80::/60"))], Some(had), drawn),
            (
                vec![taken(false, "10.5.1.0/24", Some("fd00:5:0:88::/64"))],
                Some(had),
                subnets("10.5.8.0/24", Some("fd00:5:0:8::/64")),
            ),
            // It is of another network.
            (vec![], Some(subnets("10.6.8.0/24", None)), drawn),
        ] {
            assert_eq!(choose(&pools(), &keys, remembered, 3).unwrap(), expected, "{remembered:?}");
        }
        assert_eq!(
            choose(&schema::Pools { v6: None, ..pools() }, &[], Some(had), 3).unwrap(),
            subnets("10.5.8.0/24", None)
        );
    }

    #[test]
    fn where_none_is_left_it_is_said_of_which_network() {
        for (all, network) in [
            (taken(false, "10.5.0.0/16", None), "no /24 of 10.5.0.0/16 is free"),
            (taken(false, "10.6.0.0/24", Some("fd00:5::/48")), "no /64 of fd00:5::/48 is free"),
        ] {
            let error = choose(&pools(), &[all], None, 3).unwrap_err().to_string();
            assert!(error.contains(network), "{error}");
        }
    }
}
