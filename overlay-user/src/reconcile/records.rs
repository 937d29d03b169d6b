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
    /// Addresses with several VTEPs, and what to say of them.
    rivals: BTreeMap<IpAddr, String>,
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
        self.addresses.extend(record.sources());
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
        self.by_address.extend(record.sources().map(|address| (address, record.subnet)));
        let host = record.host;
        self.by_subnet.insert(record.subnet, record);
        host.addresses().for_each(|address| self.judge(address));
    }

    /// Forgets a subnet.
    pub fn delete(&mut self, subnet: IpNet, touched: &mut Touched) {
        let Some(record) = self.by_subnet.remove(&subnet) else { return };
        touched.record(&record);
        for address in record.sources() {
            self.by_address.remove(&(address, subnet));
            self.judge(address);
        }
    }

    /// The addresses that several hosts give themselves, as far as one can see, and one line of each.
    pub fn rivals(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.rivals.iter().map(|(address, told)| (*address, told.as_str()))
    }

    /// Looks whether one host has an address.
    fn judge(&mut self, address: IpAddr) {
        match self.rivals_at(address) {
            Some(told) => drop(self.rivals.insert(address, told)),
            None => drop(self.rivals.remove(&address)),
        }
    }

    /// A host has one VTEP for each network, port and version of IP: of two one is another host's, or of an earlier life.
    fn rivals_at(&self, address: IpAddr) -> Option<String> {
        let mut known: Vec<&PeerSubnet> = Vec::new();
        // Behind one NAT there may be several.
        let here = self.at(address).filter_map(|subnet| self.by_subnet.get(&subnet));
        for record in here.filter(|record| record.host.addresses().any(|own| own == address)) {
            let rival = known.iter().find(|known| are_rivals(known, record));
            if let (Some(rival), Some(first), Some(second)) =
                (rival, rival.and_then(|rival| rival.vtep_mac), record.vtep_mac)
            {
                return Some(format!(
                    "address {address} has two VTEPs: {} is at {first}, {} at {second}; of two hosts with one address one is \
                     not reached: give it another --public-ip, or delete the entry that is wrong",
                    rival.subnet, record.subnet
                ));
            }
            known.push(record);
        }
        None
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
        let by_address: BTreeSet<_> = by_subnet.values().flat_map(addresses).collect();
        let mut records = Self { by_subnet, by_address, rivals: BTreeMap::new() };
        // Most hosts have one subnet of each version.
        let all: BTreeSet<IpAddr> = records.by_address.iter().map(|(address, _)| *address).collect();
        all.into_iter().for_each(|address| records.judge(address));
        records
    }
}

/// Whether two records at one address are of two hosts. Those that do not say which VTEP they are of may be of either.
fn are_rivals(one: &PeerSubnet, other: &PeerSubnet) -> bool {
    let is_v4 = |record: &PeerSubnet| matches!(record.subnet, IpNet::V4(_));
    let differ = one.vtep_mac.zip(other.vtep_mac).is_some_and(|(one, other)| one != other);
    // What is not said is the network's.
    let vni = one.vni.zip(other.vni).is_none_or(|(one, other)| one == other);
    let port = one.port.zip(other.port).is_none_or(|(one, other)| one == other);
    differ && vni && port && one.encap == other.encap && is_v4(one) == is_v4(other)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use overlay_common::{Encap, Mac, Vni};

    use super::*;
    use crate::underlay::Underlay;

    const HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 27);

    fn record(subnet: &str, mac: Option<u8>) -> PeerSubnet {
        PeerSubnet {
            subnet: subnet.parse().unwrap(),
            host: HOST.into(),
            encap: Encap::Vxlan,
            vni: None,
            port: None,
            gre_key: None,
            vtep_mac: mac.map(|mac| Mac([2, 0, 0, 0, 0, mac])),
            bridge: None,
            src_ips: Vec::new(),
            routed: false,
            zero_checksum: false,
        }
    }

    fn told(records: &Records) -> Vec<String> {
        records.rivals().map(|(_, told)| told.to_owned()).collect()
    }

    #[test]
    fn two_vteps_at_one_address_are_told_as_long_as_they_are_there() {
        let mut touched = Touched::default();
        let mut records = Records::default();
        for subnet in ["10.1.0.0/24", "10.2.0.0/24"] {
            records.put(record(subnet, Some(1)), &mut touched);
        }
        assert_eq!(told(&records), [""; 0], "a host with two bridges");
        records.put(record("10.3.0.0/24", Some(2)), &mut touched);
        let [line] = &told(&records)[..] else { panic!("{records:?}") };
        for part in
            ["172.16.199.27", "10.1.0.0/24 is at 02:00:00:00:00:01", "10.3.0.0/24 at 02:00:00:00:00:02"]
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.len() < overlay_common::map::NOTE_BYTES, "{}", line.len());
        assert_eq!(told(&records.by_subnet().clone().into()), told(&records), "a list says the same");
        records.put(record("10.3.0.0/24", Some(1)), &mut touched);
        assert_eq!(told(&records), [""; 0]);
        records.put(record("10.3.0.0/24", Some(2)), &mut touched);
        records.delete("10.3.0.0/24".parse().unwrap(), &mut touched);
        assert_eq!(told(&records), [""; 0]);
    }

    #[test]
    fn what_may_be_one_host_is_not_told() {
        let first = PeerSubnet { vni: Vni::new(1).ok(), port: Some(8472), ..record("10.1.0.0/24", Some(1)) };
        let second = record("10.2.0.0/24", Some(2));
        for (why, other) in [
            ("flannel has one of each version", record("fd00:2::/64", Some(2))),
            ("it does not say", record("10.2.0.0/24", None)),
            ("another device for another VNI", PeerSubnet { vni: Vni::new(7).ok(), ..second.clone() }),
            ("another device for another port", PeerSubnet { port: Some(4789), ..second.clone() }),
            (
                "another address",
                PeerSubnet { host: Underlay::from(Ipv4Addr::new(172, 16, 199, 28)), ..second },
            ),
        ] {
            let records = [first.clone(), other].map(|record| (record.subnet, record));
            assert_eq!(told(&BTreeMap::from(records).into()), [""; 0], "{why}");
        }
    }
}
