//! A subnet's key and value in etcd, written by whoever may: one or two subnets of one host, or one line that says
//! what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_user::store::schema::{
    Lease, owner, parse_config, parse_lease, parse_node, parse_pools, parse_subnet_name, subnet_key, subnets_prefix,
};

fuzz_target!(|data: (&str, &[u8])| {
    let (name, value) = data;
    // The value must not go unread because of the name.
    for name in [name, "172.27.0.0-16", "172.27.0.0-16&fd00:27::-64"] {
        match parse_lease(name, value) {
            Ok(Lease::Peer(peers)) => {
                let subnets = parse_subnet_name(name).expect("a lease of no subnet");
                assert!(subnets.each().eq(peers.iter().map(|peer| peer.subnet)));
                assert!(peers.iter().all(|peer| Some(peer.host) == owner(value)));
            }
            Ok(Lease::Ignored(why)) => assert!(!why.is_empty() && !why.contains('\n'), "{why:?}"),
            Ok(Lease::Reserved) => assert!(owner(value).is_some()),
            Err(fault) => assert!(!fault.is_empty() && !fault.contains('\n'), "{fault:?}"),
        }
    }
    if let Ok(subnets) = parse_subnet_name(name) {
        assert!(subnets.each().all(|subnet| subnet == subnet.trunc()));
        assert_eq!(subnet_key("", subnets), format!("{}{name}", subnets_prefix("")));
    }
    let _ = (owner(value), parse_config(value), parse_pools(value), parse_node(value));
});
