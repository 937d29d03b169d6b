//! The store's records, by subnet and by host, and which of them a change touches.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net};

use crate::store::PeerSubnet;

/// What the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    by_subnet: BTreeMap<IpNet, PeerSubnet>,
    by_address: BTreeSet<(IpAddr, IpNet)>,
}

/// Subnets and addresses that are looked at by themselves; of more everything is.
const FEW: usize = 512;

/// What has to be looked at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Everything there is.
    pub all: bool,
    /// These subnets.
    pub subnets: BTreeSet<IpNet>,
    /// Hosts with these addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl Touched {
    /// Everything.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// True where nothing is touched.
    pub fn is_empty(&self) -> bool {
        !self.all && self.subnets.is_empty() && self.addresses.is_empty()
    }

    /// True where it is less work to look at these alone than at everything.
    pub fn is_few(&self) -> bool {
        !self.all && self.subnets.len() + self.addresses.len() <= FEW
    }

    /// Takes in what else is touched.
    pub fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.subnets.extend(other.subnets);
        self.addresses.extend(other.addresses);
    }

    fn record(&mut self, record: &PeerSubnet) {
        self.subnets.insert(record.subnet);
        self.addresses.extend(record.host.addresses());
    }
}

impl Records {
    /// Takes a complete list. What differs from before is touched.
    pub fn replace(&mut self, records: BTreeMap<IpNet, PeerSubnet>, touched: &mut Touched) {
        if records == self.by_subnet {
            return;
        }
        for (subnet, record) in &self.by_subnet {
            if records.get(subnet) != Some(record) {
                touched.record(record);
            }
        }
        for (subnet, record) in &records {
            if self.by_subnet.get(subnet) != Some(record) {
                touched.record(record);
            }
        }
        *self = records.into();
    }

    /// Takes a record, in the place of one of the same subnet.
    pub fn put(&mut self, record: PeerSubnet, touched: &mut Touched) {
        self.delete(record.subnet, touched);
        touched.record(&record);
        self.by_address.extend(record.host.addresses().map(|address| (address, record.subnet)));
        self.by_subnet.insert(record.subnet, record);
    }

    /// Forgets a subnet.
    pub fn delete(&mut self, subnet: IpNet, touched: &mut Touched) {
        let Some(record) = self.by_subnet.remove(&subnet) else { return };
        touched.record(&record);
        for address in record.host.addresses() {
            self.by_address.remove(&(address, subnet));
        }
    }

    /// All of them, by subnet.
    pub fn by_subnet(&self) -> &BTreeMap<IpNet, PeerSubnet> {
        &self.by_subnet
    }

    /// Those of these subnets, as far as there are any.
    pub fn of(&self, subnets: &BTreeSet<IpNet>) -> BTreeMap<IpNet, PeerSubnet> {
        let record = |subnet: &IpNet| Some((*subnet, self.by_subnet.get(subnet)?.clone()));
        subnets.iter().filter_map(record).collect()
    }

    /// The subnets of whoever has an address.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let first = (address, IpNet::V4(Ipv4Net::default()));
        self.by_address.range(first..).take_while(move |(ip, _)| *ip == address).map(|(_, subnet)| *subnet)
    }

    /// The hosts' addresses that lie in a prefix.
    pub fn addresses_in(&self, prefix: IpNet) -> impl Iterator<Item = IpAddr> {
        let first = (prefix.network(), IpNet::V4(Ipv4Net::default()));
        let addresses = self.by_address.range(first..).map(|(address, _)| *address);
        addresses.take_while(move |address| prefix.contains(address))
    }
}

impl From<BTreeMap<IpNet, PeerSubnet>> for Records {
    fn from(by_subnet: BTreeMap<IpNet, PeerSubnet>) -> Self {
        let addresses = |record: &PeerSubnet| {
            let subnet = record.subnet;
            record.host.addresses().map(move |address| (address, subnet))
        };
        let by_address = by_subnet.values().flat_map(addresses).collect();
        Self { by_subnet, by_address }
    }
}
