//! `overlayctl leases`: who holds which subnet, and reservations that outlive their hosts.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, time::Duration};

use harness::{
    Topology, binaries, eventually,
    process::{Cmd, Output},
    topology::ETCD_PREFIX,
    traffic::{Endpoint, Probe},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

/// Runs it on host 1, by this configuration file or by none.
fn leases(topology: &Topology, args: &[&str]) -> Output {
    let etcd = format!("--etcd-endpoints={}", topology.etcd().endpoint());
    let cmd = Cmd::new(binaries::find("overlayctl").unwrap()).netns(topology.h(1).ns.path());
    cmd.arg("leases").args(args).arg(etcd).run().unwrap()
}

fn list(topology: &Topology) -> Value {
    let output = leases(topology, &["list", "-o", "json"]);
    assert_eq!(output.code, Some(0), "{}", output.text());
    serde_json::from_str(&output.stdout).unwrap()
}

/// The row of a subnet.
fn row(topology: &Topology, subnet: &str) -> Value {
    let list = list(topology);
    let rows = list["leases"].as_array().unwrap();
    rows.iter().find(|row| row["subnets"][0] == subnet).cloned().unwrap_or_default()
}

fn refused(output: &Output, code: i32, says: &[&str]) {
    assert_eq!((output.code, output.stderr.lines().count()), (Some(code), 1), "{}", output.text());
    for part in says {
        assert!(output.stderr.contains(part), "{part}{}", output.text());
    }
}

#[test]
fn a_reservation_outlives_its_host() {
    let mut topology = Topology::builder().without_overlayd().up().unwrap();
    let config =
        r#"{"Network":"172.16.0.0/12","SubnetLen":16,"Backend":{"Type":"vxlan","VNI":1,"Port":4789}}"#;
    topology.etcd().put(&format!("{ETCD_PREFIX}/config"), config).unwrap();
    for index in 0..2 {
        topology.start_overlayd(index).unwrap();
    }
    topology.await_routes().unwrap();
    let [a, b] = [1, 2].map(|n| topology.h(n).c(1));
    let (a, b) = (Endpoint { ns: &a.ns, ip: a.ip }, Endpoint { ns: &b.ns, ip: b.ip });
    let probe = Probe::start(a, b, 200, Duration::from_secs(60)).unwrap();
    eventually("both say who they are", SOON, || {
        list(&topology)["leases"].as_array().unwrap().iter().all(|row| row["alive"] == true)
    })
    .unwrap();
    let h1 = row(&topology, "172.17.0.0/16");
    assert_eq!(
        (&h1["node"], &h1["public_ip"], &h1["kind"]),
        (&"h1".into(), &"172.16.199.17".into(), &"vxlan".into())
    );
    assert_eq!((h1["reserved"].as_bool(), h1["alive"].as_bool()), (Some(false), Some(true)));
    assert!((86_000..=86_400).contains(&h1["expires_seconds"].as_u64().unwrap()), "{h1}");
    let pool = &list(&topology)["pools"][0];
    assert_eq!((pool["total"].as_u64(), pool["free"].as_u64()), (Some(15), Some(13)), "{pool}");
    let table = leases(&topology, &["list"]).stdout;
    assert!(
        table.starts_with("SUBNET") && table.contains("13 of 15 subnets of /16 of 172.16.0.0/12 are free"),
        "{table}"
    );

    let done = leases(&topology, &["reserve", "172.17.0.0/16"]);
    assert!(done.code == Some(0) && done.stdout.contains("reserved for node h1"), "{}", done.text());
    let is_reserved = |topology: &Topology| row(topology, "172.17.0.0/16")["reserved"] == true;
    assert!(is_reserved(&topology));
    topology.h_mut(1).overlayd_mut().restart().unwrap();
    assert!(is_reserved(&topology), "a restart leaves it as it is");
    refused(
        &leases(&topology, &["release", "172.17.0.0/16", "--delete"]),
        1,
        &["node h1, which lives", "--force"],
    );
    refused(
        &leases(&topology, &["reserve", "172.27.0.0/16", "--public-ip=172.16.199.99"]),
        1,
        &["held by 172.16.199.27"],
    );
    let report = probe.finish().unwrap();
    assert!(report.clean(), "{report}");

    assert_eq!(topology.h_mut(1).overlayd_mut().detach().unwrap().code, Some(0));
    eventually("host 2 sends there no more", SOON, || topology.h(2).overlayd().routes().unwrap().is_empty())
        .unwrap();
    let kept = row(&topology, "172.17.0.0/16");
    assert_eq!(
        (&kept["reserved"], &kept["alive"], &kept["kind"]),
        (&true.into(), &false.into(), &Value::Null)
    );
    let h2 = topology.h(2).overlayd().ctl(&["status", "-o", "json"]).unwrap();
    assert_eq!(h2["state"], "ok", "{h2}");
    let done = leases(&topology, &["release", "172.17.0.0/16"]);
    assert!(done.code == Some(0) && done.stdout.contains("free in 24 hours"), "{}", done.text());
    assert!(!is_reserved(&topology));
    assert_eq!(leases(&topology, &["release", "172.17.0.0/16", "--delete"]).code, Some(0));
    assert_eq!(row(&topology, "172.17.0.0/16"), Value::Null);
    let log = fs::read_to_string(&topology.h(2).overlayd().config.log).unwrap();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn how_etcd_is_reached_is_said_as_to_the_daemon() {
    let topology = Topology::builder().containers(0).without_overlayd().up().unwrap();
    let ctl = || Cmd::new(binaries::find("overlayctl").unwrap()).netns(topology.h(1).ns.path()).arg("leases");
    topology
        .etcd()
        .put("/net/subnets/10.9.0.0-24", r#"{"PublicIP":"192.0.2.7","BackendType":"vxlan"}"#)
        .unwrap();
    let file = topology.scope.dir().join("overlayd.toml");
    let text = format!(
        "iface = \"eth0\"\netcd_endpoints = [\"{}\"]\netcd_prefix = \"/net\"\n",
        topology.etcd().endpoint()
    );
    fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let endpoints = topology.etcd().endpoint();
    for cmd in [
        ctl().args([config.as_str(), "list"]),
        ctl().args(["list", config.as_str()]),
        ctl().arg("list").env("OVERLAYD_ETCD_ENDPOINTS", &endpoints).env("OVERLAYD_ETCD_PREFIX", "/net"),
        ctl().arg("list").env("FLANNELD_ETCD_ENDPOINTS", &endpoints).env("FLANNELD_ETCD_PREFIX", "/net"),
    ] {
        let output = cmd.run().unwrap();
        assert!(output.code == Some(0) && output.stdout.contains("10.9.0.0/24"), "{}", output.text());
        assert!(output.stdout.contains("no subnets to lease"), "{}", output.text());
    }
    let run = |args: &[&str]| ctl().args(args).run().unwrap();
    fs::write(&file, "iface = \"eth0\"\npeers = \"peers.toml\"\n").unwrap();
    refused(&run(&["list", &config]), 1, &["peers file", "--etcd-endpoints"]);
    fs::write(&file, "vin = 7\n").unwrap();
    refused(&run(&["list", &config]), 2, &["vin", "line 1"]);
    refused(&run(&["list", "--etcd-endpoints=ftp://x"]), 2, &["ftp://x"]);
    refused(
        &run(&["list", "--etcd-endpoints=http://172.16.199.1:1"]),
        1,
        &["172.16.199.1:1", "--etcd-endpoints"],
    );
    refused(&run(&["reserve", "nonsense"]), 2, &["nonsense"]);
    refused(&run(&["release", "10.9.0.0/24", "--force"]), 2, &["--delete"]);
    refused(
        &run(&["reserve", "10.9.0.0/24", "--public-ip=192.0.2.7,192.0.2.8"]),
        2,
        &["192.0.2.7", "192.0.2.8"],
    );
}
