//! The peers: what etcd is filled with, and what the maps have to say then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_common::Mac;

/// What peers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Table {
    /// A subnet of IPv4 each.
    V4,
    /// A subnet of either version each.
    Dual,
}

impl Table {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::Dual];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::V4 => "each a /24",
            Self::Dual => "each a /24 and a /64, over either version of IP",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::Dual => "dual",
        }
    }
}

/// What a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) table: Table,
    /// Its subnets' number, and so its key.
    pub(super) subnet: u32,
    /// The host's number.
    pub(super) host: u32,
    /// Which of its VTEP's MAC addresses it has.
    pub(super) mac: u8,
}

/// A subnet, and how a peer that has it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) subnet: IpNet,
    pub(super) remote: IpAddr,
    pub(super) mac: Mac,
}

impl Peer {
    pub(super) fn new(table: Table, number: u32) -> Self {
        Self { table, subnet: number, host: number, mac: 0 }
    }

    pub(super) fn key(self, prefix: &str) -> String {
        let v4 = format!("{prefix}/subnets/{}-24", self.v4().network());
        match self.table {
            Table::V4 => v4,
            Table::Dual => format!("{v4}&{}-64", self.v6().network()),
        }
    }

    pub(super) fn value(self) -> String {
        let (v4, mac) = (self.host_v4(), self.vtep_mac());
        let data = format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#);
        match self.table {
            Table::V4 => format!(r#"{{"PublicIP":"{v4}","BackendType":"vxlan","BackendData":{data}}}"#),
            Table::Dual => format!(
                r#"{{"PublicIP":"{v4}","PublicIPv6":"{}","BackendType":"vxlan","BackendData":{data},"BackendV6Data":{data},"Overlayd":{{"UDP6ZeroChecksum":true}}}}"#,
                self.host_v6()
            ),
        }
    }

    /// What the maps are to say of it.
    pub(super) fn reached(self) -> impl Iterator<Item = Reached> {
        let mac = self.vtep_mac();
        let v4 = Reached { subnet: self.v4().into(), remote: self.host_v4().into(), mac };
        let v6 = Reached { subnet: self.v6().into(), remote: self.host_v6().into(), mac };
        std::iter::once(v4).chain((self.table == Table::Dual).then_some(v6))
    }

    fn v4(self) -> Ipv4Net {
        let [_, a, b, c] = self.subnet.to_be_bytes();
        Ipv4Net::new_assert(Ipv4Addr::new(10 + a, b, c, 0), 24)
    }

    fn v6(self) -> Ipv6Net {
        let [high, low] = halves(self.subnet);
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd10, high, low, 0, 0, 0, 0, 0), 64)
    }

    /// In the range that is set aside for benchmarks (RFC 2544): 198.18.0.0/15.
    fn host_v4(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + 256 + self.host)
    }

    fn host_v6(self) -> Ipv6Addr {
        let [high, low] = halves(self.host + 256);
        Ipv6Addr::new(0xfd00, 0x198, 0, 0, 0, 0, high, low)
    }

    fn vtep_mac(self) -> Mac {
        let [_, a, b, c] = self.host.to_be_bytes();
        Mac([2, 0x10, self.mac, a, b, c])
    }
}

fn halves(number: u32) -> [u16; 2] {
    [(number >> 16) as u16, number as u16]
}
