//! What flanneld is told by the environment, for hosts that overlayd takes over from it: the last to be asked, behind
//! overlayd's own flags, variables and file, and in full only where none of those says where etcd is.

use super::Flags;

/// The prefix of flanneld's keys where nobody says otherwise.
const ETCD_PREFIX: &str = "/coreos.com/network";

/// The variable that holds a password itself.
pub(crate) const PASSWORD: &str = "FLANNELD_ETCD_PASSWORD";

impl Flags {
    /// Reads flanneld's variables through `variable`.
    ///
    /// # Errors
    /// One line that names the variable.
    pub fn of_flannel(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let get = |name: &str| variable(&format!("FLANNELD_{name}")).filter(|value| !value.is_empty());
        let list = |name| -> Vec<String> {
            let value = get(name).unwrap_or_default();
            value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        let mut public_ips = Vec::new();
        for name in ["PUBLIC_IP", "PUBLIC_IPV6"] {
            if let Some(value) = get(name) {
                let ip = value.parse();
                public_ips.push(ip.map_err(|_| anyhow::anyhow!("FLANNELD_{name}={value} is no IP address"))?);
            }
        }
        let etcd_endpoints = list("ETCD_ENDPOINTS");
        let prefix = get("ETCD_PREFIX");
        let is_told = !etcd_endpoints.is_empty() || prefix.is_some();
        Ok(Self {
            ifaces: list("IFACE"),
            public_ips,
            etcd_prefix: prefix.or_else(|| is_told.then(|| ETCD_PREFIX.to_owned())),
            etcd_endpoints,
            etcd_cafile: get("ETCD_CAFILE").map(Into::into),
            etcd_certfile: get("ETCD_CERTFILE").map(Into::into),
            etcd_keyfile: get("ETCD_KEYFILE").map(Into::into),
            etcd_password_variable: get("ETCD_PASSWORD").map(|_| PASSWORD.to_owned()),
            etcd_username: get("ETCD_USERNAME"),
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::StoreConfig,
        store::etcd::{Access, Secret},
    };

    fn flags(variables: &[(&str, &str)]) -> Flags {
        let of = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        Flags::of_flannel(of).unwrap()
    }

    #[test]
    fn flanneld_s_settings_are_the_last_to_count() {
        let flannel = flags(&[
            ("FLANNELD_IFACE", "eth1"),
            ("FLANNELD_ETCD_ENDPOINTS", "https://a:2379,https://b:2379"),
            ("FLANNELD_ETCD_CAFILE", "/ca.pem"),
            ("FLANNELD_ETCD_USERNAME", "flannel"),
            ("FLANNELD_ETCD_PASSWORD", "swordfish"),
            ("FLANNELD_PUBLIC_IP", "192.0.2.7"),
        ]);
        let own = Flags { node_name: Some("n1".into()), ..Flags::default() };
        let config = own.clone().over(flannel.clone()).check().unwrap();
        assert_eq!((config.ifaces, config.public_v4), (vec!["eth1".into()], "192.0.2.7".parse().ok()));
        let access = Access {
            endpoints: vec!["https://a:2379".into(), "https://b:2379".into()],
            ca_file: Some("/ca.pem".into()),
            username: Some("flannel".into()),
            password: Some(Secret::Variable("FLANNELD_ETCD_PASSWORD".into())),
            ..Access::default()
        };
        let StoreConfig::Etcd { access: found, prefix, .. } = config.store else { panic!("etcd") };
        assert_eq!((found, prefix.as_str()), (access, "/coreos.com/network"));
        let own = Flags { peers: Some("/peers.toml".into()), ifaces: vec!["eth0".into()], ..own };
        let config = own.over(flannel).check().unwrap();
        assert_eq!(
            (config.ifaces, config.store),
            (vec!["eth0".into()], StoreConfig::File("/peers.toml".into()))
        );
    }

    #[test]
    fn nothing_is_assumed_where_flanneld_was_told_nothing() {
        assert_eq!(flags(&[("FLANNELD_IFACE", "")]).etcd_prefix, None);
        let error = Flags::of_flannel(|_| Some("here".into())).unwrap_err().to_string();
        assert!(error.contains("FLANNELD_PUBLIC_IP=here"), "{error}");
    }
}
