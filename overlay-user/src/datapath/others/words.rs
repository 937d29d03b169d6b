//! What others on our hooks mean, in words.

use super::{Mechanism, Place, Role, Stranger};

/// The most lines told; of the rest the number.
const TOLD: usize = 6;
/// The most interfaces named in a line.
const NAMED: usize = 2;
/// libxdp puts this program on an interface to call others one after another.
const DISPATCHER: &str = "xdp_dispatcher";

/// One line for each that is there, ports taken together.
pub fn tell(strangers: &[Stranger]) -> Vec<String> {
    let mut groups: Vec<Vec<&Stranger>> = Vec::new();
    for stranger in strangers {
        match groups.iter_mut().find(|group| group.iter().all(|other| are_alike(other, stranger))) {
            Some(group) => group.push(stranger),
            None => groups.push(vec![stranger]),
        }
    }
    let mut lines: Vec<String> = groups.iter().take(TOLD).filter_map(|group| line(group)).collect();
    let rest = groups.len().saturating_sub(TOLD);
    if rest > 0 {
        lines.push(format!(
            "and {rest} more programs on overlayd's hooks: `bpftool net` and `tc filter show` list them"
        ));
    }
    lines
}

/// Whether two are the same thing on several ports of a bridge.
fn are_alike(a: &Stranger, b: &Stranger) -> bool {
    let same_hook = (a.role, a.place, a.mechanism) == (b.role, b.place, b.mechanism);
    a.role == Role::Port && same_hook && a.name == b.name && a.bridge == b.bridge
}

fn line(group: &[&Stranger]) -> Option<String> {
    let first = group.first()?;
    let (place, what, meaning) = (place(group), what(group), meaning(first));
    Some(match first.place {
        Place::Before(program) => format!("on {place}, {what} runs before overlayd's {program}: {meaning}"),
        Place::After(program) => format!("on {place}, {what} runs after overlayd's {program}: {meaning}"),
        Place::OnTheWayOut => format!("on the egress of {place}, {what}: {meaning}"),
    })
}

fn place(group: &[&Stranger]) -> String {
    let names: Vec<&str> = group.iter().take(NAMED).map(|stranger| stranger.interface.as_str()).collect();
    let more = if group.len() > NAMED { ", …" } else { "" };
    match group {
        [one] => one.interface.clone(),
        [first, ..] => format!(
            "{} ports of {} ({}{more})",
            group.len(),
            first.bridge.as_deref().unwrap_or("a bridge"),
            names.join(", ")
        ),
        [] => String::new(),
    }
}

fn what(group: &[&Stranger]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let one_id = first.id.filter(|_| group.iter().all(|other| other.id == first.id));
    let id = one_id.map(|id| format!("id {id}"));
    let brackets = |words: &[Option<String>]| {
        let words: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
    };
    let name = if first.name.is_empty() { "without a name" } else { first.name.as_str() };
    match first.mechanism {
        Mechanism::Xdp(mode) => {
            let brackets = brackets(&[id, Some(mode.to_string())]);
            let tail = if name == DISPATCHER { " of libxdp, and what it calls," } else { "" };
            format!("XDP program {name}{brackets}{tail}")
        }
        Mechanism::Tcx => format!("tcx program {name}{}", brackets(&[id])),
        Mechanism::Bpf => format!("tc filter {name}{}", brackets(&[id])),
        Mechanism::Filter(pref) => format!("a tc filter of kind {name} (pref {pref})"),
    }
}

