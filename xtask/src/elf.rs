//! The little of ELF64 (little-endian) that xtask asks of a file: is it static, which programs has it.

const PT_INTERP: u32 = 3;
const SHT_SYMTAB: u32 = 2;
const STT_FUNC: u8 = 2;
const STB_GLOBAL: u8 = 1;

/// Whether an executable runs without a dynamic loader. Static PIE has PT_DYNAMIC, but no PT_INTERP.
pub(crate) fn is_static(file: &[u8]) -> bool {
    program_headers(file).is_some_and(|types| !types.contains(&PT_INTERP))
}

fn program_headers(file: &[u8]) -> Option<Vec<u32>> {
    check_magic(file)?;
    let (offset, size, count) = (u64_at(file, 32)?, u16_at(file, 54)?, u16_at(file, 56)?);
    (0..usize::from(count)).map(|i| u32_at(file, offset + i * usize::from(size))).collect()
}

/// The entry points of an eBPF object as `section/name`: global functions outside `.text`.
pub(crate) fn programs(file: &[u8]) -> Option<Vec<String>> {
    check_magic(file)?;
    let (offset, size) = (u64_at(file, 40)?, usize::from(u16_at(file, 58)?));
    let section = |index: usize| file.get(offset + index * size..);
    let count = usize::from(u16_at(file, 60)?);
    let names = u64_at(section(usize::from(u16_at(file, 62)?))?, 24)?;
    let name_of = |index: usize| string_at(file, names + to_usize(u32_at(section(index)?, 0)?)?);

    let symtab = (0..count).filter_map(section).find(|header| u32_at(header, 4) == Some(SHT_SYMTAB))?;
    let symbol_names = u64_at(section(to_usize(u32_at(symtab, 40)?)?)?, 24)?;
    let (start, length) = (u64_at(symtab, 24)?, u64_at(symtab, 32)?);
    let mut programs = Vec::new();
    // An Elf64_Sym has 24 bytes.
    for symbol in file.get(start..start + length)?.chunks_exact(24) {
        let in_section = usize::from(u16_at(symbol, 6)?);
        // Reserved indices (SHN_ABS …) lie above the table's end.
        if symbol[4] != (STB_GLOBAL << 4 | STT_FUNC) || in_section == 0 || in_section >= count {
            continue;
        }
        let in_section = name_of(in_section)?;
        if in_section != ".text" {
            let name = string_at(file, symbol_names + to_usize(u32_at(symbol, 0)?)?)?;
            programs.push(format!("{in_section}/{name}"));
        }
    }
    programs.sort();
    Some(programs)
}

/// `\x7fELF`, 64-bit, little-endian.
fn check_magic(file: &[u8]) -> Option<()> {
    file.starts_with(b"\x7fELF\x02\x01").then_some(())
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    bytes(file, at).map(u32::from_le_bytes)
}

/// An offset or a size. From 4 GiB on it is refused, so that sums of two cannot overflow.
fn u64_at(file: &[u8], at: usize) -> Option<usize> {
    let value = bytes(file, at).map(u64::from_le_bytes)?;
    u32::try_from(value).ok().and_then(to_usize)
}

fn to_usize(value: u32) -> Option<usize> {
    value.try_into().ok()
}

fn string_at(file: &[u8], at: usize) -> Option<String> {
    let string = file.get(at..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(string).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_dynamic() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        // Built for a glibc target, as xtask always is.
        assert!(!is_static(&file));
        assert_eq!(program_headers(&file).unwrap().iter().filter(|kind| **kind == PT_INTERP).count(), 1);
    }

    #[test]
    fn an_executable_without_an_interpreter_is_static() {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64; // e_phoff
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        file.extend([1, 0, 0, 0]); // PT_LOAD
        assert!(is_static(&file));
        file[64] = 3;
        assert!(!is_static(&file));
    }

    #[test]
    fn what_is_no_elf_or_is_cut_short_has_no_answer() {
        assert!(!is_static(b"#!/bin/sh\n"));
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 4, 33, 60, 64, 80] {
            assert_eq!(programs(&file[..length]), None, "{length}");
            assert!(!is_static(&file[..length]), "{length}");
        }
    }

    /// An object with the sections `.text`, `classifier`, `.symtab` and `.strtab`, and these symbols
    /// (name, info, section).
    fn object(symbols: &[(&str, u8, u16)]) -> Vec<u8> {
        let mut strings = b"\0.text\0classifier\0.symtab\0.strtab\0".to_vec();
        let mut table = vec![0; 24];
        for (name, info, section) in symbols {
            table.extend(u32::try_from(strings.len()).unwrap().to_le_bytes());
            table.extend([*info, 0]);
            table.extend(section.to_le_bytes());
            table.extend([0; 16]);
            strings.extend(name.bytes().chain([0]));
        }
        let (table_at, strings_at) = (64, 64 + table.len());
        let headers_at = strings_at + strings.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[40..48].copy_from_slice(&u64::try_from(headers_at).unwrap().to_le_bytes());
        (file[58], file[60], file[62]) = (64, 5, 4);
        file.extend(&table);
        file.extend(&strings);
        // Name, type, offset, size, link.
        let sections = [
            (0, 0, 0, 0, 0),
            (1, 1, 0, 0, 0),
            (7, 1, 0, 0, 0),
            (18, 2, table_at, table.len(), 4),
            (26, 3, strings_at, strings.len(), 0),
        ];
        for (name, kind, offset, size, link) in sections {
            let mut header = [0; 64];
            (header[0], header[4], header[40]) = (name, kind, link);
            header[24..32].copy_from_slice(&u64::try_from(offset).unwrap().to_le_bytes());
            header[32..40].copy_from_slice(&u64::try_from(size).unwrap().to_le_bytes());
            file.extend(header);
        }
        file
    }

    #[test]
    fn global_functions_outside_text_are_the_programs() {
        let file = object(&[
            ("uplink_ingress", 0x12, 2),
            ("workload_egress", 0x12, 2),
            ("memcpy", 0x12, 1),
            ("local", 0x02, 2),
            ("MAP", 0x11, 2),
            ("undefined", 0x12, 0),
            ("absolute", 0x12, 0xfff1),
        ]);
        assert_eq!(programs(&file).unwrap(), ["classifier/uplink_ingress", "classifier/workload_egress"]);
        assert_eq!(programs(&file[..file.len() - 64]), None);
    }
}
