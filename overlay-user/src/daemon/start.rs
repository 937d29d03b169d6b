//! Starting: look at everything first, then change the kernel in an order in which no packet is misled,
//! announce last. A first start that fails undoes itself; a later one leaves the running data path alone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow, bail, ensure};
use nix::unistd::geteuid;
use overlay_common::Mac;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::{info, warn};

use super::{
    Daemon, Dirty, RESYNC_SHARE, RETRY_SHARE, announce, hooks, netfilter,
    notes::Source,
    pace::Pace,
    phases::Phases,
    repairs::Repairs,
    routed, strangers,
    supervisor::Supervisor,
    survey::{Survey, survey},
    ways::Ways,
};
use crate::{
    api::{Api, Socket},
    config::Config,
    datapath::{Tools, attach, load::Programs, map::Maps, pin::Pins, takeover},
    decap::Decap,
    detach,
    exit::one_line,
    kernel,
    local::Local,
    netlink::{Monitor, Netlink, netns},
    ports::Ports,
    reconcile::{
        Reconciler,
        records::{Records, Touched},
    },
    state::{State, StateDir},
    status,
    store::{Health, StoreError},
    sysctl,
    tunnel_devices::TunnelDevices,
};

pub(super) async fn start(config: Config) -> anyhow::Result<Daemon> {
    let mut phases = Phases::begin();
    ensure!(geteuid().is_root(), "overlayd changes the kernel's networking: run it as root, with sudo");
    kernel::refuse_too_old()?;
    let (netlink, monitor) = Netlink::connect()?;
    // Before the state directory is made: the commonest mistakes leave nothing at all.
    let local = Local::discover(&config, None, Mac::default(), &netlink).await?;
    let pins = Pins::new(&config.pin_dir);
    pins.check()?;
    let others = takeover::others(&pins)?;
    // What another layout holds is whole until its last pin goes.
    let held = others.first().or_else(|| pins.is_here().then_some(&pins));
    let adopting = held.is_some();
    if let Some(held) = held {
        refuse_foreign_pins(held)?;
    } else if let Some(trouble) = local.mtu_trouble(&config) {
        // One that runs goes on with less; so does one that starts again.
        bail!(trouble);
    }
    let state_dir = StateDir::lock(&config.state_dir)?;
    let before = state_dir.read()?;
    let api = match Socket::bind(&config.socket) {
        Ok((socket, listener)) => Api::serve(socket, listener, pins.clone()),
        Err(error) => {
            state_dir.put_back(before.as_ref())?;
            return Err(error);
        }
    };
    phases.over("host");
    let in_force = held.map(takeover::routes_in_force).transpose()?;
    let surveyed = survey(&config, before.clone(), &netlink, in_force, &mut phases).await;
    let surveyed =
        surveyed.and_then(|survey| refuse_second_data_path(&pins, &others, &survey.local).map(|()| survey));
    let survey = match surveyed {
        Ok(survey) => survey,
        Err(error) => {
            drop(api);
            state_dir.put_back(before.as_ref())?;
            return Err(error);
        }
    };
    match bring_up(config, survey, &state_dir, (&pins, &others), &netlink, &mut phases).await {
        Ok(parts) => parts.into_daemon(state_dir, pins, (netlink, monitor), api, phases).await,
        Err(error) if adopting => Err(error),
        Err(error) => {
            drop(api);
            if let Err(left) = undo(before.as_ref(), state_dir, &pins, &netlink).await {
                warn!("the start failed, and undoing it too: {}", one_line(&left));
            }
            Err(error)
        }
    }
}

/// Undoes a first start that failed on the way.
async fn undo(
    before: Option<&State>,
    state_dir: StateDir,
    pins: &Pins,
    netlink: &Netlink,
) -> anyhow::Result<()> {
    let noted = state_dir.read()?;
    detach::kernel(pins, noted.as_ref(), netlink).await?;
    if let (None, Some(noted)) = (before, &noted) {
        detach::withdraw(noted).await?;
    }
    state_dir.put_back(before)
}

