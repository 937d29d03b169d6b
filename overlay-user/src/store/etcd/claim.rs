//! Taking our own keys: in one transaction each, under a lease.
//!
//! The subnets' owner is known by its addresses. Without and with an IPv6 part a subnet has two different keys: what
//! of others and of our own stands in our way is looked for in all of them.

use etcd_client::{Client, Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp};
use ipnet::IpNet;

use super::{
    EtcdStore,
    lease::{self, adopt, release},
    list,
    nodes::{self, Node},
};
use crate::store::{Announcement, StoreError, Subnets, schema};

/// How often a claim is tried again when others write the same key at the same time.
const RACES: usize = 3;

/// A key that is ours as of a revision.
pub(super) struct Claimed {
    /// 0 where it is reserved, and hangs on none.
    pub(super) lease: i64,
    pub(super) revision: i64,
}

enum Outcome {
    Ours(Claimed),
    Held {
        subnet: IpNet,
        by: String,
        key: String,
    },
    /// By another node with our address.
    Rival {
        subnet: IpNet,
        rival: Node,
        key: String,
    },
}

/// Takes the key, or finds that it is ours already: then nothing is written, and no peer hears of it.
pub(super) async fn claim(store: &EtcdStore, announcement: &Announcement) -> Result<Claimed, StoreError> {
    let key = &store.subnet_key(announcement.subnets);
    let outcome = store
        .link
        .call(&format!("writing {key}"), |client| async move {
            for _ in 0..RACES {
                if let Some(outcome) = attempt(store, &client, key, announcement).await? {
                    return Ok(outcome);
                }
            }
            let (subnet, by) = (announcement.subnets.v4.into(), "somebody who keeps writing it".into());
            Ok(Outcome::Held { subnet, by, key: key.clone() })
        })
        .await?;
    match outcome {
        Outcome::Ours(claimed) => {
            store.note_announced(announcement);
            Ok(claimed)
        }
        Outcome::Held { subnet, by, key } => Err(StoreError::Conflict(format!(
            "subnet {subnet} is held by {by} (etcd key {key}): give this host's bridge another subnet, or delete the key"
        ))),
        Outcome::Rival { subnet, rival, key } => Err(StoreError::Conflict(format!(
            "subnet {subnet} is held by {rival}, which gives itself this host's own address (etcd key {key}): give one of \
             the two another address with --public-ip, and another subnet; if it was this host under another name, its \
             key goes within half a minute"
        ))),
    }
}

/// What there is already of the subnets that are to be announced.
struct Found {
    revision: i64,
    /// The key itself.
    own: Option<KeyValue>,
    /// Keys of ours under other names, which ours replaces.
    replaced: Vec<KeyValue>,
}

/// Looks through all keys: one with another IPv6 part, or another IPv4 part, may hold one of the subnets.
async fn find(
    store: &EtcdStore,
    client: &Client,
    key: &str,
    announcement: &Announcement,
) -> Result<Result<Found, Outcome>, Error> {
    let prefix = store.subnets();
    let of_subnets = |pair| Some((common(&prefix, &pair, announcement.subnets)?, pair));
    let listing = list::pages(list::kv(client), &prefix, &of_subnets).await?;
    let mut found = Found { revision: listing.revision, own: None, replaced: Vec::new() };
    let mac = announcement.vtep_mac.parse().unwrap_or_default();
    for (subnet, pair) in listing.pairs.into_iter().flatten() {
        if !is_ours(store, announcement, pair.value()) {
            let key = String::from_utf8_lossy(pair.key()).into_owned();
            return Ok(Err(Outcome::Held { subnet, by: holder(&pair), key }));
        }
        // With our address and another VTEP it is of a life that we do not remember, or of somebody else.
        if schema::vtep_mac(pair.value()).is_some_and(|theirs| theirs != mac && !store.has_been(theirs))
            && let Some(rival) = nodes::rival(client, &store.prefix, announcement.host, mac).await?
        {
            let key = String::from_utf8_lossy(pair.key()).into_owned();
            return Ok(Err(Outcome::Rival { subnet, rival, key }));
        }
        if pair.key() == key.as_bytes() {
            found.own = Some(pair);
        } else {
            found.replaced.push(pair);
        }
    }
    Ok(Ok(found))
}

