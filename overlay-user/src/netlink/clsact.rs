//! Programs as filters of a device's clsact, which is what kernels without tcx (before 6.6) have. The calls wait
//! for the kernel, which answers at once; they work in the calling thread's network namespace. Layouts are those of
//! <linux/rtnetlink.h> and <linux/pkt_cls.h>.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt},
        time::{TimeVal, TimeValLike},
    },
};
use overlay_common::map::program;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    error::{Cause, NetlinkError},
    filter::{
        Filter, Hook, INGRESS_HANDLE, RTM_GETQDISC, RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER,
        TCA_BPF_NAME, TCA_KIND, TCA_OPTIONS, TrafficMessage,
    },
};

const RTM_DELQDISC: u16 = 37;
const RTM_DELTFILTER: u16 = 45;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// The parent under which a clsact stands.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const ETH_P_ALL: u16 = 3;

/// Marks our filters, each program's plus its place among them; the kernel gives out small ones by itself. With a handle of
/// its own, a filter shares a priority with others, ours too, and the last one to come runs first.
const HANDLE: u32 = u32::from_be_bytes(*b"ovld");
/// The first place of all; where a filter of another kind or protocol has it, the next ones are tried.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;

/// The kernel answers in microseconds.
const TIMEOUT_SECONDS: i64 = 10;

/// A filter on a hook, and the handle that tells whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClsactFilter {
    /// The filter.
    pub filter: Filter,
    handle: u32,
}

impl ClsactFilter {
    /// True for a filter that [`Filters::put`] made under this name.
    pub fn is_ours(&self, name: &str) -> bool {
        self.handle == handle_of(name) && self.filter.name.as_deref() == Some(name)
    }
}

/// The handle of a program's filter.
fn handle_of(name: &str) -> u32 {
    let place = program::ALL.iter().position(|known| *known == name);
    HANDLE + place.map_or(0, |place| place as u32)
}

/// Requests about filters.
#[derive(Debug)]
pub struct Filters {
    socket: Socket,
}