/// Two data paths on one uplink would announce against each other.
fn refuse_second_data_path(pins: &Pins, others: &[Pins], local: &Local) -> anyhow::Result<()> {
    for uplink in &local.uplinks {
        if others.iter().any(|other| other.link(uplink.index, uplink.program()).exists()) {
            continue;
        }
        if let Some(id) = attach::attached_elsewhere(pins, uplink)? {
            bail!(
                "overlayd is attached to {} already, from another pin directory than {} (program {id}): \
                 detach it there first, or name its --pin-dir",
                uplink.name,
                pins.root().display()
            );
        }
    }
    Ok(())
}

/// Pins of another namespace hold its programs: adopting them would tear them from their interfaces.
fn refuse_foreign_pins(pins: &Pins) -> anyhow::Result<()> {
    ensure!(
        netns::is_here(takeover::status(pins)?.netns_cookie)?,
        "pin directory {} belongs to overlayd in another network namespace: choose another --pin-dir",
        pins.root().display()
    );
    Ok(())
}

/// What bringing up yields.
struct Parts {
    config: Config,
    survey: Survey,
    programs: Programs,
    maps: Maps,
    ports: Ports,
    tunnel_devices: TunnelDevices,
    decap: Decap,
}

async fn bring_up(
    config: Config,
    mut survey: Survey,
    state_dir: &StateDir,
    (pins, others): (&Pins, &[Pins]),
    netlink: &Netlink,
    phases: &mut Phases,
) -> anyhow::Result<Parts> {
    pins.prepare()?;
    remember(&config, &mut survey);
    state_dir.write(&survey.state)?;
    phases.over("survey");
    let mut programs = Programs::load(pins)?;
    phases.over("programs");
    for other in others {
        takeover::carry(other, pins)?;
    }
    let mut maps = Maps::open(pins)?;
    if survey.records.is_none() {
        survey.local.routed = routed::in_force(&maps)?;
    }
    let local = &survey.local;
    maps.put_node(local.node())?;
    phases.over("node");
    survey.state.note_sysctls(stop_redirects(local)?);
    state_dir.write(&survey.state)?;
    phases.over("settings");
    for other in others {
        takeover::move_links(other, pins)?;
    }
    phases.over("links");
    // Before the uplinks' programs leave packets to them. What goes wrong the first round tells.
    let mut tunnel_devices = TunnelDevices::default();
    let tools = Tools { programs: &mut programs, maps: &mut maps, pins, netlink };
    tunnel_devices.sync(local, tools).await;
    phases.over("tunnels");
    let mut ports = Ports::default();
    let links = netlink.links().await?;
    ports.sync(local, &BTreeSet::new(), &links, &mut programs, &mut maps, pins)?;
    phases.over("ports");
    // After `uplink_ingress`, which has to know what XDP tells it.
    let mut decap = Decap::default();
    let tools = Tools { programs: &mut programs, maps: &mut maps, pins, netlink };
    let decapsulated = decap.sync(config.decap, &local.uplinks, tools).await;
    decapsulated.map_err(|troubles| anyhow!(Vec::from_iter(troubles).join("; ")))?;
    phases.over("decap");
    // Nothing runs another layout's programs any more. Of a takeover that was broken off there may be less than all.
    for other in pins.other_layouts()? {
        other.remove()?;
    }
    phases.over("takeover");
    match survey.store.claim(&announce::announcements(local)).await {
        Ok(()) => {}
        // Announcing goes on trying.
        Err(StoreError::Unreachable(reason)) => survey.health = Health::Degraded { reason },
        Err(error) => return Err(error.into()),
    }
    phases.over("claim");
    Ok(Parts { config, survey, programs, maps, ports, tunnel_devices, decap })
}

/// Notes everything that a detach will need, before it is done.
fn remember(config: &Config, survey: &mut Survey) {
    let new = announce::announcements(&survey.local);
    let state = &mut survey.state;
    state.note_announcements(&new);
    state.network = Some((survey.local.vni.get(), survey.local.port));
    state.note_store(&config.store);
    state.pin_dir = Some(config.pin_dir.clone());
    state.socket = Some(config.socket.clone());
}

