//! The test bed: a network namespace with the devices of `world.rs`, and the object loaded with its maps
//! pinned in a directory of its own. All of it goes when the test ends, also by a panic.

use std::sync::OnceLock;

use aya::{
    maps::{Map, MapData, PerCpuArray, RingBuf},
    programs::{TestRun, TestRunOptions},
};
use harness::Scope;
use overlay_common::{
    DropReason,
    map::{Direction, Endpoint, EndpointKey, Traffic, name},
};
use overlay_user::datapath::{load::Programs, map::Maps, pin::Pins};

use crate::{
    skb::Context,
    world::{self, dev},
};

/// More than any packet of these tests grows to.
const BUFFER: usize = 8192;
/// Peer ids whose counters are watched: those in use and their neighbours.
const WATCHED_PEERS: std::ops::Range<u32> = 0..4;

/// What a program made of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// `TCX_NEXT` is -1.
    pub(crate) verdict: i32,
    pub(crate) packet: Vec<u8>,
    pub(crate) mark: u32,
    pub(crate) nanoseconds: u128,
}

/// Everything that the programs write, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// All entries of `DROPS`, those without a reason included.
    pub(crate) drops: Vec<u64>,
    /// By peer and direction.
    pub(crate) traffic: Vec<((u32, u32), Traffic)>,
    /// `last_seen` is left out.
    pub(crate) endpoints: Vec<(EndpointKey, Endpoint)>,
    /// `learned` by port.
    pub(crate) learned: Vec<(u32, u32)>,
}

pub(crate) struct Bed {
    pub(crate) maps: Maps,
    pub(crate) programs: Programs,
    pub(crate) pins: Pins,
    pub(crate) xdp_attached: bool,
    drops: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
}

/// Runs a test in a bed of its own.
pub(crate) fn with_bed(test: impl FnOnce(&mut Bed) + Send) {
    let scope = Scope::unique().unwrap();
    let ns = scope.netns("programs").unwrap();
    ns.ip_batch(&devices()).unwrap();
    let pins = Pins::new(&scope.pin_dir("programs"));
    let end = ns.run(|| test(&mut Bed::new(&pins)));
    assert!(end.is_ok(), "{:#}", end.unwrap_err());
}

fn devices() -> Vec<String> {
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    vec![
        format!("link add name br index {} address {} type bridge", dev::BRIDGE, mac(world::GATEWAY_MAC)),
        format!("link add name port index {} type veth peer name c1", dev::PORT),
        format!("link add name other index {} type veth peer name c2", dev::OTHER_PORT),
        format!("link add name stray index {} type veth peer name s1", dev::STRAY),
        format!(
            "link add name up index {} address {} type veth peer name u1",
            dev::UPLINK,
            mac(world::UPLINK_MAC)
        ),
        "link set port master br".to_owned(),
        "link set other master br".to_owned(),
        "link set u1 up".to_owned(),
        "link set dev up up".to_owned(),
    ]
}

impl Bed {
    fn new(pins: &Pins) -> Self {
        pins.prepare().unwrap();
        let programs = Programs::load(pins).unwrap();
        let drops = MapData::from_pin(pins.map(name::DROPS)).unwrap();
        let mut bed = Self {
            maps: Maps::open(pins).unwrap(),
            programs,
            pins: pins.clone(),
            xdp_attached: false,
            drops: Map::PerCpuArray(drops).try_into().unwrap(),
            events: Maps::events(pins).unwrap(),
        };
        world::fill(&mut bed.maps);
        bed
    }

    /// Brings the maps back to `world.rs`. Counters go on counting.
    pub(crate) fn reset(&mut self) {
        let maps = &mut self.maps;
        for (key, _) in maps.ports().unwrap() {
            maps.delete_port(key).unwrap();
        }
        for (key, _) in maps.endpoints().unwrap() {
            maps.delete_endpoint(key).unwrap();
        }
        for (key, _) in maps.routes().unwrap() {
            maps.delete_route(key).unwrap();
        }
        for (key, _) in maps.subnets().unwrap() {
            maps.delete_subnet(key).unwrap();
        }
        for (key, _) in maps.peers().unwrap() {
            maps.delete_peer(key).unwrap();
        }
        for (key, _) in maps.uplinks().unwrap() {
            maps.delete_uplink(key).unwrap();
        }
        for (key, _) in maps.decaps().unwrap() {
            maps.delete_decap(key).unwrap();
        }
        for (port, _) in maps.listen_ports().unwrap() {
            maps.delete_listen_port(port).unwrap();
        }
        for (peer, _) in maps.path_mtus().unwrap() {
            maps.delete_path_mtu(peer).unwrap();
        }
        for (port, _) in maps.tunnel_devices().unwrap() {
            maps.delete_tunnel_device(port).unwrap();
        }
        world::fill(maps);
        self.events();
    }

