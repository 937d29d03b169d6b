//! The text of a peers file.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use overlay_common::{Encap, Vni};
use serde::Deserialize;
use toml::Spanned;

use crate::store::{PeerSubnet, address};

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
    host: Spanned<String>,
    vni: Option<Spanned<i64>>,
    port: Option<Spanned<i64>>,
    vtep_mac: Option<Spanned<String>>,
    encap: Option<Spanned<String>>,
}

/// Reads a peers file.
///
/// # Errors
/// `LINE: what is wrong, and what is expected`, to be put behind the file's name and a colon.
pub fn parse(text: &str) -> Result<BTreeMap<Ipv4Net, PeerSubnet>, String> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let message = error.message().trim().replace('\n', " ");
        format!("{}: {message}; correct this line", line(text, start))
    })?;
    let mut peers = BTreeMap::new();
    let mut lines: BTreeMap<Ipv4Net, usize> = BTreeMap::new();
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
        let Self { subnet, host, vni, port, vtep_mac, encap } = self;
        let subnet = at(text, "subnet", &subnet, |value| {
            let net = value
                .parse()
                .map_err(|_| format!("{value:?} is no subnet: one like 172.27.0.0/16 is expected"))?;
            address::subnet(net)
        })?;
        let public_ip = at(text, "host", &host, |value| address::host(value, subnet))?;
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
        let vtep_mac = optional(text, "vtep_mac", vtep_mac.as_ref(), |value| address::vtep_mac(value))?;
        let encap = optional(text, "encap", encap.as_ref(), |value| {
            value.parse::<Encap>().map_err(|error| format!("{value:?} is {error}"))
        })?;
        let (vtep_mac, encap) = (vtep_mac.flatten(), encap.unwrap_or_default());
        Ok(PeerSubnet { subnet, public_ip, encap, vni, port, vtep_mac })
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
    use std::net::Ipv4Addr;

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
        assert_eq!(least.public_ip, Ipv4Addr::new(172, 16, 199, 27));
        assert_eq!((least.vni, least.port, least.vtep_mac), (None, None, None));
        let full = &peers[&"172.28.0.0/16".parse().unwrap()];
        assert_eq!((full.vni, full.port), (Vni::new(9).ok(), Some(8472)));
        assert_eq!(full.vtep_mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert!(parse("# nobody yet\n").unwrap().is_empty());
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
            ("encap = \"gre\"\n", "4: encap \"gre\""),
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
            ("[[peer]]\nsubnet = \"172.28.0.0/16\"\n", "4: missing field `host`"),
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
            subnet in "[0-9./]{0,20}", host in "[0-9.]{0,16}", vni: i64, port: i64, mac in "[0-9a-f:]{0,18}",
        ) {
            let _ = parse(&format!(
                "[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{host}\"\nvni = {vni}\nport = {port}\nvtep_mac = \"{mac}\"\n"
            ));
        }
    }
}
