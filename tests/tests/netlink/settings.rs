//! Settings and cookies belong to the namespace of the thread.

use overlay_user::{
    netlink::netns,
    sysctl::{self, Saved},
};

use crate::namespace::{in_namespace, run};

#[test]
fn a_changed_setting_can_be_put_back() {
    in_namespace(async |_, _| {
        run("ip link add with.dots type veth peer v1");
        let path = sysctl::ipv4_conf("with.dots", "rp_filter");
        sysctl::set(&path, "1").unwrap();
        let saved = Saved::change(&path, "2").unwrap().unwrap();
        assert_eq!(saved, Saved { path: path.clone(), old: "1".to_owned() });
        assert_eq!(run(&format!("cat {path}")), "2\n");
        assert_eq!(Saved::change(&path, "2").unwrap(), None);
        saved.restore().unwrap();
        assert_eq!(sysctl::get(&path).unwrap(), "1");

        run("ip link delete with.dots");
        saved.restore().unwrap();
        assert!(Saved::change(&path, "2").unwrap_err().to_string().contains(&path));
    });
}

#[test]
fn a_value_the_kernel_refuses_is_an_error() {
    in_namespace(async |_, _| {
        let path = sysctl::ipv4_conf("lo", "rp_filter");
        let before = sysctl::get(&path).unwrap();
        let error = sysctl::set(&path, "much").unwrap_err().to_string();
        assert_eq!(error, format!("cannot write \"much\" to {path}: Invalid argument (os error 22)"));
        assert_eq!(sysctl::get(&path).unwrap(), before);
    });
}

#[test]
fn ipv6_that_is_not_forwarded_is_named_where_a_bridge_needs_it() {
    in_namespace(async |_, _| {
        run("ip link add br0 type bridge");
        let address = "fd00:17::1/64".parse().unwrap();
        let all = sysctl::ipv6_conf("all", "forwarding");
        sysctl::set(&all, "0").unwrap();
        assert_eq!(sysctl::ipv6_forwarding_note([]), None);
        let note = sysctl::ipv6_forwarding_note([("br0", address)]).unwrap();
        assert!(
            note.starts_with("net.ipv6.conf.all.forwarding is 0, but bridge br0 has fd00:17::/64: "),
            "{note}"
        );
        assert!(!note.contains('\n') && sysctl::get(&all).unwrap() == "0", "{note}");
        sysctl::set(&all, "1").unwrap();
        assert_eq!(sysctl::ipv6_forwarding_note([("br0", address)]), None);
    });
}

#[test]
fn every_namespace_has_a_cookie_of_its_own() {
    let here = netns::cookie().unwrap();
    assert_eq!(here, netns::cookie().unwrap());
    in_namespace(async move |_, _| {
        let there = netns::cookie().unwrap();
        assert!(there != 0 && here != 0 && there != here, "{here} {there}");
    });
}