impl Filters {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_SECONDS))?;
            Ok(socket)
        };
        let socket =
            open().map_err(|error| NetlinkError::new("open a filter netlink socket", error.into()))?;
        Ok(Self { socket })
    }

    /// The filters of a hook, in the order in which they run. None where there is no such device or clsact.
    ///
    /// # Errors
    /// The kernel's.
    pub fn list(&self, ifindex: u32, hook: Hook) -> Result<Vec<ClsactFilter>, NetlinkError> {
        let request = TrafficMessage::new(RTM_GETTFILTER, ifindex, hook.parent());
        let answers = match self.exchange(request, NLM_F_DUMP) {
            Ok(answers) => answers,
            Err(cause) if cause.is_any(&[Errno::ENODEV, Errno::EINVAL]) => Vec::new(),
            Err(cause) => {
                return Err(NetlinkError::new(format!("list the filters of device {ifindex}"), cause));
            }
        };
        let of = |answer: &TrafficMessage| {
            answer.filter().map(|filter| ClsactFilter { filter, handle: answer.handle })
        };
        Ok(answers.iter().filter_map(of).collect())
    }

    /// Puts a program on a hook, before those of others, or in the place of the one that is there under this name:
    /// no packet passes in between.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put(
        &self,
        ifindex: u32,
        hook: Hook,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let present = self.list(ifindex, hook)?.into_iter().find(|filter| filter.is_ours(name));
        let mut result = Err(Cause::Unexpected);
        for priority in present.map_or(PRIORITIES, |filter| filter.filter.pref..=filter.filter.pref) {
            let mut request = TrafficMessage::new(RTM_NEWTFILTER, ifindex, hook.parent());
            request.place(priority, name);
            request.program(name, program);
            result = self.exchange(request, NLM_F_ACK | NLM_F_CREATE).map(drop);
            // What is there is of another kind or protocol.
            if !matches!(&result, Err(cause) if cause.is_any(&[Errno::EINVAL])) {
                break;
            }
        }
        result.map_err(|cause| NetlinkError::new(format!("put filter {name} on device {ifindex}"), cause))
    }

    /// Takes our filter of this name away. That there is none is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, ifindex: u32, hook: Hook, name: &str) -> Result<(), NetlinkError> {
        for filter in self.list(ifindex, hook)?.iter().filter(|filter| filter.is_ours(name)) {
            let mut request = TrafficMessage::new(RTM_DELTFILTER, ifindex, hook.parent());
            request.place(filter.filter.pref, name);
            let result = self.exchange(request, NLM_F_ACK);
            gone_is_fine(result).map_err(|cause| {
                NetlinkError::new(format!("remove filter {name} from device {ifindex}"), cause)
            })?;
        }
        Ok(())
    }

    /// True where a device has a clsact, or the older ingress qdisc, which has its place.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_clsact(&self, ifindex: u32) -> Result<bool, NetlinkError> {
        let request = TrafficMessage::new(RTM_GETQDISC, ifindex, 0);
        let answers = self.exchange(request, NLM_F_DUMP);
        let answers = answers.map_err(|cause| NetlinkError::new("list qdiscs", cause))?;
        Ok(answers.iter().any(|answer| answer.ifindex == ifindex && answer.handle == INGRESS_HANDLE))
    }

    /// Adds a clsact. Returns false where there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_clsact(&self, ifindex: u32) -> Result<bool, NetlinkError> {
        let mut request = TrafficMessage::new(RTM_NEWQDISC, ifindex, CLSACT_PARENT);
        request.handle = INGRESS_HANDLE;
        request.attributes = vec![text(TCA_KIND, "clsact")];
        match self.exchange(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(true),
            Err(cause) if cause.is_any(&[Errno::EEXIST]) => Ok(false),
            Err(cause) => Err(NetlinkError::new(format!("add a clsact to device {ifindex}"), cause)),
        }
    }

    /// Removes a clsact, with all filters that are left on it. That there is none is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_clsact(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let mut request = TrafficMessage::new(RTM_DELQDISC, ifindex, CLSACT_PARENT);
        request.handle = INGRESS_HANDLE;
        gone_is_fine(self.exchange(request, NLM_F_ACK))
            .map_err(|cause| NetlinkError::new(format!("remove the clsact of device {ifindex}"), cause))
    }

    fn exchange(&self, request: TrafficMessage, flags: u16) -> Result<Vec<TrafficMessage>, Cause> {
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<TrafficMessage>::deserialize(rest).map_err(|_| Cause::Unexpected)?;
                let length = (message.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Cause::refused(&error));
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(Cause::Kernel { errno: done.code.saturating_abs(), detail: None });
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn gone_is_fine(result: Result<Vec<TrafficMessage>, Cause>) -> Result<(), Cause> {
    match result {
        Err(cause) if !cause.is_any(&[Errno::ENOENT, Errno::ENODEV, Errno::EINVAL]) => Err(cause),
        _ => Ok(()),
    }
}

impl TrafficMessage {
    fn new(kind: u16, ifindex: u32, parent: u32) -> Self {
        Self { kind, ifindex, parent, ..Self::default() }
    }

    /// Our filter's place at a priority: for packets of every protocol.
    fn place(&mut self, priority: u16, name: &str) {
        self.handle = handle_of(name);
        self.info = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
    }

    fn program(&mut self, name: &str, program: BorrowedFd<'_>) {
        let options = [
            DefaultNla::new(TCA_BPF_FD, program.as_raw_fd().to_ne_bytes().to_vec()),
            text(TCA_BPF_NAME, name),
            DefaultNla::new(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes().to_vec()),
        ];
        let mut value = vec![0; options.as_slice().buffer_len()];
        options.as_slice().emit(&mut value);
        self.attributes = vec![text(TCA_KIND, "bpf"), DefaultNla::new(TCA_OPTIONS, value)];
    }
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use netlink_packet_core::{NetlinkDeserializable, NetlinkSerializable};

    use super::*;

    fn filter() -> (TrafficMessage, Vec<u8>) {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut message = TrafficMessage::new(RTM_NEWTFILTER, 9, Hook::Egress.parent());
        message.place(1, "name");
        message.program("name", file.as_fd());
        let mut bytes = vec![0xff; message.buffer_len()];
        message.serialize(&mut bytes);
        (message, bytes)
    }

    /// Written out by hand from <linux/rtnetlink.h>, for a little-endian machine.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_request_has_the_kernels_layout() {
        let (_, bytes) = filter();
        let expected: [&[u8]; 7] = [
            &[0, 0, 0, 0, 9, 0, 0, 0],
            b"dlvo",
            &[0xf3, 0xff, 0xff, 0xff, 0, 3, 1, 0],
            &[8, 0, 1, 0, b'b', b'p', b'f', 0],
            &[32, 0, 2, 0, 8, 0, 6, 0],
            &bytes[36..40],
            &[9, 0, 7, 0, b'n', b'a', b'm', b'e', 0, 0, 0, 0, 8, 0, 8, 0, 1, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }

    /// One that had another's handle would take its place.
    #[test]
    fn each_program_has_a_handle_of_its_own() {
        let handles: std::collections::BTreeSet<u32> = program::ALL.map(handle_of).into();
        assert_eq!(handles.len(), program::ALL.len());
    }

    #[test]
    fn a_filter_is_read_from_what_was_written_and_one_cut_anywhere_without_a_panic() {
        let (message, bytes) = filter();
        let mut header = NetlinkHeader::default();
        header.message_type = RTM_NEWTFILTER;
        let Ok(read) = TrafficMessage::deserialize(&header, &bytes);
        let is_ours = |message: &TrafficMessage, name: &str| {
            let handle = message.handle;
            message.filter().is_some_and(|filter| ClsactFilter { filter, handle }.is_ours(name))
        };
        assert_eq!((read.ifindex, read.filter().unwrap().pref), (9, 1));
        assert!(is_ours(&read, "name") && !is_ours(&read, "other"));
        assert!(!is_ours(&TrafficMessage { handle: 1, ..message }, "name"));
        for length in 0..bytes.len() {
            let Ok(read) = TrafficMessage::deserialize(&header, &bytes[..length]);
            assert!(length > 50 || !is_ours(&read, "name"), "cut to {length}");
        }
    }
}
