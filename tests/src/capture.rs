//! A capture on the underlay, decoded by somebody who knows VXLAN and not us: tshark.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    Netns,
    process::{Background, Cmd, fresh_log},
    traffic::iperf,
    wait::eventually,
};

/// How long tcpdump may take to start, and to write what it has.
const SOON: Duration = Duration::from_secs(5);

/// Fields of each packet, outer header first where a field occurs twice.
const FIELDS: [&str; 19] = [
    "frame.protocols",
    "_ws.malformed",
    "vxlan.vni",
    "vxlan.flags",
    "ip.src",
    "ip.dst",
    "udp.dstport",
    "ip.proto",
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
    "_ws.expert.severity",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "icmpv6.checksum.status",
    "udp.checksum",
    "tcp.checksum",
];

/// tshark's word for a good checksum, and for one that is not there.
const GOOD: &str = "1";
const ABSENT: &str = "3";
/// Its severity of errors (`PI_ERROR`).
const ERROR: &str = "8388608";

/// Bytes of a capture file's header and of each record's, and how the former begins: microseconds, in the byte
/// order of who wrote it (draft-ietf-opsawg-pcap).
const PCAP_HEADER: usize = 24;
const PCAP_RECORD: usize = 16;
const PCAP_MAGIC: [u8; 4] = 0xa1b2_c3d4_u32.to_ne_bytes();

/// How a tunnel packet is expected to look.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Whether the outer header is IPv6.
    pub outer_v6: bool,
    /// Whether the inner header is IPv6.
    pub inner_v6: bool,
    /// The VNI.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// Whether checksums of UDP, TCP and ICMP are complete, which with checksum offload they are not yet.
    pub complete: bool,
    /// Whether there is an outer UDP checksum; `None` where either is right.
    pub outer_checksum: Option<bool>,
}

/// tcpdump at work on one device; it sees both directions.
#[derive(Debug)]
pub struct Capture {
    process: Background,
    file: PathBuf,
    log: PathBuf,
    /// The UDP port that carries VXLAN, where tshark has to be told.
    port: Option<u16>,
}

/// A packet as tshark reads it.
#[derive(Clone, Debug)]
pub struct Packet {
    values: Vec<String>,
}

impl Capture {
    /// Captures UDP of one port, whole packets, into `dir`.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn start(ns: &Netns, device: &str, port: u16, dir: &Path) -> Result<Self> {
        Self::begin(ns, device, &format!("udp port {port}"), Some(port), dir)
    }

    /// Captures whatever a filter lets pass, as pcap-filter(7) has them.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn of(ns: &Netns, device: &str, filter: &str, dir: &Path) -> Result<Self> {
        Self::begin(ns, device, filter, None, dir)
    }

    fn begin(ns: &Netns, device: &str, filter: &str, port: Option<u16>, dir: &Path) -> Result<Self> {
        let (file, log) = (dir.join("capture.pcap"), dir.join("tcpdump.log"));
        fresh_log(&log)?;
        let cmd = ns.cmd("tcpdump").args(["-n", "-U", "-B", "32768", "-i", device, "-w"]);
        let cmd = cmd.arg(file.display().to_string()).args(filter.split(' '));
        let process = cmd.spawn(&log)?;
        let listens = || process.tail(5).contains("listening on");
        eventually("tcpdump listens", SOON, listens).with_context(|| process.tail(5))?;
        Ok(Self { process, file, log, port })
    }

    /// The frames written so far, as they were on the wire.
    ///
    /// # Errors
    /// The file is no capture.
    pub fn frames(&self) -> Result<Vec<Vec<u8>>> {
        let bytes = std::fs::read(&self.file)?;
        let (header, mut rest) = bytes.split_at_checked(PCAP_HEADER).context("a capture without header")?;
        ensure!(header.starts_with(&PCAP_MAGIC), "{} is no capture of this machine's", self.file.display());
        let mut frames = Vec::new();
        // What tcpdump is still writing is left for the next time.
        while let Some((record, behind)) = rest.split_at_checked(PCAP_RECORD) {
            let len = u32::from_ne_bytes([record[8], record[9], record[10], record[11]]);
            let Some((frame, behind)) = behind.split_at_checked(usize::try_from(len)?) else { break };
            frames.push(frame.to_vec());
            rest = behind;
        }
        Ok(frames)
    }

    /// Ends the capture and decodes it.
    ///
    /// # Errors
    /// tcpdump has missed packets, or tshark failed.
    pub fn finish(mut self) -> Result<Vec<Packet>> {
        self.process.signal(Signal::SIGINT)?;
        eventually("tcpdump ends", SOON, || !self.process.alive())?;
        let said = std::fs::read_to_string(&self.log)?;
        ensure!(said.contains("0 packets dropped by kernel"), "tcpdump missed packets:\n{said}");
        let mut args: Vec<String> =
            ["-n", "-T", "fields", "-E", "separator=|", "-r"].map(str::to_owned).into();
        args.push(self.file.display().to_string());
        args.extend(self.port.iter().flat_map(|port| ["-d".into(), format!("udp.port=={port},vxlan")]));
        for field in FIELDS {
            args.extend(["-e".to_owned(), field.to_owned()]);
        }
        for protocol in ["ip", "udp", "tcp"] {
            args.extend(["-o".to_owned(), format!("{protocol}.check_checksum:TRUE")]);
        }
        // What iperf3 sends is no protocol: tshark must not guess at one and call it malformed.
        for protocol in ["tcp", "udp"] {
            args.extend(["-d".to_owned(), format!("{protocol}.port=={},data", iperf::PORT)]);
        }
        // Nor is a port that a kernel chose for a test: some of them belong to protocols, as 34980 to EtherCAT.
        args.extend(["-d".to_owned(), "tcp.port==32768-60999,data".to_owned()]);
        let output = Cmd::new("tshark").args(args).timeout(Duration::from_secs(60)).check()?;
        output.stdout.lines().map(Packet::read).collect()
    }
}

