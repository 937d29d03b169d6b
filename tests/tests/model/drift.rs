//! What somebody does to the kernel behind the daemon's back.

use std::net::IpAddr;

use harness::host::{BRIDGE, Host};
use ipnet::IpNet;
use overlay_common::Vni;
use overlay_user::datapath::{
    map::{Maps, RouteKey},
    pin::Pins,
};

use crate::{expected::subnets, step::Drift};

/// Subnets that no key names.
const STRAYS: [&str; 2] = ["10.98.0.0/24", "10.99.0.0/24"];

/// Does it. What is not there cannot be taken away, and that is no trouble.
pub(crate) fn apply(host: &Host, drift: Drift) {
    let mut maps = Maps::open(&Pins::new(&host.overlayd().config.pin_dir)).unwrap();
    match drift {
        Drift::KernelRoute(name) => {
            for subnet in subnets(name) {
                let _ = host.ns.ip(&format!("route del {subnet} proto 79"));
            }
        }
        Drift::Neighbour(name) => {
            for subnet in subnets(name) {
                let network = subnet.split_once('/').unwrap().0;
                let _ = host.ns.ip(&format!("neigh del {network} dev {BRIDGE}"));
            }
        }
        Drift::Route(name) => {
            for subnet in subnets(name) {
                maps.delete_route(key(&subnet)).unwrap();
            }
        }
        Drift::Peer(name) => {
            let routes = maps.routes().unwrap();
            let ours = subnets(name).filter_map(|subnet| {
                let (_, route) = routes.iter().find(|(known, _)| *known == key(&subnet))?;
                let tunnels = maps.tunnels().unwrap();
                tunnels.iter().find(|(id, _)| *id == route.tunnel).map(|(_, tunnel)| tunnel.remote)
            });
            let peers: Vec<IpAddr> = ours.map(IpAddr::from).collect();
            for (key, _) in maps.peers().unwrap() {
                if peers.contains(&key.ip.into()) {
                    maps.delete_peer(key).unwrap();
                }
            }
        }
        Drift::StrayRoute => {
            let (_, route) = maps.routes().unwrap().pop().unwrap();
            maps.put_route(key(STRAYS[0]), route).unwrap();
        }
        Drift::StrayKernelRoute => {
            let gateway = STRAYS[1].split_once('/').unwrap().0;
            let route = format!("{} via {gateway} dev {BRIDGE} onlink", STRAYS[1]);
            let _ = host.ns.ip(&format!("route replace {route} proto 79"));
        }
    }
}

fn key(subnet: &str) -> RouteKey {
    RouteKey::new(Vni::DEFAULT, subnet.parse::<IpNet>().unwrap())
}
