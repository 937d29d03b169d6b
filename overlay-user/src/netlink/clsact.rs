//! Programs as filters of a device's clsact, which is what kernels without tcx (before 6.6) have. The calls wait
//! for the kernel, which answers at once; they work in the calling thread's network namespace. Layouts are those of
//! <linux/rtnetlink.h> and <linux/pkt_cls.h>.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
    parse_string, parse_u32,
};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt},
        time::{TimeVal, TimeValLike},
    },
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{
    error::{Cause, NetlinkError},
    filter::Hook,
};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// The handle of a clsact, and the parent under which it stands.
const CLSACT: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
/// Bytes of `struct tcmsg`: family, three of padding, ifindex, handle, parent, info.
const HEADER_BYTES: usize = 20;
const ETH_P_ALL: u16 = 3;

/// Marks our filters; the kernel gives out small ones by itself. With a handle of its own, a filter shares a
/// priority with those of others, and the last one to come runs first.
const HANDLE: u32 = u32::from_be_bytes(*b"ovld");
/// The first place of all; where a filter of another kind or protocol has it, the next ones are tried.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;

/// The kernel answers in microseconds.
const TIMEOUT_SECONDS: i64 = 10;

/// The hook, as a filter's parent.
fn parent(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => 0xffff_fff2,
        Hook::Egress => 0xffff_fff3,
    }
}

/// A filter on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClsactFilter {
    /// Its name, where it is a program.
    pub name: Option<String>,
    /// The program's id.
    pub program: Option<u32>,
    priority: u16,
    handle: u32,
}

impl ClsactFilter {
    /// True for a filter that [`Filters::put`] made under this name.
    pub fn is_ours(&self, name: &str) -> bool {
        self.handle == HANDLE && self.name.as_deref() == Some(name)
    }
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
        let request = Message::new(RTM_GETTFILTER, ifindex, parent(hook));
        let answers = match self.exchange(request, NLM_F_DUMP) {
            Ok(answers) => answers,
            Err(cause) if cause.is_any(&[Errno::ENODEV, Errno::EINVAL]) => Vec::new(),
            Err(cause) => {
                return Err(NetlinkError::new(format!("list the filters of device {ifindex}"), cause));
            }
        };
        // Each priority is told before the filters in it, with no handle.
        let filters = answers.iter().filter(|answer| answer.kind == RTM_NEWTFILTER && answer.handle != 0);
        Ok(filters.map(Message::filter).collect())
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
        for priority in present.map_or(PRIORITIES, |filter| filter.priority..=filter.priority) {
            let mut request = Message::new(RTM_NEWTFILTER, ifindex, parent(hook));
            request.place(priority);
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
            let mut request = Message::new(RTM_DELTFILTER, ifindex, parent(hook));
            request.place(filter.priority);
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
        let request = Message::new(RTM_GETQDISC, ifindex, 0);
        let answers = self.exchange(request, NLM_F_DUMP);
        let answers = answers.map_err(|cause| NetlinkError::new("list qdiscs", cause))?;
        Ok(answers.iter().any(|answer| answer.ifindex == ifindex && answer.handle == CLSACT))
    }

    /// Adds a clsact. Returns false where there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_clsact(&self, ifindex: u32) -> Result<bool, NetlinkError> {
        let mut request = Message::new(RTM_NEWQDISC, ifindex, CLSACT_PARENT);
        request.handle = CLSACT;
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
        let mut request = Message::new(RTM_DELQDISC, ifindex, CLSACT_PARENT);
        request.handle = CLSACT;
        gone_is_fine(self.exchange(request, NLM_F_ACK))
            .map_err(|cause| NetlinkError::new(format!("remove the clsact of device {ifindex}"), cause))
    }

    fn exchange(&self, request: Message, flags: u16) -> Result<Vec<Message>, Cause> {
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
                let message = NetlinkMessage::<Message>::deserialize(rest).map_err(|_| Cause::Unexpected)?;
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

fn gone_is_fine(result: Result<Vec<Message>, Cause>) -> Result<(), Cause> {
    match result {
        Err(cause) if !cause.is_any(&[Errno::ENOENT, Errno::ENODEV, Errno::EINVAL]) => Err(cause),
        _ => Ok(()),
    }
}

/// A message about a qdisc or a filter.
#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
    attributes: Vec<DefaultNla>,
}

impl Message {
    fn new(kind: u16, ifindex: u32, parent: u32) -> Self {
        Self { kind, ifindex, handle: 0, parent, info: 0, attributes: Vec::new() }
    }

    /// Our filter's place at a priority: for packets of every protocol.
    fn place(&mut self, priority: u16) {
        self.handle = HANDLE;
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

    /// What a message tells of a filter; what cannot be read is somebody else's.
    fn filter(&self) -> ClsactFilter {
        use netlink_packet_core::Nla as _;
        let mut filter = ClsactFilter {
            name: None,
            program: None,
            priority: (self.info >> 16) as u16,
            handle: self.handle,
        };
        for options in self.attributes.iter().filter(|attribute| attribute.kind() == TCA_OPTIONS) {
            let mut value = vec![0; options.value_len()];
            options.emit_value(&mut value);
            for option in NlasIterator::new(value.as_slice()).map_while(Result::ok) {
                match option.kind() {
                    TCA_BPF_NAME => filter.name = parse_string(option.value()).ok(),
                    TCA_BPF_ID => filter.program = parse_u32(option.value()).ok(),
                    _ => {}
                }
            }
        }
        filter
    }
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER_BYTES);
        header[..4].fill(0);
        for (place, field) in [self.ifindex, self.handle, self.parent, self.info].into_iter().enumerate() {
            header[4 + 4 * place..][..4].copy_from_slice(&field.to_ne_bytes());
        }
        self.attributes.as_slice().emit(rest);
    }
}

impl NetlinkDeserializable for Message {
    type Error = std::convert::Infallible;

    /// What cannot be read is of no device.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        let field = |place: usize| {
            let bytes = payload.get(4 + 4 * place..8 + 4 * place);
            bytes.and_then(|bytes| parse_u32(bytes).ok()).unwrap_or(0)
        };
        let attributes = NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default());
        let attributes = attributes.map_while(Result::ok);
        Ok(Self {
            kind: header.message_type,
            ifindex: field(0),
            handle: field(1),
            parent: field(2),
            info: field(3),
            attributes: attributes.map(|nla| DefaultNla::new(nla.kind(), nla.value().to_vec())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn filter() -> (Message, Vec<u8>) {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut message = Message::new(RTM_NEWTFILTER, 9, parent(Hook::Egress));
        message.place(1);
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

    #[test]
    fn a_filter_is_read_from_what_was_written_and_one_cut_anywhere_without_a_panic() {
        let (message, bytes) = filter();
        let mut header = NetlinkHeader::default();
        header.message_type = RTM_NEWTFILTER;
        let Ok(read) = Message::deserialize(&header, &bytes);
        assert_eq!((read.ifindex, read.filter().priority), (9, 1));
        assert!(read.filter().is_ours("name") && !read.filter().is_ours("other"));
        assert!(!Message { handle: 1, ..message }.filter().is_ours("name"));
        for length in 0..bytes.len() {
            let Ok(read) = Message::deserialize(&header, &bytes[..length]);
            assert!(length > 50 || !read.filter().is_ours("name"), "cut to {length}");
        }
    }
}
