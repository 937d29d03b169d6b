//! Reads what `nft -j list ruleset` prints (libnftables-json(5)).

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};
use serde_json::Value;

use super::rules::{Base, Chain, Effect, Family, Hook, Match, Name, Rule, Table, Target};

/// The most characters of a rule's text.
const TEXT: usize = 120;

/// The tables, without those of other protocols.
///
/// # Errors
/// Where it is no such JSON.
pub(super) fn parse(text: &str) -> Result<Vec<Table>, serde_json::Error> {
    let whole: Value = serde_json::from_str(text)?;
    let maps = Maps::of(&whole);
    let mut tables: Vec<Table> = Vec::new();
    for object in whole["nftables"].as_array().into_iter().flatten() {
        if let Some(chain) = object.get("chain") {
            if let Some(table) = table(&mut tables, chain) {
                table.chains.extend(chain_of(chain));
            }
        } else if let Some(rule) = object.get("rule")
            && let (Some(table), Some(name)) = (table(&mut tables, rule), rule["chain"].as_str())
            && let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == name)
        {
            chain.rules.push(rule_of(rule, &maps));
        }
    }
    Ok(tables)
}

/// The table that an object belongs to.
fn table<'a>(tables: &'a mut Vec<Table>, object: &Value) -> Option<&'a mut Table> {
    let (family, name) = (object["family"].as_str()?, object["table"].as_str()?);
    let kind = match family {
        "ip" | "inet" => Family::Ip,
        "bridge" => Family::Bridge,
        "netdev" => Family::Netdev,
        _ => return None,
    };
    let title = format!("nft {family} {name}");
    let index = tables.iter().position(|table| table.title == title).unwrap_or_else(|| {
        tables.push(Table { family: kind, name: name.to_owned(), title, chains: Vec::new() });
        tables.len() - 1
    });
    tables.get_mut(index)
}

fn chain_of(chain: &Value) -> Option<Chain> {
    let hook = match chain["hook"].as_str() {
        Some("prerouting") => Some(Hook::Prerouting),
        Some("forward") => Some(Hook::Forward),
        Some("postrouting") => Some(Hook::Postrouting),
        Some("ingress" | "egress") => Some(Hook::Device),
        _ => None,
    };
    let base = hook.map(|hook| Base {
        hook,
        drops: chain["policy"] == "drop",
        nat: chain["type"] == "nat",
        devices: strings(&chain["dev"]),
    });
    Some(Chain { name: chain["name"].as_str()?.to_owned(), base, rules: Vec::new() })
}

/// One text, or an array of them.
fn strings(value: &Value) -> Vec<String> {
    let one = value.as_str().map(str::to_owned).into_iter();
    one.chain(value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned))).collect()
}

fn rule_of(rule: &Value, maps: &Maps<'_>) -> Rule {
    let mut read = Rule { matches: Vec::new(), effects: Vec::new(), text: String::new() };
    let mut words = Vec::new();
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next()) else {
            read.unknown();
            continue;
        };
        words.push(tell(kind, value));
        let by_map = (kind == "vmap").then(|| maps.lookup(rule, value));
        match by_map {
            Some(effect) => read.by_map(effect),
            None => read.statement(kind, value),
        }
    }
    read.text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = read.text.char_indices().nth(TEXT) {
        read.text.truncate(end);
        read.text.push('…');
    }
    read
}

impl Rule {
    /// Whatever it is, it may match and it may drop.
    fn unknown(&mut self) {
        self.matches.push(Match::Unknown);
        self.effects.push(Effect::Dropped);
    }

    /// Only a map of interfaces tells whom it concerns.
    fn by_map(&mut self, effect: Option<Effect>) {
        match effect {
            Some(effect @ Effect::ByInterface { .. }) => self.effects.push(effect),
            Some(effect) => {
                self.matches.push(Match::Unknown);
                self.effects.push(effect);
            }
            None => self.unknown(),
        }
    }

    fn statement(&mut self, kind: &str, value: &Value) {
        match kind {
            "match" => self.matches.push(condition(value)),
            "limit" | "quota" | "ct count" => self.matches.push(Match::Unknown),
            "counter" | "comment" => {}
            _ => match effect(kind, value) {
                Some(effect) => self.effects.push(effect),
                None => self.unknown(),
            },
        }
    }
}

