//! Hosts with the kernel's own tunnel devices as peers, in every kind that the kernel has one of, and with Open vSwitch's
//! datapath in the kernel. Where it has none, the
//! test is skipped, and says why; `OVERLAYD_TEST_DEVICES=all` has none skipped.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

use std::{fs, net::IpAddr, path::Path, time::Duration};

use harness::{
    Netns, Scope, Topology, Versions,
    capture::Capture,
    eventually,
    host::{BRIDGE, Host, UPLINK},
    ovs::{Datapath, Switch},
    process::Cmd,
    topology::StoreKind,
    traffic::{Endpoint, ping, transfer},
};
use libtest_mimic::{Arguments, Trial};
use overlay_bed::bed::has_decap_across;

const SOON: Duration = Duration::from_secs(20);
const BYTES: usize = 1 << 20;
/// The MTU of all containers: it fits in every kind over IPv6.
const MTU: u32 = 1400;

/// What a device has at its other end: a bridge port, a route, or Open vSwitch's datapath in the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Bridge,
    Route,
    Switch,
}

/// A device of the kernel's, as host 2 makes it.
#[derive(Clone, Copy)]
struct Device {
    name: &'static str,
    /// What `ip link add` gets besides addresses.
    link: &'static str,
    /// What overlayd calls the kind.
    encap: &'static str,
    /// What the peers file says besides.
    entry: &'static str,
    at: At,
    outer_v6: bool,
    /// The versions of IP inside.
    inner: &'static [bool],
    /// What tcpdump has to look for, and where the shell starts and how long it is.
    filter: &'static str,
    shell: (usize, usize),
}

const V4: &[bool] = &[false];
const V6: &[bool] = &[true];
const BOTH: &[bool] = &[false, true];

#[rustfmt::skip]
const DEVICES: [Device; 12] = [
    Device { name: "gretap", link: "type gretap ttl 64", encap: "gre", entry: "", at: At::Bridge, outer_v6: false, inner: BOTH, filter: "ip proto 47", shell: (34, 4) },
    Device { name: "gretap_with_a_key", link: "type gretap ttl 64 key 7", encap: "gre", entry: "gre_key = 7\n", at: At::Bridge, outer_v6: false, inner: BOTH, filter: "ip proto 47", shell: (34, 8) },
    Device { name: "geneve", link: "type geneve id 7 ttl 64 df set", encap: "geneve", entry: "vni = 7\nbridge = true\n", at: At::Bridge, outer_v6: false, inner: BOTH, filter: "udp port 6081", shell: (42, 8) },
    Device { name: "gre", link: "type gre ttl 64", encap: "gre-l3", entry: "", at: At::Route, outer_v6: false, inner: BOTH, filter: "ip proto 47", shell: (34, 4) },
    Device { name: "ipip", link: "type ipip ttl 64", encap: "ipip", entry: "", at: At::Route, outer_v6: false, inner: V4, filter: "ip proto 4", shell: (34, 0) },
    Device { name: "sit", link: "type sit ttl 64", encap: "ipip", entry: "", at: At::Route, outer_v6: false, inner: V6, filter: "ip proto 41", shell: (34, 0) },
    Device { name: "ip6gretap", link: "type ip6gretap hoplimit 64 encaplimit none", encap: "gre", entry: "", at: At::Bridge, outer_v6: true, inner: BOTH, filter: "ip6 proto 47", shell: (54, 4) },
    Device { name: "ip6gre_with_a_limit", link: "type ip6gre hoplimit 64", encap: "gre-l3", entry: "", at: At::Route, outer_v6: true, inner: BOTH, filter: "ip6", shell: (54, 0) },
    Device { name: "ip6tnl", link: "type ip6tnl mode any hoplimit 64 encaplimit none", encap: "ipip", entry: "", at: At::Route, outer_v6: true, inner: BOTH, filter: "ip6 proto 4 or ip6 proto 41", shell: (54, 0) },
    Device { name: "open_vswitch_with_gre", link: "gre", encap: "gre", entry: "", at: At::Switch, outer_v6: false, inner: BOTH, filter: "ip proto 47", shell: (34, 4) },
    Device { name: "open_vswitch_with_geneve", link: "geneve", encap: "geneve", entry: "vni = 7\nbridge = true\n", at: At::Switch, outer_v6: false, inner: BOTH, filter: "udp port 6081", shell: (42, 8) },
    Device { name: "open_vswitch_with_vxlan", link: "vxlan", encap: "vxlan", entry: "vni = 7\nbridge = true\n", at: At::Switch, outer_v6: false, inner: BOTH, filter: "udp port 4789", shell: (42, 8) },
];

