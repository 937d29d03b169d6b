//! Policy rules: which routing table a packet is looked up in.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::RouteHeader,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::errno::Errno;

use super::{Family, Netlink, NetlinkError};

/// `PRIORITY: from all iif IIF lookup TABLE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayRule {
    /// Whose packets are looked up so.
    pub family: Family,
    /// Lower is asked first: 0 is the local table, 32766 the main one.
    pub priority: u32,
    /// The interface by which packets come in; empty where the rule does not ask for one.
    pub iif: String,
    /// The table, above 255.
    pub table: u32,
}

impl Netlink {
    /// The rules that carry `protocol`, those of IPv4 first.
    pub async fn rules(&self, protocol: u8) -> Result<Vec<OverlayRule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in Family::BOTH {
            let mut request = RuleMessage::default();
            request.header.family = family.message();
            let found = self.dump(RouteNetlinkMessage::GetRule(request), |answer| match answer {
                RouteNetlinkMessage::NewRule(message) => OverlayRule::from_message(message, protocol),
                _ => None,
            });
            match found.await {
                Ok(found) => rules.extend(found),
                // A kernel without this family.
                Err(cause) if cause.is_any(&[Errno::EAFNOSUPPORT]) => {}
                Err(cause) => {
                    return Err(NetlinkError::new(
                        format!("list {family} rules of protocol {protocol}"),
                        cause,
                    ));
                }
            }
        }
        Ok(rules)
    }

    /// Adds a rule. One that is there already counts as added.
    pub async fn add_rule(&self, rule: &OverlayRule, protocol: u8) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRule(rule.message(protocol));
        match self.requests.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(cause) if cause.is_any(&[Errno::EEXIST]) => Ok(()),
            result => result.map_err(|cause| NetlinkError::new(format!("add {rule}"), cause)),
        }
    }

    /// Deletes a rule of `protocol`. One that is absent counts as deleted.
    pub async fn delete_rule(&self, rule: &OverlayRule, protocol: u8) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(rule.message(protocol));
        match self.requests.change(message, 0).await {
            Err(cause) if cause.is_any(&[Errno::ENOENT, Errno::EAFNOSUPPORT]) => Ok(()),
            result => result.map_err(|cause| NetlinkError::new(format!("delete {rule}"), cause)),
        }
    }
}

impl std::fmt::Display for OverlayRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rule {}: iif {} lookup {}", self.family, self.priority, self.iif, self.table)
    }
}

impl OverlayRule {
    fn from_message(message: &RuleMessage, protocol: u8) -> Option<Self> {
        let family = Family::of_message(message.header.family)?;
        let table = u32::from(message.header.table);
        let mut rule = Self { family, priority: 0, iif: String::new(), table };
        let mut ours = false;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Protocol(other) => ours = u8::from(*other) == protocol,
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Iifname(name) => rule.iif.clone_from(name),
                RuleAttribute::Table(table) => rule.table = *table,
                _ => {}
            }
        }
        ours.then_some(rule)
    }

    fn message(&self, protocol: u8) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family.message();
        message.header.action = RuleAction::ToTable;
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RuleAttribute::Priority(self.priority));
        message.attributes.push(RuleAttribute::Table(self.table));
        message.attributes.push(RuleAttribute::Protocol(protocol.into()));
        if !self.iif.is_empty() {
            message.attributes.push(RuleAttribute::Iifname(self.iif.clone()));
        }
        message
    }
}
