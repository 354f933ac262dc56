//! Operands: effective addresses, registers with their partial widths, loads and stores.

use crate::backend::{Backend, Bin, W};
use iced_x86::{Instruction, OpKind, Register};
use vkernel_abi::state::{RDI, RSI};

pub fn width_of_bytes(n: usize) -> Option<W> {
    Some(match n {
        1 => W::B1,
        2 => W::B2,
        4 => W::B4,
        8 => W::B8,
        _ => return None,
    })
}

/// Width of operand `n`: of the register or of the memory access; for an immediate, of operand 0.
pub fn op_width(i: &Instruction, n: u32) -> W {
    let bytes = match i.op_kind(n) {
        OpKind::Register => i.op_register(n).size(),
        OpKind::Memory
        | OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemoryESDI
        | OpKind::MemoryESEDI
        | OpKind::MemoryESRDI => i.memory_size().size(),
        _ if n > 0 => return op_width(i, 0),
        _ => 8,
    };
    width_of_bytes(bytes).unwrap_or(W::B8)
}

fn is_high_byte(r: Register) -> bool {
    matches!(r, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// Index of the 64-bit register that `r` is a part of.
pub fn gpr(r: Register) -> usize {
    match r {
        Register::AH => 0,
        Register::CH => 1,
        Register::DH => 2,
        Register::BH => 3,
        _ => r.full_register().number(),
    }
}

pub fn read_reg<B: Backend>(b: &mut B, r: Register) -> B::V {
    let v = b.reg(gpr(r));
    match r.size() {
        8 => v,
        4 => b.trunc(W::B4, v),
        2 => b.trunc(W::B2, v),
        _ if is_high_byte(r) => {
            let eight = b.c(8);
            let v = b.bin(Bin::ShrU, W::B8, v, eight);
            b.trunc(W::B1, v)
        }
        _ => b.trunc(W::B1, v),
    }
}

/// Writes a value of the register's width; 32-bit writes clear the upper half, narrower ones keep
/// what they do not cover (SDM vol. 1, 3.4.1.1).
pub fn write_reg<B: Backend>(b: &mut B, r: Register, v: B::V) {
    let index = gpr(r);
    let (keep, shift) = match r.size() {
        8 | 4 => return b.set_reg(index, v),
        2 => (!0xffffu64, 0),
        _ if is_high_byte(r) => (!0xff00u64, 8),
        _ => (!0xffu64, 0),
    };
    let old = b.reg(index);
    let mask = b.c(keep);
    let old = b.bin(Bin::And, W::B8, old, mask);
    let shift = b.c(shift);
    let v = b.bin(Bin::Shl, W::B8, v, shift);
    let v = b.bin(Bin::Or, W::B8, old, v);
    b.set_reg(index, v);
}

/// 64-bit guest address of the memory operand, segment base included.
pub fn address<B: Backend>(b: &mut B, i: &Instruction) -> B::V {
    let v = offset(b, i);
    segment(b, i, v)
}

fn segment<B: Backend>(b: &mut B, i: &Instruction, v: B::V) -> B::V {
    let base = match i.memory_segment() {
        Register::FS => b.fs_base(),
        Register::GS => b.gs_base(),
        _ => return v,
    };
    b.bin(Bin::Add, W::B8, base, v)
}

/// Offset within the segment, as LEA computes it.
pub fn offset<B: Backend>(b: &mut B, i: &Instruction) -> B::V {
    let base = i.memory_base();
    if matches!(base, Register::RIP | Register::EIP) {
        return b.c(i.memory_displacement64());
    }
    let short = base.size() == 4 || i.memory_index().size() == 4;
    let mut sum = None;
    if base != Register::None {
        sum = Some(b.reg(gpr(base)));
    }
    if i.memory_index() != Register::None {
        let mut x = b.reg(gpr(i.memory_index()));
        let scale = i.memory_index_scale().trailing_zeros();
        if scale != 0 {
            let s = b.c(u64::from(scale));
            x = b.bin(Bin::Shl, W::B8, x, s);
        }
        sum = Some(match sum {
            Some(s) => b.bin(Bin::Add, W::B8, s, x),
            None => x,
        });
    }
    let displacement = i.memory_displacement64();
    let v = match sum {
        None => b.c(displacement),
        Some(s) if displacement == 0 => s,
        Some(s) => {
            let d = b.c(displacement);
            b.bin(Bin::Add, W::B8, s, d)
        }
    };
    if short { b.trunc(W::B4, v) } else { v }
}

/// Address of a string operand ([rsi] with its segment, or [rdi]).
pub fn string_address<B: Backend>(b: &mut B, i: &Instruction, kind: OpKind) -> B::V {
    let (r, short) = match kind {
        OpKind::MemorySegESI => (RSI, true),
        OpKind::MemoryESEDI => (RDI, true),
        OpKind::MemoryESRDI => (RDI, false),
        _ => (RSI, false),
    };
    let mut v = b.reg(r);
    if short {
        v = b.trunc(W::B4, v);
    }
    if r == RSI { segment(b, i, v) } else { v }
}

/// Reads operand `n` at its width (immediates sign-extended, then cut to the width of operand 0).
pub fn read<B: Backend>(b: &mut B, i: &Instruction, n: u32) -> Result<B::V, B::Fault> {
    match i.op_kind(n) {
        OpKind::Register => Ok(read_reg(b, i.op_register(n))),
        OpKind::Memory => {
            let a = address(b, i);
            b.load(op_width(i, n), a)
        }
        _ => Ok(b.c(i.immediate(n) & op_width(i, n).mask())),
    }
}

pub fn write<B: Backend>(b: &mut B, i: &Instruction, n: u32, v: B::V) -> Result<(), B::Fault> {
    if i.op_kind(n) == OpKind::Register {
        write_reg(b, i.op_register(n), v);
        return Ok(());
    }
    let a = address(b, i);
    b.store(op_width(i, n), a, v)
}

pub fn is_memory(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Memory
}
