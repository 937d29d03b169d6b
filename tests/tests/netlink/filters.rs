//! Filters of the older tc, on both kinds of qdisc that have them on a device's hooks.

use overlay_user::netlink::{Filter, Filtered, Hook, Netlink};

use crate::namespace::{in_namespace, link, run};

/// Of a kind that every kernel with tc has; the kernel tells of its hash tables, too.
fn u32_at(pref: u16) -> Filter {
    Filter { pref, kind: "u32".to_owned(), name: None, program: None }
}

async fn both(netlink: &Netlink, filtered: &Filtered, name: &str) -> [Vec<Filter>; 2] {
    let index = link(netlink, name).await.index;
    let of = async |hook| netlink.filters(filtered, index, hook).await.unwrap();
    [of(Hook::Ingress).await, of(Hook::Egress).await]
}

#[test]
fn filters_are_told_in_their_order_and_on_their_hook() {
    in_namespace(async |netlink, _| {
        run("ip link add v0 type veth peer name v1");
        run("ip link add v2 type veth peer name v3");
        run("tc qdisc add dev v0 clsact");
        run("tc qdisc add dev v1 ingress");
        run("tc qdisc add dev v2 clsact");
        let add = |device: &str, hook: &str, pref: u16| {
            run(&format!("tc filter add dev {device} {hook} pref {pref} protocol all u32 match u32 0 0"));
        };
        add("v0", "ingress", 20);
        add("v0", "ingress", 10);
        add("v0", "egress", 30);
        add("v1", "parent ffff:", 7);
        let filtered = netlink.filtered().await.unwrap();
        assert_eq!(both(&netlink, &filtered, "v0").await, [vec![u32_at(10), u32_at(20)], vec![u32_at(30)]]);
        // The ingress qdisc has no egress, though the kernel answers as if it had.
        assert_eq!(both(&netlink, &filtered, "v1").await, [vec![u32_at(7)], vec![]]);
        for name in ["v2", "v3"] {
            assert_eq!(both(&netlink, &filtered, name).await, [vec![], vec![]], "{name}");
        }
        // Gone since.
        let index = link(&netlink, "v0").await.index;
        run("tc qdisc del dev v0 clsact");
        assert_eq!(netlink.filters(&filtered, index, Hook::Ingress).await.unwrap(), []);
        run("ip link del v0");
        assert_eq!(netlink.filters(&filtered, index, Hook::Egress).await.unwrap(), []);
    });
}
