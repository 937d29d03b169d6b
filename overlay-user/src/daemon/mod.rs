//! The daemon: starts, then keeps the kernel in step with the store, the links and the neighbours until it
//! is told to end.

mod announce;
mod claims;
mod decap;
mod dirty;
mod events;
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
mod survey;
mod telling;
mod tunnels;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use overlay_common::{
    event::{Event as ProgramEvent, PATH_MTU_CHANGED},
    map::NeighbourKey,
};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

pub use self::signals::hold as hold_hang_ups;
use self::{dirty::Dirty, pace::Pace, signals::Ends, supervisor::Supervisor, ways::Ways};
use crate::{
    api::Api,
    config::{Config, OnExit},
    datapath::{load::Programs, map::Maps, pin::Pins},
    decap::Decap,
    detach, endpoints, exit,
    local::Local,
    netlink::{Monitor, Netlink},
    ports::Ports,
    reconcile::{
        Reconciler,
        records::{Records, Touched},
    },
    state::{State, StateDir},
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
