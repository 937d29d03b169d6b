//! Both questions, asked of rulesets that real tools printed.

use crate::netfilter::{iptables, nft};

use super::*;

/// Docker 20.10 with a published port and a second network; with `--icc=false`; with `--userland-proxy=false`.
const DOCKER: &str = include_str!("../testdata/docker-20.10.save");
const NO_ICC: &str = include_str!("../testdata/docker-20.10-no-icc.save");
const NO_PROXY: &str = include_str!("../testdata/docker-20.10-no-proxy.save");
/// Put together from what Docker's own documents say of version 28; not printed by one.
const DOCKER_28: &str = include_str!("../testdata/docker-28.save");
/// Docker 29's backend for nftables, likewise: a network with `icc=false` or not.
const DOCKER_NFT: &str = include_str!("../testdata/docker-29-nft.json");

fn around() -> Surroundings {
    let ports = BTreeSet::from(["veth1".to_owned(), "veth2".to_owned()]);
    let bridge = Bridge { name: "docker0".into(), address: "172.17.0.1/16".parse().unwrap(), ports };
    Surroundings {
        bridges: BTreeMap::from([(3, bridge)]),
        uplinks: vec!["eth0".into()],
        peers: vec!["172.27.0.0/16".parse().unwrap()],
        mtu: 1450,
    }
}

fn reading(tables: Vec<Table>) -> Reading {
    Reading { tables, bridge_calls_iptables: true, unknown: Vec::new() }
}

fn of_save(save: &str) -> Findings {
    look(&reading(iptables::parse(save)), &around())
}

/// Docker's rules, with one more in front of a chain.
fn with(table: &str, chain: &str, rule: &str) -> Findings {
    let mut tables = iptables::parse(DOCKER);
    let more = iptables::parse(&format!("*{table}\n:{chain} ACCEPT\n-A {chain} {rule}\n")).remove(0);
    let rule = more.chains[0].rules[0].clone();
    match tables.iter_mut().find(|known| known.name == table) {
        Some(known) => known.chains.iter_mut().find(|c| c.name == chain).unwrap().rules.insert(0, rule),
        None => tables.push(more),
    }
    look(&reading(tables), &around())
}

fn nft_rules(family: &str, hook: &str, expressions: &str) -> Findings {
    let text = format!(
        r#"{{"nftables":[{{"chain":{{"family":"{family}","table":"t","name":"c","hook":"{hook}","policy":"accept"}}}},
        {{"rule":{{"family":"{family}","table":"t","chain":"c","expr":[{expressions}]}}}}]}}"#
    );
    look(&reading(nft::parse(&text).unwrap()), &around())
}

fn nothing() -> Findings {
    Findings { local: BTreeSet::from([3]), notes: Vec::new() }
}

#[test]
fn dockers_own_rules_are_in_nobodys_way() {
    for save in ["", DOCKER, DOCKER_28] {
        assert_eq!(of_save(save), nothing());
    }
    let nft = DOCKER_NFT.replace("ICC_VERDICT", "accept");
    assert_eq!(look(&reading(nft::parse(&nft).unwrap()), &around()), nothing());
}

#[test]
fn without_icc_the_bridge_decides_and_the_way_out_is_told() {
    let found = of_save(NO_ICC);
    assert_eq!(found.local, BTreeSet::new());
    assert_eq!(
        found.notes,
        [
            "containers on docker0 talk to each other over the bridge, not directly: iptables filter FORWARD: \
             \"-i docker0 -o docker0 -j DROP\"",
            "icc=false on docker0 drops what goes to peers in fragments, over 1450 bytes without DF or with IP options: \
             allow it with iptables -I DOCKER-USER -i docker0 -o docker0 -d 172.27.0.0/16 -j ACCEPT",
        ]
    );
    assert!(found.notes.iter().all(|note| note.len() < 256));
    let allowed = NO_ICC.replace(
        "-A DOCKER-USER -j RETURN",
        "-A DOCKER-USER -d 172.27.0.0/16 -i docker0 -o docker0 -j ACCEPT\n-A DOCKER-USER -j RETURN",
    );
    assert_eq!(of_save(&allowed).notes, found.notes[..1], "the advice, followed");
    let nft = DOCKER_NFT.replace("ICC_VERDICT", "drop");
    let found = look(&reading(nft::parse(&nft).unwrap()), &around());
    assert_eq!((found.local.len(), found.notes.len()), (0, 2), "{found:?}");
    assert!(
        found.notes[1].ends_with("set the containers' MTU to 1450, which leaves but few of them"),
        "{found:?}"
    );
}

