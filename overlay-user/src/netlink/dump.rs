//! Dumps of the routing subsystem's tables, message by message: a table may have ten thousands of entries, and what is
//! made of them is less than they are.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    error::Cause,
    request::{DUMP_ATTEMPTS, TIMEOUT},
};

/// The kernel fills datagrams of up to 32 KiB, if there is room for them.
const DATAGRAM: usize = 32 << 10;

/// The messages below this type are netlink's own: the end of a dump, an error.
const FIRST_OF_ROUTES: u16 = 16;

/// A socket for dumps, one at a time. The kernel answers while it is asked: nothing is waited for.
#[derive(Clone, Debug)]
pub(super) struct Dumps {
    socket: Arc<Mutex<Asking>>,
}

#[derive(Debug)]
struct Asking {
    socket: Socket,
    sequence: u32,
}

impl Dumps {
    /// Opens the socket in the calling thread's namespace, with strict checking: the kernel then filters.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // An answer that was lost must not hang the caller.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT.as_secs().cast_signed(), 0))?;
        socket.bind_auto()?;
        Ok(Self { socket: Arc::new(Mutex::new(Asking { socket, sequence: 0 })) })
    }

    /// Dumps a table and keeps what `select` makes of its entries, as far as their bytes are `worth` to be decoded. Made again
    /// where the kernel says that the table changed meanwhile.
    pub(super) fn dump<T>(
        &self,
        request: RouteNetlinkMessage,
        worth: impl Fn(&[u8]) -> bool,
        select: impl Fn(&RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Cause> {
        let mut asking = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            if !asking.once(request.clone(), &worth, |message| found.extend(select(message)))? {
                return Ok(found);
            }
        }
        Err(Cause::Restless(DUMP_ATTEMPTS))
    }
}

impl Asking {
    /// Shows every entry. Returns whether the table changed meanwhile.
    fn once(
        &mut self,
        request: RouteNetlinkMessage,
        worth: &impl Fn(&[u8]) -> bool,
        mut show: impl FnMut(&RouteNetlinkMessage),
    ) -> Result<bool, Cause> {
        self.ask(request)?;
        let mut buffer = vec![0; DATAGRAM];
        let mut interrupted = false;
        loop {
            let length = self.socket.recv(&mut &mut buffer[..], 0).map_err(timed_out)?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let length = message.length() as usize;
                // Another one is of a dump that was given up.
                if message.sequence_number() == self.sequence {
                    interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                    let of_kernel = message.message_type() < FIRST_OF_ROUTES;
                    if (of_kernel || worth(message.payload())) && take(&rest[..length], &mut show)? {
                        return Ok(interrupted);
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn ask(&mut self, request: RouteNetlinkMessage) -> Result<(), Cause> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }
}

/// Takes one message in; true for the one that ends the dump.
fn take(bytes: &[u8], show: &mut impl FnMut(&RouteNetlinkMessage)) -> Result<bool, Cause> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
        Ok(message) => match message.payload {
            NetlinkPayload::InnerMessage(inner) => show(&inner),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(Cause::refused(&error)),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(Cause::Kernel { errno: done.code.saturating_abs(), detail: None });
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Noop => {}
            _ => return Err(Cause::Unexpected),
        },
        // Of a kind that this daemon does not use, or of a link whose name is not text.
        Err(error) => tracing::debug!(%error, "a netlink message could not be decoded"),
    }
    Ok(false)
}

fn timed_out(error: io::Error) -> Cause {
    if error.kind() == io::ErrorKind::WouldBlock { Cause::TimedOut(TIMEOUT.as_secs()) } else { error.into() }
}
