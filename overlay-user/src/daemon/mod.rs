//! The daemon: starts, then keeps the kernel in step with the store, the links and the neighbours until it
//! is told to end.

mod announce;
mod claims;
mod decap;
mod hooks;
mod interfaces;
mod leased;
mod neighbours;
mod netfilter;
mod notes;
mod own;
mod pace;
mod peers;
mod phases;
mod pinned;
mod repairs;
mod routed;
mod signals;
mod start;
mod strangers;
mod supervisor;
mod tunnels;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use overlay_common::{
    addr::MapIp,
    event::{ENDPOINT_MOVED, Event as ProgramEvent, PATH_MTU_CHANGED},
    map::{NeighbourKey, StoreState},
};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

pub use self::signals::hold as hold_hang_ups;
use self::{pace::Pace, signals::Ends, supervisor::Supervisor, ways::Ways};
use crate::{
    api::{Api, Word},
    config::{Config, OnExit},
    datapath::{load::Programs, map::Maps, pin::Pins},
    decap::Decap,
    detach, endpoints, exit,
    local::Local,
    memory,
    netlink::{Event, Monitor, Netlink},
    ports::Ports,
    reconcile::{
        Reconciler,
        records::{Records, Touched},
    },
    state::{State, StateDir},
    status,
    store::{Health, Update},
    tunnel_devices::TunnelDevices,
};

/// How often the status is written and what failed is tried again.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often everything is read back from the kernel, and drift repaired; of thousands of peers less often, so that it
/// takes no more than one part in [`RESYNC_SHARE`] of a CPU.
const RESYNC: Duration = Duration::from_secs(10);
const RESYNC_SHARE: u32 = 200;
/// The part of a CPU that may be taken by looking at all peers again because something is wrong with some.
const RETRY_SHARE: u32 = 50;

/// A round that takes longer than this is worth a word for who looks into delays.
const LONG_ROUND: Duration = Duration::from_millis(5);

/// How a daemon has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// It is to be started again, as it was started, to read its configuration again. The data path goes on meanwhile.
    Again,
}

/// Runs until a signal ends it. SIGHUP has it start again, where `check` finds nothing wrong with what it would be started
/// with.
///
/// # Errors
/// One line where it cannot start; nothing is left behind then that was not there before.
pub async fn run(config: Config, check: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<Ended> {
    let mut daemon = start::start(config).await?;
    let mut ends = Ends::new()?;
    let mut hang_up = signals::hang_up()?;
    daemon.supervisor.ready();
    let again = {
        // Dropped in the middle it may leave things half done: that is for the end alone.
        let mut serving = std::pin::pin!(daemon.serve());
        loop {
            tokio::select! {
                () = &mut serving => break false,
                () = ends.told() => break false,
                _ = hang_up.recv() => match check() {
                    Ok(()) => break true,
                    Err(error) => {
                        error!("the configuration is not read again: {}", exit::one_line(&error));
                    }
                },
            }
        }
    };
    if again && !ends.leave().await {
        return daemon.again().await;
    }
    Supervisor::stopping();
    daemon.end().await.map(Ended::Code)
}

/// What changed since the last round.
#[derive(Default)]
struct Dirty {
    /// The store's records, or how peers are reached.
    touched: Touched,
    /// What routers told of path MTUs.
    path_mtus: bool,
    /// Tunnels that no route uses may be due to be cleared.
    idle: bool,
    /// Links: ports came or went.
    links: bool,
    /// Neighbours or the FDB.
    endpoints: bool,
    /// Our own interfaces: address, MAC address or MTU may be others.
    local: bool,
    /// Any routes of the underlay.
    next_hops: bool,
    /// Everything is read back from the kernel.
    whole: bool,
}

impl Dirty {
    /// What is in here, for the log.
    fn words(&self) -> String {
        let Self { touched, path_mtus, idle, links, endpoints, local, next_hops, whole } = self;
        let (all, subnets, addresses) = (touched.all, touched.subnets.len(), touched.addresses.len());
        format!(
            "all {all}, subnets {subnets}, addresses {addresses}, path MTUs {path_mtus}, idle {idle}, links {links}, \
             endpoints {endpoints}, local {local}, next hops {next_hops}, whole {whole}"
        )
    }

    fn all() -> Self {
        Self {
            touched: Touched::all(),
            path_mtus: true,
            idle: true,
            links: true,
            endpoints: true,
            local: true,
            next_hops: true,
            whole: false,
        }
    }
}

/// What a trouble is about: each is looked at anew on its own occasions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aspect {
    /// Our own interfaces.
    Local,
    /// The pins.
    Pins,
    /// Attaching to links.
    Links,
    /// Endpoints.
    Endpoints,
    /// Peers and routes.
    Routes,
    /// Subnets that several keys claim.
    Contests,
    /// Tunnel devices.
    Tunnels,
    /// Where tunnel packets are decapsulated.
    Decap,
}