impl Packet {
    fn read(line: &str) -> Result<Self> {
        let values: Vec<String> = line.split('|').map(str::to_owned).collect();
        if values.len() != FIELDS.len() {
            bail!("tshark printed {} fields, not {}: {line}", values.len(), FIELDS.len());
        }
        Ok(Self { values })
    }

    fn all(&self, field: &str) -> Vec<&str> {
        let index = FIELDS.iter().position(|known| *known == field);
        let value = index.and_then(|index| self.values.get(index)).map_or("", String::as_str);
        value.split(',').filter(|part| !part.is_empty()).collect()
    }

    /// The outer source address.
    #[must_use]
    pub fn outer_source(&self) -> Option<IpAddr> {
        if self.layers().outer_v6 {
            return self.all("ipv6.src").first()?.parse::<Ipv6Addr>().ok().map(Into::into);
        }
        self.all("ip.src").first()?.parse::<Ipv4Addr>().ok().map(Into::into)
    }

    /// The inner protocol's number.
    #[must_use]
    pub fn inner_protocol(&self) -> Option<u8> {
        let Layers { outer_v6, inner_v6 } = self.layers();
        let field = if inner_v6 { "ipv6.nxt" } else { "ip.proto" };
        self.all(field).get(usize::from(outer_v6 == inner_v6))?.parse().ok()
    }

    /// Whether the inner header is IPv6.
    #[must_use]
    pub fn inner_is_v6(&self) -> bool {
        self.layers().inner_v6
    }

    /// The headers, from the outermost on, as in `eth:ethertype:ip:gre:ip:icmp`.
    #[must_use]
    pub fn protocols(&self) -> String {
        self.all("frame.protocols").join(",")
    }

