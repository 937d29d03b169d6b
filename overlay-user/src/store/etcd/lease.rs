//! The leases that our keys hang on.

use etcd_client::{Client, Error};

use super::link;

/// Seconds that a subnet stays its host's when the host is silent; as for flannel.
pub(super) const LEASE_SECONDS: i64 = 86_400;

/// A new lease.
pub(super) async fn grant(client: &Client) -> Result<i64, Error> {
    Ok(client.lease_client().grant(LEASE_SECONDS, None).await?.id())
}

/// True where the lease lives, is one of ours by its length, and was renewed.
pub(super) async fn adopt(client: &Client, lease: i64) -> Result<bool, Error> {
    if lease == 0 {
        return Ok(false);
    }
    let found = client.lease_client().time_to_live(lease, None).await?;
    Ok(found.ttl() > 0 && found.granted_ttl() == LEASE_SECONDS && renew(client, lease).await?)
}

/// Renews a lease; false where it is gone.
pub(super) async fn renew(client: &Client, lease: i64) -> Result<bool, Error> {
    match client.lease_client().keep_alive(lease).await {
        Ok(_) => Ok(true),
        Err(Error::LeaseKeepAliveError(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Revokes a lease that no key hangs on any more. It would expire by itself within the day: no error is worth
/// a word.
pub(super) async fn release(client: &Client, lease: i64) {
    if lease == 0 {
        return;
    }
    let mut leases = client.lease_client();
    let options = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
    if let Ok(found) = leases.time_to_live(lease, Some(options)).await
        && found.ttl() > 0
        && found.keys().is_empty()
        && let Err(error) = leases.revoke(lease).await
    {
        tracing::debug!("lease {lease:x} is left to expire: {}", link::describe(&error));
    }
}