/// `None` for what is not known.
fn effect(kind: &str, value: &Value) -> Option<Effect> {
    let target = || value["target"].as_str().map(str::to_owned);
    Some(match kind {
        "accept" => Effect::Accepted,
        "return" => Effect::Returned,
        "drop" | "reject" | "queue" | "synproxy" => Effect::Dropped,
        "jump" => Effect::Jump(target()?),
        "goto" => Effect::Goto(target()?),
        "continue" | "log" | "notrack" | "set" | "map" | "ct helper" | "ct timeout" | "ct expectation"
        | "flow" | "last" => Effect::Observed,
        "mangle" => mangled(value),
        "snat" | "masquerade" | "tproxy" | "dup" => Effect::Rewritten,
        "dnat" => {
            let address = value["addr"].as_str().and_then(|text| text.parse().ok());
            Effect::Redirected(address.map_or(Target::Unknown, Target::Address))
        }
        "redirect" => Effect::Redirected(Target::Host),
        _ => return None,
    })
}

/// Marks stay on this host, and an MSS clamped to the route's MTU is one that fits anyway.
fn mangled(value: &Value) -> Effect {
    let key = &value["key"];
    let noted = key.get("meta").is_some() || key.get("ct").is_some();
    let clamped = key.get("tcp option").is_some() && value["value"].get("rt").is_some();
    if noted || clamped { Effect::Observed } else { Effect::Rewritten }
}

/// The named verdict maps of the ruleset.
struct Maps<'a>(Vec<&'a Value>);

impl<'a> Maps<'a> {
    fn of(whole: &'a Value) -> Self {
        Self(
            whole["nftables"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|object| object.get("map"))
                .collect(),
        )
    }

    /// What a rule's `vmap` leads to; `None` for what is not known.
    fn lookup(&self, rule: &Value, vmap: &Value) -> Option<Effect> {
        let elements = match vmap["data"].as_str() {
            Some(name) => self.named(rule, name.strip_prefix('@')?)?,
            None => vmap["data"]["set"].as_array()?,
        };
        let verdict = |element: &Value| {
            let (kind, value) = element.get(1)?.as_object()?.iter().next()?;
            effect(kind, value)
        };
        let out = match vmap["key"]["meta"]["key"].as_str() {
            Some("iifname" | "iif") => false,
            Some("oifname" | "oif") => true,
            _ => return elements.iter().map(verdict).collect::<Option<_>>().map(Effect::OneOf),
        };
        let arm = |element: &Value| Some((Name::new(element.get(0)?.as_str()?, '*'), verdict(element)?));
        elements.iter().map(arm).collect::<Option<_>>().map(|arms| Effect::ByInterface { out, arms })
    }

    fn named(&self, rule: &Value, name: &str) -> Option<&'a Vec<Value>> {
        let same = |map: &&&Value| {
            map["name"] == name && map["family"] == rule["family"] && map["table"] == rule["table"]
        };
        self.0.iter().find(same)?["elem"].as_array()
    }
}

fn condition(value: &Value) -> Match {
    let (left, right) = (&value["left"], &value["right"]);
    let not = match value["op"].as_str() {
        Some("==" | "in") => false,
        Some("!=") => true,
        _ => return Match::Unknown,
    };
    let known = if let Some(key) = left["meta"]["key"].as_str() {
        meta(key, right, not)
    } else if let Some(protocol) = left["payload"]["protocol"].as_str() {
        header(protocol, left["payload"]["field"].as_str().unwrap_or_default(), right, not)
    } else if left["fib"]["result"] == "type" && right == "local" {
        address_type(&left["fib"]["flags"], not)
    } else {
        None
    };
    known.unwrap_or(Match::Unknown)
}

fn meta(key: &str, right: &Value, not: bool) -> Option<Match> {
    match key {
        "iifname" | "iif" => Some(Match::In { names: names(right)?, not }),
        "oifname" | "oif" => Some(Match::Out { names: names(right)?, not }),
        "nfproto" | "protocol" => other_protocol(right, not),
        _ => None,
    }
}

fn header(protocol: &str, field: &str, right: &Value, not: bool) -> Option<Match> {
    match (protocol, field) {
        ("ip", "saddr") => Some(Match::Source { prefixes: prefixes(right)?, not }),
        ("ip", "daddr") => Some(Match::Destination { prefixes: prefixes(right)?, not }),
        // These ask for their protocol first, however they go on.
        ("ip6" | "icmpv6" | "arp", _) => Some(Match::Never),
        ("ether", "type") => other_protocol(right, not),
        _ => None,
    }
}

