//! A header template and its stamp: whatever goes in, lengths, addresses and checksum hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use overlay_common::{Mac, Vni, template::{Stamp, VxlanV4}};

type Input = ([u8; 8], u16, u32, [u8; 12], u16, u8, u16);

fuzz_target!(|data: Input| {
    let ([a, b, c, d, e, f, g, h], port, vni, [m @ .., n, o, p, q, r, s], inner_len, tos, source_port) = data;
    let Ok(vni) = Vni::new(vni) else { return };
    let (src, dst) = ([a, b, c, d], [e, f, g, h]);
    let tunnel = VxlanV4 { src, dst, port, vni, inner_src: Mac(m), inner_dst: Mac([n, o, p, q, r, s]) };
    let template = tunnel.compile();
    let mut bytes = template.bytes;
    let inner_len = inner_len.min(u16::MAX - 50);
    Stamp { inner_len, tos, source_port }.apply(&mut bytes, template.len, template.checksum);
    let sum: u32 = bytes[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    assert_eq!(bytes[16..18], (inner_len + 50).to_be_bytes());
    assert_eq!(bytes[38..40], (inner_len + 30).to_be_bytes());
    assert_eq!((&bytes[26..30], &bytes[30..34], bytes[15]), (&src[..], &dst[..], tos));
    assert_eq!(bytes[46..49], vni.get().to_be_bytes()[1..]);
    assert!(bytes[template.len..].iter().all(|byte| *byte == 0));
});
