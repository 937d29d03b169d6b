//! A real etcd in a temporary directory, and ears for what the store reports and logs.

use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, Permission, PutOptions, Txn, TxnOp};
use overlay_user::store::{EtcdOptions, EtcdStore, Health, Store, Update, etcd::Access};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

pub(crate) const PREFIX: &str = "/overlayd/network";

/// A port below the ephemeral range (32768 on): there, a client that connects again and again to a dead
/// server's port may be given that very port as its own.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (std::process::id().wrapping_mul(97).wrapping_add(step) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One member on 127.0.0.1, killed on drop.
pub(crate) struct Etcd {
    directory: tempfile::TempDir,
    port: u16,
    peer_port: u16,
    process: Child,
    /// What it is told of TLS.
    tls: Vec<String>,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, peer_port) = (free_port(), free_port());
        let process = spawn(&directory, port, peer_port, &[]);
        let etcd = Self { directory, port, peer_port, process, tls: Vec::new() };
        etcd.ready().await;
        etcd
    }

    /// With a certificate and its key; where an authority is given, for clients that have one of it alone.
    pub(crate) async fn start_with_tls(node: &[PathBuf; 2], clients: Option<&Path>) -> Self {
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        let mut tls = vec![file("cert-file", &node[0]), file("key-file", &node[1])];
        if let Some(authority) = clients {
            tls.extend([file("trusted-ca-file", authority), "--client-cert-auth=true".into()]);
        }
        let directory = tempfile::tempdir().unwrap();
        let (port, peer_port) = (free_port(), free_port());
        let process = spawn(&directory, port, peer_port, &tls);
        let etcd = Self { directory, port, peer_port, process, tls };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "etcd did not come up");
            sleep(Duration::from_millis(50)).await;
        }
        etcd
    }

    /// Has it ask for users: root, and overlayd with this password, who may touch the network's keys.
    pub(crate) async fn enable_users(&self, password: &str) {
        let mut client = self.client().await;
        client.role_add("root").await.unwrap();
        client.user_add("root", "secret", None).await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.user_add("overlayd", password, None).await.unwrap();
        client.role_add("network").await.unwrap();
        let keys = Permission::read_write(PREFIX).with_prefix();
        client.role_grant_permission("network", keys).await.unwrap();
        client.user_grant_role("overlayd", "network").await.unwrap();
        client.auth_enable().await.unwrap();
    }

    /// Ends it as a power cut does, and starts it again on the same data behind another port, or its own.
    pub(crate) async fn restart_at(&mut self, port: u16) {
        self.kill();
        self.process = spawn(&self.directory, port, self.peer_port, &self.tls);
        self.port = port;
        self.ready().await;
    }

    /// Starts it again on a copy of its data: `from` and `to` name directories beside each other.
    pub(crate) async fn restart_on_copy(&mut self, from: &str, to: &str) {
        self.kill();
        let [from, to] = [from, to].map(|name| self.directory.path().join(name));
        let _ = std::fs::remove_dir_all(&to);
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
        self.restart_at(self.port).await;
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_empty() { "http" } else { "https" }, self.port)
    }

    pub(crate) fn store(&self) -> EtcdStore {
        store_at(&self.endpoint())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.endpoint()], None).await.unwrap()
    }

    pub(crate) async fn put(&self, name: &str, value: &str) {
        self.client().await.put(format!("{PREFIX}/{name}"), value, None).await.unwrap();
    }

    /// Writes a subnet's key on a lease of a day, as a host does.
    pub(crate) async fn put_leased(&self, name: &str, value: &str) {
        let mut client = self.client().await;
        let lease = client.lease_grant(86_400, None).await.unwrap().id();
        let options = PutOptions::new().with_lease(lease);
        client.put(format!("{PREFIX}/subnets/{name}"), value, Some(options)).await.unwrap();
    }

    pub(crate) async fn put_peer(&self, name: &str, public_ip: &str) {
        self.put(&format!("subnets/{name}"), &peer(public_ip)).await;
    }

    /// Puts and deletes subnets' keys in one transaction.
    pub(crate) async fn replace_peer(&self, old: &str, new: &str, public_ip: &str) {
        let [old, new] = [old, new].map(|name| format!("{PREFIX}/subnets/{name}"));
        let operations = [TxnOp::delete(old, None), TxnOp::put(new, peer(public_ip), None)];
        let done = self.client().await.txn(Txn::new().and_then(operations)).await.unwrap();
        assert!(done.succeeded());
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.client().await.delete(format!("{PREFIX}/{name}"), None).await.unwrap();
    }

    /// Deletes all that begins with a name, in one step.
    pub(crate) async fn delete_all(&self, name: &str) {
        let options = etcd_client::DeleteOptions::new().with_prefix();
        self.client().await.delete(format!("{PREFIX}/{name}"), Some(options)).await.unwrap();
    }

    /// Value, lease and revision of a subnet's key.
    pub(crate) async fn subnet(&self, name: &str) -> Option<(String, i64, i64)> {
        let answer = self.client().await.get(format!("{PREFIX}/subnets/{name}"), None).await.unwrap();
        answer.kvs().first().map(|kv| (kv.value_str().unwrap().to_owned(), kv.lease(), kv.mod_revision()))
    }

    /// Forgets the history: whoever watches from the past has missed it.
    pub(crate) async fn compact(&self) {
        let mut client = self.client().await;
        let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
    }

    async fn ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let client = self.client().await;
            let probe = client.kv_client().put("ready", "", Some(PutOptions::new())).await;
            match probe {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < deadline, "etcd did not come up: {error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &tempfile::TempDir, port: u16, peer_port: u16, tls: &[String]) -> Child {
    let scheme = if tls.is_empty() { "http" } else { "https" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
        .args(tls)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed")
}

/// A node that believes all that etcd says.
pub(crate) fn options(endpoints: &[String]) -> EtcdOptions {
    EtcdOptions {
        access: Access { endpoints: endpoints.to_vec(), ..Access::default() },
        prefix: PREFIX.into(),
        node: "n1".into(),
        prune_delay: Duration::ZERO,
        in_force: 0,
        previous: Vec::new(),
    }
}

pub(crate) fn store_at(endpoint: &str) -> EtcdStore {
    EtcdStore::new(options(&[endpoint.to_owned()])).unwrap()
}

pub(crate) fn peer(public_ip: &str) -> String {
    format!(r#"{{"PublicIP":"{public_ip}","BackendType":"vxlan"}}"#)
}

/// A running watch and what it reports.
pub(crate) struct Watch {
    updates: mpsc::Receiver<Update>,
    /// The subnets that several keys claim, as it was told last.
    pub(crate) contested: BTreeSet<String>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts one and takes the first snapshot and `Ok`.
    pub(crate) async fn start(store: EtcdStore) -> (Self, Vec<String>) {
        let mut watch = Self::start_unread(store, 64);
        let first = watch.snapshot().await;
        assert_eq!(watch.next(3).await, Update::Health(Health::Ok));
        (watch, first)
    }

    pub(crate) fn start_unread(store: EtcdStore, capacity: usize) -> Self {
        let (sender, updates) = mpsc::channel(capacity);
        let task = tokio::spawn(async move { store.watch(sender).await });
        Self { updates, contested: BTreeSet::new(), task }
    }

    pub(crate) async fn next(&mut self, seconds: u64) -> Update {
        loop {
            let update = timeout(Duration::from_secs(seconds), self.updates.recv())
                .await
                .unwrap_or_else(|_| panic!("an update within {seconds} s was expected"))
                .expect("the watch goes on");
            match update {
                Update::Contested(contested) => self.contested = contested,
                update => return update,
            }
        }
    }

    /// The next change of a peer, within the second that is promised: `10.9.0.0/24=192.0.2.7`, or
    /// `10.9.0.0/24 gone`.
    pub(crate) async fn change(&mut self) -> String {
        match self.next(1).await {
            Update::Put(peer) => format!("{}={}", peer.subnet, peer.host),
            Update::Delete(subnet) => format!("{subnet} gone"),
            other => panic!("a change was expected: {other:?}"),
        }
    }

    pub(crate) async fn snapshot(&mut self) -> Vec<String> {
        loop {
            match self.next(15).await {
                Update::Snapshot(peers) => {
                    return peers.values().map(|peer| format!("{}={}", peer.subnet, peer.host)).collect();
                }
                Update::Health(Health::Degraded { .. }) => {}
                other => panic!("a snapshot was expected: {other:?}"),
            }
        }
    }

    pub(crate) async fn degraded(&mut self, seconds: u64) -> String {
        match self.next(seconds).await {
            Update::Health(Health::Degraded { reason }) => reason,
            other => panic!("Degraded was expected: {other:?}"),
        }
    }

    pub(crate) fn nothing_more(&mut self) {
        while let Ok(update) = self.updates.try_recv() {
            let Update::Contested(contested) = update else {
                panic!("nothing more was expected: {update:?}")
            };
            self.contested = contested;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, seconds: u64, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let met = timeout_at(deadline, async {
        while !condition().await {
            sleep(Duration::from_millis(30)).await;
        }
    });
    assert!(met.await.is_ok(), "{what}: not within {seconds} s");
}

/// The log of this thread, as long as it lives.
pub(crate) struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub(crate) fn capture() -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&text);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || Ear(Arc::clone(&writer)))
            .finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The warnings that name `subject`.
    pub(crate) fn warnings(&self, subject: &str) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(subject)).map(ToOwned::to_owned).collect()
    }
}

struct Ear(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
