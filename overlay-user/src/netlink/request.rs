//! Request and answer: dumps, single look-ups, changes. Nothing is taken for complete unless the kernel
//! said so.

use std::{fmt::Debug, io, sync::Arc, time::Duration};

use futures::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::{
    proto::{ConnectionHandle, new_connection_with_socket},
    sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::sync::Mutex;

use super::error::Cause;

/// The kernel answers in microseconds; a request whose answer was lost must not hang its caller.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// A dump during which the table changed may have missed entries; it is made again, this often.
pub(super) const DUMP_ATTEMPTS: usize = 10;

/// What a request socket speaks.
pub(super) trait Message:
    NetlinkSerializable + NetlinkDeserializable + Clone + Debug + Send + Unpin + 'static
{
}

impl<M> Message for M where
    M: NetlinkSerializable + NetlinkDeserializable + Clone + Debug + Send + Unpin + 'static
{
}

/// A request socket.
#[derive(Clone, Debug)]
pub(super) struct Requests<M: Message> {
    handle: ConnectionHandle<M>,
    /// The kernel runs one dump a socket and answers EBUSY to a second.
    dumping: Arc<Mutex<()>>,
}

impl<M: Message> Requests<M> {
    /// Opens the socket and starts the task that serves it, which ends with the last clone.
    ///
    /// Strict checking (kernel 4.20) makes the kernel filter dumps instead of ignoring the filters.
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = new_connection_with_socket::<M, TokioSocket>(NETLINK_ROUTE)?;
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        tokio::spawn(connection);
        Ok(Self { handle, dumping: Arc::default() })
    }

    /// Dumps a table. Made again where the kernel says that the table changed meanwhile.
    pub(super) async fn dump(&self, request: M) -> Result<Vec<M>, Cause> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.one_dump(request.clone()).await?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(Cause::Restless(DUMP_ATTEMPTS))
    }

    /// A task of its own keeps the turn until the dump is over, even where the caller stops waiting.
    async fn one_dump(&self, request: M) -> Result<Answer<M>, Cause> {
        let turn = Arc::clone(&self.dumping).lock_owned().await;
        let requests = self.clone();
        let dump = tokio::spawn(async move {
            let answer = requests.exchange(request, NLM_F_DUMP).await;
            drop(turn);
            answer
        });
        dump.await.unwrap_or(Err(Cause::Closed))
    }

    /// Asks for one object.
    pub(super) async fn get(&self, request: M) -> Result<M, Cause> {
        self.exchange(request, NLM_F_ACK).await?.messages.pop().ok_or(Cause::Unexpected)
    }

    /// Makes a change; `flags` says whether it may create or replace.
    pub(super) async fn change(&self, request: M, flags: u16) -> Result<(), Cause> {
        self.exchange(request, NLM_F_ACK | flags).await.map(drop)
    }

    async fn exchange(&self, request: M, flags: u16) -> Result<Answer<M>, Cause> {
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
        message.header.flags = NLM_F_REQUEST | flags;
        let responses = self.handle.request(message, SocketAddr::new(0, 0)).map_err(|_| Cause::Closed)?;
        let collected = tokio::time::timeout(TIMEOUT, collect(responses)).await;
        collected.unwrap_or(Err(Cause::TimedOut(TIMEOUT.as_secs())))
    }
}

/// All that came back for one request.
struct Answer<M> {
    messages: Vec<M>,
    interrupted: bool,
}

/// Collects responses until the kernel's own end mark. A stream that ends without one was cut off.
async fn collect<M>(responses: impl futures::Stream<Item = NetlinkMessage<M>>) -> Result<Answer<M>, Cause> {
    let mut responses = std::pin::pin!(responses);
    let mut answer = Answer { messages: Vec::new(), interrupted: false };
    while let Some(message) = responses.next().await {
        answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => answer.messages.push(inner),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(Cause::refused(&error)),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(Cause::Kernel { errno: done.code.saturating_abs(), detail: None });
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answer),
            NetlinkPayload::Noop => {}
            _ => return Err(Cause::Unexpected),
        }
    }
    Err(Cause::Closed)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DoneMessage;
    use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
    use nix::errno::Errno;

    use super::*;

    type Response = NetlinkMessage<RouteNetlinkMessage>;

    fn link(flags: u16) -> Response {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, RouteNetlinkMessage::NewLink(LinkMessage::default()).into())
    }

    fn done(code: i32) -> Response {
        let mut done = DoneMessage::default();
        done.code = code;
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Done(done))
    }

    async fn answer(responses: Vec<Response>) -> Result<(usize, bool), Cause> {
        let answer = collect(futures::stream::iter(responses)).await?;
        Ok((answer.messages.len(), answer.interrupted))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_the_kernels_end_mark_completes_an_answer() {
        assert!(matches!(answer(vec![link(0), link(0), done(0)]).await, Ok((2, false))));
        assert!(matches!(answer(vec![link(NLM_F_DUMP_INTR), done(0)]).await, Ok((1, true))));
        assert!(matches!(answer(vec![link(0), link(0)]).await, Err(Cause::Closed)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_dump_that_ends_in_an_errno_has_failed() {
        let failed = answer(vec![link(0), done(-(Errno::ENODEV as i32))]).await;
        assert!(failed.is_err_and(|cause| cause.is_any(&[Errno::ENODEV])));
    }
}
