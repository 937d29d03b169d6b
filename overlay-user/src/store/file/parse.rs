//! The text of a peers file.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use overlay_common::{Encap, Vni};
use serde::Deserialize;
use toml::Spanned;

use crate::{
    store::{PeerSubnet, address},
    underlay::Underlay,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    peer: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    subnet: Spanned<String>,
    host: Option<Spanned<String>>,
    host_v6: Option<Spanned<String>>,
    #[serde(default)]
    src_ips: Vec<Spanned<String>>,
    #[serde(default)]
    routed: bool,
    vni: Option<Spanned<i64>>,
    port: Option<Spanned<i64>>,
    vtep_mac: Option<Spanned<String>>,
    gre_key: Option<Spanned<i64>>,
    bridge: Option<bool>,
    encap: Option<Spanned<String>>,
    #[serde(default)]
    zero_checksum: bool,
}

/// Reads a peers file.
///
/// # Errors
/// `LINE: what is wrong, and what is expected`, to be put behind the file's name and a colon.
pub fn parse(text: &str) -> Result<BTreeMap<IpNet, PeerSubnet>, String> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let message = error.message().trim().replace('\n', " ");
        format!("{}: {message}; correct this line", line(text, start))
    })?;
    let mut peers = BTreeMap::new();
    let mut lines: BTreeMap<IpNet, usize> = BTreeMap::new();
    for row in document.peer {
        let here = line(text, row.subnet.span().start);
        let peer = row.check(text)?;
        if let Some(earlier) = lines.insert(peer.subnet, here) {
            return Err(format!("{here}: subnet {} is already on line {earlier}; remove one", peer.subnet));
        }
        peers.insert(peer.subnet, peer);
    }
    Ok(peers)
}

impl Row {
    fn check(self, text: &str) -> Result<PeerSubnet, String> {
        let subnet = at(text, "subnet", &self.subnet, |value| {
            let net = value.parse().map_err(|_| {
                format!("{value:?} is no subnet: one like 172.27.0.0/16 or fd00:27::/64 is expected")
            })?;
            address::subnet(net).map(|()| net)
        })?;
        let host = self.host(text, subnet)?;
        let src_ip = |ip: &Spanned<String>| at(text, "src_ips", ip, |value| address::host(value, [subnet]));
        let src_ips = self.src_ips.iter().map(src_ip).collect::<Result<_, _>>()?;
        let Self { vni, port, vtep_mac, gre_key, bridge, encap, zero_checksum, routed, .. } = self;
        let vni = optional(text, "vni", vni.as_ref(), |value| {
            u32::try_from(*value)
                .ok()
                .and_then(|number| Vni::new(number).ok())
                .ok_or_else(|| format!("{value} is no VNI: 1 to {} is expected", Vni::MAX))
        })?;
        let port = optional(text, "port", port.as_ref(), |value| {
            u16::try_from(*value)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("{value} is no UDP port: 1 to 65535 is expected"))
        })?;
        let gre_key = optional(text, "gre_key", gre_key.as_ref(), |value| {
            u32::try_from(*value).map_err(|_| format!("{value} is no key: 0 to {} is expected", u32::MAX))
        })?;
        let vtep_mac = optional(text, "vtep_mac", vtep_mac.as_ref(), |value| address::vtep_mac(value))?;
        let encap = optional(text, "encap", encap.as_ref(), |value| {
            value.parse::<Encap>().map_err(|error| format!("{value:?} is {error}"))
        })?;
        let (vtep_mac, encap) = (vtep_mac.flatten(), encap.unwrap_or_default());
        Ok(PeerSubnet {
            subnet,
            host,
            src_ips,
            routed,
            encap,
            vni,
            port,
            gre_key,
            vtep_mac,
            bridge,
            zero_checksum,
        })
    }

    fn host(&self, text: &str, subnet: IpNet) -> Result<Underlay, String> {
        let host =
            optional(text, "host", self.host.as_ref(), |value| address::host::<IpAddr>(value, [subnet]))?;
        let v6 = optional(text, "host_v6", self.host_v6.as_ref(), |value| {
            let v6 = address::host::<Ipv6Addr>(value, [subnet])?;
            match host {
                Some(IpAddr::V6(first)) => Err(format!(
                    "{value:?} is one too many: host is the IPv6 address {first} already; remove one"
                )),
                _ => Ok(v6),
            }
        })?;
        match (host, v6) {
            (Some(IpAddr::V4(v4)), Some(v6)) => Underlay::new(Some(v4), Some(v6)),
            (Some(host), _) => Some(host.into()),
            (None, Some(v6)) => Some(v6.into()),
            (None, None) => None,
        }
        .ok_or_else(|| {
            let here = line(text, self.subnet.span().start);
            format!("{here}: subnet {subnet} has no host: its host's underlay address is expected, as in host = \"192.0.2.7\"")
        })
    }
}

