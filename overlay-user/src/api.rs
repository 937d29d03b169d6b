//! The API socket: HTTP over a Unix socket, for whoever watches over the daemon (`curl --unix-socket`).
//!
//! `GET /healthz` says whether the daemon comes round, `GET /readyz` whether this host is part of the network, `GET /status`
//! what `overlayctl status -o json` says. 200 is yes and 503 is no, with one line that says why.

mod socket;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixListener, sync::Semaphore, sync::watch, task::JoinHandle, time::timeout};
use tracing::{debug, warn};

pub use self::socket::{Socket, remove};
use crate::{
    ctl::report,
    datapath::{map::Maps, pin::Pins},
    exit::one_line,
};

/// A daemon that has not come round for this long is stuck: a round takes milliseconds, and one comes each second.
const STUCK: Duration = Duration::from_secs(10);
/// How long a client may take for its request and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at once; more wait.
const CLIENTS: usize = 16;

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub struct Word {
    /// When it last came round.
    pub round: Instant,
    /// Why this host is not part of the network; `None` where it is.
    pub unready: Option<String>,
    /// What is wrong otherwise, though packets go on.
    pub degraded: Option<String>,
}

impl Word {
    /// The first word, while it starts.
    pub fn starting() -> Self {
        Self { round: Instant::now(), unready: Some("overlayd is starting".to_owned()), degraded: None }
    }

    /// Whether the daemon comes round.
    fn health(&self, now: Instant) -> Answer {
        let silent = now.saturating_duration_since(self.round);
        if silent < STUCK {
            return Answer::yes("ok".to_owned());
        }
        Answer::no(format!("overlayd is stuck: it has not come round for {} s", silent.as_secs()))
    }

    fn readiness(&self) -> Answer {
        match (&self.unready, &self.degraded) {
            (Some(reason), _) => Answer::no(reason.clone()),
            (None, Some(trouble)) => Answer::yes(format!("ready; degraded: {trouble}")),
            (None, None) => Answer::yes("ready".to_owned()),
        }
    }
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    body: String,
    kind: &'static str,
}

impl Answer {
    const TEXT: &'static str = "text/plain; charset=utf-8";

    fn yes(line: String) -> Self {
        Self { status: StatusCode::OK, body: line + "\n", kind: Self::TEXT }
    }

    fn no(line: String) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: line + "\n", kind: Self::TEXT }
    }
}

/// Answers until it is dropped; the socket goes with it.
pub struct Api {
    word: watch::Sender<Word>,
    task: JoinHandle<()>,
    socket: Socket,
}

impl Api {
    /// Answers on a socket.
    pub fn serve(socket: Socket, listener: UnixListener, pins: Pins) -> Self {
        let (word, heard) = watch::channel(Word::starting());
        Self { word, task: tokio::spawn(accept(listener, heard, pins)), socket }
    }

    /// What is answered from now on.
    pub fn say(&self, word: Word) {
        self.word.send_replace(word);
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
        self.socket.remove();
    }
}

async fn accept(listener: UnixListener, heard: watch::Receiver<Word>, pins: Pins) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: somebody else's may be free again soon.
                warn!("the API socket takes no client: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (heard, pins) = (heard.clone(), pins.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| answer(request, heard.borrow().clone(), pins.clone()));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            match timeout(2 * PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("a client of the API socket: {error}"),
                Err(_) => debug!("a client of the API socket took too long"),
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    word: Word,
    pins: Pins,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => word.health(Instant::now()),
        (&Method::GET | &Method::HEAD, "/readyz") => word.readiness(),
        (&Method::GET | &Method::HEAD, "/status") => status(&pins),
        (_, path @ ("/healthz" | "/readyz" | "/status")) => Answer {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Answer::no(format!("{path} is to be read with GET"))
        },
        (_, path) => Answer {
            status: StatusCode::NOT_FOUND,
            ..Answer::no(format!("there is no {path}: ask for /healthz, /readyz or /status"))
        },
    };
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

/// What `overlayctl status -o json` says.
fn status(pins: &Pins) -> Answer {
    let read = || anyhow::Ok(serde_json::to_string_pretty(&report::status(&Maps::open(pins)?)?)?);
    match read() {
        Ok(json) => Answer { kind: "application/json", ..Answer::yes(json) },
        Err(error) => Answer::no(one_line(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_come_round_is_not_well() {
        let word = Word::starting();
        assert_eq!(word.health(word.round + STUCK / 2).status, StatusCode::OK);
        let stuck = word.health(word.round + STUCK);
        assert_eq!(stuck.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(stuck.body.contains("for 10 s"), "{stuck:?}");
    }

    #[test]
    fn degraded_is_ready_since_packets_go_on() {
        let starting = Word::starting();
        assert_eq!(starting.readiness().status, StatusCode::SERVICE_UNAVAILABLE);
        let ready = Word { unready: None, ..starting };
        assert_eq!(ready.readiness(), Answer::yes("ready".to_owned()));
        let degraded = Word { degraded: Some("etcd is away".to_owned()), ..ready };
        assert_eq!(degraded.readiness(), Answer::yes("ready; degraded: etcd is away".to_owned()));
    }
}
