//! Follows a class of packets through a base chain. Nothing runs: each rule matches all packets of the class, none,
//! or perhaps some.

use ipnet::Ipv4Net;

use super::rules::{Chain, Effect, Match, Name, Rule, Table};

/// The deepest jump that is followed; the kernel itself allows 16 in nftables.
const DEPTH: usize = 32;
/// The most rules looked at for one class in one base chain. Jumps that fork can make more of few.
const RULES: usize = 200_000;

/// Packets that have these things in common. What is `None` or empty is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    pub(super) iif: Option<String>,
    pub(super) oif: Option<String>,
    /// The source lies in one of these.
    pub(super) source: Vec<Ipv4Net>,
    /// The destination lies in one of these, and is another address than the source.
    pub(super) destination: Vec<Ipv4Net>,
    pub(super) source_is_host: Option<bool>,
    pub(super) destination_is_host: Option<bool>,
}

/// A rule that may do something to packets of the class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit<'a> {
    pub(super) chain: &'a str,
    pub(super) text: &'a str,
    pub(super) effect: &'a Effect,
}

/// What a chain's policy says.
pub(super) const POLICY_DROP: &str = "policy DROP";
/// In place of a rule, where there are too many to look at.
const TOO_MANY: &str = "more rules than can be followed";

/// Everything that may happen to packets of the class in a base chain, in order.
pub(super) fn walk<'a>(table: &'a Table, chain: &'a Chain, class: &Class) -> Vec<Hit<'a>> {
    let mut walk = Walk { table, class, hits: Vec::new(), left: RULES };
    let through = walk.chain(chain, 0);
    if through && chain.base.as_ref().is_some_and(|base| base.drops) {
        walk.hit(&chain.name, POLICY_DROP, &Effect::Dropped);
    }
    walk.hits
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Maybe,
}

impl Answer {
    fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    fn flipped(self, not: bool) -> Self {
        match (self, not) {
            (Self::Yes, true) => Self::No,
            (Self::No, true) => Self::Yes,
            (answer, _) => answer,
        }
    }
}

/// What becomes of the packets that met an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// All go on with what follows.
    On,
    /// None does: they are out of the base chain.
    Ended,
    /// None does: they go back to the caller.
    Back,
    /// Some end, some go back, some go on.
    Either,
}

struct Walk<'a, 'c> {
    table: &'a Table,
    class: &'c Class,
    hits: Vec<Hit<'a>>,
    left: usize,
}

impl<'a> Walk<'a, '_> {
    /// Whether any packet may come out at the end of the chain, or by a return.
    fn chain(&mut self, chain: &'a Chain, depth: usize) -> bool {
        let mut returned = false;
        for rule in &chain.rules {
            if self.left == 0 || depth > DEPTH {
                self.hit(&chain.name, TOO_MANY, &Effect::Dropped);
                return true;
            }
            self.left -= 1;
            let answer = matches(rule, self.class);
            if answer == Answer::No {
                continue;
            }
            for effect in &rule.effects {
                let next = self.effect(chain, rule, effect, depth);
                returned |= matches!(next, Next::Back | Next::Either);
                if answer == Answer::Yes && matches!(next, Next::Ended | Next::Back) {
                    return returned;
                }
                if matches!(next, Next::Ended | Next::Back) {
                    break;
                }
            }
        }
        true
    }

    fn effect(&mut self, chain: &'a Chain, rule: &'a Rule, effect: &'a Effect, depth: usize) -> Next {
        match effect {
            Effect::Accepted => Next::Ended,
            Effect::Returned => Next::Back,
            Effect::Observed | Effect::Rewritten | Effect::Redirected(_) => {
                self.hit(&chain.name, &rule.text, effect);
                Next::On
            }
            Effect::Dropped => {
                self.hit(&chain.name, &rule.text, effect);
                Next::Ended
            }
            Effect::Jump(target) | Effect::Goto(target) => {
                let Some(target) = self.table.chain(target) else {
                    self.hit(&chain.name, &rule.text, effect);
                    return Next::On;
                };
                let through = self.chain(target, depth + 1);
                match (through, matches!(effect, Effect::Goto(_))) {
                    (false, _) => Next::Ended,
                    (true, true) => Next::Back,
                    (true, false) => Next::On,
                }
            }
            Effect::OneOf(effects) => {
                for effect in effects {
                    self.effect(chain, rule, effect, depth);
                }
                Next::Either
            }
            Effect::ByInterface { out, arms } => self.by_interface(chain, rule, *out, arms, depth),
        }
    }

    fn by_interface(
        &mut self,
        chain: &'a Chain,
        rule: &'a Rule,
        out: bool,
        arms: &'a [(Name, Effect)],
        depth: usize,
    ) -> Next {
        let class = self.class;
        let Some(name) = (if out { &class.oif } else { &class.iif }) else {
            for (_, effect) in arms {
                self.effect(chain, rule, effect, depth);
            }
            return Next::Either;
        };
        let arm = arms.iter().find(|(known, _)| known.fits(name));
        arm.map_or(Next::On, |(_, effect)| self.effect(chain, rule, effect, depth))
    }

    fn hit(&mut self, chain: &'a str, text: &'a str, effect: &'a Effect) {
        let hit = Hit { chain, text, effect };
        if !self.hits.contains(&hit) {
            self.hits.push(hit);
        }
    }
}

