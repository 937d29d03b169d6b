//! The connection to etcd, and the one way to call it: bounded in time, retried, with errors that say which
//! endpoint, what failed and what to do. etcd-client retries nothing by itself.

use std::{error::Error as _, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use etcd_client::{Client, ConnectOptions, Error};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

use crate::store::StoreError;

/// Everything that is asked of etcd once is answered, or given up, within this time.
pub(super) const CALL_LIMIT: Duration = Duration::from_millis(4500);

const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A frozen server is noticed after the sum of both. etcd answers pings that come more often than every
/// 5 s (`--grpc-keepalive-min-time`), or without a stream open, with GOAWAY.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_LIMIT: Duration = Duration::from_secs(4);

/// The default of 4 MiB is some 20,000 subnets in one watch message.
pub(super) const MESSAGE_LIMIT: usize = 64 << 20;

/// Status codes of gRPC (grpc/doc/statuscodes.md) that the next attempt would meet again.
const PERMANENT: [i32; 6] = [
    3,  // INVALID_ARGUMENT
    5,  // NOT_FOUND
    7,  // PERMISSION_DENIED
    9,  // FAILED_PRECONDITION
    12, // UNIMPLEMENTED
    16, // UNAUTHENTICATED
];

/// 100 ms to 5 s. backon's jitter adds up to the delay itself, hence the half.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_millis(2500))
        .without_max_times()
        .with_jitter()
        .build()
}

/// The next delay of an endless backoff.
pub(super) fn next_delay(delays: &mut ExponentialBackoff) -> Duration {
    delays.next().unwrap_or(Duration::from_secs(5))
}

pub(super) struct Link {
    endpoints: Vec<String>,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(endpoints: Vec<String>) -> Result<Self, StoreError> {
        if endpoints.is_empty() {
            return Err(StoreError::Invalid(
                "no etcd endpoint is given: http://127.0.0.1:2379 is a usual one".into(),
            ));
        }
        let endpoints = endpoints.iter().map(|endpoint| checked(endpoint)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, client: Mutex::new(None) })
    }

    /// All endpoints, for messages.
    pub(super) fn place(&self) -> String {
        format!("etcd at {}", self.endpoints.join(", "))
    }

    /// Opens nothing yet: tonic connects, and connects again, when it has something to send.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        let connect = || {
            let options = ConnectOptions::new()
                .with_connect_timeout(CONNECT_LIMIT)
                .with_keep_alive(PING_EVERY, PING_LIMIT)
                .with_keep_alive_while_idle(false)
                .with_tcp_keepalive(Duration::from_secs(10))
                .with_require_leader(true);
            Client::connect(self.endpoints.clone(), Some(options))
        };
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(connect().await?).clone())
    }

    /// The next call connects anew.
    pub(super) async fn reset(&self) {
        *self.client.lock().await = None;
    }

    /// Runs `op`, which must bear being run again, until it succeeds, fails for good or time is up. `what`
    /// completes "… failed", as in "reading KEY".
    pub(super) async fn call<T, F>(&self, what: &str, op: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_until(Instant::now() + CALL_LIMIT, what, op).await
    }

    pub(super) async fn call_until<T, F>(
        &self,
        deadline: Instant,
        what: &str,
        op: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut why = "no answer in time".to_owned();
        for delay in backoff() {
            match timeout_at(deadline, async { op(self.client().await?).await }).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_permanent(&error) => {
                    let error = describe(&error);
                    return Err(StoreError::Invalid(format!(
                        "{}: {what} was refused: {error}",
                        self.place()
                    )));
                }
                Ok(Err(error)) => why = describe(&error),
                Err(_) => break,
            }
            if Instant::now() + delay >= deadline {
                break;
            }
            sleep(delay).await;
        }
        Err(self.unreachable(what, &why))
    }

    pub(super) fn unreachable(&self, what: &str, why: &str) -> StoreError {
        StoreError::Unreachable(format!(
            "{}: {what} failed: {why}; check that etcd runs there and that --etcd-endpoints is right",
            self.place()
        ))
    }
}

/// The endpoint with its scheme, without a trailing slash.
fn checked(endpoint: &str) -> Result<String, StoreError> {
    let invalid = |why: &str| {
        StoreError::Invalid(format!("etcd endpoint {endpoint:?} {why}: http://HOST:PORT is expected"))
    };
    let rest = match endpoint.split_once("://") {
        None => endpoint,
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(invalid("needs TLS, which this version does not speak")),
        Some(_) => return Err(invalid("has an unknown scheme")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| invalid("has no port"))?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(invalid("has no valid port"));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if good { Ok(format!("http://{rest}")) } else { Err(invalid("has no valid host")) }
}

fn is_permanent(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => PERMANENT.contains(&i32::from(status.code())),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::Utf8Error(_) => true,
        _ => false,
    }
}

/// The status' own message and the innermost cause: "tcp connect error: Connection refused (os error 111)".
pub(super) fn describe(error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = match status.message() {
        "" => format!("gRPC status {:?}", status.code()),
        message => message.to_owned(),
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.source().is_none() && !text.contains(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (given, used) in [
            ("127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://etcd-1.example:2379/", "http://etcd-1.example:2379"),
            ("[::1]:2379", "http://[::1]:2379"),
        ] {
            assert_eq!(checked(given).unwrap(), used);
        }
        for given in [
            "",
            "etcd",
            "http://",
            "http://:2379",
            "https://a:2379",
            "unix:///x",
            "a:0",
            "a:b",
            "::1:2379",
            "a b:1",
        ] {
            let error = checked(given).unwrap_err().to_string();
            assert!(error.contains(&format!("{given:?}")) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn delays_stay_within_their_bounds() {
        for delay in backoff().take(20) {
            assert!(delay >= Duration::from_millis(100) && delay <= Duration::from_secs(5), "{delay:?}");
        }
    }
}