#[test]
fn answers_of_redirected_connections_pass_the_bridge() {
    let found = of_save(NO_PROXY);
    assert_eq!(found.local, BTreeSet::new());
    let [note] = &found.notes[..] else { panic!("{found:?}") };
    assert!(
        note.ends_with("\"-p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.3:80\""),
        "{note}"
    );
    // To the other network's containers, or to the host, nothing comes back from port to port.
    let elsewhere = NO_PROXY.replace("--to-destination 172.17.0.3:80", "--to-destination 172.30.0.2:80");
    assert_eq!(of_save(&elsewhere), nothing());
    let to_the_host = NO_PROXY.replace("DNAT --to-destination 172.17.0.3:80", "REDIRECT --to-ports 80");
    assert_eq!(of_save(&to_the_host), nothing());
}

#[test]
fn where_bridges_do_not_call_iptables_its_rules_do_not_count() {
    for save in [NO_ICC, NO_PROXY] {
        let reading = Reading { bridge_calls_iptables: false, ..reading(iptables::parse(save)) };
        assert_eq!(look(&reading, &around()).local, nothing().local);
    }
}

#[test]
fn which_rules_stand_between_ports() {
    for (table, chain, rule, stands) in [
        ("filter", "DOCKER-USER", "-j RETURN", false),
        ("filter", "DOCKER-USER", "-i docker0 -o docker0 -j ACCEPT", false),
        ("filter", "DOCKER-USER", "-p tcp -j LOG", false),
        ("filter", "DOCKER-USER", "-s 172.17.0.2/32 -j DROP", true),
        ("filter", "DOCKER-USER", "-s 10.0.0.0/8 -j DROP", false),
        ("filter", "DOCKER-USER", "! -s 172.17.0.0/16 -j DROP", false),
        ("filter", "DOCKER-USER", "! -s 10.0.0.0/8 -j DROP", true),
        ("filter", "DOCKER-USER", "-i eth0 -j DROP", false),
        ("filter", "DOCKER-USER", "! -i docker0 -j DROP", false),
        ("filter", "DOCKER-USER", "-i docker+ -j REJECT", true),
        ("filter", "DOCKER-USER", "-p udp -m udp --dport 53 -j NFQUEUE --queue-num 1", true),
        ("filter", "DOCKER-USER", "-j NO-SUCH-CHAIN", true),
        ("filter", "FORWARD", "-m conntrack --ctstate INVALID -j DROP", true),
        ("filter", "FORWARD", "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", false),
        ("filter", "INPUT", "-j DROP", false),
        ("mangle", "PREROUTING", "-j MARK --set-xmark 0x1/0xffffffff", false),
        ("mangle", "PREROUTING", "-j DSCP --set-dscp 0x2e", true),
        ("raw", "PREROUTING", "-d 172.17.0.2/32 ! -i docker0 -j DROP", false),
        ("raw", "PREROUTING", "-d 172.17.0.2/32 -j DROP", true),
        ("nat", "POSTROUTING", "-o eth0 -j MASQUERADE", false),
        ("nat", "POSTROUTING", "-j MASQUERADE", true),
        ("nat", "POSTROUTING", "-o docker0 -m addrtype --src-type LOCAL -j MASQUERADE", false),
        ("nat", "PREROUTING", "-p tcp -m tcp --dport 53 -j REDIRECT --to-ports 5353", true),
        ("nat", "PREROUTING", "-i eth0 -p tcp -j DNAT --to-destination 172.17.0.2", false),
    ] {
        let found = with(table, chain, rule);
        assert_eq!(found.local.is_empty(), stands, "{table} {chain} {rule}: {found:?}");
        let told =
            found.notes.iter().any(|note| note.starts_with("containers on docker0 ") && note.contains(rule));
        assert_eq!(told, stands, "{table} {chain} {rule}: {found:?}");
    }
}

