//! A header template of any kind and its stamp: whatever goes in, lengths, addresses and checksum hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_common::{
    Encap, Mac, Vni,
    template::{Ends, Headers, Macs, Shell, Stamp, Underlay},
    wire::eth::ETHERTYPE_IPV4,
};

type Input = ([u8; 8], u16, u32, [u8; 12], u16, u8, u16, Option<u32>, u32);

fuzz_target!(|data: Input| {
    let ([a, b, c, d, e, f, g, h], port, vni, [m @ .., n, o, p, q, r, s], inner_len, tos, source_port, gre_key, kind) = data;
    let (Ok(vni), Some(encap)) = (Vni::new(vni), Encap::from_number(kind % 8)) else { return };
    let (src, dst) = ([a, b, c, d], [e, f, g, h]);
    let ends = Ends { port, vni, gre_key, macs: Macs { src: Mac(m), dst: Mac([n, o, p, q, r, s]) } };
    let Some(shell) = Shell::of(encap, ends) else { return };
    let template = Headers { underlay: Underlay::V4 { src, dst }, carries: ETHERTYPE_IPV4, shell }.compile();
    let inner_len = inner_len.min(u16::MAX - 50);
    let bytes = template.stamped(Stamp { inner_len, tos, source_port });
    let sum: u32 = bytes[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    assert_eq!(bytes[16..18], (inner_len + template.overhead() as u16).to_be_bytes());
    assert_eq!((&bytes[26..30], &bytes[30..34], bytes[15]), (&src[..], &dst[..], tos));
    if encap.assigned_port().is_some() {
        assert_eq!(bytes[38..40], (inner_len + 30).to_be_bytes());
        assert_eq!(bytes[46..49], vni.get().to_be_bytes()[1..]);
    }
    assert!(bytes[template.len..].iter().all(|byte| *byte == 0));
});
