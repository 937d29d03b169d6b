//! The addresses on the wire.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The wire's own address: what runs there outlives every host.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 1);

/// The wire's own IPv6 address.
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x199, 0, 0, 0, 0, 0, 1);

/// Host addresses are 17, 27, 37 …: this many fit.
pub const MAX_HOSTS: usize = 24;

/// The underlay address of host number `index`.
#[must_use]
pub fn address_of(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 199, step(index))
}

/// The IPv6 address of the host that has this IPv4 address: `fd00:199::17` for 172.16.199.17.
#[must_use]
pub fn address_v6_of(ip: Ipv4Addr) -> Ipv6Addr {
    let [.., last] = ip.octets();
    Ipv6Addr::new(0xfd00, 0x199, 0, 0, 0, 0, 0, decimal(last))
}

/// The IPv6 address of docker0 on host number `index`: `fd00:17::1`.
#[must_use]
pub fn bridge_v6_of(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, decimal(step(index)), 0, 0, 0, 0, 0, 1)
}

/// 17, 27, 37 …: the last byte of a host's address and the second byte of its containers' subnet.
pub(crate) fn step(index: usize) -> u8 {
    assert!(index < MAX_HOSTS, "the builder checks the number of hosts");
    u8::try_from(17 + 10 * index).unwrap_or(u8::MAX)
}

/// The hexadecimal number that reads as this decimal one: people find the host in either address.
pub(crate) fn decimal(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 0x100 + number / 10 % 10 * 0x10 + number % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_a_host_read_alike() {
        assert_eq!(address_v6_of(address_of(0)).to_string(), "fd00:199::17");
        assert_eq!(address_v6_of(address_of(23)).to_string(), "fd00:199::247");
        assert_eq!(bridge_v6_of(1).to_string(), "fd00:27::1");
    }
}
