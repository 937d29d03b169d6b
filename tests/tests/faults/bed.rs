//! Three hosts, three members of etcd, peers that are mere keys, and what has to go on.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use harness::{
    Topology,
    etcd_cluster::Cluster,
    eventually,
    overlayd::{Config, Overlayd, Store},
    topology::{ETCD_PREFIX, StoreKind},
    traffic::{Endpoint, Probe},
    wire::{ADDRESS, WireKind},
};

/// What changed is right within this time of the end of a fault.
pub(crate) const RIGHT: Duration = Duration::from_secs(5);

const SOON: Duration = Duration::from_secs(15);

/// The longest that the TCP stream may stand still: less than the shortest time-out of its sender doubled.
const STILL: Duration = Duration::from_millis(500);

pub(crate) struct Bed {
    pub(crate) topology: Topology,
    pub(crate) cluster: Cluster,
}

impl Bed {
    /// Hosts in step with etcd, and peers 1 to 6 in it that nobody is behind.
    pub(crate) fn up() -> Self {
        Self::with(&[], &[])
    }

    /// The same, with more arguments for etcd and for overlayd.
    pub(crate) fn with(etcd: &[&str], overlayd: &[&str]) -> Self {
        let builder = Topology::builder().hosts(3).wire(WireKind::Bridge).store(StoreKind::Peers);
        let topology = builder.without_overlayd().up().unwrap();
        let ns = topology.wire.ns().unwrap();
        let cluster = Cluster::start(ns, ADDRESS, &topology.scope.dir().join("cluster"), etcd).unwrap();
        let mut bed = Self { topology, cluster };
        (1..=6).for_each(|n| bed.put(n, n));
        for index in 0..3 {
            let mut config = bed.config(index);
            config.args.extend(overlayd.iter().map(|&arg| arg.to_owned()));
            let host = &mut bed.topology.hosts[index];
            host.overlayd = Some(Overlayd::start(&host.ns, config).unwrap());
        }
        eventually("all hosts know all subnets", SOON, || bed.is_right()).unwrap();
        bed
    }

    fn config(&self, index: usize) -> Config {
        let store = Store::Etcd { endpoint: self.cluster.endpoints(), prefix: ETCD_PREFIX.to_owned() };
        let config = self.topology.overlayd_config(index);
        Config { store, args: [config.args, self.cluster.arguments()].concat(), ..config }
    }

    /// Writes peer `n`, at an address that ends in `host`.
    pub(crate) fn put(&self, n: u8, host: u8) {
        self.put_at(&[0, 1, 2], n, host);
    }

    /// As [`Self::put`], asking these members.
    pub(crate) fn put_at(&self, members: &[usize], n: u8, host: u8) {
        let value = format!(r#"{{"PublicIP":"172.16.199.{}","BackendType":"vxlan"}}"#, 100 + host);
        self.cluster.etcdctl_at(members, &["put", "--", &key(n), &value]).unwrap();
    }

    pub(crate) fn delete(&self, n: u8) {
        self.cluster.etcdctl(&["del", "--", &key(n)]).unwrap();
    }

    /// What the hosts should know: the keys, read again from etcd.
    fn model(&self) -> Option<BTreeSet<(String, String)>> {
        let prefix = format!("{ETCD_PREFIX}/subnets/");
        let said = self.cluster.etcdctl(&["get", "--prefix", "--", &prefix]).ok()?.stdout;
        let lines: Vec<&str> = said.lines().collect();
        let peer = |pair: &[&str]| {
            let value: serde_json::Value = serde_json::from_str(pair[1]).ok()?;
            let subnet = pair[0].strip_prefix(&prefix)?.replace('-', "/");
            Some((subnet, value["PublicIP"].as_str()?.to_owned()))
        };
        lines.chunks_exact(2).map(peer).collect()
    }

    /// Whether every host's maps hold what etcd has, but for its own subnet.
    pub(crate) fn is_right(&self) -> bool {
        let Some(model) = self.model() else { return false };
        self.topology.hosts.iter().all(|host| {
            let own = host.bridge.subnet();
            let wanted: BTreeSet<_> = model.iter().filter(|(subnet, _)| *subnet != own).cloned().collect();
            // A daemon that is away follows nothing.
            host.overlayd.as_ref().is_none_or(|daemon| daemon.pid().is_none() || routes(daemon) == wanted)
        })
    }

    /// What was changed in etcd is in force everywhere, soon after a fault is over.
    pub(crate) fn becomes_right(&self) {
        eventually("what changed in etcd is in force", RIGHT, || self.is_right()).unwrap();
    }

    /// Brings a fault about under load. Nothing of what goes over routes that stay may be lost.
    pub(crate) fn under_load(&mut self, fault: impl FnOnce(&mut Self)) {
        let [a, b] = [1, 2].map(|n| {
            let container = self.topology.h(n).c(1);
            Endpoint { ns: &container.ns, ip: IpAddr::from(container.ip) }
        });
        let (stream, probe) =
            (Stream::start(a, b), Probe::start(a, b, 1000, Duration::from_secs(300)).unwrap());
        fault(self);
        let report = probe.finish().unwrap();
        assert!(report.clean(), "{report}");
        stream.finish();
    }

    /// What the status of a host says of its store.
    pub(crate) fn store_state(&self, number: usize) -> String {
        let status = self.topology.h(number).overlayd().ctl_output(&["status"]).unwrap();
        format!("{}{}", status.stdout, status.stderr)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The daemons are detached before what they announced in goes.
        for host in &mut self.topology.hosts {
            host.overlayd = None;
        }
        if thread::panicking() {
            for member in 0..harness::etcd_cluster::MEMBERS {
                eprintln!("{}", harness::process::tail(&self.cluster.log(member), 8));
            }
        }
    }
}

fn key(n: u8) -> String {
    format!("{ETCD_PREFIX}/subnets/10.50.{n}.0-24")
}

fn routes(daemon: &Overlayd) -> BTreeSet<(String, String)> {
    let Ok(listed) = daemon.ctl(&["routes", "-o", "json"]) else { return BTreeSet::new() };
    let route = |route: &serde_json::Value| {
        Some((route["prefix"].as_str()?.to_owned(), route["peer"].as_str()?.to_owned()))
    };
    listed.as_array().into_iter().flatten().filter_map(route).collect()
}

/// A TCP connection over which bytes flow, and how long they stood still.
struct Stream {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<Duration>; 2],
}

impl Stream {
    fn start(from: Endpoint<'_, IpAddr>, to: Endpoint<'_, IpAddr>) -> Self {
        let listener = to.ns.run(|| TcpListener::bind((to.ip, 0))).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let mut sender = from.ns.run(|| TcpStream::connect(address)).unwrap().unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let send = thread::spawn(move || {
            // 8 Mbit/s, evenly: what stands still shows.
            while !ended.load(Ordering::Relaxed) {
                sender.write_all(&[7; 10_000]).unwrap();
                thread::sleep(Duration::from_millis(10));
            }
            Duration::ZERO
        });
        let receive = thread::spawn(move || {
            let (mut bytes, mut last, mut longest) = ([0; 65_536], Instant::now(), Duration::ZERO);
            while receiver.read(&mut bytes).unwrap() > 0 {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        });
        Self { stop, threads: [send, receive] }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.threads.map(|thread| thread.join().unwrap())[1];
        assert!(longest < STILL, "the TCP stream stood still for {longest:?}");
    }
}
