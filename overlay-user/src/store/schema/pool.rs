//! What the network's configuration says about the subnets that hosts lease, as flannel reads it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::json::{number, object, text};
use crate::store::address;

/// The subnets that a network has for its hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// All of them lie in here.
    pub network: Ipv4Net,
    /// The length of their prefixes.
    pub len: u8,
    /// The first one.
    pub min: Ipv4Addr,
    /// The last one.
    pub max: Ipv4Addr,
}

/// The longest prefix with room for a bridge and a container.
const LONGEST: u8 = 30;

/// Reads the pool: `Network`, and where they are there `SubnetLen` (24, or what fits four times), `SubnetMin` (the second subnet) and
/// `SubnetMax` (the last).
///
/// # Errors
/// One line: which field, what is wrong and what is expected.
pub fn parse_pool(value: &[u8]) -> Result<Pool, String> {
    let config = object(value)?;
    let network = text(&config, "Network")?.ok_or("Network is missing: subnets are leased from it")?;
    let network: Ipv4Net = network
        .parse()
        .map_err(|_| format!("Network {network:?} is no subnet: one like 10.5.0.0/16 is expected"))?;
    let network = network.trunc();
    address::subnet(network.into()).map_err(|error| format!("Network {error}"))?;
    let shortest = network.prefix_len() + 2;
    let len = match number(&config, "SubnetLen")?.filter(|len| *len != 0) {
        Some(len) => u8::try_from(len).unwrap_or(u8::MAX),
        None => shortest.max(24),
    };
    if !(shortest..=LONGEST).contains(&len) {
        return Err(format!("SubnetLen {len} does not fit {network}: {shortest} to {LONGEST} is expected"));
    }
    let size = 1_u32 << (32 - len);
    let end = |name: &str, default: u32| {
        let Some(given) = text(&config, name)? else { return Ok(Ipv4Addr::from_bits(default)) };
        let ip: Ipv4Addr = given.parse().map_err(|_| format!("{name} {given:?} is no IPv4 address"))?;
        if !network.contains(&ip) || !ip.to_bits().is_multiple_of(size) {
            return Err(format!("{name} {ip} is not the first address of a /{len} of {network}"));
        }
        Ok(ip)
    };
    let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
    let (min, max) = (end("SubnetMin", first + size)?, end("SubnetMax", last - (size - 1))?);
    if min > max {
        return Err(format!("SubnetMin {min} lies behind SubnetMax {max}"));
    }
    Ok(Pool { network, len, min, max })
}

impl Pool {
    /// How many there are.
    pub fn count(&self) -> u32 {
        (self.max.to_bits() - self.min.to_bits()) / self.size() + 1
    }

    /// Whether one is of them.
    pub fn has(&self, subnet: Ipv4Net) -> bool {
        subnet.prefix_len() == self.len && (self.min..=self.max).contains(&subnet.network())
    }

    /// All of them once, from one on that a number chooses.
    pub fn from(self, lot: u32) -> impl Iterator<Item = Ipv4Net> {
        let (count, min, size, len) = (self.count(), self.min.to_bits(), self.size(), self.len);
        let start = lot % count;
        let nth = move |n: u32| Ipv4Net::new(Ipv4Addr::from_bits(min + n * size), len).ok();
        (start..count).chain(0..start).filter_map(nth)
    }

    fn size(&self) -> u32 {
        1 << (32 - self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(value: &str) -> Result<Pool, String> {
        parse_pool(value.as_bytes())
    }

    #[test]
    fn what_flannel_makes_of_it() {
        for (value, len, min, max, count) in [
            (r#"{"Network":"10.5.0.0/16"}"#, 24, "10.5.1.0", "10.5.255.0", 255),
            (r#"{"network":"10.5.7.9/16","subnetlen":28}"#, 28, "10.5.0.16", "10.5.255.240", 4095),
            (r#"{"Network":"10.5.0.0/24"}"#, 26, "10.5.0.64", "10.5.0.192", 3),
            (
                r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.12.0"}"#,
                24,
                "10.5.10.0",
                "10.5.12.0",
                3,
            ),
        ] {
            let pool = pool(value).unwrap();
            assert_eq!(
                (pool.len, pool.min.to_string().as_str(), pool.max.to_string().as_str()),
                (len, min, max)
            );
            assert_eq!(pool.count(), count, "{value}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (value, named) in [
            ("{}", "Network is missing"),
            (r#"{"Network":"10.5.0.0/16","SubnetLen":17}"#, "SubnetLen 17"),
            (r#"{"Network":"10.5.0.0/16","SubnetLen":31}"#, "SubnetLen 31"),
            (r#"{"Network":"10.5.0.0/30"}"#, "SubnetLen 32"),
            (r#"{"Network":"10.5.0.0/16","SubnetMin":"10.6.1.0"}"#, "SubnetMin 10.6.1.0"),
            (r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.1.7"}"#, "SubnetMax 10.5.1.7"),
            (r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}"#, "behind"),
        ] {
            let error = pool(value).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn each_once_whatever_is_drawn() {
        let pool = pool(r#"{"Network":"10.5.0.0/16"}"#).unwrap();
        for lot in [0, 1, 254, 255, u32::MAX] {
            let all: Vec<_> = pool.from(lot).collect();
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!((all.len(), distinct.len()), (255, 255));
            assert!(all.iter().all(|subnet| pool.has(*subnet)));
        }
        assert!(!pool.has("10.5.0.0/24".parse().unwrap()) && !pool.has("10.5.1.0/25".parse().unwrap()));
    }
}
