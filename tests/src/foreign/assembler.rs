//! The counting program, written out in the kernel's instructions (RFC 9669).

use std::os::fd::RawFd;

use anyhow::Result;

use super::{Kind, Watched};

/// Bytes of the frame that are looked at: the EtherType to the UDP destination port, without IP options.
const FROM: i32 = 12;
const BYTES: i32 = 26;

/// Where they are put, and where the counter's number is: below the frame pointer.
const BUFFER: i16 = -32;
const SLOT: i16 = -36;

/// `bpf_map_lookup_elem`, `bpf_skb_load_bytes`, and `bpf_xdp_load_bytes` (kernel 5.18).
const MAP_LOOKUP: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;
const XDP_LOAD_BYTES: i32 = 189;

const LOAD_IMMEDIATE: u8 = 0x18;
const LOAD_HALF: u8 = 0x69;
const LOAD_BYTE: u8 = 0x71;
const STORE_WORD: u8 = 0x63;
const ATOMIC_DOUBLE: u8 = 0xdb;
const ADD: u8 = 0x07;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_UNEQUAL: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// The source register that says: the immediate is a map's descriptor.
const MAP_DESCRIPTOR: u8 = 1;

/// Context, class of the packet, frame pointer.
const CONTEXT: u8 = 6;
const CLASS: u8 = 9;
const FRAME: u8 = 10;

#[derive(Default)]
struct Program {
    code: Vec<[u8; 8]>,
    /// Jumps whose target comes later.
    to_count: Vec<usize>,
}

impl Program {
    fn push(&mut self, opcode: u8, registers: (u8, u8), offset: i16, immediate: i32) {
        let (to, from) = registers;
        let mut bytes = [opcode, to | (from << 4), 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
        self.code.push(bytes);
    }

    /// To the counting, where register 1 is another than this.
    fn count_unless(&mut self, register: u8, value: i32) {
        self.to_count.push(self.code.len());
        self.push(JUMP_UNEQUAL, (register, 0), 0, value);
    }

    fn arrive_at_count(&mut self) -> Result<()> {
        let here = self.code.len();
        for jump in std::mem::take(&mut self.to_count) {
            let offset = i16::try_from(here - jump - 1)?;
            self.code[jump][2..4].copy_from_slice(&offset.to_ne_bytes());
        }
        Ok(())
    }
}

/// The program, eight bytes an instruction.
pub(super) fn assemble(kind: Kind, map: RawFd, watched: &[Watched]) -> Result<Vec<u8>> {
    let (load, pass, drop) = match kind {
        // TCX_NEXT, which is TC_ACT_UNSPEC, and TCX_DROP; XDP_PASS and XDP_DROP.
        Kind::Tc => (SKB_LOAD_BYTES, -1, 2),
        Kind::Xdp => (XDP_LOAD_BYTES, 2, 1),
    };
    let mut program = Program::default();
    classify(&mut program, load, watched)?;
    count(&mut program, map);
    program.push(MOVE, (0, 0), 0, pass);
    for (class, _) in (1..).zip(watched).filter(|(_, watched)| watched.drop) {
        program.push(JUMP_UNEQUAL, (CLASS, 0), 1, class);
        program.push(MOVE, (0, 0), 0, drop);
    }
    program.push(EXIT, (0, 0), 0, 0);
    Ok(program.code.concat())
}

/// The class is the position in `watched`, from 1; 0 is all else.
fn classify(program: &mut Program, load: i32, watched: &[Watched]) -> Result<()> {
    let network = |value: u16| i32::from(u16::from_ne_bytes(value.to_be_bytes()));
    let at = |byte: i32| BUFFER + i16::try_from(byte - FROM).unwrap_or(0);
    program.push(MOVE_REGISTER, (CONTEXT, 1), 0, 0);
    program.push(MOVE, (CLASS, 0), 0, 0);
    program.push(MOVE_REGISTER, (1, CONTEXT), 0, 0);
    program.push(MOVE, (2, 0), 0, FROM);
    program.push(MOVE_REGISTER, (3, FRAME), 0, 0);
    program.push(ADD, (3, 0), 0, i32::from(BUFFER));
    program.push(MOVE, (4, 0), 0, BYTES);
    program.push(CALL, (0, 0), 0, load);
    program.count_unless(0, 0);
    program.push(LOAD_HALF, (1, FRAME), at(12), 0);
    program.count_unless(1, network(0x0800));
    program.push(LOAD_BYTE, (1, FRAME), at(14), 0);
    program.count_unless(1, 0x45);
    program.push(LOAD_BYTE, (1, FRAME), at(23), 0);
    program.count_unless(1, 17);
    program.push(LOAD_HALF, (1, FRAME), at(36), 0);
    for (class, watched) in (1..).zip(watched) {
        program.push(JUMP_UNEQUAL, (1, 0), 2, network(watched.port));
        program.push(MOVE, (CLASS, 0), 0, class);
        program.to_count.push(program.code.len());
        program.push(JUMP, (0, 0), 0, 0);
    }
    program.arrive_at_count()
}

fn count(program: &mut Program, map: RawFd) {
    program.push(STORE_WORD, (FRAME, CLASS), SLOT, 0);
    program.push(LOAD_IMMEDIATE, (1, MAP_DESCRIPTOR), 0, map);
    program.push(0, (0, 0), 0, 0);
    program.push(MOVE_REGISTER, (2, FRAME), 0, 0);
    program.push(ADD, (2, 0), 0, i32::from(SLOT));
    program.push(CALL, (0, 0), 0, MAP_LOOKUP);
    program.push(JUMP_EQUAL, (0, 0), 2, 0);
    program.push(MOVE, (1, 0), 0, 1);
    program.push(ATOMIC_DOUBLE, (0, 1), 0, 0);
}
