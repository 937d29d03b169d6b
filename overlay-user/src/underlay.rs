//! A host's addresses in the underlay: one of each IP version at most, and at least one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// Where a host is reached: what it sends from, and what peers send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Underlay {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

/// What is read before it is known to name an address.
#[derive(Deserialize)]
struct Fields {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Underlay {
    /// `None` where there is no address at all.
    pub const fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Self> {
        if v4.is_none() && v6.is_none() { None } else { Some(Self { v4, v6 }) }
    }

    /// The IPv4 address.
    pub const fn v4(self) -> Option<Ipv4Addr> {
        self.v4
    }

    /// The IPv6 address.
    pub const fn v6(self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// All of them, IPv4 first.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// True where this is one of them.
    pub fn has(self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// True where both have an address in common: then they are one host, of which one record may know more
    /// than the other, or something older.
    pub fn shares(self, other: Self) -> bool {
        self.addresses().any(|address| other.has(address))
    }
}

impl From<Ipv4Addr> for Underlay {
    fn from(address: Ipv4Addr) -> Self {
        Self { v4: Some(address), v6: None }
    }
}

impl From<Ipv6Addr> for Underlay {
    fn from(address: Ipv6Addr) -> Self {
        Self { v4: None, v6: Some(address) }
    }
}

impl From<IpAddr> for Underlay {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl TryFrom<Fields> for Underlay {
    type Error = &'static str;

    fn try_from(Fields { v4, v6 }: Fields) -> Result<Self, Self::Error> {
        Self::new(v4, v6).ok_or("a host without any address")
    }
}

/// One host, as messages name it: `192.0.2.7`, `2001:db8::7`, or `192.0.2.7 (2001:db8::7)`.
impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} ({v6})"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

    #[test]
    fn one_address_at_least() {
        assert_eq!(Underlay::new(None, None), None);
        assert!(serde_json::from_str::<Underlay>(r#"{"v4":null,"v6":null}"#).is_err());
        assert!(serde_json::from_str::<Underlay>("{}").is_err());
        for host in [V4.into(), V6.into(), Underlay::new(Some(V4), Some(V6)).unwrap()] {
            let text = serde_json::to_string(&host).unwrap();
            assert_eq!(serde_json::from_str::<Underlay>(&text).unwrap(), host, "{text}");
        }
    }

    #[test]
    fn addresses_and_names() {
        let both = Underlay::new(Some(V4), Some(V6)).unwrap();
        assert_eq!(both.addresses().collect::<Vec<_>>(), [IpAddr::V4(V4), IpAddr::V6(V6)]);
        assert!(both.has(V4.into()) && both.has(V6.into()) && !Underlay::from(V4).has(V6.into()));
        assert!(both.shares(V4.into()) && both.shares(V6.into()));
        assert!(!Underlay::from(V4).shares(V6.into()));
        let names = [both, V4.into(), V6.into()].map(|host| host.to_string());
        assert_eq!(names, ["192.0.2.7 (2001:db8::7)", "192.0.2.7", "2001:db8::7"]);
    }
}
