//! Looking at everything before anything is changed.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use overlay_common::Vni;
use tracing::info;

use super::{claims, phases::Phases, routed};
use crate::{
    config::{Config, StoreConfig},
    local::Local,
    netlink::Netlink,
    state::{State, derive_vtep_mac},
    store::{EtcdOptions, EtcdStore, FileStore, Health, NetworkConfig, PeerSubnet, Store, StoreError},
};

/// What was found out before anything was changed.
pub(super) struct Survey {
    pub(super) local: Local,
    pub(super) store: Arc<dyn Store>,
    pub(super) network: Option<NetworkConfig>,
    /// `None` where the store could not be asked.
    pub(super) records: Option<BTreeMap<IpNet, PeerSubnet>>,
    pub(super) health: Health,
    pub(super) state: State,
}

fn open_store(config: &Config, state: Option<&State>, in_force: usize) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match &config.store {
        StoreConfig::Etcd { access, prefix, prune_delay } => Arc::new(EtcdStore::new(EtcdOptions {
            access: access.clone(),
            prefix: prefix.clone(),
            node: config.node_name.clone(),
            prune_delay: *prune_delay,
            in_force,
            previous: state.map(|state| state.announcements.clone()).unwrap_or_default(),
        })?),
        StoreConfig::File(path) => Arc::new(FileStore::new(path.clone())),
    })
}

/// Asks the store and the kernel what there is.
///
/// # Errors
/// One line where this host cannot start as it is.
pub(super) async fn survey(
    config: &Config,
    old: Option<State>,
    netlink: &Netlink,
    // The routes of a data path that is there already.
    in_force: Option<usize>,
    phases: &mut Phases,
) -> anyhow::Result<Survey> {
    if let Some(old) = &old {
        old.refuse_other_pins(&config.pin_dir)?;
    }
    let store = open_store(config, old.as_ref(), in_force.unwrap_or_default())?;
    let heard = ask(store.as_ref(), phases).await.and_then(|(network, records)| {
        let doubt = store.doubt(&records);
        doubt.map_or(Ok((network, records)), |doubt| Err(StoreError::Unreachable(doubt)))
    });
    let (network, mut records, health) = match heard {
        Ok((network, records)) => (network, Some(records), Health::Ok),
        // A data path is there and forwards: going on with it beats not starting.
        Err(error) if in_force.is_some() => {
            let remembered = old.as_ref().and_then(|state| state.network);
            let announced = |state: &State| state.announcements.iter().any(|own| own.subnets.v6.is_some());
            let network = remembered.map(|(vni, port)| NetworkConfig {
                network: None,
                network_v6: None,
                ipv6: old.as_ref().map(announced),
                vni: Vni::new(vni).ok(),
                port: Some(port),
            });
            (network, None, Health::Degraded { reason: error.to_string() })
        }
        Err(error) => return Err(error.into()),
    };
    let remembered = old.as_ref().map(|state| state.vtep_mac.parse()).transpose()?;
    let mut local = Local::discover(config, network, remembered.unwrap_or_default(), netlink).await?;
    if remembered.is_none() {
        local.vtep_mac = derive_vtep_mac(&config.node_name, local.underlay);
    }
    say_overruled(config, &local);
    let mut state = old.unwrap_or_else(|| State::new(&config.node_name, local.vtep_mac));
    if let Some(records) = &mut records {
        claims::refuse_overlap(&local, records, &state)?;
        claims::refuse_rival(&local, records, store.as_ref()).await?;
        claims::leave_out_stale(records, &local, &state);
    }
    state.node_name.clone_from(&config.node_name);
    // The others go on as they were told until they hear otherwise.
    local.takes = state.announcements.iter().fold(local.takes, |takes, own| takes.with(own.encap));
    local.take_kinds(records.iter().flat_map(BTreeMap::values));
    local.routed = records.as_ref().map(|records| routed::of(local.public, records)).unwrap_or_default();
    Ok(Survey { local, store, network, records, health, state })
}

/// Asks the store for the network's configuration and all subnets.
async fn ask(
    store: &dyn Store,
    phases: &mut Phases,
) -> Result<(Option<NetworkConfig>, BTreeMap<IpNet, PeerSubnet>), StoreError> {
    let network = store.network().await?;
    phases.over("network");
    let records = store.list().await?;
    phases.over("subnets");
    Ok((network, records))
}

/// The store's VNI and port win over the flags'; who set another one by flag should hear of it.
fn say_overruled(config: &Config, local: &Local) {
    if local.vni != config.vni {
        info!("VNI {} of the store's configuration is used, not {}", local.vni, config.vni);
    }
    if local.port != config.port {
        info!("UDP port {} of the store's configuration is used, not {}", local.port, config.port);
    }
}