fn meaning(stranger: &Stranger) -> &'static str {
    match (stranger.role, stranger.place) {
        (Role::Uplink, Place::Before(_)) => {
            "tunnel packets that it drops or redirects do not reach containers"
        }
        (Role::Uplink, Place::After(_)) => "it does not see the tunnel packets that overlayd takes",
        (Role::Uplink, Place::OnTheWayOut) => {
            "it sees packets to peers with their outer headers; what it drops does not reach them"
        }
        (Role::Bridge | Role::Port, Place::Before(_)) => "what it drops or redirects does not reach peers",
        (Role::Bridge | Role::Port, Place::After(_)) => {
            "it does not see the packets to peers that overlayd takes"
        }
        (Role::Bridge | Role::Port, Place::OnTheWayOut) => {
            "it does not see packets that overlayd hands to the container past it"
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_common::map::{NOTE_BYTES, program};

    use super::*;
    use crate::netlink::XdpMode;

    fn stranger(role: Role, place: Place, mechanism: Mechanism, name: &str, id: u32) -> Stranger {
        let (interface, bridge) = match role {
            Role::Uplink => ("eth0", None),
            Role::Bridge => ("docker0", None),
            Role::Port => ("vethc1", Some("docker0".to_owned())),
        };
        Stranger {
            role,
            place,
            mechanism,
            name: name.into(),
            id: Some(id),
            interface: interface.into(),
            bridge,
        }
    }

    const BEFORE: Place = Place::Before(program::UPLINK_INGRESS);

    #[test]
    fn each_has_a_line_that_says_what_it_means() {
        let native = Mechanism::Xdp(XdpMode::Native);
        let flower = Stranger {
            id: None,
            ..stranger(
                Role::Uplink,
                Place::After(program::UPLINK_INGRESS),
                Mechanism::Filter(10),
                "flower",
                0,
            )
        };
        let all = [
            stranger(Role::Uplink, BEFORE, Mechanism::Tcx, "firewall", 77),
            stranger(Role::Uplink, BEFORE, native, "xdp_dispatcher", 78),
            flower,
            stranger(Role::Port, Place::OnTheWayOut, Mechanism::Bpf, "", 79),
        ];
        assert_eq!(
            tell(&all),
            [
                "on eth0, tcx program firewall (id 77) runs before overlayd's uplink_ingress: \
                 tunnel packets that it drops or redirects do not reach containers",
                "on eth0, XDP program xdp_dispatcher (id 78, native) of libxdp, and what it calls, \
                 runs before overlayd's uplink_ingress: \
                 tunnel packets that it drops or redirects do not reach containers",
                "on eth0, a tc filter of kind flower (pref 10) runs after overlayd's uplink_ingress: \
                 it does not see the tunnel packets that overlayd takes",
                "on the egress of vethc1, tc filter without a name (id 79): \
                 it does not see packets that overlayd hands to the container past it",
            ]
        );
    }

    #[test]
    fn ports_are_told_together_and_lines_are_few() {
        let place = Place::Before(program::WORKLOAD_EGRESS);
        let port = |n: u32| Stranger {
            interface: format!("veth{n}"),
            ..stranger(Role::Port, place, Mechanism::Tcx, "shaper", 100 + n)
        };
        let ports: Vec<Stranger> = (0..200).map(port).collect();
        assert_eq!(
            tell(&ports),
            ["on 200 ports of docker0 (veth0, veth1, …), tcx program shaper runs before overlayd's \
              workload_egress: what it drops or redirects does not reach peers"]
        );
        let many = (0..20).map(|n| stranger(Role::Uplink, BEFORE, Mechanism::Tcx, "p", n));
        let lines = tell(&many.collect::<Vec<_>>());
        assert_eq!(lines.len(), TOLD + 1);
        assert!(lines[TOLD].starts_with("and 14 more programs"), "{lines:?}");
        assert_eq!(tell(&[]), [""; 0]);
    }

    #[test]
    fn the_longest_line_fits_a_note() {
        let longest = |role, place, name: &str| Stranger {
            interface: "i".repeat(15),
            bridge: Some("b".repeat(15)),
            ..stranger(role, place, Mechanism::Xdp(XdpMode::Offloaded), name, u32::MAX)
        };
        for role in [Role::Uplink, Role::Bridge, Role::Port] {
            for place in
                [Place::Before("workload_egress"), Place::After("workload_egress"), Place::OnTheWayOut]
            {
                for name in [DISPATCHER, "an_unnamed_prog"] {
                    let one = longest(role, place, name);
                    let several = vec![one.clone(); 1000];
                    for line in tell(&[one]).into_iter().chain(tell(&several)) {
                        assert!(line.len() < NOTE_BYTES, "{}: {line}", line.len());
                    }
                }
            }
        }
    }
}
