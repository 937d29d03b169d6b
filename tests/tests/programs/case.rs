//! A row of a table and the runner: what goes in, what must come out, and that nothing else moved.

use std::fmt::Write;

use overlay_common::{
    DropReason,
    map::{Direction, Endpoint, EndpointKey, Traffic},
};
use overlay_user::datapath::map::Maps;

use crate::{
    bed::{Bed, Ran, State, with_bed},
    packet::{Addr, IPV6, at, ip_checksum_holds},
    skb::Context,
    world,
};

/// `TCX_NEXT`.
pub(crate) const NEXT: i32 = -1;
/// `TCX_DROP`.
pub(crate) const DROP: i32 = 2;
/// `TCX_REDIRECT`.
pub(crate) const REDIRECT: i32 = 7;

/// The dynamic ports, from which RFC 7348 section 5 wants the outer source port.
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// What the packet must look like afterwards.
#[derive(Clone, Debug)]
enum Out {
    Untouched,
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, but for the outer source port, which must be a dynamic one.
    Tunnel(Vec<u8>),
}

/// A change to the maps.
pub(crate) type Setup = Box<dyn Fn(&mut Maps) + Sync>;

/// A row.
pub(crate) struct Case {
    pub(crate) name: String,
    program: &'static str,
    pub(crate) context: Context,
    pub(crate) packet: Vec<u8>,
    pub(crate) setup: Vec<Setup>,
    verdict: i32,
    out: Out,
    mark_out: u32,
    pub(crate) drop: Option<DropReason>,
    traffic: Option<(u32, Direction, Traffic)>,
    /// An endpoint that is new or changed, and by how much `learned` of its port moves.
    endpoint: Option<(EndpointKey, Endpoint, u32)>,
    events: Vec<Vec<u8>>,
}

impl Case {
    /// A packet on a device, of which nothing is expected but that it passes untouched.
    pub(crate) fn new(name: impl Into<String>, program: &'static str, ifindex: u32, packet: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            program,
            context: Context { ifindex, ..Context::default() },
            packet,
            setup: Vec::new(),
            verdict: NEXT,
            out: Out::Untouched,
            mark_out: 0,
            drop: None,
            traffic: None,
            endpoint: None,
            events: Vec::new(),
        }
    }

    /// Changes the maps beforehand.
    pub(crate) fn with(mut self, setup: impl Fn(&mut Maps) + Sync + 'static) -> Self {
        self.setup.push(Box::new(setup));
        self
    }

    /// Is seen on this device instead.
    pub(crate) fn on(mut self, ifindex: u32) -> Self {
        self.context.ifindex = ifindex;
        self
    }

    /// Comes in with this mark, and keeps it if nothing else is said.
    pub(crate) fn mark(mut self, mark: u32) -> Self {
        self.context.mark = mark;
        self.mark_out = mark;
        self
    }

    /// Is an aggregate.
    pub(crate) fn gso(mut self, gso_size: u32, gso_segs: u32) -> Self {
        self.context.gso_size = gso_size;
        self.context.gso_segs = gso_segs;
        self
    }

    /// Must be dropped and counted under `reason`.
    pub(crate) fn drops(mut self, reason: DropReason) -> Self {
        self.verdict = DROP;
        self.drop = Some(reason);
        self
    }

    /// Must be redirected as exactly these bytes.
    pub(crate) fn redirects(mut self, bytes: Vec<u8>) -> Self {
        self.verdict = REDIRECT;
        self.out = Out::Bytes(bytes);
        self
    }

    /// Must be redirected as this tunnel packet, with any dynamic source port.
    pub(crate) fn tunnels(mut self, bytes: Vec<u8>) -> Self {
        self.verdict = REDIRECT;
        self.out = Out::Tunnel(bytes);
        self
    }

    /// Must leave with this mark.
    pub(crate) fn mark_out(mut self, mark: u32) -> Self {
        self.mark_out = mark;
        self
    }

    /// Must be counted as traffic.
    pub(crate) fn counts(mut self, peer: u32, direction: Direction, packets: u64, bytes: usize) -> Self {
        self.traffic = Some((peer, direction, Traffic { packets, bytes: bytes as u64 }));
        self
    }

    /// Must enter or replace an endpoint.
    pub(crate) fn learns(self, addr: Addr, endpoint: Endpoint) -> Self {
        self.learns_key(world::endpoint_key(addr), endpoint)
    }

    /// The same, of either IP version.
    pub(crate) fn learns_key(mut self, key: EndpointKey, endpoint: Endpoint) -> Self {
        self.endpoint = Some((key, endpoint, 1));
        self
    }

    /// Must send one event, these bytes.
    pub(crate) fn tells(mut self, event: Vec<u8>) -> Self {
        self.events.push(event);
        self
    }

    /// What it must be redirected as, where it must.
    pub(crate) fn redirected(&self) -> Option<&[u8]> {
        match &self.out {
            Out::Bytes(bytes) if self.verdict == REDIRECT => Some(bytes),
            _ => None,
        }
    }

    /// What the state must be after the run.
    fn expected_state(&self, mut state: State) -> State {
        if let Some(reason) = self.drop {
            state.drops[reason.number() as usize] += 1;
        }
        if let Some((peer, direction, delta)) = self.traffic {
            let entry = state.traffic.iter_mut().find(|(key, _)| *key == (peer, direction as u32));
            let (_, sum) = entry.expect("a peer of world.rs");
            sum.packets += delta.packets;
            sum.bytes += delta.bytes;
        }
        if let Some((key, endpoint, learned)) = self.endpoint {
            state.endpoints.retain(|(known, _)| *known != key);
            state.endpoints.push((key, endpoint));
            state.endpoints.sort_by_key(|(key, _)| *key);
            let port = state.learned.iter_mut().find(|(ifindex, _)| *ifindex == self.context.ifindex);
            port.expect("a port of world.rs").1 += learned;
        }
        state
    }

    /// Runs the row; says what was not as expected.
    fn run(&self, bed: &mut Bed) -> Result<(), String> {
        bed.reset();
        for setup in &self.setup {
            setup(&mut bed.maps);
        }
        self.run_once(bed, "")?;
        // What has been learned is known by now. All else fares the same, though its flow may be remembered.
        if self.endpoint.is_some() || !self.events.is_empty() {
            Ok(())
        } else {
            self.run_once(bed, ", again")
        }
    }

    fn run_once(&self, bed: &mut Bed, which: &str) -> Result<(), String> {
        let expected = self.expected_state(bed.state());
        let ran = bed.run(self.program, self.context, &self.packet);
        let mut wrong = String::new();
        if ran.verdict != self.verdict {
            let _ = writeln!(wrong, "  verdict {} instead of {}", ran.verdict, self.verdict);
        }
        if ran.mark != self.mark_out {
            let _ = writeln!(wrong, "  mark {:#x} instead of {:#x}", ran.mark, self.mark_out);
        }
        self.compare_packet(&ran, &mut wrong);
        compare_state(&bed.state(), &expected, &mut wrong);
        let events = bed.events();
        if events != self.events {
            let _ = writeln!(wrong, "  events {events:02x?} instead of {:02x?}", self.events);
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{}{which} ({}):\n{wrong}", self.name, self.program))
        }
    }

    fn compare_packet(&self, ran: &Ran, wrong: &mut String) {
        let mut expected = match &self.out {
            Out::Untouched => self.packet.clone(),
            Out::Bytes(bytes) | Out::Tunnel(bytes) => bytes.clone(),
        };
        if matches!(self.out, Out::Tunnel(_)) && ran.packet.len() >= at::INNER_IP {
            let over_v6 = expected[12..14] == IPV6.to_be_bytes();
            let udp = if over_v6 { at::OUTER_UDP_V6 } else { at::OUTER_UDP };
            let port = &ran.packet[udp..udp + 2];
            expected[udp..udp + 2].copy_from_slice(port);
            let port = u16::from_be_bytes([port[0], port[1]]);
            if !DYNAMIC_PORTS.contains(&port) {
                let _ = writeln!(wrong, "  outer source port {port} is not a dynamic one");
            }
            if !over_v6 && !ip_checksum_holds(&ran.packet, at::OUTER_IP) {
                let _ = writeln!(wrong, "  the outer IP checksum is wrong");
            }
        }
        if ran.packet == expected {
            return;
        }
        let same = ran.packet.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let _ = writeln!(
            wrong,
            "  packet of {} bytes instead of {}, differs from byte {same} on:",
            ran.packet.len(),
            expected.len()
        );
        let _ = writeln!(wrong, "    is {}", hex(&ran.packet));
        let _ = writeln!(wrong, "    not {}", hex(&expected));
    }
}

