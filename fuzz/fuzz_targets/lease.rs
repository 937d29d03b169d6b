//! A subnet's key and value in etcd, written by whoever may: a lease, or one line that says what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_user::store::schema::{owner, parse_config, parse_lease, parse_subnet_name};

fuzz_target!(|data: (&str, &[u8])| {
    let (name, value) = data;
    // The value must not go unread because of the name.
    for name in [name, "172.27.0.0-16"] {
        if let Err(fault) = parse_lease(name, value) {
            assert!(!fault.is_empty() && !fault.contains('\n'), "{fault:?}");
        }
    }
    if let Ok(subnet) = parse_subnet_name(name) {
        assert_eq!(subnet, subnet.trunc());
    }
    let _ = (owner(value), parse_config(value));
});
