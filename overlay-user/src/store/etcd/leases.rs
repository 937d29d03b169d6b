//! The subnets' keys as an operator sees and changes them: who holds each and until when, and which are reserved.
//!
//! flannel's convention: a key that hangs on no lease is a reservation. What is changed is changed in a transaction, so that
//! nobody's write is lost.

use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};

use etcd_client::{Client, Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp};
use futures::stream::{self, StreamExt, TryStreamExt};
use ipnet::IpNet;
use tokio::time::Instant;

use super::{
    EtcdStore,
    claim::{holder, unwritten_since},
    lease, link, list,
    nodes::{self, Node},
};
use crate::{
    local::overlaps,
    store::{StoreError, Subnets, address, schema},
    underlay::Underlay,
};

/// How often a change is tried again when others write the same key at the same time.
const RACES: usize = 5;

/// Leases that are asked for at once.
const AT_ONCE: usize = 64;

/// How much longer than other calls it may take to ask for all leases.
const LONGER: Duration = Duration::from_secs(15);

/// A subnet's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The key.
    pub key: String,
    /// The subnets that it names; none where it cannot be read.
    pub subnets: Option<Subnets>,
    /// The host that holds them, where the value names one.
    pub host: Option<Underlay>,
    /// How the host is sent to, in flannel's words; none where it is not.
    pub kind: Option<String>,
    /// Seconds that the lease lasts; `None` for a reservation, which hangs on none.
    pub expires: Option<u64>,
    /// The host's node, while it lives. Hosts of other makes have none.
    pub node: Option<String>,
}

/// All keys, and what is left for others.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The keys, in the order of their names.
    pub held: Vec<Held>,
    /// What subnets are leased from, or why none are.
    pub pools: Result<schema::Pools, String>,
}

/// How a subnet is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Its key is deleted; else it is to expire, where its host does not renew it.
    pub delete: bool,
    /// Even if its host lives.
    pub force: bool,
}

/// A key as it was read.
struct Found {
    subnets: Subnets,
    pair: KeyValue,
}

/// What came of a try; `None` where the key changed in between.
type Try<T> = Result<Option<Result<T, StoreError>>, Error>;

impl EtcdStore {
    /// All keys of subnets.
    ///
    /// # Errors
    /// As for [`Store::list`](crate::store::Store::list).
    pub async fn leases(&self) -> Result<Overview, StoreError> {
        let pools = match self.pools().await {
            Ok(pools) => Ok(pools),
            Err(StoreError::Invalid(why)) => Err(why),
            Err(error) => return Err(error),
        };
        let (prefix, what) = (self.subnets(), format!("listing {}", schema::nodes_prefix(&self.prefix)));
        let nodes = self.link.call(&what, |client| async move { nodes::all(&client, &self.prefix).await });
        let nodes = nodes.await?;
        let pairs = list::all(&self.link, &prefix, |pair| pair).await?.pairs;
        let leases = pairs.iter().map(KeyValue::lease).filter(|lease| *lease != 0).collect();
        let times = self.times(&leases).await?;
        let held = pairs.iter().map(|pair| Held {
            expires: times.get(&pair.lease()).copied(),
            ..described(&prefix, pair, &nodes)
        });
        Ok(Overview { held: held.collect(), pools })
    }

    /// Reserves subnets: a key that is there keeps its value, and hangs on no lease any more. Where nobody holds them, a key
    /// keeps them for a host.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where another host holds one of them, [`StoreError::Invalid`] where it has to be said for
    /// whom they are, or they cannot be leased; else as for [`Store::list`](crate::store::Store::list).
    pub async fn reserve(&self, wanted: &[IpNet], host: Option<Underlay>) -> Result<Held, StoreError> {
        let pools = match self.pools().await {
            Ok(pools) => Some(pools),
            // What is held can be reserved all the same.
            Err(StoreError::Invalid(_)) => None,
            Err(error) => return Err(error),
        };
        let pools = pools.as_ref();
        let attempt = |client| async move { self.try_reserve(&client, wanted, host, pools).await };
        self.repeat(&format!("reserving {}", words(wanted)), attempt).await
    }

