//! How etcd is reached: its endpoints, certificates, and a user. Secrets are in files, or in the environment; they are read
//! again for each connection, and so may change while the daemon runs.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use serde::{Deserialize, Serialize};

/// Where etcd is, and how to be let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `http://HOST:PORT` or `https://HOST:PORT`, one per member.
    pub endpoints: Vec<String>,
    /// The certificates (PEM) that sign etcd's; the system's where there is none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM), where etcd asks for one.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Our name, where etcd has users.
    #[serde(default)]
    pub username: Option<String>,
    /// Where our password is.
    #[serde(default)]
    pub password: Option<Secret>,
}

/// Where a secret is; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// In a file, whose last line end does not count.
    File(PathBuf),
    /// In this environment variable.
    Variable(String),
}

/// What the files were like when they were read: others have another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Secret {
    fn read(&self) -> Result<String, String> {
        match self {
            Self::File(path) => {
                let bytes = read(path, "--etcd-password-file")?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| format!("--etcd-password-file {} is no UTF-8 text", path.display()))?;
                Ok(text.strip_suffix('\n').map_or(&*text, |text| text.trim_end_matches('\r')).to_owned())
            }
            Self::Variable(name) => env::var(name)
                .map_err(|_| format!("the environment has no {name} (etcd's password) any more")),
        }
    }
}

impl Access {
    /// Puts the endpoints in one form, and checks that all fits together. Files are not read.
    ///
    /// # Errors
    /// One line: what is wrong and what is expected.
    pub fn checked(mut self) -> Result<Self, String> {
        if self.endpoints.is_empty() {
            return Err("no etcd endpoint is given: http://127.0.0.1:2379 is a usual one".into());
        }
        let endpoints = self.endpoints.iter().map(|endpoint| checked(endpoint));
        self.endpoints = endpoints.collect::<Result<_, _>>()?;
        let with_tls = |endpoint: &&String| endpoint.starts_with("https:");
        let plain = self.endpoints.iter().find(|endpoint| !with_tls(endpoint));
        if let (Some(tls), Some(plain)) = (self.endpoints.iter().find(with_tls), plain) {
            return Err(format!(
                "etcd endpoints {tls} and {plain} differ in TLS: all https:// or all http:// is expected"
            ));
        }
        let files = [("cafile", &self.ca_file), ("certfile", &self.cert_file), ("keyfile", &self.key_file)];
        let given = files.iter().find(|(_, file)| file.is_some());
        if let (Some(plain), Some((flag, _))) = (plain, given) {
            return Err(format!(
                "--etcd-{flag} is given, but etcd endpoint {plain} has no TLS: say https://"
            ));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => return Err("--etcd-certfile is given without --etcd-keyfile".into()),
            (None, Some(_)) => return Err("--etcd-keyfile is given without --etcd-certfile".into()),
            _ => {}
        }
        match (&self.username, &self.password) {
            (Some(_), None) => Err("--etcd-username is given without --etcd-password-file".into()),
            (None, Some(_)) => Err("--etcd-password-file is given without --etcd-username".into()),
            _ => Ok(self),
        }
    }

    /// All endpoints, for messages.
    pub(super) fn place(&self) -> String {
        format!("etcd at {}", self.endpoints.join(", "))
    }

    /// Whether connections are encrypted.
    pub(super) fn has_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.starts_with("https:"))
    }

    /// Reads certificates and password into the options of a connection.
    ///
    /// # Errors
    /// One line naming the file.
    pub(super) fn enter(&self, options: ConnectOptions) -> Result<ConnectOptions, String> {
        let mut options = options;
        if self.has_tls() {
            options = options.with_tls(self.tls()?);
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            options = options.with_user(username, password.read()?).with_auto_token_refresh(true);
        }
        Ok(options)
    }

    fn tls(&self) -> Result<TlsOptions, String> {
        let mut tls = TlsOptions::new();
        tls = match &self.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(certificates(path, "--etcd-cafile")?)),
            None => tls.with_enabled_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            let (cert, key) = (certificates(cert, "--etcd-certfile")?, private_key(key)?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(tls)
    }

    /// What the files are like now.
    pub(super) fn stamp(&self) -> Stamp {
        let password = match &self.password {
            Some(Secret::File(path)) => Some(path),
            _ => None,
        };
        let files = [self.ca_file.as_ref(), self.cert_file.as_ref(), self.key_file.as_ref(), password];
        let stamp = |path: &PathBuf| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        };
        Stamp(files.into_iter().flatten().map(stamp).collect())
    }
}