#[test]
fn which_rules_packets_between_hosts_do_not_see() {
    for (table, chain, rule, misses) in [
        ("filter", "DOCKER-USER", "-s 172.17.0.2/32 -j DROP", true),
        (
            "filter",
            "DOCKER-USER",
            "-d 172.27.3.0/24 -p tcp -j REJECT --reject-with icmp-port-unreachable",
            true,
        ),
        ("filter", "DOCKER-USER", "-i eth0 ! -s 192.168.1.1/32 -j DROP", true),
        ("filter", "DOCKER-USER", "-j LOG --log-prefix containers", true),
        ("filter", "DOCKER-USER", "-s 10.0.0.0/8 -j DROP", false),
        ("filter", "DOCKER-USER", "-i docker0 -o docker0 -d 172.27.0.0/16 -j ACCEPT", false),
        ("filter", "DOCKER-USER", "-j RETURN", false),
        ("filter", "FORWARD", "-s 172.27.0.0/16 -j DROP", true),
        ("filter", "FORWARD", "-s 172.16.0.0/12 -d 172.16.0.0/12 -m limit --limit 3/sec -j ACCEPT", false),
        ("filter", "FORWARD", "-j LOG", false),
        ("filter", "INPUT", "-j DROP", false),
        ("mangle", "FORWARD", "-d 172.17.0.0/16 -j DSCP --set-dscp 0x2e", true),
        ("nat", "POSTROUTING", "-o eth0 -j MASQUERADE", false),
        ("nat", "POSTROUTING", "-d 172.27.0.0/16 -j SNAT --to-source 1.2.3.4", true),
        ("raw", "PREROUTING", "-d 172.17.0.2/32 ! -i docker0 -j DROP", false),
    ] {
        let found = with(table, chain, rule);
        let note = format!(
            "iptables {table} {chain}: \"{rule}\" is not seen by packets between containers of different hosts"
        );
        assert_eq!(found.notes.contains(&note), misses, "{table} {chain} {rule}: {found:?}");
    }
}

