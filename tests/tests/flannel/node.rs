//! Host 2 as flanneld has it: the devices, the key in etcd, and what it programs for everybody else's.

use std::net::IpAddr;

use harness::{
    Topology,
    etcd::Etcd,
    host::{Host, UPLINK},
    kernel_vtep::{KernelVtep, Remote},
    topology::ETCD_PREFIX,
};
use overlay_common::Mac;

use crate::rules::{self, Lease, Subnets, Vtep};

/// Seconds that flanneld leases its subnet for.
const LEASE: u32 = 86_400;

/// The network's backend, and what it says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Vxlan { vni: u32, port: u16 },
    HostGw,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Vxlan { .. } => "vxlan",
            Self::HostGw => "host-gw",
        }
    }
}

/// flanneld on host 2.
pub(crate) struct Flanneld {
    backend: Backend,
    /// Whether the network has IPv6.
    dual: bool,
    /// `flannel.<VNI>`, and `flannel-v6.<VNI>` where there is IPv6; none with host-gw.
    vteps: Vec<KernelVtep>,
    /// What its key hangs on.
    lease: String,
}

impl Flanneld {
    /// Makes the devices. `dual` where the network has IPv6.
    pub(crate) fn new(host: &Host, backend: Backend, dual: bool) -> Self {
        let mut node = Self { backend, dual, vteps: Vec::new(), lease: String::new() };
        node.make_devices(host);
        node
    }

    fn make_devices(&mut self, host: &Host) {
        let Backend::Vxlan { vni, port } = self.backend else { return };
        self.vteps = vec![KernelVtep::create(host, vni, port).unwrap()];
        if self.dual {
            self.vteps.push(KernelVtep::create_v6(host, vni, port, false).unwrap());
        }
    }

    /// Deletes the devices and makes them again, as where it finds them other than they should be.
    pub(crate) fn make_devices_again(&mut self, host: &Host) {
        for vtep in &self.vteps {
            host.ns.ip(&format!("link del {}", vtep.device)).unwrap();
        }
        self.make_devices(host);
    }

    /// Gives its (first) device a MAC address.
    pub(crate) fn set_mac(&mut self, host: &Host, mac: &str) {
        let vtep = &mut self.vteps[0];
        host.ns.ip(&format!("link set {} address {mac}", vtep.device)).unwrap();
        mac.clone_into(&mut vtep.mac);
    }

    /// The MAC address of its (first) device.
    pub(crate) fn mac(&self) -> &str {
        &self.vteps[0].mac
    }

    /// The MAC addresses of its devices, for each version of IP.
    pub(crate) fn macs(&self) -> [Option<Mac>; 2] {
        [0, 1].map(|version: usize| self.vteps.get(version)?.mac.parse().ok())
    }

    /// The name of its key: `MakeSubnetKey`.
    pub(crate) fn key(&self, host: &Host) -> String {
        let v6 = host.bridge.subnet_v6().filter(|_| self.dual).map(|subnet| format!("&{subnet}"));
        let name = format!("{}{}", host.bridge.subnet(), v6.unwrap_or_default()).replace('/', "-");
        format!("{ETCD_PREFIX}/subnets/{name}")
    }

    /// The value of its key: `LeaseAttrs`, as Go's encoder writes it.
    pub(crate) fn value(&self, host: &Host) -> String {
        let data = |name: &str, version: usize| {
            let (Some(vtep), Backend::Vxlan { vni, .. }) = (self.vteps.get(version), self.backend) else {
                return String::new();
            };
            format!(r#","{name}":{{"VNI":{vni},"VtepMAC":"{}"}}"#, vtep.mac)
        };
        let v6 = if self.dual { format!(r#""{}""#, host.ip_v6) } else { "null".to_owned() };
        format!(
            r#"{{"PublicIP":"{}","PublicIPv6":{v6},"BackendType":"{}"{}{}}}"#,
            host.ip,
            self.backend.name(),
            data("BackendData", 0),
            data("BackendV6Data", 1)
        )
    }

    /// Writes its key under a lease of its own: how it takes a subnet, renews it, and tells of what has changed. The lease
    /// that it hung on before is left to expire.
    pub(crate) fn write(&mut self, etcd: &Etcd, host: &Host) {
        self.lease = etcd.grant(LEASE).unwrap();
        etcd.put_leased(&self.key(host), &self.value(host), &self.lease).unwrap();
    }

    /// Its lease ends.
    pub(crate) fn expire(&self, etcd: &Etcd) {
        etcd.revoke(&self.lease).unwrap();
    }

    /// Reads everybody's keys by its rules, and programs the kernel for them.
    pub(crate) fn follow(&self, topology: &Topology) {
        let host = topology.h(2);
        let keys = topology.etcd().get_prefix(&format!("{ETCD_PREFIX}/subnets")).unwrap();
        for (key, value) in keys.iter().filter(|(key, _)| **key != self.key(host)) {
            let lease = rules::parse(key, value).unwrap();
            if let Some(vteps) = lease.vteps(self.backend.name()).unwrap() {
                self.add(host, &lease, vteps);
            }
        }
    }

    fn add(&self, host: &Host, lease: &Lease, vteps: [Option<Vtep>; 2]) {
        let Subnets { v4: (v4, len), v6 } = lease.subnets;
        match self.backend {
            Backend::HostGw => {
                host.ns
                    .ip(&format!("route replace {v4}/{len} via {} dev {UPLINK}", lease.public_ip))
                    .unwrap();
            }
            Backend::Vxlan { vni, .. } => {
                let peers: [Option<(String, IpAddr)>; 2] = [
                    Some((format!("{v4}/{len}"), lease.public_ip.into())),
                    v6.zip(lease.public_ip_v6).map(|((v6, len), ip)| (format!("{v6}/{len}"), ip.into())),
                ];
                for ((device, peer), vtep) in self.vteps.iter().zip(peers).zip(vteps) {
                    let Some(((subnet, ip), vtep)) = peer.zip(vtep) else { continue };
                    // It does not look at the VNI, and is not heard with another one.
                    assert_eq!(vtep.vni, vni, "{lease:?}");
                    let mac = vtep.mac.map(|byte| format!("{byte:02x}")).join(":");
                    device.add_peer(host, &Remote { subnet: &subnet, ip, mac: &mac }).unwrap();
                }
            }
        }
    }
}