/// Checks one value, and puts its line and its name in front of what is wrong.
fn at<T, R>(
    text: &str,
    name: &str,
    value: &Spanned<T>,
    check: impl FnOnce(&T) -> Result<R, String>,
) -> Result<R, String> {
    check(value.get_ref()).map_err(|error| format!("{}: {name} {error}", line(text, value.span().start)))
}

fn optional<T, R>(
    text: &str,
    name: &str,
    value: Option<&Spanned<T>>,
    check: impl FnOnce(&T) -> Result<R, String>,
) -> Result<Option<R>, String> {
    value.map(|value| at(text, name, value, check)).transpose()
}

/// The line, from 1, of a byte offset.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use overlay_common::Mac;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_keys() {
        let peers = parse(
            "# two hosts\n[[peer]]\nsubnet = \"172.27.0.0/16\"\nhost = \"172.16.199.27\"\n\n[[peer]]\n\
             subnet = \"172.28.0.0/16\"\nhost = \"172.16.199.28\"\nvni = 9\nport = 8472\n\
             vtep_mac = \"02:00:00:00:00:01\"\nencap = \"vxlan\"\n",
        )
        .unwrap();
        let least = &peers[&"172.27.0.0/16".parse().unwrap()];
        assert_eq!(least.host, IpAddr::from([172, 16, 199, 27]).into());
        assert_eq!((least.vni, least.port, least.vtep_mac, least.zero_checksum), (None, None, None, false));
        let full = &peers[&"172.28.0.0/16".parse().unwrap()];
        assert_eq!((full.vni, full.port), (Vni::new(9).ok(), Some(8472)));
        assert_eq!(full.vtep_mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert!(parse("# nobody yet\n").unwrap().is_empty());
    }

    #[test]
    fn both_ip_versions() {
        let peers = parse(
            "[[peer]]\nsubnet = \"fd00:27::/64\"\nhost = \"172.16.199.27\"\n\
             [[peer]]\nsubnet = \"172.28.0.0/16\"\nhost = \"2001:db8::28\"\n\
             [[peer]]\nsubnet = \"172.29.0.0/16\"\nhost_v6 = \"2001:db8::29\"\nzero_checksum = true\n\
             [[peer]]\nsubnet = \"fd00:30::/64\"\nhost_v6 = \"2001:db8::30\"\nhost = \"172.16.199.30\"\n",
        )
        .unwrap();
        let told: Vec<_> = peers
            .values()
            .map(|peer| format!("{} {} {}", peer.subnet, peer.host, peer.zero_checksum))
            .collect();
        assert_eq!(
            told,
            [
                "172.28.0.0/16 2001:db8::28 false",
                "172.29.0.0/16 2001:db8::29 true",
                "fd00:27::/64 172.16.199.27 false",
                "fd00:30::/64 172.16.199.30 (2001:db8::30) false",
            ]
        );
    }

    #[test]
    fn errors_name_line_and_key() {
        let row = "[[peer]]\nsubnet = \"172.27.0.0/16\"\nhost = \"172.16.199.27\"\n";
        for (tail, says) in [
            ("hots = \"x\"\n", "4: unknown field `hots`"),
            ("vni = 0\n", "4: vni 0 is no VNI"),
            ("\nvni = -1\n", "5: vni -1"),
            ("vni = \"1\"\n", "4: invalid type"),
            ("port = 65536\n", "4: port 65536"),
            ("vtep_mac = \"01:00:5e:00:00:01\"\n", "4: vtep_mac \"01:00:5e:00:00:01\""),
            ("encap = \"pptp\"\n", "4: encap \"pptp\""),
            ("gre_key = 4294967296\n", "4: gre_key 4294967296 is no key"),
            ("port = \n", "4: "),
            ("[peers]\n", "4: unknown field `peers`"),
            (
                "[[peer]]\nsubnet = \"172.27.0.0/16\"\nhost = \"172.16.199.28\"\n",
                "5: subnet 172.27.0.0/16 is already on line 2",
            ),
            (
                "[[peer]]\nsubnet = \"172.28.0.1/16\"\nhost = \"172.16.199.28\"\n",
                "5: subnet \"172.28.0.1/16\" has host bits",
            ),
            ("[[peer]]\nsubnet = \"x\"\nhost = \"172.16.199.28\"\n", "5: subnet \"x\" is no subnet"),
            (
                "[[peer]]\nsubnet = \"172.28.0.0/16\"\nhost = \"127.0.0.1\"\n",
                "6: host \"127.0.0.1\" is a loopback",
            ),
            ("[[peer]]\nsubnet = \"172.28.0.0/16\"\n", "5: subnet 172.28.0.0/16 has no host"),
            ("[[peer]]\nhost = \"172.16.199.28\"\n", "4: missing field `subnet`"),
            ("zero_checksum = 1\n", "4: invalid type"),
            ("host_v6 = \"172.16.199.27\"\n", "4: host_v6 \"172.16.199.27\" is no IPv6 address"),
            ("host_v6 = \"fe80::27\"\n", "4: host_v6 \"fe80::27\" is a link-local address"),
            ("host_v6 = \"::ffff:172.16.199.27\"\n", "4: host_v6 \"::ffff:172.16.199.27\" is a v4-mapped"),
            (
                "[[peer]]\nsubnet = \"fd00:28::1/64\"\nhost = \"172.16.199.28\"\n",
                "5: subnet \"fd00:28::1/64\" has host bits set: fd00:28::/64 is expected",
            ),
            (
                "[[peer]]\nsubnet = \"fe80::/64\"\nhost = \"172.16.199.28\"\n",
                "5: subnet \"fe80::/64\" overlaps fe80::/10 (link-local)",
            ),
            (
                "[[peer]]\nsubnet = \"fd00:28::/64\"\nhost = \"fd00:28::28\"\n",
                "6: host \"fd00:28::28\" lies inside the subnet fd00:28::/64",
            ),
            (
                "[[peer]]\nsubnet = \"fd00:28::/64\"\nhost = \"2001:db8::1\"\nhost_v6 = \"2001:db8::2\"\n",
                "7: host_v6 \"2001:db8::2\" is one too many: host is the IPv6 address 2001:db8::1",
            ),
            (
                "[[peer]]\nsubnet = \"fd00:28::/64\"\nhost = \"172.16.199.28\"\n\
                 [[peer]]\nsubnet = \"fd00:28:0:0::/64\"\nhost = \"172.16.199.29\"\n",
                "8: subnet fd00:28::/64 is already on line 5",
            ),
        ] {
            let error = parse(&format!("{row}{tail}")).expect_err(tail);
            assert!(error.starts_with(says) && !error.contains('\n'), "{tail}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn almost_good_text_never_panics(
            subnet in "[0-9./]{0,20}|[0-9a-f:]{0,20}/[0-9]{0,3}",
            host in "[0-9.]{0,16}|[0-9a-f:.]{0,20}",
            host_v6 in "[0-9a-f:.]{0,20}",
            vni: i64,
            port: i64,
            mac in "[0-9a-f:]{0,18}",
            zero: bool,
        ) {
            let text = format!(
                "[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{host}\"\nhost_v6 = \"{host_v6}\"\nvni = {vni}\n\
                 port = {port}\nvtep_mac = \"{mac}\"\nzero_checksum = {zero}\n"
            );
            let error = parse(&text).map_or_else(|error| error, |_| "1: none".into());
            let number: usize = error.split(':').next().unwrap().parse().unwrap();
            prop_assert!((1..=9).contains(&number) && !error.contains('\n'), "{}", error);
        }

        #[test]
        fn what_is_written_is_read(
            v6: bool, v4_host in proptest::option::of(1u8..255), v6_host in proptest::option::of(1u16..), zero: bool,
        ) {
            let subnet = if v6 { "fd00:28::/64" } else { "172.28.0.0/16" };
            let host = v4_host.map(|last| format!("host = \"192.0.2.{last}\"\n")).unwrap_or_default();
            let host_v6 = v6_host.map(|last| format!("host_v6 = \"2001:db8::{last:x}\"\n")).unwrap_or_default();
            let text = format!("[[peer]]\nsubnet = \"{subnet}\"\n{host}{host_v6}zero_checksum = {zero}\n");
            let v6_host = v6_host.map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
            match Underlay::new(v4_host.map(|last| [192, 0, 2, last].into()), v6_host) {
                Some(host) => {
                    let peers = parse(&text).unwrap();
                    let peer = &peers[&subnet.parse().unwrap()];
                    prop_assert_eq!((peer.host, peer.zero_checksum), (host, zero));
                }
                None => prop_assert!(parse(&text).unwrap_err().contains("has no host")),
            }
        }
    }
}