fn read(path: &Path, flag: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{flag}: cannot read {}: {error}", path.display()))
}

fn certificates(path: &Path, flag: &str) -> Result<Vec<u8>, String> {
    let bytes = read(path, flag)?;
    if contains(&bytes, "-----BEGIN CERTIFICATE-----") {
        return Ok(bytes);
    }
    Err(format!(
        "{flag}: {} has no certificate: PEM (-----BEGIN CERTIFICATE-----) is expected",
        path.display()
    ))
}

fn private_key(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read(path, "--etcd-keyfile")?;
    if contains(&bytes, "PRIVATE KEY-----") {
        return Ok(bytes);
    }
    Err(format!(
        "--etcd-keyfile: {} has no private key: PEM (-----BEGIN PRIVATE KEY-----) is expected",
        path.display()
    ))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The endpoint with its scheme, without a trailing slash.
fn checked(endpoint: &str) -> Result<String, String> {
    let invalid = |why: &str| {
        format!("etcd endpoint {endpoint:?} {why}: http://HOST:PORT or https://HOST:PORT is expected")
    };
    let (scheme, rest) = match endpoint.split_once("://") {
        None => ("http", endpoint),
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(invalid("has an unknown scheme")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| invalid("has no port"))?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(invalid("has no valid port"));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if good { Ok(format!("{scheme}://{rest}")) } else { Err(invalid("has no valid host")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(endpoints: &[&str]) -> Access {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        Access { endpoints, ..Access::default() }
    }

    #[test]
    fn endpoints() {
        for (given, used) in [
            ("127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://etcd-1.example:2379/", "http://etcd-1.example:2379"),
            ("https://etcd-1.example:2379/", "https://etcd-1.example:2379"),
            ("[::1]:2379", "http://[::1]:2379"),
        ] {
            assert_eq!(access(&[given]).checked().unwrap().endpoints, [used]);
        }
        for given in [
            "",
            "etcd",
            "http://",
            "http://:2379",
            "https://:2379",
            "unix:///x",
            "a:0",
            "a:b",
            "::1:2379",
            "a b:1",
        ] {
            let error = access(&[given]).checked().unwrap_err();
            assert!(error.contains(&format!("{given:?}")) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let file = || Some(PathBuf::from("/x"));
        let tls = access(&["https://a:1"]);
        for (given, told) in [
            (access(&[]), "no etcd endpoint"),
            (access(&["https://a:1", "http://b:1"]), "differ in TLS"),
            (Access { ca_file: file(), ..access(&["http://a:1"]) }, "say https://"),
            (Access { cert_file: file(), ..tls.clone() }, "without --etcd-keyfile"),
            (Access { key_file: file(), ..tls.clone() }, "without --etcd-certfile"),
            (Access { username: Some("me".into()), ..tls.clone() }, "without --etcd-password-file"),
            (Access { password: file().map(Secret::File), ..tls.clone() }, "without --etcd-username"),
        ] {
            let error = given.checked().unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let whole = Access { ca_file: file(), cert_file: file(), key_file: file(), ..tls };
        assert!(whole.checked().is_ok());
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, text) = (dir.path().join("missing.pem"), dir.path().join("text.pem"));
        fs::write(&text, "no certificate").unwrap();
        for path in [missing, text] {
            let access = Access { ca_file: Some(path.clone()), ..access(&["https://a:1"]) };
            let error = access.enter(ConnectOptions::new()).unwrap_err();
            assert!(
                error.contains("--etcd-cafile") && error.contains(&path.display().to_string()),
                "{error}"
            );
        }
    }

    #[test]
    fn a_password_is_read_without_its_line_end_and_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let secret = Secret::File(path.clone());
        let access = Access { password: Some(secret.clone()), ..Access::default() };
        let mut stamps = vec![access.stamp()];
        for (text, password) in [("swordfish\n", "swordfish"), (" two words\r\n", " two words"), ("", "")] {
            fs::write(&path, text).unwrap();
            assert_eq!(secret.read().unwrap(), password);
            assert!(!stamps.contains(&access.stamp()));
            stamps.push(access.stamp());
        }
        assert!(Secret::Variable("OVERLAYD_NO_SUCH".into()).read().unwrap_err().contains("OVERLAYD_NO_SUCH"));
    }
}
