//! Tunnel packets that end too early: at every byte, once with headers that still promise the rest, once with
//! outer headers that know.

use harness::frame;

use crate::bed::{self, Account, FORGED, Watch, clean, from_the_wire, nobody, probe, tunnel};

/// Where the outer headers end: what is shorter is no tunnel packet, and the kernel's to refuse.
const OUTER: usize = 14 + 20 + 8;
/// Where the VXLAN header ends.
const VXLAN: usize = OUTER + 8;

#[test]
fn a_tunnel_packet_cut_at_each_byte() {
    let topology = bed::hosts(2);
    let packet = tunnel(&topology, &[FORGED, FORGED, FORGED].concat());
    let (whole, udp) = (packet.bytes(), packet.ip());
    let cuts = || 14..whole.len();
    assert!(cuts().count() > 100);
    let (probe, watch) = (probe(&topology), Watch::start(&topology));
    let (injector, mut account) = (from_the_wire(&topology), Account::of(topology.h(1)));

    for cut in cuts() {
        injector.send(&whole[..cut]).unwrap();
    }
    let malformed = (whole.len() - OUTER) as u64;
    account.dropped("cut on the wire", &[("outer_malformed", malformed)]);

    for cut in cuts() {
        let mut ip = udp.clone();
        ip.payload.truncate(cut.saturating_sub(14 + 20));
        if let Some(length) = ip.payload.get_mut(4..6) {
            length.copy_from_slice(&((cut - 34) as u16).to_be_bytes());
        }
        // Shorter than the IP header, the cut is in the header.
        let mut bytes = frame::eth(packet.eth_dst, packet.eth_src, frame::IPV4, &ip.bytes());
        bytes.truncate(cut);
        injector.send(&bytes).unwrap();
    }
    let (outer, inner) = ((VXLAN - OUTER) as u64, (whole.len() - VXLAN) as u64);
    account.dropped("cut, and lengths to match", &[("outer_malformed", outer), ("inner_malformed", inner)]);

    watch.flush(&topology, &injector);
    // The mark may be cut away; the address stays, and says nothing else but what was refused and the last.
    let source = nobody(topology.h(2)).octets();
    watch.nothing_passed(|frame| frame.contains(&source) && !frame.contains(bed::VALID));
    clean(probe);
    account.close();
}
