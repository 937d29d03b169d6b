//! The model: tables, chains, rules, as far as packets of the overlay are concerned. What a rule asks for beyond
//! interfaces and IPv4 addresses is [`Match::Unknown`], which any packet may meet.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Where a table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// iptables, whichever its backend.
    Iptables,
    /// A table of nftables itself, for IPv4: `ip` or `inet`.
    Ip,
    /// A table of nftables for what bridges forward.
    Bridge,
    /// A table of nftables for devices.
    Netdev,
}

/// Where in a packet's way a base chain stands. Those that no forwarded packet meets are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Forward,
    Postrouting,
    /// Of a device, both ways.
    Device,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: String,
    /// How a note names it: `iptables filter`, `nft inet mine`.
    pub(super) title: String,
    pub(super) chains: Vec<Chain>,
}

impl Table {
    pub(super) fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// `None` for a chain that others jump to.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: Hook,
    /// Whether what no rule decides is dropped.
    pub(super) drops: bool,
    /// Whether its rules are asked for the first packet of a connection only, and rewrite.
    pub(super) nat: bool,
    /// Of a device's chain, the devices, where the tool tells them.
    pub(super) devices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// All of them have to hold.
    pub(super) matches: Vec<Match>,
    /// What happens then, one after the other.
    pub(super) effects: Vec<Effect>,
    /// As its user would recognize it.
    pub(super) text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The interface it comes in on is one of these, or (`not`) none of them.
    In { names: Vec<Name>, not: bool },
    /// The interface it goes out of.
    Out { names: Vec<Name>, not: bool },
    /// The source lies in one of these.
    Source { prefixes: Vec<Ipv4Net>, not: bool },
    /// The destination lies in one of these.
    Destination { prefixes: Vec<Ipv4Net>, not: bool },
    /// The source is an address of the host.
    SourceIsHost { not: bool },
    /// The destination is an address of the host.
    DestinationIsHost { not: bool },
    /// No IPv4 packet meets it.
    Never,
    /// Anything else.
    Unknown,
}

/// An interface's name, or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) is_prefix: bool,
}

impl Name {
    /// `wildcard` ends a name of which only the beginning counts: `+` in iptables, `*` in nft.
    pub(super) fn new(text: &str, wildcard: char) -> Self {
        match text.strip_suffix(wildcard) {
            Some(beginning) => Self { text: beginning.to_owned(), is_prefix: true },
            None => Self { text: text.to_owned(), is_prefix: false },
        }
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Seen, logged, marked: the packet goes on as it was.
    Observed,
    /// On its way out of this base chain.
    Accepted,
    /// Back to the chain it came from.
    Returned,
    /// Dropped, refused, handed to a program; or something that is not known here.
    Dropped,
    /// Changed, and with a connection its answers too.
    Rewritten,
    /// Sent elsewhere.
    Redirected(Target),
    Jump(String),
    Goto(String),
    /// By a map: one of these, or none.
    OneOf(Vec<Effect>),
    /// By a map of interfaces: the one it comes in on, or goes `out` of.
    ByInterface {
        out: bool,
        arms: Vec<(Name, Effect)>,
    },
}

/// Where a redirected connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Address(Ipv4Addr),
    /// The host itself.
    Host,
    Unknown,
}