struct Daemon {
    config: Config,
    local: Local,
    /// One of our interfaces was missing, or not as it must be, when last looked for.
    astray: bool,
    /// Pins were made again at the last heartbeat.
    mending: bool,
    state: State,
    state_dir: StateDir,
    pins: Pins,
    programs: Programs,
    maps: Maps,
    events: AsyncFd<RingBuf<MapData>>,
    netlink: Netlink,
    monitor: Monitor,
    announcer: announce::Announcer,
    updates: mpsc::Receiver<Update>,
    /// What the store says; `None` until it has spoken. What the maps hold is the last good state then.
    records: Option<Records>,
    /// What was touched while everything was looked at, and is too much to be looked at meanwhile.
    waiting: Touched,
    /// This host has changed, and the store does not know yet.
    untold: Option<interfaces::Untold>,
    /// Through which uplinks and neighbours each peer is reached.
    underlay: Ways,
    /// The largest outer packet to peers to whom the way carries less than the uplink.
    path_mtus: BTreeMap<IpAddr, u32>,
    ports: Ports,
    tunnel_devices: TunnelDevices,
    /// The ports and VNIs that the tunnel devices were last made for.
    tunnels_told: Option<tunnels::Carried>,
    decap: Decap,
    reconciler: Reconciler,
    phases: phases::Phases,
    /// Looking at all peers.
    whole: Pace,
    /// Reading everything back from the kernel.
    resync: Pace,
    health: Health,
    store_synced: u64,
    started: u64,
    /// What is wrong besides the store, one line each; said once.
    troubles: BTreeMap<Aspect, BTreeSet<String>>,
    netfilter: netfilter::Watch,
    hooks: hooks::Watch,
    notes: BTreeMap<notes::Source, Vec<String>>,
    supervisor: Supervisor,
    api: Api,
    repairs: repairs::Repairs,
    strangers: strangers::Watch,
    /// The gateways of bridges that are asked for.
    asked: BTreeMap<NeighbourKey, neighbours::Asked>,
}

impl Daemon {
    /// Serves for ever.
    async fn serve(&mut self) {
        let mut heartbeat = interval(HEARTBEAT);
        let mut resync = interval(RESYNC);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        resync.reset();
        loop {
            let mut dirty = Dirty { touched: std::mem::take(&mut self.waiting), ..Dirty::default() };
            if !dirty.touched.is_empty() {
                self.round(std::mem::take(&mut dirty)).await;
            }
            let mut told = Vec::new();
            let mut resyncing = None;
            tokio::select! {
                Some(update) = self.updates.recv() => self.take_update(update, &mut dirty.touched),
                Some(event) = self.monitor.next() => self.take_event(&event, &mut dirty),
                Ok(mut ready) = self.events.readable_mut() => {
                    while let Some(bytes) = ready.get_inner_mut().next() {
                        told.extend(bytemuck::try_pod_read_unaligned::<ProgramEvent>(&bytes).ok());
                    }
                    ready.clear_ready();
                    dirty.path_mtus = told.iter().any(|event| event.kind == PATH_MTU_CHANGED);
                }
                findings = self.netfilter.finished() => self.take_findings(findings, &mut dirty),
                _ = heartbeat.tick() => {
                    self.ask_for_gateways();
                    self.watch_netfilter();
                    self.watch_hooks().await;
                    self.watch_strangers();
                    dirty.links = self.mend_pins();
                    dirty.touched.all = self.troubles.contains_key(&Aspect::Routes) && self.whole.is_due();
                    dirty.idle = self.reconciler.has_leftovers();
                    dirty.path_mtus = self.path_mtus_changed();
                    dirty.links |= self.troubles.contains_key(&Aspect::Links);
                    dirty.endpoints = self.troubles.contains_key(&Aspect::Endpoints);
                    dirty.local = self.troubles.contains_key(&Aspect::Local);
                }
                _ = resync.tick(), if self.resync.is_due() => {
                    resyncing = Some(Instant::now());
                    self.reconciler.resync();
                    self.underlay.forget_some();
                    dirty = Dirty { next_hops: false, whole: true, ..Dirty::all() };
                    if let Err(error) = endpoints::age(&self.local, &mut self.maps, &self.netlink).await {
                        warn!("cannot age endpoints: {error}");
                    }
                }
            }
            // What has piled up is handled in one round.
            while let Ok(update) = self.updates.try_recv() {
                self.take_update(update, &mut dirty.touched);
            }
            while let Some(event) = self.monitor.try_next() {
                self.take_event(&event, &mut dirty);
            }
            self.ask_about_moves(&told).await;
            self.ask_for_neighbours(&told);
            let (began, why) = (Instant::now(), dirty.words());
            self.round(dirty).await;
            if began.elapsed() >= LONG_ROUND {
                debug!("a round of {:.1} ms: {why}", began.elapsed().as_secs_f64() * 1e3);
            }
            if let Some(began) = resyncing {
                self.resync.took(began);
            }
        }
    }

