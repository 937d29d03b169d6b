//! What the network's configuration says about the subnets that hosts lease, as flannel reads it.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use super::json::{flag, number, object, text};
use crate::store::{Subnets, address};

/// The subnets that a network has for its hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// Those of IPv4.
    pub v4: Pool<Ipv4Net>,
    /// Those of IPv6, where the network has it.
    pub v6: Option<Pool<Ipv6Net>>,
}

/// The subnets of one version of IP. Addresses are numbers: both versions have the same arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool<N> {
    /// All of them lie in here.
    pub network: N,
    /// The length of their prefixes.
    pub len: u8,
    /// The first address of the first one.
    min: u128,
    /// The first address of the last one.
    max: u128,
}

/// A prefix of one version of IP, and the names of flannel's fields for it.
pub trait Prefix: Copy + Display + Into<IpNet> + FromStr {
    /// `Network`, `SubnetLen`, `SubnetMin`, `SubnetMax`.
    const NAMES: [&'static str; 4];
    /// What a network looks like.
    const EXAMPLE: &'static str;
    /// Bits of an address.
    const BITS: u8;
    /// The length that hosts get of a network that is large enough.
    const USUAL: u8;

    /// The one that begins with this address.
    fn at(address: u128, len: u8) -> Option<Self>;

    /// Reads an address of this version.
    fn address(text: &str) -> Option<u128>;
}

impl Prefix for Ipv4Net {
    const NAMES: [&'static str; 4] = ["Network", "SubnetLen", "SubnetMin", "SubnetMax"];
    const EXAMPLE: &'static str = "10.5.0.0/16";
    const BITS: u8 = 32;
    const USUAL: u8 = 24;

    fn at(address: u128, len: u8) -> Option<Self> {
        Self::new(Ipv4Addr::from_bits(u32::try_from(address).ok()?), len).ok()
    }

    fn address(text: &str) -> Option<u128> {
        text.parse::<Ipv4Addr>().ok().map(|ip| ip.to_bits().into())
    }
}

impl Prefix for Ipv6Net {
    const NAMES: [&'static str; 4] = ["IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"];
    const EXAMPLE: &'static str = "fd00:5::/48";
    const BITS: u8 = 128;
    const USUAL: u8 = 64;

    fn at(address: u128, len: u8) -> Option<Self> {
        Self::new(Ipv6Addr::from_bits(address), len).ok()
    }

    fn address(text: &str) -> Option<u128> {
        text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits)
    }
}

/// The first and the last address of a prefix.
fn ends(net: IpNet) -> (u128, u128) {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    (number(net.network()), number(net.broadcast()))
}

/// Reads the pools: `Network`, and where they are there `SubnetLen` (24, or what fits four times), `SubnetMin` (the second
/// subnet) and `SubnetMax` (the last). Where `EnableIPv6` is true the same of IPv6, with /64.
///
/// # Errors
/// One line: which field, what is wrong and what is expected.
pub fn parse_pools(value: &[u8]) -> Result<Pools, String> {
    let config = object(value)?;
    let v4 = Pool::read(&config)?.ok_or("Network is missing: subnets are leased from it")?;
    let enabled = flag(&config, "EnableIPv6")?.unwrap_or(false);
    let v6 = if enabled { Pool::read(&config)? } else { None };
    Ok(Pools { v4, v6 })
}

impl Pools {
    /// Whether hosts lease such subnets.
    ///
    /// # Errors
    /// One line: what is leased.
    pub fn check(&self, subnets: Subnets) -> Result<(), String> {
        self.v4.check(subnets.v4)?;
        match (self.v6, subnets.v6) {
            (_, None) => Ok(()),
            (Some(pool), Some(v6)) => pool.check(v6),
            (None, Some(v6)) => {
                Err(format!("{v6} is of no use: the network's configuration has no IPv6 subnets"))
            }
        }
    }
}

impl<N: Prefix> Pool<N> {
    /// Reads it; `None` where there is no network.
    fn read(config: &Map<String, Value>) -> Result<Option<Self>, String> {
        let [name, len_name, min_name, max_name] = N::NAMES;
        let Some(given) = text(config, name)? else { return Ok(None) };
        let network: N = given
            .parse()
            .map_err(|_| format!("{name} {given:?} is no subnet: one like {} is expected", N::EXAMPLE))?;
        let net: IpNet = network.into().trunc();
        address::subnet(net).map_err(|error| format!("{name} {error}"))?;
        let (first, last) = ends(net);
        // Room for a bridge and a container in each, and for four of them.
        let (shortest, longest) = (net.prefix_len() + 2, N::BITS - 2);
        if shortest > longest {
            return Err(format!("{name} {net} is too small: four subnets of /{longest} are expected in it"));
        }
        let len = match number(config, len_name)?.filter(|len| *len != 0) {
            Some(len) => u8::try_from(len).unwrap_or(u8::MAX),
            None => shortest.max(N::USUAL),
        };
        if !(shortest..=longest).contains(&len) {
            return Err(format!("{len_name} {len} does not fit {net}: {shortest} to {longest} is expected"));
        }
        let size = 1_u128 << (N::BITS - len);
        let end = |name: &str, default: u128| {
            let Some(given) = text(config, name)? else { return Ok(default) };
            let ip = N::address(given).ok_or_else(|| format!("{name} {given:?} is no address of {net}"))?;
            if !(first..=last).contains(&ip) || !ip.is_multiple_of(size) {
                return Err(format!("{name} {given} is not the first address of a /{len} of {net}"));
            }
            Ok(ip)
        };
        let (min, max) = (end(min_name, first + size)?, end(max_name, last - (size - 1))?);
        if min > max {
            return Err(format!(
                "{min_name} lies behind {max_name}: the first subnet's address is expected there"
            ));
        }
        let network = N::at(first, net.prefix_len()).ok_or_else(|| format!("{name} {net} is no subnet"))?;
        Ok(Some(Self { network, len, min, max }))
    }

