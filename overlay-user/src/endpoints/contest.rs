//! Two places claim one address. Who has it keeps it while it answers: anybody on the bridge can say by ARP or
//! a neighbour advertisement that an address is his, and the kernel believes whoever spoke last. So the kernel is made to ask at the
//! MAC address of who has it, and only if nobody answers there the address is free for the other.

use std::net::IpAddr;

use overlay_common::map::{Endpoint, EndpointKey, EndpointSource, endpoint_flag};
use tracing::info;

use super::{EndpointError, NANOSECONDS, Place, monotonic_now};
use crate::{
    datapath::map::Maps,
    local::Bridge,
    netlink::{Neighbour, Netlink, NudState},
};

/// Who spoke this lately lives, whether it answers the kernel or not. Less than the three seconds in which the
/// kernel asks (ucast_solicit), so that the answer's absence decides.
const QUIET_AFTER: u64 = 2 * NANOSECONDS;

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Ask who has the address.
    Ask,
    /// Who has it is being asked, or lives.
    Wait,
    /// Who had it is gone: whoever speaks or answers next gets it.
    Release,
}

/// Whether the neighbour table claims an endpoint's address for another place, or knows the answer to an
/// earlier claim. `place` is where the neighbour table says that the address lives.
pub(super) fn is_on(old: &Endpoint, place: Option<Place>, neighbour: &Neighbour, now: u64) -> bool {
    if old.source != EndpointSource::Neighbour as u32 {
        return false;
    }
    match place {
        None => neighbour.is_failed() && old.flags & endpoint_flag::CONTESTED != 0,
        // An administrator's word needs no answer.
        Some(_) if matches!(neighbour.state, NudState::Permanent | NudState::NoArp) => false,
        // The MAC address has moved along, so asking there would reach the new place only.
        Some(place) if place.mac == old.mac => place.ifindex != old.ifindex && !quiet(old, now),
        Some(place) => place.ifindex != old.ifindex,
    }
}

/// Whether who has a contested address has just said that it still does.
pub(super) fn is_won(old: &Endpoint, place: Place, neighbour: &Neighbour) -> bool {
    old.flags & endpoint_flag::CONTESTED != 0
        && neighbour.state == NudState::Reachable
        && place == Place { ifindex: old.ifindex, mac: old.mac }
}

/// Acts on a claim to `endpoint`'s address.
pub(super) async fn decide(
    bridge: &Bridge,
    key: &EndpointKey,
    endpoint: &Endpoint,
    neighbour: Option<&Neighbour>,
    maps: &mut Maps,
    netlink: &Netlink,
) -> Result<(), EndpointError> {
    let ip = IpAddr::from(key.ip);
    let ifindex = endpoint.ifindex;
    match decision(endpoint, neighbour, monotonic_now()) {
        Decision::Wait => {}
        Decision::Ask => {
            if endpoint.flags & endpoint_flag::CONTESTED == 0 {
                info!(%ip, ifindex, "address is claimed from another port: asking who has it");
                let flags = endpoint.flags | endpoint_flag::CONTESTED;
                maps.put_endpoint(*key, Endpoint { flags, ..*endpoint })?;
            }
            netlink.probe_neighbour(bridge.index, ip, Some(endpoint.mac)).await?;
        }
        Decision::Release => {
            info!(%ip, ifindex, "who had this address does not answer: it is free for the other port");
            maps.delete_endpoint(*key)?;
        }
    }
    Ok(())
}

fn decision(endpoint: &Endpoint, neighbour: Option<&Neighbour>, now: u64) -> Decision {
    let asked = endpoint.flags & endpoint_flag::CONTESTED != 0;
    let Some(neighbour) = neighbour else { return Decision::Ask };
    let at_home = neighbour.mac == Some(endpoint.mac);
    match neighbour.state {
        NudState::Permanent | NudState::NoArp => Decision::Wait,
        NudState::Failed if asked && quiet(endpoint, now) => Decision::Release,
        NudState::Failed if asked => Decision::Wait,
        NudState::Delay | NudState::Probe if at_home => Decision::Wait,
        _ => Decision::Ask,
    }
}

fn quiet(endpoint: &Endpoint, now: u64) -> bool {
    now.saturating_sub(endpoint.last_seen) >= QUIET_AFTER
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use overlay_common::Mac;

    use super::*;

    const NOW: u64 = 1_000 * NANOSECONDS;
    const OWNER: Mac = Mac([2, 0, 0, 0, 0, 5]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 6]);

    fn owner(silent: u64, flags: u32) -> Endpoint {
        let source = EndpointSource::Neighbour as u32;
        Endpoint { last_seen: NOW - silent, ifindex: 10, source, mac: OWNER, flags, ..Endpoint::default() }
    }

    fn neighbour(mac: Mac, state: NudState) -> Neighbour {
        Neighbour { ifindex: 3, ip: IpAddr::V6(Ipv6Addr::LOCALHOST), mac: Some(mac), state }
    }

    #[test]
    fn who_has_an_address_is_asked_before_another_gets_it() {
        use NudState::{Failed, Probe, Reachable, Stale};
        let decided =
            |silent, flags, mac, state| decision(&owner(silent, flags), Some(&neighbour(mac, state)), NOW);
        assert_eq!(decision(&owner(0, 0), None, NOW), Decision::Ask);
        assert_eq!(decided(QUIET_AFTER, 0, OTHER, Stale), Decision::Ask);
        assert_eq!(decided(QUIET_AFTER, endpoint_flag::CONTESTED, OTHER, Reachable), Decision::Ask);
        assert_eq!(decided(QUIET_AFTER, endpoint_flag::CONTESTED, OWNER, Probe), Decision::Wait);
        assert_eq!(decided(QUIET_AFTER, endpoint_flag::CONTESTED, OWNER, Failed), Decision::Release);
        assert_eq!(decided(0, endpoint_flag::CONTESTED, OWNER, Failed), Decision::Wait);
        assert_eq!(decided(QUIET_AFTER, 0, OWNER, Failed), Decision::Ask);
        assert_eq!(decided(QUIET_AFTER, 0, OTHER, NudState::Permanent), Decision::Wait);
    }

    #[test]
    fn only_another_place_is_a_claim() {
        let on = |old: &Endpoint, ifindex, mac, state| {
            is_on(old, Some(Place { ifindex, mac }), &neighbour(mac, state), NOW)
        };
        assert!(on(&owner(0, 0), 11, OTHER, NudState::Stale));
        assert!(!on(&owner(0, 0), 10, OTHER, NudState::Stale));
        assert!(!on(&owner(0, 0), 11, OTHER, NudState::Permanent));
        assert!(on(&owner(0, 0), 11, OWNER, NudState::Reachable));
        assert!(!on(&owner(QUIET_AFTER, 0), 11, OWNER, NudState::Reachable));
        let failed = neighbour(OWNER, NudState::Failed);
        assert!(is_on(&owner(0, endpoint_flag::CONTESTED), None, &failed, NOW));
        assert!(!is_on(&owner(0, 0), None, &failed, NOW));
    }

    #[test]
    fn an_answer_from_home_ends_the_contest() {
        let home = Place { ifindex: 10, mac: OWNER };
        let contested = owner(0, endpoint_flag::CONTESTED);
        assert!(is_won(&contested, home, &neighbour(OWNER, NudState::Reachable)));
        assert!(!is_won(&contested, home, &neighbour(OWNER, NudState::Probe)));
        assert!(!is_won(
            &contested,
            Place { ifindex: 11, mac: OWNER },
            &neighbour(OWNER, NudState::Reachable)
        ));
    }
}