    fn take_update(&mut self, update: Update, touched: &mut Touched) {
        match update {
            Update::Snapshot(records) => {
                self.local.take_kinds(records.values());
                match &mut self.records {
                    Some(known) => known.replace(records, touched),
                    None => {
                        self.records = Some(records.into());
                        touched.all = true;
                    }
                }
                self.store_synced = status::now();
                memory::give_back();
            }
            Update::Put(record) => {
                self.local.take_kinds([&record]);
                self.records.get_or_insert_default().put(record, touched);
            }
            Update::Delete(subnet) => {
                self.records.get_or_insert_default().delete(subnet, touched);
            }
            Update::Contested(contests) => self.take_contests(contests),
            Update::Health(health) => {
                // What is wrong the store has told the log already.
                if health != self.health && health == Health::Ok {
                    info!("the store is in step");
                }
                self.health = health;
            }
        }
    }

    fn take_event(&mut self, event: &Event, dirty: &mut Dirty) {
        let ours = |index: u32| {
            self.local.uplink(index).is_some()
                || self.local.bridges.iter().any(|bridge| bridge.index == index)
        };
        // One that is missing may be any link until it has its name, and its address comes later still.
        let missing = self.troubles.contains_key(&Aspect::Local);
        match event {
            Event::Link(link) => {
                dirty.links = true;
                let named =
                    self.config.ifaces.contains(&link.name) || self.config.bridges.contains(&link.name);
                dirty.local |= missing || named || ours(link.index);
                // A carrier that goes or comes back takes or brings hops; routes say nothing of it.
                dirty.next_hops |= self.local.uplink(link.index).is_some();
            }
            Event::LinkGone { index, .. } => {
                dirty.links = true;
                dirty.local |= ours(*index);
            }
            Event::Neighbour(neighbour) => self.take_neighbour(neighbour, false, dirty),
            Event::NeighbourGone(neighbour) => self.take_neighbour(neighbour, true, dirty),
            Event::Fdb(_) | Event::FdbGone(_) => dirty.endpoints = true,
            Event::Address { ifindex, .. } => dirty.local |= missing || ours(*ifindex),
            Event::Route(change) => self.take_route(change, dirty),
            Event::Routing => {
                dirty.next_hops = true;
                // It may be a rule of ours that somebody took away.
                self.reconciler.resync();
            }
            Event::Overrun => {
                *dirty = Dirty::all();
                self.reconciler.resync();
            }
        }
    }

    async fn ask_about_moves(&mut self, told: &[ProgramEvent]) {
        for event in told.iter().filter(|event| event.kind == ENDPOINT_MOVED) {
            let (maps, netlink) = (&mut self.maps, &self.netlink);
            let asked = endpoints::confirm_move(&self.local, event.ip, event.ifindex, maps, netlink).await;
            if let Err(error) = asked {
                warn!("cannot ask who has an address: {error}");
            }
        }
    }

    /// Brings everything that is dirty back in step.
    async fn round(&mut self, mut dirty: Dirty) {
        if !dirty.touched.is_empty() {
            self.follow_routed(&mut dirty);
        }
        if dirty.local || dirty.links || !dirty.touched.is_empty() {
            self.netfilter.surroundings_changed();
        }
        if dirty.local || dirty.links {
            self.hooks.links_changed();
        }
        if dirty.local {
            let troubles = self.look_around().await;
            self.say(Aspect::Local, troubles);
        }
        if dirty.links || dirty.local {
            let troubles = self.follow_links(dirty.whole).await;
            self.say(Aspect::Links, troubles);
        }
        if dirty.endpoints || dirty.links || dirty.local {
            let synced = endpoints::sync(&self.local, &mut self.maps, &self.netlink).await;
            let trouble = synced.err().map(|error| format!("cannot bring endpoints up to date: {error}"));
            self.say(Aspect::Endpoints, trouble.into_iter().collect());
        }
        if dirty.next_hops {
            self.underlay.forget();
            dirty.touched.all = true;
        }
        if dirty.path_mtus {
            match self.follow_path_mtus() {
                Ok(shifted) => dirty.touched.addresses.extend(shifted),
                Err(_) => dirty.touched.all = true,
            }
        }
        // What changed of this host has been forgotten, and is read again.
        if !dirty.touched.is_empty() || self.reconciler.held().is_none() {
            self.reconcile(&dirty.touched).await;
        }
        if dirty.idle {
            self.clear_idle().await;
        }
        self.follow_tunnels(dirty.links || dirty.local).await;
        self.follow_decap().await;
        self.note_repairs();
        self.write_status();
        self.tell_store().await;
    }

