//! An etcd that is there, and not what it was.

use std::{thread::sleep, time::Duration};

use harness::{eventually, topology::ETCD_PREFIX};

use crate::bed::{Bed, RIGHT};

pub(crate) fn restored() {
    let mut bed = Bed::up();
    let snapshot = bed.topology.scope.dir().join("snapshot.db");
    bed.cluster.save(&snapshot).unwrap();
    // Of what was, less than half is another thing than what is.
    for n in 1..=3 {
        bed.put(n, 50 + n);
    }
    bed.put(7, 7);
    bed.becomes_right();
    bed.under_load(|bed| {
        bed.cluster.replace(Some(&snapshot)).unwrap();
        bed.becomes_right();
        bed.put(8, 8);
        bed.becomes_right();
    });
}

/// The hosts announce themselves again at once; of whom nobody announces the routes stay for a while.
pub(crate) fn wiped() {
    let mut bed = Bed::with(&[], &["--prune-delay=20"]);
    bed.under_load(|bed| {
        bed.cluster.replace(None).unwrap();
        eventually("a host says that routes stay", RIGHT, || bed.store_state(1).contains("vanished"))
            .unwrap();
        assert!(!bed.is_right(), "nothing is held back");
        sleep(Duration::from_secs(20));
        bed.becomes_right();
        bed.put(8, 8);
        bed.becomes_right();
    });
}

/// Host 3's own key: its subnet is free then, and its own again as soon as it is back.
pub(crate) fn lease_lost() {
    let mut bed = Bed::up();
    bed.under_load(|bed| {
        let subnet = bed.topology.h(3).bridge.subnet();
        let key = format!("{ETCD_PREFIX}/subnets/{}", subnet.replace('/', "-"));
        bed.topology.h_mut(3).overlayd.as_mut().unwrap().kill9();
        let said = bed.cluster.etcdctl(&["get", "-w", "json", "--", &key]).unwrap().stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let lease = said["kvs"][0]["lease"].as_i64().unwrap();
        bed.cluster.etcdctl(&["lease", "revoke", &format!("{lease:x}")]).unwrap();
        bed.becomes_right();
        bed.topology.h_mut(3).overlayd.as_mut().unwrap().start_again().unwrap();
        bed.becomes_right();
        let said = bed.cluster.etcdctl(&["get", "--", &key]).unwrap().stdout;
        assert!(said.contains("PublicIP"), "the key is written again: {said}");
    });
}

/// Tokens that live for two seconds, and a user who may touch nothing but the network's keys.
pub(crate) fn tokens() {
    let mut bed = Bed::with(&["--auth-token-ttl=2"], &[]);
    let password = bed.topology.scope.dir().join("password");
    std::fs::write(&password, "swordfish\n").unwrap();
    for args in [
        &["role", "add", "root"][..],
        &["user", "add", "root:secret"],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "overlayd:swordfish"],
        &["role", "add", "network"],
        &["role", "grant-permission", "network", "--prefix=true", "readwrite", ETCD_PREFIX],
        &["user", "grant-role", "overlayd", "network"],
    ] {
        // One member: etcdctl asks another one again that has the answer already.
        bed.cluster.etcdctl_at(&[0], args).unwrap();
    }
    bed.cluster.etcdctl_at(&[0], &["auth", "enable"]).unwrap();
    bed.cluster.log_in(Some("root:secret"));
    for host in &mut bed.topology.hosts {
        let overlayd = host.overlayd.as_mut().unwrap();
        let file = format!("--etcd-password-file={}", password.display());
        overlayd.config.args.extend(["--etcd-username=overlayd".to_owned(), file]);
        overlayd.restart().unwrap();
    }
    bed.under_load(|bed| {
        for n in 1..=4 {
            sleep(Duration::from_secs(5));
            bed.put(n, 50 + n);
            bed.becomes_right();
        }
        assert!(!bed.store_state(1).contains("degraded"), "{}", bed.store_state(1));
    });
}

/// etcd has reached its quota: it takes no writes, and is read as before.
pub(crate) fn full() {
    let mut bed = Bed::with(&["--quota-backend-bytes=16777216"], &[]);
    bed.under_load(|bed| {
        let filling = "x".repeat(100_000);
        let filled = (0..400)
            .any(|n| bed.cluster.etcdctl(&["put", "--", &format!("/filling/{n}"), &filling]).is_err());
        assert!(filled, "etcd takes more than its quota");
        sleep(Duration::from_secs(30));
        assert!(bed.is_right(), "what was read before stays");
        bed.cluster.etcdctl(&["del", "--prefix", "--", "/filling/"]).unwrap();
        bed.cluster.compact().unwrap();
        bed.cluster.etcdctl(&["defrag"]).unwrap();
        bed.cluster.etcdctl(&["alarm", "disarm"]).unwrap();
        bed.put(7, 7);
        bed.delete(1);
        bed.becomes_right();
    });
}
