//! What a subnet, a host's address and a VTEP's address must be, whichever store names them. The errors
//! quote the value and say what is expected; the caller puts the place in front.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::Mac;

/// Ranges that no host and no container can have an address in. Link-local IPv6 addresses (RFC 4291 section
/// 2.5.6) mean nothing without an interface, which no store can name; v4-mapped ones never are on the wire.
const NEVER: [(IpNet, &str); 8] = [
    (v4([0, 0, 0, 0], 8), "\"this network\""),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "v4-mapped"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// Checks a containers' subnet.
pub(super) fn subnet(net: IpNet) -> Result<(), String> {
    if net.prefix_len() == 0 {
        let most = net.max_prefix_len();
        return Err(format!("\"{net}\" would take every address: a length of 1 to {most} is expected"));
    }
    if net.addr() != net.network() {
        return Err(format!("\"{net}\" has host bits set: {} is expected", net.trunc()));
    }
    match NEVER.iter().find(|(range, _)| range.contains(&net) || net.contains(range)) {
        Some((range, what)) => {
            Err(format!("\"{net}\" overlaps {range} ({what}): a unicast subnet is expected"))
        }
        None => Ok(()),
    }
}

/// An address of one IP version, or of either.
pub(super) trait Address: FromStr + Copy + Into<IpAddr> {
    /// What it is called, and what one looks like.
    const FORM: (&str, &str);
}

impl Address for Ipv4Addr {
    const FORM: (&str, &str) = ("IPv4 address", "192.0.2.7");
}

impl Address for Ipv6Addr {
    const FORM: (&str, &str) = ("IPv6 address", "2001:db8::7");
}

impl Address for IpAddr {
    const FORM: (&str, &str) = ("IP address", "192.0.2.7 or 2001:db8::7");
}

/// Checks a host's underlay address, which must lie outside the subnets it serves: the way to the host would
/// lead through its own tunnel.
pub(super) fn host<A: Address>(text: &str, subnets: impl IntoIterator<Item = IpNet>) -> Result<A, String> {
    let (what, example) = A::FORM;
    let parsed: A =
        text.parse().map_err(|_| format!("{text:?} is no {what}: one like {example} is expected"))?;
    let address: IpAddr = parsed.into();
    if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("\"{address}\" is the broadcast address: the host's own address is expected"));
    }
    if let Some((_, what)) = NEVER.iter().find(|(range, _)| range.contains(&address)) {
        return Err(format!("\"{address}\" is a {what} address: the host's own address is expected"));
    }
    if let Some(subnet) = subnets.into_iter().find(|subnet| subnet.contains(&address)) {
        return Err(format!(
            "\"{address}\" lies inside the subnet {subnet} itself: the host's underlay address is expected"
        ));
    }
    Ok(parsed)
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
            ("0.0.0.0/0", "every address: a length of 1 to 32"),
            ("10.5.0.1/24", "10.5.0.0/24 is expected"),
            ("127.0.0.0/16", "loopback"),
            ("224.1.0.0/16", "multicast"),
            ("192.0.0.0/2", "multicast"),
            ("0.0.0.0/9", "this network"),
            ("::/0", "every address: a length of 1 to 128"),
            ("fd00:5::1/64", "fd00:5::/64 is expected"),
            ("::/8", "unspecified"),
            ("::1/128", "loopback"),
            ("::ffff:10.5.0.0/120", "v4-mapped"),
            ("fe80::/64", "link-local"),
            ("fe00::/7", "link-local"),
            ("ff05::/16", "multicast"),
        ] {
            let error = subnet(net.parse().unwrap()).unwrap_err();
            assert!(error.contains(net) && error.contains(says), "{net}: {error}");
        }
        for net in
            ["10.5.0.0/24", "128.0.0.0/2", "172.27.0.9/32", "fd00:5::/64", "2000::/3", "2001:db8::9/128"]
        {
            assert_eq!(subnet(net.parse().unwrap()), Ok(()), "{net}");
        }
    }

    #[test]
    fn hosts_that_cannot_be() {
        let subnets = || ["10.5.0.0/24", "fd00:5::/64"].map(|net| net.parse().unwrap());
        for text in ["", "x", "10.5", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.5.0.1"] {
            for error in
                [host::<Ipv4Addr>(text, subnets()).unwrap_err(), host::<IpAddr>(text, subnets()).unwrap_err()]
            {
                assert!(error.contains(text) && error.contains("expected"), "{text}: {error}");
            }
        }
        for (text, says) in [
            ("", "no IPv6 address"),
            ("2001:db8::7/64", "no IPv6 address"),
            ("fe80::1%eth0", "no IPv6 address"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("ff02::1", "multicast"),
            ("fe80::1", "link-local"),
            ("::ffff:192.0.2.7", "v4-mapped"),
            ("fd00:5::7", "inside the subnet fd00:5::/64"),
        ] {
            let error = host::<Ipv6Addr>(text, subnets()).unwrap_err();
            assert!(error.contains(text) && error.contains(says) && error.contains("expected"), "{error}");
            assert!(host::<IpAddr>(text, subnets()).is_err(), "{text}");
        }
        assert!(host::<Ipv4Addr>("2001:db8::7", subnets()).unwrap_err().contains("no IPv4 address"));
        assert!(host::<Ipv6Addr>("192.0.2.7", subnets()).unwrap_err().contains("no IPv6 address"));
        let address = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(host("192.0.2.7", subnets()), Ok(address));
        assert_eq!(host("192.0.2.7", subnets()), Ok(IpAddr::V4(address)));
        assert_eq!(host::<Ipv6Addr>("fd00:6::7", subnets()), Ok("fd00:6::7".parse().unwrap()));
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
