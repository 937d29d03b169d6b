//! The uncompressed kernel out of a bzImage (Documentation/arch/x86/boot.rst). qemu enters it by its PVH note,
//! and saves the seconds that an emulated CPU takes to decompress it.

use anyhow::{Context as _, Result, ensure};

use super::module::{Compression, decompress};

/// Offsets in the setup header.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// The uncompressed kernel, where it can be booted so.
pub(super) fn extract(image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image).context("the image is no bzImage")?;
    let compression = Compression::of(payload).context("the kernel is compressed in an unknown way")?;
    let kernel = decompress(compression, payload)?;
    ensure!(kernel.starts_with(b"\x7fELF"), "what is in the image is no ELF file");
    ensure!(kernel.windows(4).any(|bytes| bytes == b"Xen\0"), "the kernel has no PVH entry");
    Ok(kernel)
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |offset: usize| -> Option<usize> {
        let bytes = image.get(offset..offset + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = match *image.get(SETUP_SECTORS)? {
        // As old boot loaders left it.
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = ((sectors + 1) * SECTOR).checked_add(word(PAYLOAD_OFFSET)?)?;
    let end = start.checked_add(word(PAYLOAD_LENGTH)?)?;
    // The last four bytes are the uncompressed size.
    image.get(start..end.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused_without_a_panic() {
        for length in [0, 0x1f1, 0x24b, 0x250, 4096] {
            for byte in [0, 0xff] {
                assert!(extract(&vec![byte; length]).is_err(), "{length} bytes of {byte}");
            }
        }
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 4096];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 8;
        image[PAYLOAD_LENGTH] = 10;
        image[1024 + 8..1024 + 14].copy_from_slice(b"packed");
        assert_eq!(payload(&image), Some(&b"packed"[..]));
    }
}