fn main() {
    let arguments = Arguments::from_args();
    let all = std::env::var("OVERLAYD_TEST_DEVICES").is_ok_and(|value| value == "all");
    let lacking = if arguments.list { Vec::new() } else { lacking() };
    let across = has_decap_across();
    let trials = DEVICES.iter().map(move |device| {
        let trial = Trial::test(format!("{}_is_a_peer", device.name), move || {
            is_a_peer(device, across);
            Ok(())
        });
        let lacks = lacking.iter().find(|(name, _)| *name == device.name).filter(|_| !all);
        // Linux can since 6.3, and no device of ours does it in these kinds.
        let mixed = "this kernel cannot strip one version of IP from around the other";
        let only_mixed = device.inner.iter().all(|inner| *inner != device.outer_v6) && !across;
        let why = lacks.map(|(_, why)| why.as_str()).or_else(|| only_mixed.then_some(mixed));
        match why {
            Some(why) => trial.with_kind(format!("skipped: {why}")).with_ignored_flag(true),
            None => trial,
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// The devices that this kernel does not have, and what it says.
fn lacking() -> Vec<(&'static str, String)> {
    let scope = Scope::unique().unwrap();
    let ns = scope.netns("devices").unwrap();
    let try_one = |device: &Device| {
        if device.at == At::Switch {
            let found = Cmd::new("modprobe").arg("openvswitch").check();
            return found.err().map(|_| (device.name, "no openvswitch module for this kernel".to_owned()));
        }
        let tried = ns.ip(&add(device, "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"));
        let _ = ns.ip("link del t1");
        tried.err().map(|error| {
            let text = format!("{error:#}").replace(['\n', '[', ']'], " ");
            (device.name, text.chars().take(120).collect())
        })
    };
    DEVICES.iter().filter_map(try_one).collect()
}

fn add(device: &Device, v4: &str, v4_remote: &str, v6: &str, v6_remote: &str) -> String {
    let (local, remote) = if device.outer_v6 { (v6, v6_remote) } else { (v4, v4_remote) };
    let local = if device.encap == "geneve" { String::new() } else { format!("local {local} ") };
    format!("link add t1 {} {local}remote {remote}", device.link)
}

fn outer(host: &Host, device: &Device) -> IpAddr {
    if device.outer_v6 { host.ip_v6.into() } else { host.ip.into() }
}

/// Host 1 has overlayd, host 2 the device.
fn up(device: &Device) -> (Topology, Option<Switch>) {
    let underlay = if device.outer_v6 { Versions::V6 } else { Versions::V4 };
    let builder = Topology::builder().store(StoreKind::Peers).versions(underlay, true).container_mtu(MTU);
    let mut topology = builder.without_overlayd().up().unwrap();
    let (h1, h2) = (topology.h(1), topology.h(2));
    for host in [h1, h2] {
        // Without offload every checksum is complete on the wire.
        host.c(1).ns.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
    }
    h2.ns.exec(&["ethtool", "-K", UPLINK, "tx", "off"]).unwrap();
    let entry = |subnet: &str| {
        format!(
            "[[peer]]\nsubnet = \"{subnet}\"\nhost = \"{}\"\nencap = \"{}\"\nzero_checksum = true\n{}",
            outer(h2, device),
            device.encap,
            device.entry
        )
    };
    let peers = entry(&h2.bridge.subnet()) + &entry(&h2.bridge.subnet_v6().unwrap());
    fs::write(topology.peers_file(0), peers).unwrap();
    let switch = join(device, &h2.ns, h1, h2, &topology.scope.dir().join("ovs"));
    topology.start_overlayd(0).unwrap();
    (topology, switch)
}

fn join(device: &Device, ns: &Netns, h1: &Host, h2: &Host, dir: &Path) -> Option<Switch> {
    let subnets = [h1.bridge.subnet(), h1.bridge.subnet_v6().unwrap()];
    if device.at == At::Switch {
        Cmd::new("modprobe").arg("openvswitch").check().unwrap();
        let switch = Switch::start(ns, dir.to_owned(), None).unwrap();
        switch.join(ns, BRIDGE, Datapath::Kernel).unwrap();
        let key = if device.link == "gre" { "" } else { "options:key=7" };
        switch.add_tunnel("tun1", device.link, h1.ip, key).unwrap();
        ns.ip_batch(&subnets.map(|subnet| format!("route add {subnet} dev {BRIDGE}"))).unwrap();
        return Some(switch);
    }
    let (ip, ip_v6) = (h2.ip.to_string(), h2.ip_v6.to_string());
    ns.ip(&add(device, &ip, &h1.ip.to_string(), &ip_v6, &h1.ip_v6.to_string())).unwrap();
    let ours = [IpAddr::from(h2.bridge.ip), h2.bridge.ip_v6.unwrap().into()];
    match device.at {
        At::Bridge | At::Switch => {
            ns.ip(&format!("link set t1 mtu {MTU} master {BRIDGE} up")).unwrap();
            ns.ip_batch(&subnets.map(|subnet| format!("route add {subnet} dev {BRIDGE}"))).unwrap();
        }
        At::Route => {
            ns.ip(&format!("link set t1 mtu {MTU} up")).unwrap();
            for inner in device.inner {
                let (subnet, src) = (&subnets[usize::from(*inner)], ours[usize::from(*inner)]);
                ns.ip(&format!("route add {subnet} dev t1 src {src}")).unwrap();
            }
        }
    }
    None
}

fn is_a_peer(device: &Device, across: bool) {
    let (topology, _switch) = up(device);
    let (h1, h2) = (topology.h(1), topology.h(2));
    let inside = |host: &Host, v6: bool| -> IpAddr {
        if v6 { host.c(1).ip_v6.unwrap().into() } else { host.c(1).ip.into() }
    };
    for &v6 in device.inner.iter().filter(|inner| across || **inner == device.outer_v6) {
        let [here, there] = [h1, h2].map(|host| Endpoint { ns: &host.c(1).ns, ip: inside(host, v6) });
        let answers = || ping(here.ns, there.ip, 1).is_ok_and(|ping| ping.clean());
        eventually("a container behind the device answers", SOON, answers).unwrap();
        let capture = Capture::of(&h1.ns, UPLINK, device.filter, &topology.scope.dir()).unwrap();
        assert!(ping(here.ns, there.ip, 3).unwrap().clean());
        assert!(ping(there.ns, here.ip, 3).unwrap().clean());
        let enough = || capture.frames().is_ok_and(|frames| frames.len() >= 12);
        eventually("the pings are captured", SOON, enough).unwrap();
        same_bytes(device, outer(h1, device), &capture.frames().unwrap());
        for packet in capture.finish().unwrap() {
            assert_eq!(packet.complaint(), None);
        }
        for (from, to) in [(here, there), (there, here)] {
            transfer(from, to, BYTES).unwrap();
        }
        let bridge: IpAddr = if v6 { h2.bridge.ip_v6.unwrap().into() } else { h2.bridge.ip.into() };
        assert!(ping(&h1.ns, bridge, 2).unwrap().clean(), "docker0 from docker0");
        assert!(ping(&h2.ns, here.ip, 2).unwrap().clean(), "a container from the other host");
    }
    if device.name == "geneve" {
        fragments_arrive(h1, h2);
    }
    // Floods alone may be refused, and a bridge's word that its containers could be reached without it.
    let drops = h1.overlayd().drops().unwrap();
    let floods = ["inner_multicast", "inner_protocol", "inner_martian", "not_local"];
    assert!(drops.keys().all(|reason| floods.contains(&reason.as_str())), "{drops:?}");
}

/// What the kernel sends in pieces its own device puts together again on the other host, and ours takes from there.
fn fragments_arrive(h1: &Host, h2: &Host) {
    let device = h1.ns.ip("-d link show dev ovl6081").unwrap().stdout;
    assert!(device.contains("geneve") && device.contains(",UP"), "{device}");
    h2.ns.ip_batch(&["link set t1 type geneve id 7 df unset".into(), "link set t1 mtu 1500".into()]).unwrap();
    let large = ["ping", "-q", "-c", "3", "-i", "0.2", "-W", "2", "-s", "1450", &h1.c(1).ip.to_string()];
    let answered = h2.ns.exec(&large).unwrap().stdout;
    assert!(answered.contains("3 received"), "{answered}");
}

/// Our packets and the kernel's differ in nothing but addresses, lengths and checksums, up to what they carry.
fn same_bytes(device: &Device, ours: IpAddr, frames: &[Vec<u8>]) {
    let (start, len) = device.shell;
    if len == 0 && device.outer_v6 && device.filter == "ip6" {
        // The kernel's limit to nesting, which is not ours.
        return;
    }
    let head = |frame: &[u8]| {
        let ip = if device.outer_v6 {
            // Version and class, without the flow label, which the kernel makes of a hash; next header and hop limit.
            [&[frame[14], frame[15] & 0xf0], &frame[20..22]].concat()
        } else {
            // Version, length and TOS; DF; TTL and protocol.
            [&frame[14..16], &[frame[20] & 0x40], &frame[22..24]].concat()
        };
        [&ip, &frame[start..start + len]].concat()
    };
    let is_ours = |frame: &&Vec<u8>| match ours {
        IpAddr::V4(ip) => frame[26..30] == ip.octets(),
        IpAddr::V6(ip) => frame[22..38] == ip.octets(),
    };
    let of_size = frames.iter().filter(|frame| frame.len() > 90);
    let (ours, theirs): (Vec<_>, Vec<_>) = of_size.partition(is_ours);
    assert!(!ours.is_empty() && !theirs.is_empty());
    let expected = head(theirs[0]);
    for frame in &ours {
        assert_eq!(head(frame), expected, "{}", device.name);
    }
}
