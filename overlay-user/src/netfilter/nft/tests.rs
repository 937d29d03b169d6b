//! Against what nft 1.0.6 printed.

use proptest::prelude::*;

use super::*;

/// What nft 1.0.6 printed of the rules that stand beside each test below.
const MINE: &str = include_str!("../testdata/native.json");

fn tables() -> Vec<Table> {
    parse(MINE).unwrap()
}

fn rules(title: &str, chain: &str) -> Vec<Rule> {
    let tables = tables();
    tables.iter().find(|table| table.title == title).unwrap().chain(chain).unwrap().rules.clone()
}

#[test]
fn tables_and_base_chains() {
    let tables = tables();
    let titles: Vec<&str> = tables.iter().map(|table| table.title.as_str()).collect();
    assert_eq!(titles, ["nft inet mine", "nft bridge filter", "nft netdev n", "nft ip natt"]);
    let forward = tables[0].chain("forward").unwrap().base.clone().unwrap();
    assert!(forward.drops && forward.hook == Hook::Forward && !forward.nat);
    assert_eq!(tables[0].chain("sub").unwrap().base, None);
    assert_eq!(tables[2].chain("i").unwrap().base.clone().unwrap().hook, Hook::Device);
    assert!(tables[3].chain("post").unwrap().base.clone().unwrap().nat);
}

#[test]
fn rules_read_and_told() {
    let texts: Vec<String> = rules("nft inet mine", "forward").into_iter().map(|rule| rule.text).collect();
    assert_eq!(
        texts,
        [
            "iifname docker0 ip saddr 172.17.0.0/16 tcp dport { 22, 80 } drop",
            "ct state vmap { invalid,drop, established,accept, related,accept }",
            "ct state invalid drop",
            "ct state established,related accept",
            "iifname br-* jump sub",
            "iifname != { eth0, docker0 } ip daddr != 10.0.0.1-10.0.0.9 meta mark set 1 log",
            "ip saddr @s drop",
            "iif docker0 oif docker0 accept",
            "meta nfproto ipv6 drop",
            "ip6 saddr fe80::/10 drop",
            "ip daddr { 172.17.0.0/24, 172.17.9.1-172.17.9.7 } tcp flags syn tcp option maxseg size set rt mtu",
            "ip saddr 172.17.0.0/16 reject",
            "goto sub",
        ]
    );
}

#[test]
fn conditions() {
    let rules = rules("nft inet mine", "forward");
    let name = |text| vec![Name::new(text, '*')];
    let net = |text: &str| -> Vec<Ipv4Net> { vec![text.parse().unwrap()] };
    assert_eq!(
        rules[0].matches,
        [
            Match::In { names: name("docker0"), not: false },
            Match::Source { prefixes: net("172.17.0.0/16"), not: false },
            Match::Unknown
        ]
    );
    assert!(matches!(&rules[1].effects[..], [Effect::OneOf(verdicts)] if verdicts.len() == 3));
    assert_eq!(rules[4].matches, [Match::In { names: name("br-*"), not: false }]);
    let Match::In { names, not: true } = &rules[5].matches[0] else { panic!("{:?}", rules[5]) };
    assert_eq!(names.len(), 2);
    let Match::Destination { prefixes, not: true } = &rules[5].matches[1] else { panic!("{:?}", rules[5]) };
    // 10.0.0.1 to .9: .1/32, .2/31, .4/30, .8/31
    assert_eq!(prefixes.len(), 4);
    assert_eq!(rules[5].effects, [Effect::Observed, Effect::Observed]);
    assert_eq!(rules[6].matches, [Match::Unknown], "a named set");
    assert_eq!([&rules[8].matches[0], &rules[9].matches[0]], [&Match::Never, &Match::Never]);
    assert_eq!(rules[10].effects, [Effect::Observed]);
}

#[test]
fn address_translation() {
    let pre = rules("nft ip natt", "pre");
    let to = |rule: &Rule| rule.effects.clone();
    assert_eq!(to(&pre[0]), [Effect::Redirected(Target::Address([172, 17, 0, 3].into()))]);
    assert_eq!(pre[1].matches, [Match::DestinationIsHost { not: false }]);
    assert_eq!(to(&pre[1]), [Effect::Redirected(Target::Host)]);
    assert_eq!(to(&pre[2]), [Effect::Redirected(Target::Unknown)]);
    assert!(rules("nft ip natt", "post").iter().all(|rule| rule.effects == [Effect::Rewritten]));
}

#[test]
fn what_is_not_known_may_match_and_drop() {
    let text = r#"{"nftables":[{"chain":{"family":"ip","table":"t","name":"c","hook":"forward"}},
        {"rule":{"family":"ip","table":"t","chain":"c","expr":[{"xt":{"type":"match","name":"x"}}]}},
        {"rule":{"family":"ip","table":"t","chain":"c","expr":["?"]}},
        {"rule":{"family":"ip","table":"t","chain":"c","expr":[{"vmap":{"key":{"meta":{"key":"iif"}},"data":"@m"}}]}}]}"#;
    for rule in &parse(text).unwrap()[0].chains[0].rules {
        assert_eq!((&rule.matches[..], &rule.effects[..]), (&[Match::Unknown][..], &[Effect::Dropped][..]));
    }
}

/// Any JSON, with the words that mean something here more often than chance has it.
fn json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "nftables", "chain", "rule", "expr", "family", "ip", "table", "name", "hook", "forward", "match",
        "op", "==", "left", "right", "payload", "protocol", "field", "saddr", "set", "prefix", "addr", "len",
        "range", "meta", "key", "iifname", "jump", "target", "vmap", "data", "drop", "10.0.0.9", "10.0.0.1",
        "fib",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null)
    ];
    leaf.prop_recursive(8, 128, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_it_panic(rules in prop::collection::vec(json(), 0..4), whole in json()) {
        let _ = parse(&whole.to_string());
        let mut objects = vec![serde_json::json!({"chain": {"family": "ip", "table": "t", "name": "c", "hook": "forward"}})];
        objects.extend(rules.into_iter().map(|expr| {
            serde_json::json!({"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [expr]}})
        }));
        let parsed = parse(&serde_json::json!({"nftables": objects}).to_string());
        prop_assert!(parsed.is_ok());
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", cut in 0..MINE.len()) {
        let _ = parse(&text);
        let _ = parse(MINE.get(..cut).unwrap_or_default());
    }
}
