use super::*;
use crate::store::etcd::Access;

fn flags() -> Flags {
    Flags { ifaces: vec!["eth0".into()], node_name: Some("n1".into()), ..Flags::default() }
}

#[test]
fn defaults() {
    let config = flags().check().unwrap();
    assert_eq!(config.bridges, ["docker0"]);
    assert_eq!((config.vni, config.port), (Vni::DEFAULT, 4789));
    assert_eq!(config.on_exit, OnExit::Keep);
    let etcd = StoreConfig::Etcd {
        access: Access { endpoints: vec!["http://127.0.0.1:2379".into()], ..Access::default() },
        prefix: "/overlayd/network".into(),
        prune_delay: std::time::Duration::from_secs(60),
    };
    assert_eq!(config.store, etcd);
}

#[test]
fn flags_win_over_the_file() {
    let file =
        parse_file("iface = \"eth1\"\nvni = 7\nbridge = [\"br0\", \"br1\"]\non_exit = \"detach\"").unwrap();
    let config = flags().over(file).check().unwrap();
    assert_eq!(config.ifaces, ["eth0"]);
    assert_eq!(config.vni.get(), 7);
    assert_eq!(config.bridges, ["br0", "br1"]);
    assert_eq!(config.on_exit, OnExit::Detach);
}

#[test]
fn a_store_chosen_by_flag_replaces_the_files() {
    let file = || parse_file("peers = \"/etc/peers.toml\"").unwrap();
    let config = Flags { etcd_endpoints: vec!["http://10.0.0.1:2379".into()], ..flags() }.over(file());
    assert!(matches!(config.check().unwrap().store, StoreConfig::Etcd { .. }));
    assert!(matches!(flags().over(file()).check().unwrap().store, StoreConfig::File(_)));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = parse_file("iface = \"eth0\"\nvin = 7\n").unwrap_err().to_string();
    assert!(error.starts_with("line 2: ") && error.contains("vin"), "{error}");
}

#[test]
fn what_cannot_work_is_refused() {
    let refuse = |flags: Flags| flags.check().unwrap_err().to_string();
    assert!(refuse(Flags::default()).contains("--iface"));
    assert!(refuse(Flags { bridges: vec!["a".into(), "a".into()], ..flags() }).contains("twice"));
    assert!(refuse(Flags { bridges: vec!["eth0".into()], ..flags() }).contains("at once"));
    assert!(refuse(Flags { etcd_endpoints: vec!["127.0.0.1".into()], ..flags() }).contains("has no port"));
    assert!(refuse(Flags { etcd_cafile: Some("/ca".into()), ..flags() }).contains("say https://"));
    assert!(refuse(Flags { prune_delay: Some(4000), ..flags() }).contains("3600 seconds"));
    assert!(refuse(Flags { etcd_prefix: Some("net".into()), ..flags() }).contains("--etcd-prefix"));
    assert!(
        refuse(Flags { public_ips: vec![Ipv4Addr::LOCALHOST.into()], ..flags() }).contains("--public-ip")
    );
    let error = format!("{:#}", Flags { vni: Some(0), ..flags() }.check().unwrap_err());
    assert!(error.contains("--vni"), "{error}");
}

#[test]
fn several_uplinks_by_flag_and_by_file() {
    let file =
        |text: &str| Flags { ifaces: Vec::new(), ..flags() }.over(parse_file(text).unwrap()).check().unwrap();
    assert_eq!(file("iface = \"eth1\"").ifaces, ["eth1"]);
    assert_eq!(file("iface = [\"eth1\", \"eth2\"]").ifaces, ["eth1", "eth2"]);
    let error = parse_file("node_name = \"a\"\niface = 3").unwrap_err().to_string();
    assert!(error.starts_with("line 2: ") && error.contains("one or a list"), "{error}");
    let refuse = |ifaces: &[&str]| {
        let ifaces = ifaces.iter().map(|&iface| iface.to_owned()).collect();
        Flags { ifaces, ..flags() }.check().unwrap_err().to_string()
    };
    assert!(refuse(&["eth0", "eth0"]).contains("--iface eth0 is given twice"));
    assert!(refuse(&["eth0", ""]).contains("empty"));
    let many: Vec<String> = (0..17).map(|n| format!("eth{n}")).collect();
    assert!(refuse(&many.iter().map(String::as_str).collect::<Vec<_>>()).contains("17 uplinks"));
}

#[test]
fn one_public_address_of_each_version() {
    let check = |ips: &[&str]| {
        let public_ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Flags { public_ips, ..flags() }.check().map(|config| (config.public_v4, config.public_v6))
    };
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), "2001:db8::1".parse().unwrap());
    assert_eq!(check(&["2001:db8::1", "192.0.2.1"]).unwrap(), (Some(v4), Some(v6)));
    assert_eq!(check(&["2001:db8::1"]).unwrap(), (None, Some(v6)));
    let error = check(&["192.0.2.1", "192.0.2.2"]).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1") && error.contains("192.0.2.2"), "{error}");
    for ip in
        ["0.0.0.0", "255.255.255.255", "169.254.0.1", "::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"]
    {
        let error = check(&[ip]).unwrap_err().to_string();
        assert!(error.contains("--public-ip"), "{ip}: {error}");
    }
    let file = parse_file("public_ip = [\"192.0.2.1\", \"2001:db8::1\"]").unwrap();
    assert_eq!(file.public_ips, [IpAddr::from(v4), IpAddr::from(v6)]);
    let error = parse_file("public_ip = \"192.0.2\"").unwrap_err().to_string();
    assert!(error.starts_with("line 1: "), "{error}");
}
