//! What the kernel itself says of netfilter, without a tool: whether anything has changed, and which chains there are.

use std::{fs, io};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES, in the upper byte of a message's type.
const NFTABLES: u16 = 10 << 8;
/// linux/netfilter/nf_tables.h.
const GET_CHAIN: u16 = NFTABLES | 4;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_GENERATION: u16 = NFTABLES | 16;
const NEW_GENERATION: u16 = NFTABLES | 15;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const GENERATION_ID: u16 = 1;
/// linux/netlink.h: NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The type of an attribute without its flags.
const KIND: u16 = 0x3fff;
/// struct nlmsghdr and struct nfgenmsg.
const HEADER: usize = 16;
const FAMILY: usize = 4;
/// struct nlattr.
const ATTRIBUTE: usize = 4;

/// Of this thread's network namespace, which is the daemon's.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
/// Absent where nothing is a module; the older ebtables always is one in distributions.
const MODULES: &str = "/proc/modules";
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A state of netfilter. As long as it is the same, so are the rules of nftables; the legacy tables have no such sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// nftables' generation; `None` where the kernel has no nftables.
    generation: Option<u32>,
    /// Whether there are tables of the older ip_tables.
    pub(super) legacy: bool,
    /// Whether the older ebtables is loaded.
    pub(super) ebtables: bool,
    /// Whether what a bridge forwards meets iptables.
    pub(super) bridge_calls_iptables: bool,
}

impl Sign {
    /// Whether there may be rules whose changes it does not tell.
    pub fn is_blind(&self) -> bool {
        self.legacy || self.ebtables
    }
}

/// A base chain of nftables, iptables' own included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
}

/// The kernel's netfilter, by way of a socket.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
}

impl Kernel {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no nfnetlink.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // The kernel answers before the send returns, so nothing is ever waited for.
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// A few system calls, cheap enough for once a second.
    pub fn sign(&self) -> Sign {
        Sign {
            generation: self.generation().ok().flatten(),
            legacy: fs::read_to_string(LEGACY_TABLES).is_ok_and(|names| !names.trim().is_empty()),
            ebtables: fs::read_to_string(MODULES).is_ok_and(|modules| has_ebtables(&modules)),
            bridge_calls_iptables: fs::read_to_string(BRIDGE_CALLS).is_ok_and(|on| on.trim() != "0"),
        }
    }

    fn generation(&self) -> io::Result<Option<u32>> {
        let messages = self.ask(GET_GENERATION, 0)?;
        let id = |attributes: &[u8]| {
            let bytes = attribute(attributes, GENERATION_ID)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        Ok(messages
            .iter()
            .filter(|(kind, _)| *kind == NEW_GENERATION)
            .find_map(|(_, body)| id(body.get(FAMILY..)?)))
    }

    /// The base chains of all families.
    ///
    /// # Errors
    /// The kernel did not answer in full. A kernel without nftables has none.
    pub(super) fn base_chains(&self) -> io::Result<Vec<BaseChain>> {
        let messages = match self.ask(GET_CHAIN, NLM_F_DUMP) {
            Ok(messages) => messages,
            // nfnetlink's answer where nf_tables is not there.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let chains = messages.iter().filter(|(kind, _)| *kind == NEW_CHAIN);
        Ok(chains.filter_map(|(_, body)| base_chain(body)).collect())
    }

    /// Types and bodies of the answer's messages.
    fn ask(&self, kind: u16, flags: u16) -> io::Result<Vec<(u16, Vec<u8>)>> {
        // What an interrupted exchange left behind.
        while self.socket.recv_from_full().is_ok() {}
        self.socket.send_to(&request(kind, flags), &SocketAddr::new(0, 0), 0)?;
        let mut messages = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (kind, body) in split(&datagram) {
                match kind {
                    DONE => return Ok(messages),
                    ERROR => return Err(refusal(body)),
                    kind => messages.push((kind, body.to_vec())),
                }
            }
            if flags & NLM_F_DUMP == 0 {
                return Ok(messages);
            }
        }
    }
}

fn has_ebtables(modules: &str) -> bool {
    let tables = ["ebtable_filter ", "ebtable_nat ", "ebtable_broute "];
    modules.lines().any(|line| tables.iter().any(|table| line.starts_with(table)))
}

fn request(kind: u16, flags: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + FAMILY);
    bytes.extend(((HEADER + FAMILY) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence, port; then any family, version 0, no resource.
    bytes.extend([0; 8 + FAMILY]);
    bytes
}

/// The messages of a datagram: type and body.
fn split(datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = rest.get(HEADER..length) else { break };
        messages.push((u16::from_ne_bytes([header[4], header[5]]), body));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn refusal(body: &[u8]) -> io::Error {
    let code = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    io::Error::from_raw_os_error(code.saturating_abs())
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let Some(header) = rest.get(..ATTRIBUTE) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = rest.get(ATTRIBUTE..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) & KIND == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn base_chain(body: &[u8]) -> Option<BaseChain> {
    let (family, attributes) = (*body.first()?, body.get(FAMILY..)?);
    attribute(attributes, CHAIN_HOOK)?;
    let text = |kind| {
        let bytes = attribute(attributes, kind)?;
        Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
    };
    Some(BaseChain { family, table: text(CHAIN_TABLE)?, name: text(CHAIN_NAME)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_bytes(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = request(kind, 0);
        bytes.truncate(HEADER);
        bytes.extend(body);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn base_chains_and_no_others() {
        let mut body = vec![2, 0, 0, 0];
        body.extend(attribute_bytes(CHAIN_TABLE, b"filter\0"));
        body.extend(attribute_bytes(CHAIN_NAME, b"FORWARD\0"));
        assert_eq!(base_chain(&body), None);
        body.extend(attribute_bytes(CHAIN_HOOK | 0x8000, &[0; 8]));
        let known = BaseChain { family: 2, table: "filter".into(), name: "FORWARD".into() };
        assert_eq!(base_chain(&body), Some(known.clone()));
        let mut datagram = message(NEW_CHAIN, &body);
        datagram.extend(message(DONE, &[0; 4]));
        let messages = split(&datagram);
        assert_eq!(messages.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [NEW_CHAIN, DONE]);
        assert_eq!(base_chain(messages[0].1), Some(known));
    }

    #[test]
    fn cut_off_answers_end_in_nothing() {
        let mut body = vec![2, 0, 0, 0];
        body.extend(attribute_bytes(CHAIN_TABLE, b"filter\0"));
        body.extend(attribute_bytes(CHAIN_NAME, b"FORWARD\0"));
        body.extend(attribute_bytes(CHAIN_HOOK, &[0; 8]));
        let whole = message(NEW_CHAIN, &body);
        for length in 0..whole.len() {
            assert!(split(&whole[..length]).is_empty(), "{length}");
        }
        for length in 0..body.len() {
            let _ = base_chain(&body[..length]);
        }
        assert!(split(&[0xff; 64]).is_empty());
        assert_eq!(refusal(&(-22i32).to_ne_bytes()).kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn ebtables_is_there_with_one_of_its_tables() {
        assert!(has_ebtables("veth 1 0 - Live\nebtable_nat 16384 0 - Live 0x0\n"));
        assert!(!has_ebtables("ebtables 45056 0 - Live 0x0\nebt_ip 1 0\n"));
    }

    /// Unprivileged in a namespace without rules, root elsewhere: either way the kernel answers at once.
    #[test]
    fn the_kernel_answers() {
        let kernel = Kernel::open().unwrap();
        assert_eq!(kernel.sign(), kernel.sign());
        let _ = kernel.base_chains();
    }
}
