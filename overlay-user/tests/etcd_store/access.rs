//! Being let in, or not: TLS with and without certificates of our own, users, and what changes meanwhile.

use std::{fs, path::PathBuf};

use overlay_user::store::{
    EtcdOptions, EtcdStore, Store, StoreError,
    etcd::{Access, Secret},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::etcd::{Etcd, options};

/// An authority, and what it has signed, in files of a directory.
struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for 127.0.0.1 and its key.
    fn sign(&self, name: &str) -> [PathBuf; 2] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let key = KeyPair::generate().unwrap();
        let files = [self.file(&format!("{name}.pem")), self.file(&format!("{name}.key"))];
        fs::write(&files[0], params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }
}

fn store(etcd: &Etcd, access: Access) -> EtcdStore {
    let options = options(&[etcd.endpoint()]);
    let access = Access { endpoints: vec![etcd.endpoint()], ..access };
    EtcdStore::new(EtcdOptions { access, ..options }).unwrap()
}

async fn refusal(etcd: &Etcd, access: Access) -> StoreError {
    store(etcd, access).list().await.unwrap_err()
}

#[tokio::test]
async fn an_authority_alone() {
    let authority = Authority::new();
    let etcd = Etcd::start_with_tls(&authority.sign("etcd"), None).await;
    let trusts = Access { ca_file: Some(authority.file("ca.pem")), ..Access::default() };
    assert!(store(&etcd, trusts).list().await.unwrap().is_empty());
    let other = Authority::new();
    for access in [Access { ca_file: Some(other.file("ca.pem")), ..Access::default() }, Access::default()] {
        let error = refusal(&etcd, access).await.to_string();
        assert!(error.contains("invalid peer certificate") && error.contains("--etcd-cafile"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_of_our_own() {
    let (authority, other) = (Authority::new(), Authority::new());
    let etcd = Etcd::start_with_tls(&authority.sign("etcd"), Some(&authority.file("ca.pem"))).await;
    let with = |files: Option<[PathBuf; 2]>| {
        let [cert_file, key_file] = files.map_or([None, None], |files| files.map(Some));
        Access { ca_file: Some(authority.file("ca.pem")), cert_file, key_file, ..Access::default() }
    };
    let node = authority.sign("node");
    assert!(store(&etcd, with(Some(node.clone()))).list().await.unwrap().is_empty());
    for refused in [with(None), with(Some(other.sign("node")))] {
        let error = refusal(&etcd, refused).await.to_string();
        assert!(error.contains("--etcd-certfile"), "{error}");
    }
    let [cert, _] = node.clone();
    let [_, stranger] = authority.sign("stranger");
    let error = refusal(&etcd, with(Some([cert, stranger]))).await;
    assert!(
        matches!(error, StoreError::Invalid(_)) && error.to_string().contains("--etcd-keyfile"),
        "{error}"
    );
}

/// The certificate is replaced by one that etcd refuses, and by one that it takes: each is noticed.
#[tokio::test]
async fn certificates_that_change_are_read_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let etcd = Etcd::start_with_tls(&authority.sign("etcd"), Some(&authority.file("ca.pem"))).await;
    let [cert, key] = authority.sign("node");
    let access = Access {
        ca_file: Some(authority.file("ca.pem")),
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        ..Access::default()
    };
    let store = store(&etcd, access);
    store.list().await.unwrap();
    let replace = |files: [PathBuf; 2]| {
        fs::copy(&files[0], &cert).unwrap();
        fs::copy(&files[1], &key).unwrap();
    };
    replace(other.sign("node"));
    store.list().await.unwrap_err();
    replace(authority.sign("newer"));
    store.list().await.unwrap();
}

#[tokio::test]
async fn users_and_passwords() {
    let etcd = Etcd::start().await;
    etcd.put_peer("10.9.0.0-24", "192.0.2.7").await;
    etcd.enable_users("swordfish").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let known = |username: &str| Access {
        username: Some(username.into()),
        password: Some(Secret::File(file.clone())),
        ..Access::default()
    };
    let error = refusal(&etcd, Access::default()).await.to_string();
    assert!(error.contains("--etcd-username"), "{error}");
    fs::write(&file, "wrong\n").unwrap();
    let node = store(&etcd, known("overlayd"));
    let error = node.list().await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("authentication failed"), "{error}");
    fs::write(&file, "swordfish\n").unwrap();
    assert_eq!(node.list().await.unwrap().len(), 1);
    // What it may do is told by the key that it may not touch.
    let elsewhere = EtcdOptions { prefix: "/elsewhere".into(), ..options(&[]) };
    let access = Access { endpoints: vec![etcd.endpoint()], ..known("overlayd") };
    let error =
        EtcdStore::new(EtcdOptions { access, ..elsewhere }).unwrap().list().await.unwrap_err().to_string();
    assert!(
        error.contains("listing /elsewhere/subnets/ was refused") && error.contains("permission denied"),
        "{error}"
    );
}
