//! Mutated tunnel packets by the thousand: whatever is accepted has been sent by a peer, and for itself.

use overlay_common::map::{Direction, program::UPLINK_INGRESS};

use crate::{
    bed::{Bed, with_bed},
    case::{DROP, NEXT, REDIRECT},
    packet::{Addr, Ipv4, at, patched, pattern},
    skb::Context,
    world::{
        A, B, CONTAINER, GATEWAY, NEW, OTHER, PORT_NUMBER, PeerHost, UNDERLAY, UPLINK_MAC, dev, from_peer,
    },
};

/// Enough to mutate every byte of every header many times over; about a second.
const PACKETS: u32 = 20_000;
const SEED: u64 = 0x6f76_6572_6c61_7964;

/// SplitMix64: the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A packet that would be delivered, or nearly.
fn valid(random: &mut Random) -> Vec<u8> {
    let peer: PeerHost = random.pick(&[A, B]);
    let neighbour = Addr::try_from(&(random.next() as u32).to_be_bytes()[..]).unwrap();
    let anyone = [A.container, B.container, peer.container, peer.container, CONTAINER, neighbour];
    let ip = Ipv4 {
        tos: random.next() as u8,
        ttl: random.next() as u8,
        options: vec![1; 4 * random.pick(&[0, 0, 0, 1, 10])],
        payload: pattern(random.below(200)),
        ..Ipv4::udp(random.pick(&anyone), random.pick(&[CONTAINER, OTHER, NEW, GATEWAY, B.container]))
    };
    let mut packet = from_peer(&peer, ip.bytes());
    packet.tos = random.next() as u8;
    packet.bytes()
}

/// Changes a few bytes or lengths.
fn mutate(random: &mut Random, mut packet: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let headers = packet.len().min(at::INNER_IP + 60);
        match random.below(8) {
            0..3 => packet[random.below(headers)] ^= 1 << random.below(8),
            3 => packet[random.below(headers)] = random.next() as u8,
            4 => {
                let field = random.pick(&[at::OUTER_IP + 2, at::OUTER_UDP + 4, at::INNER_IP + 2]);
                if field + 2 <= packet.len() {
                    let wrong = u16::from_be_bytes([packet[field], packet[field + 1]]);
                    let wrong = wrong.wrapping_add((random.below(64) as u16).wrapping_sub(32));
                    packet = patched(packet, field, wrong);
                }
            }
            5 => packet.truncate(at::VXLAN + random.below(packet.len() - at::VXLAN + 1)),
            6 => packet.extend(pattern(random.below(50))),
            // One peer's outer header around another's inner packet.
            _ => packet[at::OUTER_IP + 12..at::OUTER_IP + 16]
                .copy_from_slice(&random.pick(&[A.underlay, B.underlay, UNDERLAY])),
        }
        // The kernel builds no shorter IPv4 packet.
        packet.resize(packet.len().max(at::VXLAN), 0);
    }
    packet
}