fn other_protocol(right: &Value, not: bool) -> Option<Match> {
    let other = matches!(right.as_str()?, "ipv6" | "ip6" | "arp" | "vlan" | "8021q" | "8021ad");
    (other && !not).then_some(Match::Never)
}

fn address_type(flags: &Value, not: bool) -> Option<Match> {
    match &strings(flags)[..] {
        [flag] if flag == "saddr" => Some(Match::SourceIsHost { not }),
        [flag] if flag == "daddr" => Some(Match::DestinationIsHost { not }),
        _ => None,
    }
}

/// What stands in a set, or the one that stands alone.
fn elements(value: &Value) -> Vec<&Value> {
    match value["set"].as_array() {
        Some(set) => set.iter().collect(),
        None => vec![value],
    }
}

fn names(value: &Value) -> Option<Vec<Name>> {
    let name =
        |value: &&Value| value.as_str().filter(|text| !text.starts_with('@')).map(|n| Name::new(n, '*'));
    elements(value).iter().map(name).collect()
}

fn prefixes(value: &Value) -> Option<Vec<Ipv4Net>> {
    let each: Option<Vec<Vec<Ipv4Net>>> = elements(value).into_iter().map(prefixes_of).collect();
    Some(each?.concat())
}

fn prefixes_of(value: &Value) -> Option<Vec<Ipv4Net>> {
    let address = |value: &Value| value.as_str()?.parse::<Ipv4Addr>().ok();
    if let Some(address) = address(value) {
        return Some(vec![address.into()]);
    }
    if let Some(prefix) = value.get("prefix") {
        let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
        return Some(vec![Ipv4Net::new(address(&prefix["addr"])?, length).ok()?.trunc()]);
    }
    let range = value.get("range")?;
    let (first, last) = (address(range.get(0)?)?, address(range.get(1)?)?);
    (first <= last).then(|| Ipv4Subnets::new(first, last, 0).collect())
}

/// A statement much as `nft` writes it.
fn tell(kind: &str, value: &Value) -> String {
    match kind {
        "match" => {
            let op = match value["op"].as_str() {
                Some("==" | "in") | None => String::new(),
                Some(op) => format!("{op} "),
            };
            format!("{} {op}{}", words(&value["left"]), words(&value["right"]))
        }
        "counter" => String::new(),
        "vmap" => format!("{} vmap {}", words(&value["key"]), words(&value["data"])),
        "mangle" => format!("{} set {}", words(&value["key"]), words(&value["value"])),
        "jump" | "goto" => format!("{kind} {}", value["target"].as_str().unwrap_or_default()),
        "dnat" | "snat" if value["addr"].is_string() => format!("{kind} to {}", words(&value["addr"])),
        _ => kind.to_owned(),
    }
}

/// The words of an expression, in the order in which they stand there.
fn words(value: &Value) -> String {
    let join = |values: &mut dyn Iterator<Item = &Value>, with: &str| {
        values.map(words).collect::<Vec<_>>().join(with)
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => join(&mut values.iter(), ","),
        Value::Object(object) => match object.iter().next() {
            Some((_, payload)) if payload.get("protocol").is_some() => {
                format!("{} {}", words(&payload["protocol"]), words(&payload["field"]))
            }
            Some((_, prefix)) if prefix.get("len").is_some() => {
                format!("{}/{}", words(&prefix["addr"]), prefix["len"])
            }
            Some((kind, option)) if option.get("name").is_some() => {
                format!("{kind} {} {}", words(&option["name"]), words(&option["field"]))
            }
            Some((kind, Value::Array(set))) if kind == "set" => {
                format!("{{ {} }}", join(&mut set.iter(), ", "))
            }
            Some((kind, Value::Array(ends))) if kind == "range" => join(&mut ends.iter(), "-"),
            Some((kind, inner)) if inner.get("key").is_some() => {
                let key = words(&inner["key"]);
                // As nft does: the interfaces' names stand alone.
                if key.starts_with("iif") || key.starts_with("oif") { key } else { format!("{kind} {key}") }
            }
            Some((kind, inner)) if inner.is_null() => kind.clone(),
            Some((kind, inner)) => {
                format!("{kind} {}", join(&mut inner.as_object().into_iter().flat_map(|o| o.values()), " "))
            }
            None => String::new(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