    /// Runs a program once.
    pub(crate) fn run(&mut self, program: &str, context: Context, packet: &[u8]) -> Ran {
        let mut data_out = Vec::new();
        let (verdict, mark, nanoseconds) = self.run_into(program, context, packet, &mut data_out);
        Ran { verdict, packet: data_out, mark, nanoseconds }
    }

    /// Runs a program once; what became of the packet is left in `data_out`. Returns the verdict, the mark and
    /// the nanoseconds.
    pub(crate) fn run_into(
        &mut self,
        program: &str,
        context: Context,
        packet: &[u8],
        data_out: &mut Vec<u8>,
    ) -> (i32, u32, u128) {
        let ctx_in = context.to_bytes();
        let mut ctx_out = ctx_in;
        data_out.resize(BUFFER, 0);
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(data_out),
            ctx_in: Some(&ctx_in),
            ctx_out: Some(&mut ctx_out),
            ..TestRunOptions::default()
        };
        let result = self.programs.get(program).unwrap().test_run(options);
        let result =
            result.unwrap_or_else(|e| panic!("{program}, {context:?}, {} bytes: {e:?}", packet.len()));
        data_out.truncate(result.data_size_out as usize);
        (result.return_value.cast_signed(), Context::mark_in(&ctx_out), result.duration.as_nanos())
    }

    /// All that the programs have written so far.
    pub(crate) fn state(&self) -> State {
        let drops = self.drops.iter().map(|cpus| cpus.unwrap().iter().sum()).collect();
        let mut endpoints = self.maps.endpoints().unwrap();
        endpoints.iter_mut().for_each(|(_, endpoint)| endpoint.last_seen = 0);
        endpoints.sort_by_key(|(key, _)| *key);
        let mut learned: Vec<_> =
            self.maps.ports().unwrap().into_iter().map(|(ifindex, port)| (ifindex, port.learned)).collect();
        learned.sort_unstable();
        let mut traffic = Vec::new();
        for peer in WATCHED_PEERS {
            for direction in [Direction::ToPeer, Direction::FromPeer] {
                traffic.push(((peer, direction as u32), self.maps.traffic(peer, direction).unwrap()));
            }
        }
        State { drops, traffic, endpoints, learned }
    }

    /// Packets counted as dropped, for any reason, and as traffic with any peer so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let drops = self.drops.iter().map(|cpus| cpus.unwrap().iter().sum::<u64>()).sum();
        let of = |peer, direction| self.maps.traffic(peer, direction).unwrap().packets;
        let both = |peer| of(peer, Direction::ToPeer) + of(peer, Direction::FromPeer);
        (drops, WATCHED_PEERS.map(both).sum())
    }

    /// The packets counted under a reason so far.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.maps.drops(reason).unwrap()
    }

    /// The events since the last call, as bytes.
    pub(crate) fn events(&mut self) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        while let Some(event) = self.events.next() {
            events.push(event.to_vec());
        }
        events
    }
}

/// The bytes of an event that tells of an address speaking from where it does not live: kind, ifindex, VNI,
/// address, MAC address, padding.
pub(crate) fn moved_event(ifindex: u32, addr: [u8; 4], mac: [u8; 6]) -> Vec<u8> {
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&addr);
    moved_event_ip(ifindex, mapped, mac)
}

/// The same for an address in the form that map keys have.
pub(crate) fn moved_event_ip(ifindex: u32, addr: [u8; 16], mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(ifindex.to_ne_bytes());
    bytes.extend(world::LOCAL_VNI.to_be_bytes());
    bytes.extend(addr);
    bytes.extend(mac);
    bytes.extend([0; 2]);
    bytes
}

/// Whether the kernel strips outer headers of another IP version than the inner one: `BPF_F_ADJ_ROOM_DECAP_L3_IPV4` and
/// its like came with Linux 6.3. Nothing but the version tells.
pub(crate) fn has_decap_across() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 3)
    })
}
