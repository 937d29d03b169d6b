//! Hosts, containers, etcd and overlayd, put together.

mod builder;

use std::{fmt::Write as _, fs, iter, net::IpAddr, path::PathBuf, thread};

use anyhow::{Context, Result, bail};

pub use self::builder::{Builder, Progress};
use crate::{
    Scope,
    dump::dump,
    etcd::Etcd,
    host::Host,
    overlayd::{Config, Overlayd, Store},
    versions::Versions,
    wire::{ADDRESS, ADDRESS_V6, MAX_HOSTS, Wire, WireKind, address_of},
};

/// Where overlayd keeps its keys by default.
pub const ETCD_PREFIX: &str = "/overlayd/network";

/// Where the daemons get their routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// A real etcd.
    #[default]
    Etcd,
    /// A file of peers on each host.
    Peers,
}

/// A running topology. The daemons go first, then containers and hosts, then etcd and the wire.
#[derive(Debug)]
pub struct Topology {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// etcd, where it is the store.
    pub etcd: Option<Etcd>,
    /// What joins the hosts.
    pub wire: Wire,
    settings: Settings,
    /// The name all of it bears.
    pub scope: Scope,
}

#[derive(Debug)]
struct Settings {
    vni: u32,
    port: u16,
    container_mtu: u32,
    arguments: Vec<String>,
}

/// Two hosts with one container each, etcd on the wire, and overlayd on both hosts.
///
/// # Errors
/// Something did not come up; the error says what and shows its log.
pub fn two_hosts() -> Result<Topology> {
    Builder::default().up()
}

impl Builder {
    /// Brings it up under a given name.
    ///
    /// # Errors
    /// Something did not come up, and all is removed again; the error says what and shows its log.
    pub fn up_in(self, scope: Scope) -> Result<Topology> {
        if self.hosts == 0 || self.hosts > MAX_HOSTS {
            bail!("{} hosts: 1 to {MAX_HOSTS} are possible", self.hosts);
        }
        if self.wire == WireKind::Veth && self.hosts != 2 {
            bail!("a veth wire joins two hosts, not {}", self.hosts);
        }
        let progress = self.progress;
        let spoken = (1..self.hosts).map(|index| (self.plan)(index).underlay);
        let spoken = spoken.fold((self.plan)(0).underlay, Versions::or);
        let wire = Wire::lay(&scope, self.wire, self.uplink_mtu, spoken)?;
        let settings = Settings {
            vni: self.vni,
            port: self.port,
            container_mtu: self.container_mtu,
            arguments: self.arguments.clone(),
        };
        let mut topology = Topology { hosts: Vec::new(), etcd: None, wire, settings, scope };
        for index in 0..self.hosts {
            progress(&format!("host h{}: {} on the wire", index + 1, address_of(index)))?;
            topology.boot(index, &self)?;
        }
        topology.serve(&self)?;
        Ok(topology)
    }
}

impl Topology {
    /// Settings for another one.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Host number `number`, counted from 1 as in its name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn h(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// Host number `number`, to change it.
    ///
    /// # Panics
    /// There is none.
    pub fn h_mut(&mut self, number: usize) -> &mut Host {
        &mut self.hosts[number - 1]
    }

