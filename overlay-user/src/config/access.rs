//! Where etcd is and how one is let in, for who asks for nothing else: the same flags, variables and file as the daemon's.

use std::path::PathBuf;

use clap::Args;

use super::{Flags, StoreConfig, read_file};

/// The daemon's flags that are about etcd.
#[derive(Args, Clone, Debug, Default)]
pub struct EtcdFlags {
    /// overlayd's configuration file (TOML): what it says of etcd; flags win
    #[arg(long, global = true, env = "OVERLAYD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// An etcd endpoint; may be repeated or a list joined by commas [default: http://127.0.0.1:2379]
    #[arg(long, global = true, env = "OVERLAYD_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    etcd_endpoints: Vec<String>,
    /// The prefix of the network's keys in etcd [default: /overlayd/network]
    #[arg(long, global = true, env = "OVERLAYD_ETCD_PREFIX", value_name = "KEY")]
    etcd_prefix: Option<String>,
    /// The certificates (PEM) that sign those of etcd's https:// endpoints [default: the system's]
    #[arg(long, global = true, env = "OVERLAYD_ETCD_CAFILE", value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// One's own certificate (PEM), where etcd asks for one
    #[arg(long, global = true, env = "OVERLAYD_ETCD_CERTFILE", value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// The key (PEM) of that certificate
    #[arg(long, global = true, env = "OVERLAYD_ETCD_KEYFILE", value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// One's user in etcd
    #[arg(long, global = true, env = "OVERLAYD_ETCD_USERNAME", value_name = "NAME")]
    etcd_username: Option<String>,
    /// A file with that user's password
    #[arg(long, global = true, env = "OVERLAYD_ETCD_PASSWORD_FILE", value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
}

impl EtcdFlags {
    /// Merges flags, file and flanneld's variables, as the daemon does.
    ///
    /// # Errors
    /// One line for the first that cannot be used: a usage error.
    pub fn store(&self) -> anyhow::Result<StoreConfig> {
        let this = self.clone();
        let flags = Flags {
            etcd_endpoints: this.etcd_endpoints,
            etcd_prefix: this.etcd_prefix,
            etcd_cafile: this.etcd_cafile,
            etcd_certfile: this.etcd_certfile,
            etcd_keyfile: this.etcd_keyfile,
            etcd_username: this.etcd_username,
            etcd_password_file: this.etcd_password_file,
            ..Flags::default()
        };
        let flags = match &this.config {
            Some(path) => flags.over(read_file(path)?),
            None => flags,
        };
        StoreConfig::of(&flags.over(Flags::of_flannel(|name| std::env::var(name).ok())?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        etcd: EtcdFlags,
    }

    fn store(args: &[&str]) -> anyhow::Result<StoreConfig> {
        let args = std::iter::once("overlayctl").chain(args.iter().copied());
        Line::try_parse_from(args).unwrap().etcd.store()
    }

    #[test]
    fn what_the_daemon_is_told_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("overlayd.toml");
        let config = format!("--config={}", file.display());
        fs::write(&file, "iface = \"eth0\"\netcd_endpoints = [\"http://a:1\"]\netcd_prefix = \"/net\"\n")
            .unwrap();
        for (args, endpoint, expected) in [
            (vec![config.as_str()], "http://a:1", "/net"),
            (vec![&config, "--etcd-prefix=/other"], "http://a:1", "/other"),
            (vec!["--etcd-endpoints=b:2"], "http://b:2", "/overlayd/network"),
            (vec![], "http://127.0.0.1:2379", "/overlayd/network"),
        ] {
            let StoreConfig::Etcd { access, prefix, .. } = store(&args).unwrap() else { panic!("{args:?}") };
            assert_eq!(
                (access.endpoints, prefix.as_str()),
                (vec![endpoint.to_owned()], expected),
                "{args:?}"
            );
        }
        fs::write(&file, "iface = \"eth0\"\npeers = \"peers.toml\"\n").unwrap();
        assert_eq!(store(&[&config]).unwrap(), StoreConfig::File("peers.toml".into()));
        assert!(store(&["--etcd-endpoints=ftp://x"]).unwrap_err().to_string().contains("ftp://x"));
    }
}