    /// How many there are.
    pub fn count(&self) -> u128 {
        (self.max - self.min) / self.size() + 1
    }

    /// Which of them one is, counted from 0.
    pub fn position(&self, subnet: N) -> Option<u128> {
        let net: IpNet = subnet.into();
        let (first, _) = ends(net);
        let is_one = net.prefix_len() == self.len && (self.min..=self.max).contains(&first);
        is_one.then(|| (first - self.min) / self.size())
    }

    /// Whether one is of them.
    pub fn has(&self, subnet: N) -> bool {
        self.position(subnet).is_some()
    }

    fn check(&self, subnet: N) -> Result<(), String> {
        if self.has(subnet) {
            return Ok(());
        }
        let name = |address| N::at(address, self.len).map(|net| net.to_string()).unwrap_or_default();
        let (min, max) = (name(self.min), name(self.max));
        Err(format!("{subnet} is leased by no host: those of {} are {min} to {max}", self.network))
    }

    /// The first one that is free, from one on that a number chooses.
    pub fn free(&self, lot: u128, taken: &[N]) -> Option<N> {
        let gaps = self.taken(taken);
        let start = lot % self.count();
        let behind = |from: u128| {
            gaps.iter()
                .fold(from, |at, (first, last)| if (*first..=*last).contains(&at) { last + 1 } else { at })
        };
        let wrapped = || Some(behind(0)).filter(|at| *at < start);
        let position = Some(behind(start)).filter(|at| *at < self.count()).or_else(wrapped)?;
        N::at(self.min + position * self.size(), self.len)
    }

    /// How many are free.
    pub fn count_free(&self, taken: &[N]) -> u128 {
        let (mut free, mut next) = (self.count(), 0);
        for (first, last) in self.taken(taken) {
            let first = first.max(next);
            free -= (last + 1).saturating_sub(first);
            next = next.max(last + 1);
        }
        free
    }

    /// Of those that are taken the first and the last positions, sorted.
    fn taken(&self, taken: &[N]) -> Vec<(u128, u128)> {
        let (min, max) = (self.min, self.max + (self.size() - 1));
        let positions = |net: &N| {
            let (first, last) = ends((*net).into());
            let (first, last) = (first.max(min), last.min(max));
            (first <= last).then(|| ((first - min) / self.size(), (last - min) / self.size()))
        };
        let mut positions: Vec<_> = taken.iter().filter_map(positions).collect();
        positions.sort_unstable();
        positions
    }

    fn size(&self) -> u128 {
        1 << (N::BITS - self.len)
    }
}

#[cfg(test)]
mod tests;