/// The subnet that a key has in common with ours.
fn common(prefix: &str, pair: &KeyValue, subnets: Subnets) -> Option<IpNet> {
    let name = str::from_utf8(pair.key()).ok()?.strip_prefix(prefix)?;
    schema::parse_subnet_name(name).ok()?.common(subnets)
}

/// One look and one write; `None` where the keys changed in between.
async fn attempt(
    store: &EtcdStore,
    client: &Client,
    key: &str,
    announcement: &Announcement,
) -> Result<Option<Outcome>, Error> {
    let value = schema::lease_value(announcement);
    let Found { revision, own, replaced } = match find(store, client, key, announcement).await? {
        Ok(found) => found,
        Err(held) => return Ok(Some(held)),
    };
    // What hangs on no lease is reserved for this host, and stays so.
    let is_reserved = own.iter().chain(&replaced).any(|pair| pair.lease() == 0);
    if let Some(pair) = &own
        && replaced.is_empty()
        && pair.value() == value.as_bytes()
        && (is_reserved || adopt(client, pair.lease()).await?)
    {
        return Ok(Some(Outcome::Ours(Claimed { lease: pair.lease(), revision })));
    }
    let lease = if is_reserved { 0 } else { lease::grant(client).await? };
    let transaction = transaction(
        store,
        announcement,
        revision,
        &replaced,
        TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
    );
    let done = client.kv_client().txn(transaction).await?;
    if !done.succeeded() {
        release(client, lease).await;
        return Ok(None);
    }
    for pair in own.iter().chain(&replaced) {
        release(client, pair.lease()).await;
    }
    tracing::info!("announced {} at {} (etcd key {key})", announcement.subnets, announcement.host);
    let revision = done.header().map_or(0, |header| header.revision());
    Ok(Some(Outcome::Ours(Claimed { lease, revision })))
}

/// Writes our key, and deletes those it replaces, if nobody has written a key of our IPv4 subnet since
/// `revision`, nor one of those. The deletions come first: who applies the events one by one, as flanneld does,
/// would else end without the route.
fn transaction(
    store: &EtcdStore,
    announcement: &Announcement,
    revision: i64,
    replaced: &[KeyValue],
    put: TxnOp,
) -> Txn {
    let mut conditions = vec![unwritten_since(store, announcement.subnets, revision)];
    conditions.extend(
        replaced.iter().map(|pair| Compare::mod_revision(pair.key(), CompareOp::Equal, pair.mod_revision())),
    );
    let deletions = replaced.iter().map(|pair| TxnOp::delete(pair.key(), None));
    Txn::new().when(conditions).and_then(deletions.chain([put]).collect::<Vec<_>>())
}

/// Holds where nobody has written a key of an IPv4 subnet since `revision`.
pub(super) fn unwritten_since(store: &EtcdStore, subnets: Subnets, revision: i64) -> Compare {
    let base = store.subnet_key(subnets.v4.into());
    // Behind the key itself and all that have an IPv6 part, which begins with '&'.
    let end = format!("{base}'");
    Compare::mod_revision(base, CompareOp::Less, revision + 1).with_range(end)
}

/// True where the value carries an address of ours, or one under which this node announced the subnets earlier.
fn is_ours(store: &EtcdStore, announcement: &Announcement, value: &[u8]) -> bool {
    let Some(owner) = schema::owner(value) else { return false };
    owner.shares(announcement.host) || store.has_announced(announcement.subnets, owner)
}

pub(super) fn holder(pair: &KeyValue) -> String {
    match schema::owner(pair.value()) {
        Some(owner) => owner.to_string(),
        None => "a value that names no host".into(),
    }
}
