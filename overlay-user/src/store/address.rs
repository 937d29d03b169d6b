//! What a subnet, a host's address and a VTEP's address must be, whichever store names them. The errors
//! quote the value and say what is expected; the caller puts the place in front.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use overlay_common::Mac;

/// Ranges that no host and no container can have an address in.
const NEVER: [(Ipv4Net, &str); 3] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), "\"this network\""),
    (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), "loopback"),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
];

/// Checks a containers' subnet.
pub(super) fn subnet(net: Ipv4Net) -> Result<Ipv4Net, String> {
    if net.prefix_len() == 0 {
        return Err(format!("\"{net}\" would take every address: a length of 1 to 32 is expected"));
    }
    if net.addr() != net.network() {
        return Err(format!("\"{net}\" has host bits set: {} is expected", net.trunc()));
    }
    match NEVER.iter().find(|(range, _)| range.contains(&net) || net.contains(range)) {
        Some((range, what)) => {
            Err(format!("\"{net}\" overlaps {range} ({what}): a unicast subnet is expected"))
        }
        None => Ok(net),
    }
}

/// Checks a host's underlay address, which must lie outside the subnet it serves: the way to the host would
/// lead through its own tunnel.
pub(super) fn host(text: &str, subnet: Ipv4Net) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr =
        text.parse().map_err(|_| format!("{text:?} is no IPv4 address: one like 192.0.2.7 is expected"))?;
    if address.is_broadcast() {
        return Err(format!("\"{address}\" is the broadcast address: the host's own address is expected"));
    }
    if let Some((_, what)) = NEVER.iter().find(|(range, _)| range.contains(&address)) {
        return Err(format!("\"{address}\" is a {what} address: the host's own address is expected"));
    }
    if subnet.contains(&address) {
        return Err(format!(
            "\"{address}\" lies inside the subnet {subnet} itself: the host's underlay address is expected"
        ));
    }
    Ok(address)
}

/// Checks a VTEP's MAC address. Broadcast, which kernel peers accept, is what is sent where none is known.
pub(super) fn vtep_mac(text: &str) -> Result<Option<Mac>, String> {
    let mac: Mac = text.replace('-', ":").parse().map_err(|error| format!("{text:?} is {error}"))?;
    if mac == Mac::BROADCAST {
        return Ok(None);
    }
    if mac.is_multicast() || mac == Mac::default() {
        return Err(format!("\"{mac}\" is no host's MAC address: a unicast address is expected"));
    }
    Ok(Some(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_cannot_be() {
        for (net, says) in [
            ("0.0.0.0/0", "every address"),
            ("10.5.0.1/24", "10.5.0.0/24 is expected"),
            ("127.0.0.0/16", "loopback"),
            ("224.1.0.0/16", "multicast"),
            ("192.0.0.0/2", "multicast"),
            ("0.0.0.0/9", "this network"),
        ] {
            let error = subnet(net.parse().unwrap()).unwrap_err();
            assert!(error.contains(net) && error.contains(says), "{net}: {error}");
        }
        for net in ["10.5.0.0/24", "128.0.0.0/2", "172.27.0.9/32"] {
            assert_eq!(subnet(net.parse().unwrap()), Ok(net.parse().unwrap()));
        }
    }

    #[test]
    fn hosts_that_cannot_be() {
        let subnet = "10.5.0.0/24".parse().unwrap();
        for text in
            ["", "x", "10.5", "::1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.5.0.1"]
        {
            let error = host(text, subnet).unwrap_err();
            assert!(error.contains(text) && error.contains("expected"), "{text}: {error}");
        }
        assert_eq!(host("192.0.2.7", subnet), Ok(Ipv4Addr::new(192, 0, 2, 7)));
    }

    #[test]
    fn vtep_macs() {
        assert_eq!(vtep_mac("c6:d2:32:6f:8f:44"), Ok(Some(Mac([0xc6, 0xd2, 0x32, 0x6f, 0x8f, 0x44]))));
        assert_eq!(vtep_mac("C6-D2-32-6F-8F-44"), Ok(Some(Mac([0xc6, 0xd2, 0x32, 0x6f, 0x8f, 0x44]))));
        assert_eq!(vtep_mac("ff:ff:ff:ff:ff:ff"), Ok(None));
        for text in ["", "01:00:5e:00:00:01", "00:00:00:00:00:00", "c6:d2"] {
            assert!(vtep_mac(text).is_err(), "{text:?}");
        }
    }
}
