//! The value of a node's key: who it is that lives there.

use std::net::Ipv4Addr;

use overlay_common::Mac;
use serde_json::Value;

use super::{
    json::{object, text},
    lease::owner,
};
use crate::{
    store::{Announcement, address},
    underlay::Underlay,
};

/// Writes what a node says of itself; who it is once it announces something.
pub fn node_value(announced: Option<&Announcement>) -> String {
    let version = concat!(r#""Version":""#, env!("CARGO_PKG_VERSION"), r#"""#);
    let Some(Announcement { host, vtep_mac, .. }) = announced else { return format!("{{{version}}}") };
    let v4 = host.v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
    let v6 = host.v6().map_or_else(|| "null".to_owned(), |v6| format!(r#""{v6}""#));
    let mac = Value::from(vtep_mac.as_str());
    format!(r#"{{{version},"PublicIP":"{v4}","PublicIPv6":{v6},"VtepMAC":{mac}}}"#)
}

/// The addresses of a node, and the MAC address of its VTEP, as far as its value says who it is.
pub fn parse_node(value: &[u8]) -> Option<(Underlay, Mac)> {
    let says = object(value).ok()?;
    let mac = address::vtep_mac(text(&says, "VtepMAC").ok()??).ok()??;
    Some((owner(value)?, mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Subnets;

    #[test]
    fn who_it_is_reads_back() {
        for (v4, v6) in
            [(Some("192.0.2.7"), None), (None, Some("2001:db8::7")), (Some("192.0.2.7"), Some("2001:db8::7"))]
        {
            let host =
                Underlay::new(v4.map(|v4| v4.parse().unwrap()), v6.map(|v6| v6.parse().unwrap())).unwrap();
            let announced = Announcement {
                subnets: Subnets { v4: "10.1.0.0/24".parse().unwrap(), v6: None },
                host,
                src_ips: Vec::new(),
                vni: 1,
                vtep_mac: "02:00:00:00:00:01".into(),
                encap: overlay_common::Encap::Vxlan,
            };
            let value = node_value(Some(&announced));
            assert_eq!(parse_node(value.as_bytes()), Some((host, Mac([2, 0, 0, 0, 0, 1]))), "{value}");
        }
    }

    #[test]
    fn a_node_that_does_not_say_who_it_is() {
        let nobody = node_value(None);
        assert_eq!(nobody, format!(r#"{{"Version":"{}"}}"#, env!("CARGO_PKG_VERSION")));
        for value in
            [nobody.as_str(), "", "[]", r#"{"PublicIP":"192.0.2.7"}"#, r#"{"VtepMAC":"02:00:00:00:00:01"}"#]
        {
            assert_eq!(parse_node(value.as_bytes()), None, "{value}");
        }
    }
}
