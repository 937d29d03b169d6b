//! What a topology is to be.

use anyhow::Result;

use super::{StoreKind, Topology};
use crate::{
    Scope,
    container::{Engine, Namespaces},
    docker::OnHost,
    host::Plan,
    versions::Versions,
    wire::WireKind,
};

/// Is told each step, and can call a halt.
pub type Progress = fn(&str) -> Result<()>;

/// Makes the engine of the host of this number, counted from 0.
pub(super) type MakeEngine = dyn Fn(usize, &Scope) -> Box<dyn Engine>;

/// What the host of this number, counted from 0, is to be.
pub(super) type PlanHost = dyn Fn(usize) -> Plan;

/// What a topology is to be. The defaults are two hosts with one container each, etcd, and overlayd running.
pub struct Builder {
    pub(super) hosts: usize,
    pub(super) containers: u32,
    pub(super) wire: WireKind,
    pub(super) store: StoreKind,
    pub(super) vni: u32,
    pub(super) port: u16,
    pub(super) uplink_mtu: u32,
    pub(super) container_mtu: u32,
    pub(super) overlayd: bool,
    pub(super) arguments: Vec<String>,
    pub(super) plan: Box<PlanHost>,
    pub(super) engine: Box<MakeEngine>,
    pub(super) progress: Progress,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            hosts: 2,
            containers: 1,
            wire: WireKind::default(),
            store: StoreKind::default(),
            vni: 1,
            port: 4789,
            uplink_mtu: 1500,
            container_mtu: 1500,
            overlayd: true,
            arguments: Vec::new(),
            plan: Box::new(|_| Plan::default()),
            engine: Box::new(|_, _| Box::new(Namespaces)),
            progress: |_| Ok(()),
        }
    }
}

impl Builder {
    /// How many hosts.
    #[must_use]
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// How many containers on each.
    #[must_use]
    pub fn containers(mut self, containers: u32) -> Self {
        self.containers = containers;
        self
    }

    /// What joins the hosts.
    #[must_use]
    pub fn wire(mut self, wire: WireKind) -> Self {
        self.wire = wire;
        self
    }

    /// Where the daemons get their routes.
    #[must_use]
    pub fn store(mut self, store: StoreKind) -> Self {
        self.store = store;
        self
    }

    /// The VNI of all hosts.
    #[must_use]
    pub fn vni(mut self, vni: u32) -> Self {
        self.vni = vni;
        self
    }

    /// The UDP port of all hosts.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The MTU of the wire and of every uplink.
    #[must_use]
    pub fn uplink_mtu(mut self, mtu: u32) -> Self {
        self.uplink_mtu = mtu;
        self
    }

    /// The MTU inside the containers.
    #[must_use]
    pub fn container_mtu(mut self, mtu: u32) -> Self {
        self.container_mtu = mtu;
        self
    }

    /// What every host speaks on the wire, and whether its docker0 has an IPv6 subnet.
    #[must_use]
    pub fn versions(self, underlay: Versions, bridge_v6: bool) -> Self {
        self.plan(move |_| Plan { underlay, bridge_v6 })
    }

    /// The same for each host, given its number from 0.
    #[must_use]
    pub fn plan(mut self, plan: impl Fn(usize) -> Plan + 'static) -> Self {
        self.plan = Box::new(plan);
        self
    }

    /// More arguments of every daemon.
    #[must_use]
    pub fn overlayd_args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// Starts no daemon; [`Topology::start_overlayd`] does it later.
    #[must_use]
    pub fn without_overlayd(mut self) -> Self {
        self.overlayd = false;
        self
    }

    /// What makes docker0 and runs the containers of each host, given its number from 0.
    #[must_use]
    pub fn engine(mut self, engine: impl Fn(usize, &Scope) -> Box<dyn Engine> + 'static) -> Self {
        self.engine = Box::new(engine);
        self
    }

    /// Each host is a Docker engine of its own.
    #[must_use]
    pub fn docker(self) -> Self {
        self.engine(|index, scope| Box::new(OnHost::new(index, scope)))
    }

    /// Tells each step; an error ends the bringing up.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Brings it up under a name of its own.
    ///
    /// # Errors
    /// Something did not come up, and all is removed again; the error says what and shows its log.
    pub fn up(self) -> Result<Topology> {
        let scope = Scope::unique()?;
        self.up_in(scope)
    }
}