/// Packets that go back out of the bridge they came from, as those on the slow path do, would make the
/// kernel send redirects, and keep it from sending time-exceeded.
pub(super) fn stop_redirects(local: &Local) -> anyhow::Result<Vec<sysctl::Saved>> {
    let mut saved = Vec::new();
    for interface in std::iter::once("all").chain(local.bridges.iter().map(|bridge| bridge.name.as_str())) {
        saved.extend(sysctl::Saved::change(&sysctl::ipv4_conf(interface, "send_redirects"), "0")?);
    }
    Ok(saved)
}

impl Parts {
    async fn into_daemon(
        self,
        state_dir: StateDir,
        pins: Pins,
        (netlink, monitor): (Netlink, Monitor),
        api: Api,
        phases: Phases,
    ) -> anyhow::Result<Daemon> {
        let Self { config, survey, programs, maps, ports, tunnel_devices, decap } = self;
        // SAFETY: the ring buffer owns its descriptor and keeps it open as long as it lives.
        let events = unsafe { AsyncFd::register_with_interest(Maps::events(&pins)?, Interest::READABLE) }
            .map_err(std::io::Error::from)
            .context("cannot wait for events of the programs")?;
        let (announcer, updates) = announce::Announcer::new(survey.store, survey.network);
        let heard = survey.records.is_some();
        let underlay = Ways::adopt(&maps)?;
        let mut daemon = Daemon {
            config,
            local: survey.local,
            astray: false,
            mending: false,
            state: survey.state,
            state_dir,
            pins,
            programs,
            maps,
            events,
            netlink,
            monitor,
            announcer,
            updates,
            records: survey.records.map(Records::from),
            waiting: Touched::default(),
            untold: None,
            underlay,
            path_mtus: BTreeMap::new(),
            ports,
            tunnel_devices,
            decap,
            reconciler: Reconciler::default(),
            phases,
            whole: Pace::new(RETRY_SHARE),
            resync: Pace::new(RESYNC_SHARE),
            tunnels_told: None,
            health: survey.health,
            store_synced: if heard { status::now() } else { 0 },
            started: status::now(),
            troubles: BTreeMap::new(),
            netfilter: netfilter::Watch::default(),
            hooks: hooks::Watch::default(),
            notes: BTreeMap::new(),
            supervisor: Supervisor::new(),
            api,
            repairs: Repairs::default(),
            strangers: strangers::Watch::default(),
            asked: BTreeMap::new(),
        };
        daemon.first_round().await;
        Ok(daemon)
    }
}

impl Daemon {
    /// Netfilter, with the bridges' ports and the peers known.
    async fn first_look(&mut self) {
        let mut dirty = Dirty::default();
        self.watch_netfilter();
        let findings = self.netfilter.finished().await;
        self.take_findings(findings, &mut dirty);
        self.round(dirty).await;
    }

    /// The first round, and the word that everything is in place.
    async fn first_round(&mut self) {
        self.note(Source::Kernel, kernel::notes());
        if let Health::Degraded { reason } = &self.health {
            warn!("{reason}: the routes of the last run stay in force");
        }
        self.round(Dirty {
            links: true,
            endpoints: true,
            touched: Touched::all(),
            local: true,
            ..Dirty::default()
        })
        .await;
        self.phases.over("routes");
        self.first_look().await;
        self.watch_hooks().await;
        self.phases.over("surroundings");
        self.announce().await;
        self.announcer.watch();
        self.phases.over("announced");
        self.phases.tell();
        self.write_status();
        info!(
            node = %self.config.node_name,
            uplinks = %self.local.uplink_names(),
            public_ip = %self.local.public,
            vni = %self.local.vni,
            port = self.local.port,
            mtu = self.local.mtu,
            peers = self.underlay.known(),
            "ready"
        );
    }
}