/// Says why a packet ought not to have been accepted, by rules written without the programs'.
fn must_not_be_accepted(packet: &[u8]) -> Option<&'static str> {
    let word = |offset: usize| usize::from(u16::from_be_bytes([packet[offset], packet[offset + 1]]));
    if packet.len() < at::INNER_IP + 20 {
        return Some("it is shorter than its headers");
    }
    if packet[..6] != UPLINK_MAC || packet[30..34] != UNDERLAY {
        return Some("it is not for us");
    }
    if word(12) != 0x0800 || packet[14] != 0x45 || packet[23] != 17 || word(20) & 0x3fff != 0 {
        return Some("it is not plain UDP over IPv4");
    }
    if word(at::OUTER_UDP + 2) != usize::from(PORT_NUMBER) {
        return Some("it is not for our port");
    }
    if packet[at::VXLAN..at::VXLAN + 4] != [8, 0, 0, 0] || packet[at::VXLAN + 7] != 0 {
        return Some("it is not plain VXLAN");
    }
    let (ip_len, udp_len, inner_len) = (word(16), word(at::OUTER_UDP + 4), word(at::INNER_IP + 2));
    if 14 + ip_len > packet.len() || 20 + udp_len > ip_len || 8 + 8 + 14 + inner_len > udp_len {
        return Some("its lengths contradict each other");
    }
    let header_len = usize::from(packet[at::INNER_IP] & 15) * 4;
    if packet[at::INNER_IP] >> 4 != 4 || header_len < 20 || header_len > inner_len {
        return Some("its inner header is malformed");
    }
    let Some(peer) = [A, B].into_iter().find(|peer| packet[26..30] == peer.underlay) else {
        return Some("a stranger sent it");
    };
    if packet[at::VXLAN + 4..at::VXLAN + 7] != peer.vni.to_be_bytes()[1..] {
        return Some("its VNI is not the peer's");
    }
    if packet[at::INNER_IP + 12..at::INNER_IP + 14] != peer.subnet[..2] {
        return Some("its inner source is outside the peer's subnet");
    }
    if packet[at::INNER_IP + 16..at::INNER_IP + 18] != CONTAINER[..2] {
        return Some("its inner destination is not local");
    }
    (packet[15] & 3 == 3 && packet[at::INNER_IP + 1] & 3 == 0).then_some("its congestion cannot be heard")
}

#[test]
fn nothing_is_accepted_but_what_a_peer_may_send() {
    with_bed(|bed| {
        let (mut random, mut verdicts) = (Random(SEED), std::collections::BTreeMap::new());
        let before = totals(bed);
        for n in 0..PACKETS {
            let packet = valid(&mut random);
            let packet = mutate(&mut random, packet);
            let ran =
                bed.run(UPLINK_INGRESS, Context { ifindex: dev::UPLINK, ..Context::default() }, &packet);
            *verdicts.entry(ran.verdict).or_insert(0) += 1;
            match ran.verdict {
                NEXT | DROP => assert_eq!(ran.packet, packet, "packet {n} was changed"),
                REDIRECT => {
                    let fault = must_not_be_accepted(&packet);
                    assert_eq!(fault, None, "packet {n} was accepted: {packet:02x?}");
                    check_delivered(n, &packet, &ran.packet);
                }
                other => panic!("packet {n}: verdict {other}: {packet:02x?}"),
            }
        }
        // All three happen, or the mutations are no test.
        let of = |verdict| verdicts.get(&verdict).copied().unwrap_or(0);
        println!("{} redirected, {} dropped, {} passed", of(REDIRECT), of(DROP), of(NEXT));
        assert!([NEXT, DROP, REDIRECT].into_iter().all(|v| of(v) > u64::from(PACKETS) / 50), "{verdicts:?}");
        let after = totals(bed);
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (of(DROP), of(REDIRECT)),
            "each is counted once"
        );
    });
}

/// What is delivered is the inner packet, its TOS and checksum excepted.
fn check_delivered(n: u32, packet: &[u8], delivered: &[u8]) {
    let inner = &packet[at::INNER_IP..];
    assert_eq!(delivered.len(), 14 + inner.len(), "packet {n}");
    let delivered = &delivered[14..];
    let changed = packet[15] & 3 == 3;
    for (i, (is, was)) in delivered.iter().zip(inner).enumerate() {
        assert!(
            is == was || (changed && [1, 10, 11].contains(&i)),
            "packet {n}, inner byte {i}: {is} was {was}"
        );
    }
}

/// Packets dropped and packets received from peers so far.
fn totals(bed: &Bed) -> (u64, u64) {
    let state = bed.state();
    let from_peers =
        state.traffic.iter().filter(|((_, direction), _)| *direction == Direction::FromPeer as u32);
    (state.drops.iter().sum(), from_peers.map(|(_, traffic)| traffic.packets).sum())
}
