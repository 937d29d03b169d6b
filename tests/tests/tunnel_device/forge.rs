//! Tunnel packets made by hand and sent by raw sockets, with any source address, whole or as fragments.

use std::{net::Ipv4Addr, os::fd::AsRawFd};

use harness::Netns;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use overlay_common::Mac;

/// IP_HDRINCL sockets let the kernel fill in what is zero: checksum and, unless given, the id.
const IPV4_HEADER: usize = 20;

/// A tunnel packet with a datagram in it.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) outer_source: Ipv4Addr,
    pub(crate) outer_destination: Ipv4Addr,
    pub(crate) vni: u32,
    pub(crate) vtep_mac: Mac,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) payload: Vec<u8>,
}

impl Forged {
    /// The inner frame.
    fn frame(&self) -> Vec<u8> {
        let mut frame = [&self.vtep_mac.0[..], &[6, 0, 0, 0, 0, 1], &[8, 0]].concat();
        let udp = udp(self.port, &self.payload);
        let mut ip = ipv4(self.source, self.destination, 1, 0, udp.len());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(udp);
        frame
    }

    /// The outer packet without its IP header: UDP, VXLAN, the frame.
    fn datagram(&self) -> Vec<u8> {
        let mut vxlan = vec![8, 0, 0, 0];
        vxlan.extend((self.vni << 8).to_be_bytes());
        vxlan.extend(self.frame());
        udp(4789, &vxlan)
    }

    /// Sends it from a namespace, cut into fragments of at most `fragment` bytes of payload where one is given.
    pub(crate) fn send(&self, ns: &Netns, id: u16, fragment: Option<usize>) {
        let datagram = self.datagram();
        let size = fragment.map_or(datagram.len(), |size| size / 8 * 8);
        let packets: Vec<Vec<u8>> = datagram
            .chunks(size)
            .enumerate()
            .map(|(n, chunk)| {
                let more = if (n + 1) * size < datagram.len() { 0x2000 } else { 0 };
                let offset = u16::try_from(n * size / 8).unwrap() | more;
                let mut packet =
                    ipv4(self.outer_source, self.outer_destination, id, offset, chunk.len()).to_vec();
                packet.extend(chunk);
                packet
            })
            .collect();
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(self.outer_destination, 0));
        ns.run(|| {
            let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
                .unwrap();
            for packet in packets {
                let sent = sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap();
                assert_eq!(sent, packet.len());
            }
        })
        .unwrap();
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, id: u16, offset: u16, payload: usize) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    (header[0], header[8], header[9]) = (0x45, 64, 17);
    header[2..4].copy_from_slice(&u16::try_from(IPV4_HEADER + payload).unwrap().to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&offset.to_be_bytes());
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    header
}

/// Without a checksum, as UDP over IPv4 may be.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let fields = [50_000, port, length, 0];
    fields.iter().flat_map(|field: &u16| field.to_be_bytes()).chain(payload.iter().copied()).collect()
}

fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
