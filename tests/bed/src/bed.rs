//! The bed: a network namespace with the devices of `world.rs`, and the object loaded with its maps
//! pinned in a directory of its own. All of it goes when the work ends, also by a panic.

use std::sync::OnceLock;

use anyhow::Result;
use aya::{
    maps::{Map, MapData, PerCpuArray, RingBuf},
    programs::{TestRun, TestRunOptions},
};
use harness::Scope;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use overlay_common::{
    DropReason,
    map::{Direction, Endpoint, EndpointKey, Traffic, name},
};
use overlay_user::datapath::{OBJECT, load::Programs, map::Maps, pin::Pins};

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
pub struct Ran {
    /// `TCX_NEXT` is -1.
    pub verdict: i32,
    pub packet: Vec<u8>,
    pub mark: u32,
    pub nanoseconds: u128,
}

/// Everything that the programs write, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// All entries of `DROPS`, those without a reason included.
    pub drops: Vec<u64>,
    /// By peer and direction.
    pub traffic: Vec<((u32, u32), Traffic)>,
    /// `last_seen` is left out.
    pub endpoints: Vec<(EndpointKey, Endpoint)>,
    /// `learned` by port.
    pub learned: Vec<(u32, u32)>,
}

pub struct Bed {
    pub maps: Maps,
    pub programs: Programs,
    pub pins: Pins,
    pub xdp_attached: bool,
    drops: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
}

/// Does something in a bed of its own, which `build` makes in the namespace, given a directory for pins.
///
/// # Errors
/// The namespace, the programs or the maps cannot be made, or what `work` says.
pub fn in_bed<B, T: Send>(
    build: impl FnOnce(&Pins) -> Result<B> + Send,
    work: impl FnOnce(&mut B) -> Result<T> + Send,
) -> Result<T> {
    let scope = Scope::unique()?;
    let ns = scope.netns("programs")?;
    ns.ip_batch(&devices())?;
    let pins = Pins::new(&scope.pin_dir("programs"));
    ns.run(|| work(&mut build(&pins)?))?
}

/// Runs a test in a bed of its own.
///
/// # Panics
/// Where the bed cannot be made, or the test panics.
pub fn with_bed(test: impl FnOnce(&mut Bed) + Send) {
    let end = in_bed(
        |pins| Bed::load(pins, OBJECT),
        |bed| {
            stay_on_this_cpu()?;
            test(bed);
            Ok(())
        },
    );
    assert!(end.is_ok(), "{:#}", end.unwrap_err());
}

/// Each CPU remembers flows of its own.
fn stay_on_this_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
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
    /// Loads an object, with its maps pinned in a directory of its own, and fills them as `world.rs` says.
    ///
    /// # Errors
    /// The kernel refuses it, or its maps have other sizes than this build's.
    pub fn load(pins: &Pins, object: &[u8]) -> Result<Self> {
        pins.prepare()?;
        let programs = Programs::load_object(pins, object)?;
        let drops = MapData::from_pin(pins.map(name::DROPS))?;
        let mut bed = Self {
            maps: Maps::open(pins)?,
            programs,
            pins: pins.clone(),
            xdp_attached: false,
            drops: Map::PerCpuArray(drops).try_into()?,
            events: Maps::events(pins)?,
        };
        world::fill(&mut bed.maps)?;
        Ok(bed)
    }

    /// Brings the maps back to `world.rs`. Counters go on counting.
    pub fn reset(&mut self) {
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
        world::fill(maps).unwrap();
        self.events();
    }

    /// Runs a program once.
    pub fn run(&mut self, program: &str, context: Context, packet: &[u8]) -> Ran {
        let mut data_out = Vec::new();
        let (verdict, mark, nanoseconds) = self.run_into(program, context, packet, &mut data_out);
        Ran { verdict, packet: data_out, mark, nanoseconds }
    }

    /// Runs a program once; what became of the packet is left in `data_out`. Returns the verdict, the mark and
    /// the nanoseconds.
    pub fn run_into(
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
    pub fn state(&self) -> State {
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
    pub fn totals(&self) -> (u64, u64) {
        let drops = self.drops.iter().map(|cpus| cpus.unwrap().iter().sum::<u64>()).sum();
        let of = |peer, direction| self.maps.traffic(peer, direction).unwrap().packets;
        let both = |peer| of(peer, Direction::ToPeer) + of(peer, Direction::FromPeer);
        (drops, WATCHED_PEERS.map(both).sum())
    }

    /// The packets counted under a reason so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.maps.drops(reason).unwrap()
    }

    /// The events since the last call, as bytes.
    pub fn events(&mut self) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        while let Some(event) = self.events.next() {
            events.push(event.to_vec());
        }
        events
    }
}

/// The bytes of an event that tells of an address speaking from where it does not live: kind, ifindex, VNI,
/// address, MAC address, padding.
pub fn moved_event(ifindex: u32, addr: [u8; 4], mac: [u8; 6]) -> Vec<u8> {
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&addr);
    moved_event_ip(ifindex, mapped, mac)
}

/// The same for an address in the form that map keys have.
pub fn moved_event_ip(ifindex: u32, addr: [u8; 16], mac: [u8; 6]) -> Vec<u8> {
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
pub fn has_decap_across() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 3)
    })
}