    /// Has a host's kernel route for a subnet that is no bridge's: for good, in a key beside the host's own.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where somebody holds a part of it, [`StoreError::Invalid`] where no host with this address
    /// announces anything, or no subnet like this can be routed; else as for [`Store::list`](crate::store::Store::list).
    pub async fn route(&self, wanted: IpNet, host: Underlay) -> Result<Held, StoreError> {
        let IpNet::V4(v4) = wanted else {
            return Err(StoreError::Invalid(format!(
                "{wanted}: keys begin with an IPv4 subnet, as in 192.168.50.0/24"
            )));
        };
        address::subnet(wanted).map_err(StoreError::Invalid)?;
        let attempt = |client| async move { self.try_route(&client, v4.into(), host).await };
        self.repeat(&format!("routing {wanted}"), attempt).await
    }

    async fn try_route(&self, client: &Client, subnets: Subnets, host: Underlay) -> Try<Held> {
        let wanted: Vec<IpNet> = subnets.each().collect();
        let (revision, found) = self.overlapping(client, &wanted).await?;
        if let Some(Found { pair, .. }) = found.first() {
            let why = format!("{subnets} overlaps what {} holds (etcd key {})", holder(pair), shown(pair));
            return Ok(Some(Err(StoreError::Conflict(why))));
        }
        let listing = list::pages(list::kv(client), &self.subnets(), &|pair: KeyValue| pair).await?;
        let is_its = |pair: &&KeyValue| {
            let value = pair.value();
            schema::owner(value).is_some_and(|owner| owner.shares(host))
                && schema::backend_type(value).is_some()
                && !schema::is_routed(value)
        };
        let Some(own) = listing.pairs.iter().find(is_its) else {
            let why = format!("no host at {host} announces a subnet of its own: start overlayd there first");
            return Ok(Some(Err(StoreError::Invalid(why))));
        };
        let value = match schema::routed_value(own.value()) {
            Ok(value) => value,
            Err(why) => return Ok(Some(Err(StoreError::Invalid(format!("etcd key {}: {why}", shown(own)))))),
        };
        let key = self.subnet_key(subnets);
        let put = TxnOp::put(key.as_str(), value, None);
        let transaction = Txn::new().when([unwritten_since(self, subnets, revision)]).and_then([put]);
        let done = client.kv_client().txn(transaction).await?.succeeded();
        let nodes = nodes::all(client, &self.prefix).await?;
        let held = described(&self.subnets(), own, &nodes);
        Ok(done.then_some(Ok(Held { key, subnets: Some(subnets), ..held })))
    }

    /// Gives subnets back.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the host lives whose key is to be deleted, [`StoreError::Invalid`] where nobody holds
    /// them, or there is nothing to give back; else as for [`Store::list`](crate::store::Store::list).
    pub async fn release(&self, wanted: &[IpNet], how: Release) -> Result<Held, StoreError> {
        let attempt = |client| async move { self.try_release(&client, wanted, how).await };
        self.repeat(&format!("releasing {}", words(wanted)), attempt).await
    }