    /// What tshark finds wrong with it, `None` where nothing is.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let bad_checksums = self.all("ip.checksum.status").iter().any(|status| *status != GOOD);
        // It calls an absent UDP checksum over IPv6 an error; RFC 6935 lets tunnels do without.
        let without = self.layers().outer_v6 && self.all("udp.checksum").first() == Some(&"0x0000");
        let wrong = bad_checksums
            || !self.all("_ws.malformed").is_empty()
            || (!without && self.all("_ws.expert.severity").contains(&ERROR));
        wrong.then(|| self.values.join(" | "))
    }

    /// What is wrong with it as a VXLAN packet of this network, IPv4 in IPv4, `None` where nothing is. Checksums of
    /// UDP, TCP and ICMP are looked at where they are `complete`, which with checksum offload they are not yet;
    /// the outer one may be zero.
    #[must_use]
    pub fn fault(&self, vni: u32, port: u16, complete: bool) -> Option<String> {
        let (outer_v6, inner_v6, outer_checksum) = (false, false, None);
        self.fault_in(&Shape { outer_v6, inner_v6, vni, port, complete, outer_checksum })
    }

    /// What is wrong with it as a packet of this shape, `None` where nothing is.
    #[must_use]
    pub fn fault_in(&self, shape: &Shape) -> Option<String> {
        let &Shape { outer_v6, inner_v6, vni, port, complete, outer_checksum } = shape;
        let version = |v6: bool| if v6 { "ipv6" } else { "ip" };
        let layers =
            format!("eth:ethertype:{}:udp:vxlan:eth:ethertype:{}:", version(outer_v6), version(inner_v6));
        let headers = [outer_v6, inner_v6].iter().filter(|v6| !**v6).count();
        let checks = [
            (self.all("frame.protocols").join(",").starts_with(&layers), "not these versions of IP"),
            (self.all("_ws.malformed").is_empty(), "malformed"),
            (self.number("vxlan.vni") == Some(vni), "another VNI"),
            (self.number("vxlan.flags") == Some(0x0800), "other flags than I"),
            (self.all("udp.dstport").first().and_then(|p| p.parse().ok()) == Some(port), "another port"),
            (self.all("ip.checksum.status") == vec![GOOD; headers], "a bad IP checksum"),
            (outer_checksum.is_none_or(|there| there == self.has_outer_checksum()), "an outer UDP checksum"),
            (!complete || self.outer_udp_is_good(), "a bad outer UDP checksum"),
            (!complete || self.inner_is_good(), "a bad inner checksum"),
        ];
        let wrong: Vec<&str> = checks.iter().filter(|(good, _)| !good).map(|(_, what)| *what).collect();
        (!wrong.is_empty()).then(|| format!("{}: {}", wrong.join(", "), self.values.join(" | ")))
    }

    fn layers(&self) -> Layers {
        let protocols = self.all("frame.protocols").join(",");
        let mut versions = protocols.split(':').filter(|part| matches!(*part, "ip" | "ipv6"));
        let mut v6 = || versions.next() == Some("ipv6");
        Layers { outer_v6: v6(), inner_v6: v6() }
    }

    fn has_outer_checksum(&self) -> bool {
        self.all("udp.checksum").first() != Some(&"0x0000")
    }

    fn number(&self, field: &str) -> Option<u32> {
        let text = *self.all(field).first()?;
        match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    fn outer_udp_is_good(&self) -> bool {
        // tshark calls an absent checksum over IPv6 illegal; RFC 6935 lets tunnels do without.
        !self.has_outer_checksum()
            || matches!(self.all("udp.checksum.status").first(), Some(&(GOOD | ABSENT)))
    }

    fn inner_is_good(&self) -> bool {
        let status = match self.inner_protocol() {
            Some(1) => self.all("icmp.checksum.status").first().copied(),
            // Linux writes 0xffff for 0x0000, here too (CSUM_MANGLED_0), which adds up the same: tshark calls that bad
            // too, but warns of it instead of calling it an error, as it does any other.
            Some(6)
                if self.all("tcp.checksum").first() == Some(&"0xffff")
                    && !self.all("_ws.expert.severity").contains(&ERROR) =>
            {
                Some(GOOD)
            }
            Some(6) => self.all("tcp.checksum.status").first().copied(),
            Some(58) => self.all("icmpv6.checksum.status").first().copied(),
            Some(17) => self.all("udp.checksum.status").get(1).copied(),
            _ => None,
        };
        status == Some(GOOD)
    }
}

/// Which versions of IP a packet is made of.
struct Layers {
    outer_v6: bool,
    inner_v6: bool,
}