pub(crate) fn compare_state(is: &State, expected: &State, wrong: &mut String) {
    for (number, (is, expected)) in is.drops.iter().zip(&expected.drops).enumerate() {
        if is != expected {
            let name = DropReason::from_number(number as u32).map_or("no reason", DropReason::name);
            let _ = writeln!(wrong, "  drops under {number} ({name}): {is} instead of {expected}");
        }
    }
    for ((key, is), (_, expected)) in is.traffic.iter().zip(&expected.traffic) {
        if is != expected {
            let _ = writeln!(wrong, "  traffic of (peer, direction) {key:?}: {is:?} instead of {expected:?}");
        }
    }
    if is.endpoints != expected.endpoints {
        let _ = writeln!(wrong, "  endpoints {:#?}\n  instead of {:#?}", is.endpoints, expected.endpoints);
    }
    if is.learned != expected.learned {
        let _ = writeln!(wrong, "  learned by port {:?} instead of {:?}", is.learned, expected.learned);
    }
}

/// The first bytes, headers marked off as in a VXLAN packet.
pub(crate) fn hex(packet: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in packet.iter().take(100).enumerate() {
        if [at::OUTER_IP, at::OUTER_UDP, at::VXLAN, at::INNER_ETH, at::INNER_IP].contains(&i) {
            text.push_str("| ");
        }
        let _ = write!(text, "{byte:02x} ");
    }
    text
}

/// Runs every row of a table, and fails with all that failed.
pub(crate) fn run_table(cases: &[Case]) {
    with_bed(|bed| {
        let failed: Vec<_> = cases.iter().filter_map(|case| case.run(bed).err()).collect();
        assert!(failed.is_empty(), "{} of {} rows:\n{}", failed.len(), cases.len(), failed.join("\n"));
    });
}