    /// Tries until nobody has interfered.
    async fn repeat<T, F>(&self, what: &str, attempt: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Try<T>>,
    {
        let attempt = &attempt;
        let done = self.link.call(what, |client| async move {
            for _ in 0..RACES {
                if let Some(done) = attempt(client.clone()).await? {
                    return Ok(done);
                }
            }
            let raced = "the key was written by others each time it was tried: try again";
            Ok(Err(StoreError::Conflict(format!("{what}: {raced}"))))
        });
        done.await?
    }

    /// Seconds that each lease lasts.
    async fn times(&self, leases: &BTreeSet<i64>) -> Result<BTreeMap<i64, u64>, StoreError> {
        let deadline = Instant::now() + link::CALL_LIMIT;
        let asked = self.link.call_until(deadline, LONGER, "asking for leases", |client| async move {
            let ask = |lease: i64| {
                let mut leases = client.lease_client();
                async move {
                    let left = leases.time_to_live(lease, None).await?.ttl();
                    Ok::<_, Error>((lease, u64::try_from(left).unwrap_or_default()))
                }
            };
            stream::iter(leases.iter().copied()).map(ask).buffer_unordered(AT_ONCE).try_collect().await
        });
        asked.await
    }

    /// The keys that have a part in these subnets, and the revision at which that was so.
    async fn overlapping(&self, client: &Client, wanted: &[IpNet]) -> Result<(i64, Vec<Found>), Error> {
        let prefix = self.subnets();
        let read = |pair: KeyValue| {
            let name = str::from_utf8(pair.key()).ok()?.strip_prefix(&prefix)?;
            let subnets = schema::parse_subnet_name(name).ok()?;
            let is_concerned = subnets.each().any(|theirs| wanted.iter().any(|ours| overlaps(theirs, *ours)));
            is_concerned.then_some(Found { subnets, pair })
        };
        let listing = list::pages(list::kv(client), &prefix, &read).await?;
        Ok((listing.revision, listing.pairs.into_iter().flatten().collect()))
    }

    async fn try_reserve(
        &self,
        client: &Client,
        wanted: &[IpNet],
        host: Option<Underlay>,
        pools: Option<&schema::Pools>,
    ) -> Try<Held> {
        let (revision, found) = self.overlapping(client, wanted).await?;
        if found.is_empty() {
            let (subnets, host) = match reservation(wanted, host, pools) {
                Ok(new) => new,
                Err(why) => return Ok(Some(Err(StoreError::Invalid(why)))),
            };
            return self.keep_for(client, subnets, host, revision).await;
        }
        let Found { pair, .. } = match chosen(found, wanted) {
            Ok(found) => found,
            Err(error) => return Ok(Some(Err(error))),
        };
        let key = shown(&pair);
        let theirs = schema::owner(pair.value());
        if theirs.is_none() || host.is_some_and(|host| theirs.is_some_and(|theirs| !theirs.shares(host))) {
            let (what, by) = (words(wanted), holder(&pair));
            let why =
                format!("{what} is held by {by} (etcd key {key}): release it first, or reserve another one");
            return Ok(Some(Err(StoreError::Conflict(why))));
        }
        let nodes = nodes::all(client, &self.prefix).await?;
        let held = described(&self.subnets(), &pair, &nodes);
        let done =
            pair.lease() == 0 || write(client, &pair, TxnOp::put(pair.key(), pair.value(), None)).await?;
        lease::release(client, pair.lease()).await;
        Ok(done.then_some(Ok(held)))
    }

    /// Writes a key for a host that may come to lease the subnets.
    async fn keep_for(&self, client: &Client, subnets: Subnets, host: Underlay, revision: i64) -> Try<Held> {
        let key = self.subnet_key(subnets);
        let put = TxnOp::put(key.as_str(), schema::reservation_value(subnets, host), None);
        let transaction = Txn::new().when([unwritten_since(self, subnets, revision)]).and_then([put]);
        let done = client.kv_client().txn(transaction).await?.succeeded();
        let held =
            Held { key, subnets: Some(subnets), host: Some(host), kind: None, expires: None, node: None };
        Ok(done.then_some(Ok(held)))
    }

    async fn try_release(&self, client: &Client, wanted: &[IpNet], how: Release) -> Try<Held> {
        let (_, found) = self.overlapping(client, wanted).await?;
        let pair = match chosen(found, wanted) {
            Ok(found) => found.pair,
            Err(error) => return Ok(Some(Err(error))),
        };
        let nodes = nodes::all(client, &self.prefix).await?;
        let held = described(&self.subnets(), &pair, &nodes);
        let (what, key) = (words(wanted), shown(&pair));
        if how.delete {
            // What is only kept for a host, or behind it, its daemon does not announce.
            let is_used = held.kind.is_some() && !schema::is_routed(pair.value());
            let user = held.node.as_ref().filter(|_| is_used && !how.force);
            if let Some(node) = user {
                let why = format!(
                    "{what} is in use by node {node}, which lives (etcd key {key}): end it there with `overlayd detach`, or \
                     delete it with --force"
                );
                return Ok(Some(Err(StoreError::Conflict(why))));
            }
            let done = write(client, &pair, TxnOp::delete(pair.key(), None)).await?;
            lease::release(client, pair.lease()).await;
            return Ok(done.then_some(Ok(held)));
        }
        if pair.lease() != 0 {
            let why = format!("{what} is not reserved (etcd key {key}): --delete takes it from its host");
            return Ok(Some(Err(StoreError::Invalid(why))));
        }
        let lease = lease::grant(client).await?;
        let options = PutOptions::new().with_lease(lease);
        let done = write(client, &pair, TxnOp::put(pair.key(), pair.value(), Some(options))).await?;
        if !done {
            lease::release(client, lease).await;
        }
        let expires = u64::try_from(lease::LEASE_SECONDS).ok();
        Ok(done.then_some(Ok(Held { expires, ..held })))
    }
}

/// Writes a key, if it is as it was read.
async fn write(client: &Client, pair: &KeyValue, operation: TxnOp) -> Result<bool, Error> {
    let unchanged = Compare::mod_revision(pair.key(), CompareOp::Equal, pair.mod_revision());
    let transaction = Txn::new().when([unchanged]).and_then([operation]);
    Ok(client.kv_client().txn(transaction).await?.succeeded())
}

/// The key that is meant: the one that has all of the subnets; of several the one that has nothing else.
fn chosen(mut found: Vec<Found>, wanted: &[IpNet]) -> Result<Found, StoreError> {
    let has_all = |found: &Found| wanted.iter().all(|net| found.subnets.each().any(|theirs| theirs == *net));
    let is_exact = |found: &Found| has_all(found) && found.subnets.each().count() == wanted.len();
    let what = words(wanted);
    match found.len() {
        0 => {
            return Err(StoreError::Invalid(format!(
                "nobody holds {what}: `overlayctl leases list` tells who has what"
            )));
        }
        1 if has_all(&found[0]) => {}
        _ => found.retain(is_exact),
    }
    found.pop().ok_or_else(|| {
        StoreError::Conflict(format!(
            "{what} is not what one key is of, but overlaps others: `overlayctl leases list` tells who has what; name the \
             subnets of a key"
        ))
    })
}

/// The subnets and the host of a key that is to be made.
fn reservation(
    wanted: &[IpNet],
    host: Option<Underlay>,
    pools: Option<&schema::Pools>,
) -> Result<(Subnets, Underlay), String> {
    let what = words(wanted);
    let (v4, v6) = match wanted {
        [IpNet::V4(v4)] => (*v4, None),
        [IpNet::V4(v4), IpNet::V6(v6)] => (*v4, Some(*v6)),
        _ => {
            return Err(format!(
                "nobody holds {what}: an IPv4 subnet and at most one of IPv6 can be reserved together"
            ));
        }
    };
    let subnets = Subnets { v4, v6 };
    let host = host.ok_or_else(|| {
        format!("nobody holds {what}: say with --public-ip for which host it is to be kept")
    })?;
    for subnet in subnets.each() {
        address::subnet(subnet)?;
        if let Some(inside) = host.addresses().find(|ip| subnet.contains(ip)) {
            return Err(format!(
                "--public-ip {inside} lies in {subnet}: the host's own address in the underlay is expected"
            ));
        }
    }
    if let Some(pools) = pools {
        pools.check(subnets)?;
    }
    Ok((subnets, host))
}

/// What a key says.
fn described(prefix: &str, pair: &KeyValue, nodes: &[Node]) -> Held {
    let name = str::from_utf8(pair.key()).ok().and_then(|key| key.strip_prefix(prefix));
    Held {
        key: shown(pair),
        subnets: name.and_then(|name| schema::parse_subnet_name(name).ok()),
        host: schema::owner(pair.value()),
        kind: schema::backend_type(pair.value()),
        expires: None,
        node: nodes.iter().find(|node| node.has(pair.value())).map(|node| node.name.clone()),
    }
}

fn shown(pair: &KeyValue) -> String {
    super::warnings::shown(pair.key())
}

fn words(wanted: &[IpNet]) -> String {
    wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
