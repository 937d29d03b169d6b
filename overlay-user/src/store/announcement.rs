//! What a host announces, as it is written to the store and noted in the state file.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::Encap;
use serde::{Deserialize, Serialize};

use crate::underlay::Underlay;

/// The subnets of one bridge, announced together: one key in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subnets {
    /// The IPv4 subnet, which every bridge has.
    pub v4: Ipv4Net,
    /// The IPv6 subnet, where it has one.
    pub v6: Option<Ipv6Net>,
}

impl Subnets {
    /// Both, or the one.
    pub fn each(self) -> impl Iterator<Item = IpNet> {
        [Some(IpNet::V4(self.v4)), self.v6.map(IpNet::V6)].into_iter().flatten()
    }

    /// The first subnet that is in both.
    pub fn common(self, other: Self) -> Option<IpNet> {
        self.each().find(|subnet| other.each().any(|theirs| theirs == *subnet))
    }
}

impl From<Ipv4Net> for Subnets {
    fn from(v4: Ipv4Net) -> Self {
        Self { v4, v6: None }
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v6 {
            Some(v6) => write!(f, "{}, {v6}", self.v4),
            None => self.v4.fmt(f),
        }
    }
}

/// The subnets of one of this host's bridges, to be announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Noted")]
pub struct Announcement {
    /// The bridge's subnets.
    pub subnets: Subnets,
    /// Our underlay addresses.
    pub host: Underlay,
    /// Other addresses that our packets come from at our peers.
    pub src_ips: Vec<IpAddr>,
    /// The VNI we expect on the wire.
    pub vni: u32,
    /// Our VTEP's MAC address, as text.
    pub vtep_mac: String,
    /// How packets are to come to us.
    #[serde(with = "encap")]
    pub encap: Encap,
}

/// By its name.
mod encap {
    use overlay_common::Encap;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(encap: &Encap, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(encap.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Encap, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// State files outlive the daemon that wrote them: those from before there was IPv6 are read, too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Noted {
    Now {
        subnets: Subnets,
        host: Underlay,
        #[serde(default)]
        src_ips: Vec<IpAddr>,
        vni: u32,
        vtep_mac: String,
        #[serde(default, with = "encap")]
        encap: Encap,
    },
    OnlyV4 {
        subnet: Ipv4Net,
        public_ip: Ipv4Addr,
        vni: u32,
        vtep_mac: String,
    },
}

impl From<Noted> for Announcement {
    fn from(noted: Noted) -> Self {
        match noted {
            Noted::Now { subnets, host, src_ips, vni, vtep_mac, encap } => {
                Self { subnets, host, src_ips, vni, vtep_mac, encap }
            }
            Noted::OnlyV4 { subnet, public_ip, vni, vtep_mac } => {
                let encap = Encap::Vxlan;
                Self {
                    subnets: subnet.into(),
                    host: public_ip.into(),
                    src_ips: Vec::new(),
                    vni,
                    vtep_mac,
                    encap,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(v4: &str, v6: Option<&str>) -> Subnets {
        Subnets { v4: v4.parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) }
    }

    #[test]
    fn a_note_from_before_ipv6_is_read() {
        let old = r#"{"subnet":"172.17.0.0/16","public_ip":"172.16.199.17","vni":1,"vtep_mac":"02:00:00:00:00:01"}"#;
        let expected = Announcement {
            subnets: subnets("172.17.0.0/16", None),
            host: Ipv4Addr::new(172, 16, 199, 17).into(),
            src_ips: Vec::new(),
            vni: 1,
            vtep_mac: "02:00:00:00:00:01".into(),
            encap: Encap::Vxlan,
        };
        assert_eq!(serde_json::from_str::<Announcement>(old).unwrap(), expected);
        assert!(serde_json::from_str::<Announcement>(r#"{"subnet":"172.17.0.0/16","vni":1}"#).is_err());
    }

    #[test]
    fn a_note_reads_back() {
        for v6 in [None, Some("fd00:17::/64")] {
            let new = Announcement {
                subnets: subnets("172.17.0.0/16", v6),
                host: Underlay::new(Some([172, 16, 199, 17].into()), "2001:db8::17".parse().ok()).unwrap(),
                src_ips: vec![[203, 0, 113, 9].into()],
                vni: 7,
                vtep_mac: "02:00:00:00:00:01".into(),
                encap: Encap::Direct,
            };
            let text = serde_json::to_string(&new).unwrap();
            assert_eq!(serde_json::from_str::<Announcement>(&text).unwrap(), new, "{text}");
        }
    }

    #[test]
    fn common_subnets() {
        let (alone, dual) = (subnets("10.1.0.0/24", None), subnets("10.1.0.0/24", Some("fd00:1::/64")));
        assert_eq!(alone.common(dual), Some("10.1.0.0/24".parse().unwrap()));
        assert_eq!(
            subnets("10.2.0.0/24", Some("fd00:1::/64")).common(dual),
            Some("fd00:1::/64".parse().unwrap())
        );
        assert_eq!(subnets("10.2.0.0/24", None).common(dual), None);
        assert_eq!(dual.to_string(), "10.1.0.0/24, fd00:1::/64");
    }
}
