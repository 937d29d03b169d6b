//! The connection to etcd, and the one way to call it: bounded in time, retried, with errors that say which
//! endpoint, what failed and what to do. etcd-client retries nothing by itself.

use std::{
    error::Error as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use etcd_client::{Client, ConnectOptions, Error};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::access::{Access, Stamp};
use crate::store::StoreError;

/// Everything that is asked of etcd once is answered, or given up, within this time.
pub(super) const CALL_LIMIT: Duration = Duration::from_millis(4500);

/// A member that has not let us in after this time is passed over: that is a handshake, a password and a question, five
/// round trips at least.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A member that has not answered a question after this time is given up.
const STEP_LIMIT: Duration = Duration::from_secs(2);

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

/// What etcd says of a token, under codes that are permanent otherwise.
const TOKEN_TROUBLES: [&str; 2] = ["invalid auth token", "revision of auth store is old"];

/// 100 ms to 3 s: what changed during an outage is to be right within 5 s of its end. backon's jitter adds up to the delay
/// itself, hence the half.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_millis(1500))
        .without_max_times()
        .with_jitter()
        .build()
}

/// The next delay of an endless backoff.
pub(super) fn next_delay(delays: &mut ExponentialBackoff) -> Duration {
    delays.next().unwrap_or(Duration::from_secs(3))
}

/// The connection. There is one, to one member: a member that does not answer is given up for the next one.
pub(super) struct Link {
    access: Access,
    current: Mutex<Current>,
    /// How often the connection was to be made anew. Told without the lock, which is held while a connection is made.
    resets: AtomicU64,
}

#[derive(Default)]
struct Current {
    connected: Option<Connected>,
    /// The endpoint that it is to, or the next to try.
    endpoint: usize,
    /// Connections made so far.
    made: u64,
    /// The resets that it has seen.
    resets: u64,
    /// What certificates and password were like.
    stamp: Stamp,
}

/// A member that has answered.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) client: Client,
    id: u64,
}

/// Why there is no connection, or no answer.
pub(super) struct Failure {
    text: String,
    permanent: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, permanent: true }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { text: describe(&error), permanent: is_permanent(&error) }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(access: Access) -> Result<Self, StoreError> {
        let access = access.checked().map_err(StoreError::Invalid)?;
        Ok(Self { access, current: Mutex::default(), resets: AtomicU64::new(0) })
    }

    /// All endpoints, for messages.
    pub(super) fn place(&self) -> String {
        self.access.place()
    }

    /// The member that is connected, or the first that can be. Where certificates or the password have changed, the
    /// connection is made anew.
    pub(super) async fn connected(&self) -> Result<Connected, Failure> {
        let mut current = self.current.lock().await;
        let stamp = self.access.stamp();
        if stamp != current.stamp {
            if current.connected.take().is_some() {
                tracing::info!("{}: certificates or password have changed: connecting anew", self.place());
            }
            current.stamp = stamp;
        }
        let resets = self.resets.load(Ordering::Relaxed);
        if resets != current.resets {
            (current.connected, current.resets) = (None, resets);
        }
        if let Some(connected) = &current.connected {
            return Ok(connected.clone());
        }
        let mut troubles = Vec::new();
        for _ in 0..self.access.endpoints.len() {
            let endpoint = &self.access.endpoints[current.endpoint];
            match timeout(CONNECT_LIMIT, self.connect(endpoint)).await {
                Ok(Ok(client)) => {
                    current.made += 1;
                    let connected = Connected { client, id: current.made };
                    current.connected = Some(connected.clone());
                    return Ok(connected);
                }
                Ok(Err(failure)) if failure.permanent => return Err(failure),
                Ok(Err(failure)) => troubles.push((endpoint, failure.text)),
                Err(_) => {
                    troubles.push((endpoint, format!("no answer within {} s", CONNECT_LIMIT.as_secs_f32())))
                }
            }
            current.endpoint = (current.endpoint + 1) % self.access.endpoints.len();
        }
        Err(Failure { text: joined(&troubles), permanent: false })
    }

    /// Connects to one member, and has it say that it has a leader.
    async fn connect(&self, endpoint: &str) -> Result<Client, Failure> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_LIMIT)
            .with_keep_alive(PING_EVERY, PING_LIMIT)
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(Duration::from_secs(10))
            .with_require_leader(true);
        let options = self.access.enter(options)?;
        let client = Client::connect([endpoint], Some(options)).await?;
        match client.maintenance_client().status().await {
            Ok(status) if status.leader() == 0 => {
                Err(Failure { text: "it has no leader".into(), permanent: false })
            }
            Ok(_) => Ok(client),
            // Who may not ask is answered, too.
            Err(error) if is_permanent(&error) => Ok(client),
            Err(error) => Err(error.into()),
        }
    }

    /// The next call connects anew.
    pub(super) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// The next call connects to another member than this one, unless somebody else has seen to that.
    pub(super) async fn give_up(&self, connected: &Connected) {
        let mut current = self.current.lock().await;
        if current.connected.as_ref().is_some_and(|now| now.id == connected.id) {
            current.connected = None;
            current.endpoint = (current.endpoint + 1) % self.access.endpoints.len();
        }
    }

    /// Runs `op`, which must bear being run again, until it succeeds, fails for good or time is up. `what`
    /// completes "… failed", as in "reading KEY".
    pub(super) async fn call<T, F>(&self, what: &str, op: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_until(Instant::now() + CALL_LIMIT, Duration::ZERO, what, op).await
    }

    /// As [`Self::call`], tried again until a deadline; a try that gets answers may take `longer`.
    pub(super) async fn call_until<T, F>(
        &self,
        deadline: Instant,
        longer: Duration,
        what: &str,
        op: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut why = "no answer in time".to_owned();
        for delay in backoff() {
            match timeout_at(deadline, self.connected()).await {
                Ok(Ok(connected)) => {
                    match timeout_at(deadline + longer, op(connected.client.clone())).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(error)) if is_permanent(&error) => {
                            return Err(self.refused(what, &describe(&error)));
                        }
                        Ok(Err(error)) => {
                            self.give_up(&connected).await;
                            why = describe(&error);
                        }
                        Err(_) => {
                            self.give_up(&connected).await;
                            break;
                        }
                    }
                }
                Ok(Err(failure)) if failure.permanent => return Err(self.refused(what, &failure.text)),
                Ok(Err(failure)) => why = failure.text,
                Err(_) => break,
            }
            if Instant::now() + delay >= deadline {
                break;
            }
            sleep(delay).await;
        }
        Err(self.unreachable(what, &why))
    }

    fn refused(&self, what: &str, why: &str) -> StoreError {
        let advice = self.advice(why).map(|advice| format!("; {advice}")).unwrap_or_default();
        StoreError::Invalid(format!("{}: {what} was refused: {why}{advice}", self.place()))
    }

    fn advice(&self, why: &str) -> Option<&'static str> {
        let known = ADVICE.into_iter().find(|(text, _)| why.contains(text)).map(|(_, advice)| advice);
        let refused = self.access.has_tls() && CLOSED.iter().any(|text| why.contains(text));
        let certificate =
            "etcd may want a certificate that its own authority has signed: check --etcd-certfile";
        known.or(refused.then_some(certificate))
    }

    pub(super) fn unreachable(&self, what: &str, why: &str) -> StoreError {
        let advice =
            self.advice(why).unwrap_or("check that etcd runs there and that --etcd-endpoints is right");
        StoreError::Unreachable(format!("{}: {what} failed: {why}; {advice}", self.place()))
    }
}