fn matches(rule: &Rule, class: &Class) -> Answer {
    if is_hairpin(rule) {
        return Answer::No;
    }
    let mut all = Answer::Yes;
    for condition in &rule.matches {
        match holds(condition, class) {
            Answer::No => return Answer::No,
            Answer::Maybe => all = Answer::Maybe,
            Answer::Yes => {}
        }
    }
    all
}

/// From an address to the same one, as Docker's rules for a container that calls its own published port.
fn is_hairpin(rule: &Rule) -> bool {
    let single = |prefixes: &[Ipv4Net]| match prefixes {
        [prefix] if prefix.prefix_len() == 32 => Some(*prefix),
        _ => None,
    };
    let find = |pick: fn(&Match) -> Option<&[Ipv4Net]>| rule.matches.iter().find_map(pick).and_then(single);
    let source = find(|condition| match condition {
        Match::Source { prefixes, not: false } => Some(prefixes),
        _ => None,
    });
    let destination = find(|condition| match condition {
        Match::Destination { prefixes, not: false } => Some(prefixes),
        _ => None,
    });
    source.is_some() && source == destination
}

fn holds(condition: &Match, class: &Class) -> Answer {
    match condition {
        Match::In { names, not } => named(names, class.iif.as_deref()).flipped(*not),
        Match::Out { names, not } => named(names, class.oif.as_deref()).flipped(*not),
        Match::Source { prefixes, not } => covered(prefixes, &class.source).flipped(*not),
        Match::Destination { prefixes, not } => covered(prefixes, &class.destination).flipped(*not),
        Match::SourceIsHost { not } => class.source_is_host.map_or(Answer::Maybe, Answer::of).flipped(*not),
        Match::DestinationIsHost { not } => {
            class.destination_is_host.map_or(Answer::Maybe, Answer::of).flipped(*not)
        }
        Match::Never => Answer::No,
        Match::Unknown => Answer::Maybe,
    }
}

fn named(names: &[Name], name: Option<&str>) -> Answer {
    name.map_or(Answer::Maybe, |name| Answer::of(names.iter().any(|known| known.fits(name))))
}

/// Whether the addresses of `class` lie in `rule`.
fn covered(rule: &[Ipv4Net], class: &[Ipv4Net]) -> Answer {
    let inside = |prefix: &Ipv4Net| rule.iter().any(|wide| wide.contains(prefix));
    let touches = |prefix: &Ipv4Net| inside(prefix) || rule.iter().any(|narrow| prefix.contains(narrow));
    if class.is_empty() {
        Answer::Maybe
    } else if class.iter().all(inside) {
        Answer::Yes
    } else if class.iter().any(touches) {
        Answer::Maybe
    } else {
        Answer::No
    }
}
