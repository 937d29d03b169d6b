//! What `overlayd lease` got for a bridge, where the bridges have something else: packets follow the bridges, so what they
//! have is announced.

use ipnet::Ipv6Net;

use super::{Daemon, notes::Source};
use crate::{
    lease::bip,
    local::{Bridge, Local},
    store::Subnets,
};

/// One line where what was leased is not what a bridge has.
pub(super) fn note(leased: Option<Subnets>, local: &Local) -> Option<String> {
    let leased = leased?;
    let Some(bridge) = local.bridges.iter().find(|bridge| bridge.announced().v4 == leased.v4) else {
        let has = |bridge: &Bridge| format!("{} has {}", bridge.name, bridge.announced().v4);
        let have = match &local.bridges[..] {
            few @ ([_] | [_, _]) => few.iter().map(has).collect::<Vec<_>>().join(", "),
            _ => "the bridges have others".to_owned(),
        };
        return Some(format!(
            "{have}, and none {}, which was leased: that is given back, the other announced; for what was leased restart \
             Docker with --bip={}, as in subnet.env",
            leased.v4,
            bip(leased)
        ));
    };
    // What the network's configuration leaves out another note tells.
    let has_it = |v6: &Ipv6Net| bridge.announced().v6 == Some(*v6) || local.left_out.contains(v6);
    let v6 = leased.v6.filter(|v6| !has_it(v6))?;
    let has = bridge.announced().v6.map_or_else(|| "no IPv6 subnet".to_owned(), |v6| v6.to_string());
    Some(format!(
        "{} has {has}, and not what was leased: that is given back; for it restart Docker with --ipv6 --fixed-cidr-v6={v6}, \
         as in subnet.env",
        bridge.name
    ))
}

impl Daemon {
    /// Says where a bridge has something else than what was leased for it.
    pub(super) fn look_at_lease(&mut self) {
        let note = note(self.state.leased, &self.local);
        self.note(Source::Lease, note.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::local;

    fn subnets(v4: &str, v6: Option<&str>) -> Option<Subnets> {
        Some(Subnets { v4: v4.parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) })
    }

    #[test]
    fn what_differs_is_told_with_what_to_do() {
        let mut local = local();
        assert_eq!(note(None, &local), None);
        assert_eq!(note(subnets("172.17.0.0/16", None), &local), None);
        let told = note(subnets("10.5.3.0/24", Some("fd00:5:0:3::/64")), &local).unwrap();
        for part in ["docker0 has 172.17.0.0/16", "10.5.3.0/24", "--bip=10.5.3.1/24", "subnet.env"] {
            assert!(told.contains(part), "{told}");
        }
        let leased = subnets("172.17.0.0/16", Some("fd00:5:0:3::/64"));
        let told = note(leased, &local).unwrap();
        assert!(
            told.contains("docker0 has no IPv6 subnet") && told.contains("--fixed-cidr-v6=fd00:5:0:3::/64")
        );
        local.bridges[0].address_v6 = "fd00:17::1/64".parse().ok();
        assert!(note(leased, &local).unwrap().contains("docker0 has fd00:17::/64"));
        local.bridges[0].address_v6 = "fd00:5:0:3::1/64".parse().ok();
        assert_eq!(note(leased, &local), None);
        // A second bridge may have been chosen by hand.
        let address = "172.18.0.1/16".parse().unwrap();
        local.bridges.push(Bridge { index: 9, name: "br1".into(), address, ..local.bridges[0].clone() });
        assert_eq!(note(leased, &local), None);
    }

    #[test]
    fn the_longest_line_fits_a_note() {
        let mut local = local();
        local.bridges[0].name = "a-name-of-15-by".into();
        local.bridges[0].address = "172.117.100.129/28".parse().unwrap();
        local.bridges.push(local.bridges[0].clone());
        let told = note(subnets("192.168.100.128/28", None), &local).unwrap();
        assert!(told.len() < overlay_common::map::NOTE_BYTES, "{}: {told}", told.len());
        local.bridges[0].address = "192.168.100.129/28".parse().unwrap();
        let v6 = "fd00:1111:2222:3333:4444:5555:6666:7770/125";
        local.bridges[0].address_v6 = v6.replace("7770", "7760").parse().ok();
        let told = note(subnets("192.168.100.128/28", Some(v6)), &local).unwrap();
        assert!(told.len() < overlay_common::map::NOTE_BYTES, "{}: {told}", told.len());
    }
}