/// What etcd and TLS say, and what to do then.
const ADVICE: [(&str, &str); 7] = [
    (
        "invalid peer certificate",
        "etcd's certificate has to be for this address, and signed by one of --etcd-cafile",
    ),
    ("KeyMismatch", "--etcd-keyfile has to be the key of --etcd-certfile"),
    ("InvalidContentType", "etcd speaks no TLS there: say http://"),
    ("user name is empty", "etcd asks who we are: give --etcd-username and --etcd-password-file"),
    ("authentication failed", "check --etcd-username and the password in --etcd-password-file"),
    ("permission denied", "the role of --etcd-username has to read and write all keys under --etcd-prefix"),
    ("database space exceeded", "etcd is full: compact and defragment it, and disarm its alarm"),
];

/// How a connection ends whose certificate was not taken: with TLS 1.3 that is told only after it stands, if at all.
const CLOSED: [&str; 4] = ["received fatal alert", "connection closed", "broken pipe", "Connection reset"];

/// What is wrong with each member, or with all of them.
fn joined(troubles: &[(&String, String)]) -> String {
    match troubles {
        [(_, first), more @ ..] if more.iter().all(|(_, trouble)| trouble == first) => first.clone(),
        _ => {
            let each = troubles.iter().map(|(endpoint, trouble)| format!("{endpoint}: {trouble}"));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Runs one step of a call. A member that has frozen does not answer it, and must not take the time of all the others.
pub(super) async fn step<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(STEP_LIMIT, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = format!("no answer within {} s", STEP_LIMIT.as_secs_f32());
            Err(Error::IoError(std::io::Error::new(std::io::ErrorKind::TimedOut, why)))
        }
    }
}

fn is_permanent(error: &Error) -> bool {
    match error {
        // A token that has expired, or is of users as they were: the next connection has another one.
        Error::GRpcStatus(status) if TOKEN_TROUBLES.iter().any(|text| status.message().contains(text)) => {
            false
        }
        Error::GRpcStatus(status) => PERMANENT.contains(&i32::from(status.code())),
        // Before anything is sent: of a certificate and a key that do not fit.
        Error::TransportError(_) | Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::Utf8Error(_) => true,
        _ => false,
    }
}

/// The status' own message and the innermost cause: "tcp connect error: Connection refused (os error 111)".
pub(super) fn describe(error: &Error) -> String {
    let (text, mut cause) = match error {
        Error::GRpcStatus(status) => match status.message() {
            "" => (format!("gRPC status {:?}", status.code()), status.source()),
            message => (message.to_owned(), status.source()),
        },
        Error::TransportError(error) => (error.to_string(), error.source()),
        _ => return error.to_string(),
    };
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    match innermost {
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_their_bounds() {
        for delay in backoff().take(20) {
            assert!(delay >= Duration::from_millis(100) && delay <= Duration::from_secs(3), "{delay:?}");
        }
    }
}