    /// etcd.
    ///
    /// # Panics
    /// The store is another.
    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        self.etcd.as_ref().expect("this topology has no etcd")
    }

    /// etcd, to kill and start it.
    ///
    /// # Panics
    /// The store is another.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        self.etcd.as_mut().expect("this topology has no etcd")
    }

    /// Starts overlayd on a host, counted from 0, for the first time.
    ///
    /// # Errors
    /// It is not ready in time; the error holds the end of its log.
    pub fn start_overlayd(&mut self, index: usize) -> Result<()> {
        let config = self.overlayd_config(index);
        let host = &mut self.hosts[index];
        host.overlayd = Some(Overlayd::start(&host.ns, config)?);
        Ok(())
    }

    /// How overlayd is started on a host, counted from 0.
    #[must_use]
    pub fn overlayd_config(&self, index: usize) -> Config {
        let (host, dir) = (&self.hosts[index], self.scope.dir());
        let store = match &self.etcd {
            Some(etcd) => Store::Etcd { endpoint: etcd.endpoint(), prefix: ETCD_PREFIX.to_owned() },
            None => Store::Peers(self.peers_file(index)),
        };
        Config {
            ifaces: self.wire.uplinks().iter().map(|&uplink| uplink.to_owned()).collect(),
            bridges: vec![host.bridge.name.clone()],
            node_name: host.name.clone(),
            public_ips: host.addresses(),
            vni: self.settings.vni,
            port: self.settings.port,
            store,
            pin_dir: self.scope.pin_dir(&host.name),
            state_dir: dir.join(&host.name).join("state"),
            log: dir.join(format!("{}.overlayd.log", host.name)),
            args: self.settings.arguments.clone(),
            env: Vec::new(),
            build: None,
        }
    }

    /// Starts a container on a host, both counted from 1.
    ///
    /// # Errors
    /// It is running already, or its engine failed.
    pub fn start_container(&mut self, host: usize, number: u32) -> Result<()> {
        let mtu = self.settings.container_mtu;
        self.h_mut(host).start_container(number, mtu).map(drop)
    }

    /// Removes a container and starts it again with the same address.
    ///
    /// # Errors
    /// There is none of this number, or its engine failed.
    pub fn restart_container(&mut self, host: usize, number: u32) -> Result<()> {
        let mtu = self.settings.container_mtu;
        self.h_mut(host).restart_container(number, mtu).map(drop)
    }

    /// The file of peers of a host, counted from 0.
    #[must_use]
    pub fn peers_file(&self, index: usize) -> PathBuf {
        self.scope.dir().join(format!("h{}.peers.toml", index + 1))
    }

    /// Leaves everything running when this program ends. [`crate::scope::remove`] removes it.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    fn boot(&mut self, index: usize, builder: &Builder) -> Result<()> {
        let engine = (builder.engine)(index, &self.scope);
        let plan = (builder.plan)(index);
        let mut host = Host::boot(&self.scope, &self.wire, index, plan, &self.hosts, engine)?;
        for number in 1..=builder.containers {
            host.start_container(number, builder.container_mtu)?;
        }
        self.hosts.push(host);
        Ok(())
    }

    /// Starts the store, and the daemons where they are wanted.
    fn serve(&mut self, builder: &Builder) -> Result<()> {
        match builder.store {
            StoreKind::Etcd => {
                (builder.progress)("etcd")?;
                self.start_etcd()?;
            }
            StoreKind::Peers => self.write_peers()?,
        }
        if builder.overlayd {
            for index in 0..builder.hosts {
                (builder.progress)(&format!("overlayd on h{}", index + 1))?;
                self.start_overlayd(index)?;
            }
            self.await_routes()?;
        }
        Ok(())
    }

    /// On the wire where it has a namespace, so that no host takes it along; else on the first host.
    fn start_etcd(&mut self) -> Result<()> {
        let first = self.hosts.first().context("a topology has hosts")?;
        let everywhere_v4 = self.hosts.iter().all(|host| host.underlay.v4());
        let (ns, v4, v6) = match self.wire.ns() {
            Some(wire) => (wire, ADDRESS, ADDRESS_V6),
            None => (&first.ns, first.ip, first.ip_v6),
        };
        let ip: IpAddr = if everywhere_v4 { v4.into() } else { v6.into() };
        self.etcd = Some(Etcd::start(ns, ip, &self.scope.dir().join("etcd"))?);
        Ok(())
    }

    fn write_peers(&self) -> Result<()> {
        for (index, host) in self.hosts.iter().enumerate() {
            let mut text = String::new();
            for peer in self.hosts.iter().filter(|peer| peer.name != host.name) {
                for subnet in iter::once(peer.bridge.subnet()).chain(peer.bridge.subnet_v6()) {
                    writeln!(text, "[[peer]]\nsubnet = \"{subnet}\"")?;
                    if peer.underlay.v4() {
                        writeln!(text, "host = \"{}\"", peer.ip)?;
                    }
                    if peer.underlay.v6() {
                        writeln!(text, "host_v6 = \"{}\"\nzero_checksum = true", peer.ip_v6)?;
                    }
                    text.push('\n');
                }
            }
            fs::write(self.peers_file(index), text)?;
        }
        Ok(())
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", dump(self));
        }
        // All of them before the first host goes: on a veth wire it takes etcd along.
        for host in &mut self.hosts {
            host.overlayd = None;
        }
    }
}
