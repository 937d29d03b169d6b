//! Packets written byte by byte from the RFCs. Nothing here comes from overlay-common: what the programs
//! send is compared with a second opinion, not with their own.

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of Ethernet frames in GRE and Geneve.
pub const FRAME: u16 = 0x6558;

/// Protocol numbers of IP.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const IPIP: u8 = 4;

pub type Mac = [u8; 6];
pub type Addr = [u8; 4];

/// Where things stand in a VXLAN packet over IPv4 without options.
pub mod at {
    pub const OUTER_IP: usize = 14;
    pub const OUTER_UDP: usize = OUTER_IP + 20;
    /// The same over IPv6.
    pub const OUTER_UDP_V6: usize = OUTER_IP + 40;
    pub const VXLAN: usize = OUTER_UDP + 8;
    pub const INNER_ETH: usize = VXLAN + 8;
    pub const INNER_IP: usize = INNER_ETH + 14;
}

/// The Internet checksum, RFC 1071 section 4.1, the slow and obvious way.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// True where the IPv4 header at `offset` carries the right checksum.
pub fn ip_checksum_holds(packet: &[u8], offset: usize) -> bool {
    let header_len = usize::from(packet[offset] & 0x0f) * 4;
    checksum(&packet[offset..offset + header_len]) == 0
}

/// An Ethernet II frame.
pub fn eth(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(dst);
    frame.extend(src);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A UDP datagram without checksum.
pub fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = Vec::new();
    for field in [src_port, dst_port, len, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// A GRE header (RFC 2784, RFC 2890) and what it carries.
pub fn gre(protocol: u16, key: Option<u32>, carried: &[u8]) -> Vec<u8> {
    let mut packet = vec![if key.is_some() { 0x20 } else { 0 }, 0];
    packet.extend(protocol.to_be_bytes());
    packet.extend(key.map(u32::to_be_bytes).into_iter().flatten());
    packet.extend(carried);
    packet
}

/// A Geneve header (RFC 8926 section 3.4) with options, whole words of them, and the frame that it carries.
pub fn geneve(vni: u32, flags: u8, options: &[u8], frame: &[u8]) -> Vec<u8> {
    let mut packet = vec![(options.len() / 4) as u8, flags];
    packet.extend(FRAME.to_be_bytes());
    packet.extend((vni << 8).to_be_bytes());
    packet.extend(options);
    packet.extend(frame);
    packet
}

/// A TCP segment; `header_len` beyond 20 bytes is filled with no-operation options.
pub fn tcp(src_port: u16, dst_port: u16, header_len: usize, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(src_port.to_be_bytes());
    segment.extend(dst_port.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([((header_len / 4) as u8) << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.resize(header_len, 1);
    segment.extend(payload);
    segment
}

/// Bytes that differ from each other, so that a shift by any amount shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 3) as u8).collect()
}

/// An IPv4 packet.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub tos: u8,
    /// What the header claims; the truth where `None`.
    pub total_len: Option<u16>,
    pub id: u16,
    pub flags_fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub src: Addr,
    pub dst: Addr,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Ipv4 {
    /// A UDP packet of 28 + 56 bytes, as a container sends it.
    pub fn udp(src: Addr, dst: Addr) -> Self {
        Self {
            tos: 0,
            total_len: None,
            id: 0x1234,
            flags_fragment: 0x4000,
            ttl: 64,
            protocol: UDP,
            src,
            dst,
            options: Vec::new(),
            payload: udp(1111, 2222, &pattern(56)),
        }
    }

    /// The same with as much payload as makes it `total` bytes long.
    pub fn sized(src: Addr, dst: Addr, total: usize) -> Self {
        Self { payload: udp(1111, 2222, &pattern(total - 28)), ..Self::udp(src, dst) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total = self.total_len.unwrap_or_else(|| (header_len + self.payload.len()).try_into().unwrap());
        let mut packet = vec![0x40 | (header_len / 4) as u8, self.tos];
        for field in [total, self.id, self.flags_fragment] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.src);
        packet.extend(self.dst);
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.payload);
        packet
    }
}

/// A VXLAN packet over IPv4 (RFC 7348 section 5), as it is on the wire.
#[derive(Clone, Debug)]
pub struct Vxlan {
    pub eth_dst: Mac,
    pub eth_src: Mac,
    pub tos: u8,
    pub flags_fragment: u16,
    pub ip_options: Vec<u8>,
    pub src: Addr,
    pub dst: Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub flags: u8,
    pub reserved: [u8; 3],
    pub vni: u32,
    pub reserved2: u8,
    pub inner_eth_dst: Mac,
    pub inner_eth_src: Mac,
    pub inner_ethertype: u16,
    pub inner: Vec<u8>,
}

impl Vxlan {
    pub fn bytes(&self) -> Vec<u8> {
        let mut vxlan = vec![self.flags];
        vxlan.extend(self.reserved);
        vxlan.extend(&self.vni.to_be_bytes()[1..]);
        vxlan.push(self.reserved2);
        vxlan.extend(eth(self.inner_eth_dst, self.inner_eth_src, self.inner_ethertype, &self.inner));
        let ip = Ipv4 {
            tos: self.tos,
            total_len: None,
            id: 0,
            flags_fragment: self.flags_fragment,
            ttl: 64,
            protocol: UDP,
            src: self.src,
            dst: self.dst,
            options: self.ip_options.clone(),
            payload: udp(self.src_port, self.dst_port, &vxlan),
        };
        eth(self.eth_dst, self.eth_src, IPV4, &ip.bytes())
    }
}

/// Writes a big-endian field over what is there, and puts the checksum of the outer IP header right again.
pub fn patched(mut packet: Vec<u8>, offset: usize, value: u16) -> Vec<u8> {
    packet[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
    packet[at::OUTER_IP + 10..at::OUTER_IP + 12].fill(0);
    let sum = checksum(&packet[at::OUTER_IP..at::OUTER_UDP]);
    packet[at::OUTER_IP + 10..at::OUTER_IP + 12].copy_from_slice(&sum.to_be_bytes());
    packet
}
