//! What is expected of each kind, written down before anything was run.

use harness::Versions;

/// A kind of tunnel, and what it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// What `--encap` gets.
    pub(crate) name: &'static str,
    /// Bytes of its headers behind the outer IP header, the inner Ethernet header included.
    pub(crate) shell: u32,
    /// Its headers between the two IP headers, as tshark names them.
    pub(crate) layers: &'static str,
    /// What tcpdump has to look for over IPv4, and over IPv6.
    pub(crate) filters: [&'static str; 2],
}

/// RFC 7348, RFC 8926, RFC 2784, RFC 2003 with RFC 2473 and RFC 4213.
pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        name: "vxlan",
        shell: 30,
        layers: "udp:vxlan:eth:ethertype",
        filters: ["udp port 4789", "udp port 4789"],
    },
    Kind {
        name: "geneve",
        shell: 30,
        layers: "udp:geneve:eth:ethertype",
        filters: ["udp port 6081", "udp port 6081"],
    },
    Kind { name: "gre", shell: 18, layers: "gre:eth:ethertype", filters: ["ip proto 47", "ip6 proto 47"] },
    Kind { name: "gre-l3", shell: 4, layers: "gre", filters: ["ip proto 47", "ip6 proto 47"] },
    Kind {
        name: "ipip",
        shell: 0,
        layers: "",
        filters: ["ip proto 4 or ip proto 41", "ip6 proto 4 or ip6 proto 41"],
    },
];

impl Kind {
    pub(crate) fn named(name: &str) -> Self {
        KINDS.into_iter().find(|kind| kind.name == name).unwrap()
    }

    /// The largest inner packet over an uplink of 1500 bytes.
    pub(crate) fn mtu(self, outer_v6: bool) -> u32 {
        1500 - if outer_v6 { 40 } else { 20 } - self.shell
    }

    /// The headers as tshark names them.
    pub(crate) fn protocols(self, outer_v6: bool, inner_v6: bool) -> String {
        let version = |v6: bool| if v6 { "ipv6" } else { "ip" };
        let layers = ["eth:ethertype", version(outer_v6), self.layers, version(inner_v6)];
        let layers: Vec<&str> = layers.into_iter().filter(|layer| !layer.is_empty()).collect();
        format!("{}:icmp", layers.join(":"))
    }
}

/// Over which version of IP packets of a version go: their own, where the hosts speak it.
pub(crate) fn outer_v6(underlay: Versions, inner_v6: bool) -> bool {
    match underlay {
        Versions::V4 => false,
        Versions::V6 => true,
        Versions::Both => inner_v6,
    }
}
