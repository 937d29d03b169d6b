//! Which addresses are one host's: records may name one of its addresses, or both.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The addresses, together by host: those that some record names together, and those that have one in common with
/// them. In the order of their first addresses.
pub(super) fn together<'a>(hosts: impl Iterator<Item = &'a [IpAddr]>) -> Vec<BTreeSet<IpAddr>> {
    let mut groups: Vec<BTreeSet<IpAddr>> = Vec::new();
    let mut group_of: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for host in hosts {
        let known: BTreeSet<usize> = host.iter().filter_map(|ip| group_of.get(ip).copied()).collect();
        let mut known = known.into_iter();
        let group = known.next().unwrap_or_else(|| {
            groups.push(BTreeSet::new());
            groups.len() - 1
        });
        let mut more: BTreeSet<IpAddr> = host.iter().copied().collect();
        known.for_each(|other| more.append(&mut groups[other]));
        group_of.extend(more.iter().map(|ip| (*ip, group)));
        groups[group].append(&mut more);
    }
    groups.retain(|group| !group.is_empty());
    groups.sort();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::underlay::Underlay;

    fn host(v4: Option<u8>, v6: Option<u16>) -> Underlay {
        let v4 = v4.map(|n| [192, 0, 2, n].into());
        let v6 = v6.map(|n| [0xfd00, 0, 0, 0, 0, 0, 0, n].into());
        Underlay::new(v4, v6).unwrap()
    }

    fn sizes(hosts: &[Underlay]) -> Vec<usize> {
        let hosts: Vec<Vec<IpAddr>> = hosts.iter().map(|host| host.addresses().collect()).collect();
        together(hosts.iter().map(Vec::as_slice)).iter().map(BTreeSet::len).collect()
    }

    #[test]
    fn an_address_in_common_makes_one_host() {
        assert_eq!(sizes(&[host(Some(1), None), host(Some(1), None), host(Some(2), None)]), [1, 1]);
        assert_eq!(sizes(&[host(Some(1), None), host(None, Some(1)), host(Some(2), None)]), [1, 1, 1]);
        // The two are known to be one by the third.
        assert_eq!(sizes(&[host(Some(1), None), host(None, Some(1)), host(Some(1), Some(1))]), [2]);
        assert_eq!(sizes(&[host(Some(1), Some(1)), host(Some(2), Some(1)), host(Some(2), Some(2))]), [4]);
        assert_eq!(sizes(&[]), [0; 0]);
    }
}
