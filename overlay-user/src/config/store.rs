//! Where routes come from.

use std::{path::PathBuf, time::Duration};

use anyhow::{anyhow, ensure};

use super::{Flags, default};
use crate::store::etcd::{Access, Secret};

/// The longest time that the disappearance of most subnets may be doubted.
const LONGEST_PRUNE_DELAY: Duration = Duration::from_secs(3600);

/// Where routes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// etcd.
    Etcd {
        /// How it is reached.
        access: Access,
        /// Without a slash at its end.
        prefix: String,
        /// For how long the disappearance of most subnets at once is doubted.
        prune_delay: Duration,
    },
    /// A peers file.
    File(PathBuf),
}

impl StoreConfig {
    /// Reads the flags that are about the store.
    ///
    /// # Errors
    /// One line for the first that cannot be used.
    pub(super) fn of(flags: &Flags) -> anyhow::Result<Self> {
        let etcd = flags.has_etcd();
        if let Some(file) = flags.peers.clone() {
            ensure!(
                !etcd,
                "routes come from etcd or from a peers file, not from both: remove `peers` or the `etcd_…` keys"
            );
            return Ok(Self::File(file));
        }
        let mut endpoints = flags.etcd_endpoints.clone();
        if endpoints.is_empty() {
            endpoints.push(default::ETCD_ENDPOINT.to_owned());
        }
        let access = Access {
            endpoints,
            ca_file: flags.etcd_cafile.clone(),
            cert_file: flags.etcd_certfile.clone(),
            key_file: flags.etcd_keyfile.clone(),
            username: flags.etcd_username.clone(),
            password: match (&flags.etcd_password_file, &flags.etcd_password_variable) {
                (Some(file), _) => Some(Secret::File(file.clone())),
                (None, variable) => variable.clone().map(Secret::Variable),
            },
        };
        let access = access.checked().map_err(|error| anyhow!("--etcd-endpoints: {error}"))?;
        let prefix = flags.etcd_prefix.clone().unwrap_or_else(|| default::ETCD_PREFIX.to_owned());
        let trimmed = prefix.trim_end_matches('/').to_owned();
        ensure!(
            trimmed.starts_with('/'),
            "--etcd-prefix {prefix}: a key like {} is expected",
            default::ETCD_PREFIX
        );
        let prune_delay = flags.prune_delay.map_or(default::PRUNE_DELAY, Duration::from_secs);
        ensure!(
            prune_delay <= LONGEST_PRUNE_DELAY,
            "--prune-delay {}: {} seconds at most are expected",
            prune_delay.as_secs(),
            LONGEST_PRUNE_DELAY.as_secs()
        );
        Ok(Self::Etcd { access, prefix: trimmed, prune_delay })
    }
}