    async fn follow_links(&mut self, is_resync: bool) -> BTreeSet<String> {
        let synced = match self.netlink.links().await {
            Ok(links) => {
                self.netfilter.follow(&links);
                let (local, direct) = (&self.local, self.netfilter.local());
                if is_resync {
                    self.ports.look_at_links(&mut self.programs, &links);
                }
                self.ports
                    .sync(local, direct, &links, &mut self.programs, &mut self.maps, &self.pins)
                    .map_err(|error| exit::one_line(&error.into()))
            }
            Err(error) => Err(error.to_string()),
        };
        synced.err().into_iter().collect()
    }

    /// Logs troubles that are new, and those that are over.
    fn say(&mut self, aspect: Aspect, troubles: BTreeSet<String>) {
        let before = self.troubles.remove(&aspect).unwrap_or_default();
        for trouble in troubles.difference(&before) {
            warn!("{trouble}");
        }
        for trouble in before.difference(&troubles) {
            info!("settled: {trouble}");
        }
        if !troubles.is_empty() {
            self.troubles.insert(aspect, troubles);
        }
    }

    fn write_status(&mut self) {
        let mut status = self.identity();
        status.heartbeat = status::now();
        status.repaired = self.repairs.count();
        status.pid = std::process::id();
        status.store_kind = self.announcer.kind() as u32;
        let message = match &self.health {
            Health::Degraded { reason } => Some(reason.clone()),
            Health::Ok => {
                self.store_synced = status.heartbeat;
                self.troubles.values().flatten().next().cloned()
            }
        };
        let whole = self.health == Health::Ok;
        self.supervisor.alive(message.clone().unwrap_or_else(|| "in step".to_owned()));
        self.api.say(self.word(message.clone()));
        status.store_state = if whole { StoreState::Ok as u32 } else { StoreState::Degraded as u32 };
        status.store_synced = self.store_synced;
        status.message = status::field(message.as_deref().unwrap_or_default());
        // A container is noted as alive where it is judged, which a remembered flow is not.
        self.maps.forget_flows();
        if let Err(error) = self.maps.put_status(status) {
            error!("cannot write the status: {}", exit::one_line(&error.into()));
        }
    }

    /// What is said over the API socket. Without our own interfaces there is no network; all else goes on as it was.
    fn word(&self, degraded: Option<String>) -> Word {
        let starting = || Word::starting().unready.filter(|_| !self.phases.are_told());
        let ours = [Aspect::Local, Aspect::Links].into_iter().filter_map(|aspect| self.troubles.get(&aspect));
        let unready = starting().or_else(|| ours.flatten().next().cloned());
        Word { round: Instant::now(), unready, degraded }
    }

    /// The part of the status that changes seldom.
    fn identity(&self) -> overlay_common::map::Status {
        let mut status = status::empty();
        status.netns_cookie = crate::netlink::netns::cookie().unwrap_or_default();
        status.started = self.started;
        let uplink = self.local.uplinks.first();
        status.uplink = uplink.map_or(0, |uplink| uplink.index);
        status.mtu = self.local.mtu;
        status.public_ip = self.local.public.v4().map(MapIp::from).unwrap_or_default();
        status.public_ip_v6 = self.local.public.v6().map(MapIp::from).unwrap_or_default();
        status.node_name = status::field(&self.config.node_name);
        status.uplink_name = status::field(uplink.map_or("", |uplink| uplink.name.as_str()));
        status
    }

    /// Ends without a trace of an end: what comes next adopts the data path.
    async fn again(mut self) -> anyhow::Result<Ended> {
        info!("starting again, to read the configuration again");
        Supervisor::reloading();
        self.announcer.stop().await;
        Ok(Ended::Again)
    }

    /// Ends in order: the data path stays, or every trace goes.
    async fn end(mut self) -> anyhow::Result<u8> {
        self.announcer.stop().await;
        match self.config.on_exit {
            OnExit::Keep => {
                let mut status = self.maps.status()?;
                status.pid = 0;
                self.maps.put_status(status)?;
                info!("ended; the data path goes on forwarding (`overlayd detach` removes it)");
                Ok(exit::OK)
            }
            OnExit::Detach => {
                info!("detaching");
                drop(self.api);
                // With ours, the pins would not be the last references.
                self.ports.release();
                let (pins, state, netlink) = (&self.pins, Some(&self.state), &self.netlink);
                detach::everything(pins, self.state_dir, state, netlink, detach::DRAIN).await
            }
        }
    }
}
