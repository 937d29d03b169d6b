//! Policy rules.

use overlay_user::netlink::{Event, Family, OverlayRule};

use crate::namespace::{eventually, in_namespace, run};

/// A protocol number of nobody else's.
const OURS: u8 = 239;

fn rule(iif: &str, table: u32) -> OverlayRule {
    OverlayRule { family: Family::V4, priority: 7900, iif: iif.to_owned(), table }
}

#[test]
fn rules_are_added_once_and_deleted() {
    in_namespace(async |netlink, mut monitor| {
        assert_eq!(netlink.rules(OURS).await.unwrap(), []);
        let (one, two) = (rule("br1", 790_000_004), rule("br2", 790_000_005));
        for rule in [&one, &two, &one] {
            netlink.add_rule(rule, OURS).await.unwrap();
        }
        assert_eq!(netlink.rules(OURS).await.unwrap(), [one.clone(), two.clone()]);
        let told = run("ip -4 rule");
        assert!(
            told.contains(&format!("7900:\tfrom all iif br1 [detached] lookup 790000004 proto {OURS}")),
            "{told}"
        );
        eventually("the monitor tells", async || {
            (monitor.next().await == Some(Event::Routing)).then_some(())
        })
        .await;
        for _ in 0..2 {
            netlink.delete_rule(&one, OURS).await.unwrap();
            assert_eq!(netlink.rules(OURS).await.unwrap(), std::slice::from_ref(&two));
        }
    });
}

#[test]
fn each_family_has_its_own_rules() {
    in_namespace(async |netlink, _| {
        let v4 = rule("br1", 790_000_004);
        let v6 = OverlayRule { family: Family::V6, ..v4.clone() };
        for rule in [&v6, &v6, &v4] {
            netlink.add_rule(rule, OURS).await.unwrap();
        }
        run("ip -6 rule add pref 7900 iif br1 lookup 790000004 proto static");
        assert_eq!(netlink.rules(OURS).await.unwrap(), [v4.clone(), v6.clone()]);
        let told = run("ip -6 rule");
        let line = format!("7900:\tfrom all iif br1 [detached] lookup 790000004 proto {OURS}");
        assert!(told.contains(&line), "{told}");
        for _ in 0..2 {
            netlink.delete_rule(&v6, OURS).await.unwrap();
            assert_eq!(netlink.rules(OURS).await.unwrap(), std::slice::from_ref(&v4));
        }
        assert!(run("ip -6 rule").contains("lookup 790000004 proto static"));
    });
}

#[test]
fn others_rules_are_neither_listed_nor_deleted() {
    in_namespace(async |netlink, _| {
        run("ip rule add pref 7900 iif br1 lookup 790000004 proto static");
        run("ip rule add pref 7900 iif br1 to 10.0.0.0/8 lookup 790000004");
        let before = run("ip -4 rule");
        assert_eq!(netlink.rules(OURS).await.unwrap(), []);
        netlink.delete_rule(&rule("br1", 790_000_004), OURS).await.unwrap();
        assert_eq!(run("ip -4 rule"), before);
        // Another table of ours with the same interface and priority is another rule.
        netlink.add_rule(&rule("br1", 790_000_009), OURS).await.unwrap();
        netlink.delete_rule(&rule("br1", 790_000_009), OURS).await.unwrap();
        assert_eq!(run("ip -4 rule"), before);
    });
}
