//! Reading: one key, or all keys under a prefix at one revision.

use std::time::Duration;

use etcd_client::{Client, Error, GetOptions, KeyValue, KvClient};
use tokio::time::Instant;

use super::link::{CALL_LIMIT, Link, MESSAGE_LIMIT, step};
use crate::store::StoreError;

/// Keys per page: a page of the largest usual values stays well under a megabyte.
const PAGE: i64 = 500;

/// All pages together may take that much longer than other calls, each of them no longer than any step.
const LONGER: Duration = Duration::from_secs(15);

/// All keys under a prefix, as they were at one revision.
pub(super) struct Listing<T> {
    pub(super) revision: i64,
    pub(super) pairs: Vec<T>,
}

/// Reads one key; `None` where it does not exist.
pub(super) async fn value(link: &Link, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    link.call(&format!("reading {key}"), |client| async move {
        let mut answer = step(kv(&client).get(key, None)).await?;
        Ok(answer.take_kvs().pop().map(|pair| pair.into_key_value().1))
    })
    .await
}

/// Reads all keys under `prefix`, from the quorum; of each what `read` makes of it is kept.
pub(super) async fn all<T>(
    link: &Link,
    prefix: &str,
    read: impl Fn(KeyValue) -> T,
) -> Result<Listing<T>, StoreError> {
    let (deadline, what) = (Instant::now() + CALL_LIMIT, format!("listing {prefix}"));
    link.call_until(deadline, LONGER, &what, |client| pages(kv(&client), prefix, &read)).await
}

pub(super) fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MESSAGE_LIMIT)
}

/// The first page decides the revision; the others are read at it. Where it is compacted meanwhile, the call
/// fails with OUT_OF_RANGE and starts over.
pub(super) async fn pages<T>(
    mut kv: KvClient,
    prefix: &str,
    read: &impl Fn(KeyValue) -> T,
) -> Result<Listing<T>, Error> {
    let end = prefix_end(prefix);
    let mut listing = Listing { revision: 0, pairs: Vec::new() };
    let mut from = prefix.as_bytes().to_vec();
    loop {
        let options =
            GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(listing.revision);
        let mut page = step(kv.get(from, Some(options))).await?;
        if listing.revision == 0 {
            listing.revision = page.header().map_or(0, |header| header.revision());
        }
        let more = page.more();
        let pairs = page.take_kvs();
        // The next key in byte order is this one with a zero byte appended.
        let next = pairs.last().filter(|_| more).map(|last| [last.key(), &[0]].concat());
        listing.pairs.extend(pairs.into_iter().map(read));
        match next {
            Some(next) => from = next,
            None => return Ok(listing),
        }
    }
}

/// The first key behind all that start with `prefix`, which ends in a slash.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