#[test]
fn without_peers_nothing_is_missed() {
    let rules =
        reading(iptables::parse(&NO_ICC.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -j DROP")));
    let alone = Surroundings { peers: Vec::new(), ..around() };
    let found = look(&rules, &alone);
    assert!(found.notes.len() == 1 && found.notes[0].starts_with("containers on docker0"), "{found:?}");
}

#[test]
fn what_follows_a_certain_verdict_does_not_count() {
    let rules = ["-j RETURN", "-s 172.17.0.2/32 -j DROP"];
    let save = format!(
        "*filter\n:FORWARD ACCEPT\n:DOCKER-USER -\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER {}\n-A DOCKER-USER {}\n",
        rules[0], rules[1]
    );
    assert_eq!(of_save(&save), nothing());
    let maybe = save.replace("-j RETURN", "-p tcp -j RETURN");
    assert_eq!(of_save(&maybe).notes.len(), 2);
    let gone = save
        .replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -g ALL\n-A ALL -j ACCEPT")
        .replace(":DOCKER-USER -", ":DOCKER-USER -\n:ALL -");
    assert_eq!(of_save(&gone), nothing());
}

#[test]
fn a_policy_that_drops_needs_somebody_who_accepts() {
    let save = "*filter\n:FORWARD DROP\n-A FORWARD -i docker0 -p tcp -j ACCEPT\n";
    let found = of_save(save);
    assert!(found.notes[0].ends_with("iptables filter FORWARD: \"policy DROP\""), "{found:?}");
    assert_eq!(of_save(&save.replace(" -p tcp", "")), nothing());
}

#[test]
fn chains_that_call_each_other_in_a_circle_end() {
    let mut save = "*filter\n:FORWARD ACCEPT\n:A -\n-A FORWARD -p tcp -j A\n".to_owned();
    save.push_str(&"-A A -p tcp -j A\n".repeat(9));
    let found = of_save(&save);
    assert_eq!(found.local, BTreeSet::new(), "the kernel has no circles: so it may be anything");
}

#[test]
fn many_rules_are_counted() {
    let rules: String = (2..30).map(|n| format!("-A DOCKER-USER -s 172.27.0.{n}/32 -j DROP\n")).collect();
    let found = of_save(&DOCKER.replace("-A DOCKER-USER -j RETURN\n", &rules));
    assert_eq!(found.local, nothing().local);
    assert_eq!(found.notes.len(), TOLD + 1);
    assert!(found.notes[TOLD].starts_with("and 22 more rules"), "{found:?}");
}

#[test]
fn rules_of_nftables() {
    let source = |address: &str| {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"ip","field":"saddr"}}}},"right":"{address}"}}}},{{"drop":null}}"#
        )
    };
    for (family, hook, address, stands, told) in [
        ("inet", "forward", "172.17.0.2", true, true),
        ("ip", "prerouting", "172.17.0.2", true, true),
        ("ip", "forward", "10.0.0.1", false, false),
        ("inet", "forward", "172.27.0.2", false, true),
        ("inet", "input", "172.17.0.2", false, false),
        ("ip6", "forward", "172.17.0.2", false, false),
        ("bridge", "forward", "172.17.0.2", true, false),
        ("bridge", "forward", "10.0.0.1", false, false),
        ("netdev", "ingress", "172.17.0.2", true, true),
    ] {
        let found = nft_rules(family, hook, &source(address));
        assert_eq!(found.local.is_empty(), stands, "{family} {hook} {address}: {found:?}");
        let note = format!("nft {family} t c: \"ip saddr {address} drop\" is not seen by packets");
        assert_eq!(
            found.notes.iter().any(|n| n.starts_with(&note)),
            told,
            "{family} {hook} {address}: {found:?}"
        );
    }
}

#[test]
fn chains_of_devices_that_are_none_of_ours() {
    for (device, stands) in [("eth0", false), ("veth9", false), ("veth1", true), ("docker0", true)] {
        let text = format!(
            r#"{{"nftables":[{{"chain":{{"family":"netdev","table":"t","name":"c","hook":"ingress","dev":"{device}","policy":"drop"}}}}]}}"#
        );
        let found = look(&reading(nft::parse(&text).unwrap()), &around());
        assert_eq!(found.local.is_empty(), stands, "{device}: {found:?}");
    }
}

#[test]
fn what_cannot_be_read_may_be_anything() {
    let reading = Reading { unknown: vec!["nft is not there: install it".into()], ..reading(Vec::new()) };
    let found = look(&reading, &around());
    assert_eq!(found.local, BTreeSet::new());
    assert_eq!(found.notes, ["cannot tell all that netfilter does: nft is not there: install it"]);
}

#[test]
fn printed_rules_are_told_apart_by_their_form() {
    let of = |text: &str| look(&Reading::printed(text), &around());
    assert_eq!(of(DOCKER), of_save(DOCKER));
    assert_eq!(of(DOCKER_NFT), look(&reading(nft::parse(DOCKER_NFT).unwrap()), &around()));
    assert!(of("{").notes.iter().any(|note| note.contains("nftables rules")));
}
