//! Bit tests and scans.

use crate::backend::{Backend, Bin, Flow, Rmw, Un, W};
use crate::exec::Done;
use crate::flags::{flush_flags, set_flag};
use crate::operand::{address, is_memory, op_width, read, read_reg, write, write_reg};
use iced_x86::{Instruction, Mnemonic, OpKind};
use vkernel_abi::state::{CF, ZF};

/// BT, BTS, BTR, BTC. A register index addresses the whole bit string in memory; an immediate one
/// wraps at the operand size (SDM vol. 2, BT).
pub fn bt<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let mut index = if i.op1_kind() == OpKind::Register { read_reg(b, i.op1_register()) } else { b.c(i.immediate(1)) };
    let mut addr = None;
    if is_memory(i, 0) {
        let mut a = address(b, i);
        if i.op1_kind() == OpKind::Register {
            let s = b.un(Un::Sext, w, index);
            let n = b.c(u64::from(w.bits().trailing_zeros()));
            let words = b.bin(Bin::ShrS, W::B8, s, n);
            let scale = b.c(u64::from(w.bytes().trailing_zeros()));
            let off = b.bin(Bin::Shl, W::B8, words, scale);
            a = b.bin(Bin::Add, W::B8, a, off);
        }
        addr = Some(a);
    }
    let mask = b.c(u64::from(w.bits() - 1));
    index = b.bin(Bin::And, W::B4, index, mask);
    let one = b.c(1);
    let selected = b.bin(Bin::Shl, W::B8, one, index);
    let old;
    match (i.mnemonic(), addr) {
        (Mnemonic::Bt, Some(a)) => old = b.load(w, a)?,
        (Mnemonic::Bt, None) => old = read(b, i, 0)?,
        (m, Some(a)) if i.has_lock_prefix() => {
            let inverted = b.un(Un::Not, w, selected);
            old = match m {
                Mnemonic::Bts => b.rmw(Rmw::Or, w, a, selected)?,
                Mnemonic::Btr => b.rmw(Rmw::And, w, a, inverted)?,
                _ => b.rmw(Rmw::Xor, w, a, selected)?,
            };
        }
        (m, a) => {
            old = match a {
                Some(a) => b.load(w, a)?,
                None => read(b, i, 0)?,
            };
            let new = match m {
                Mnemonic::Bts => b.bin(Bin::Or, w, old, selected),
                Mnemonic::Btr => {
                    let inverted = b.un(Un::Not, w, selected);
                    b.bin(Bin::And, w, old, inverted)
                }
                _ => b.bin(Bin::Xor, w, old, selected),
            };
            match a {
                Some(a) => b.store(w, a, new)?,
                None => write(b, i, 0, new)?,
            }
        }
    }
    let v = b.bin(Bin::ShrU, W::B8, old, index);
    let v = b.bin(Bin::And, W::B8, v, one);
    set_flag(b, CF, v);
    Ok(Flow::Next)
}

/// BSF, BSR: a zero source sets ZF and leaves the destination alone, as Intel's CPUs do.
pub fn scan<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let x = read(b, i, 1)?;
    let wide = if w == W::B8 { W::B8 } else { W::B4 };
    let r = if i.mnemonic() == Mnemonic::Bsf {
        b.un(Un::Ctz, wide, x)
    } else {
        let n = b.un(Un::Clz, wide, x);
        let last = b.c(u64::from(wide.bits() - 1));
        b.bin(Bin::Sub, W::B4, last, n)
    };
    let index = crate::operand::gpr(i.op0_register());
    let old = b.reg(index);
    write_reg(b, i.op0_register(), r);
    let new = b.reg(index);
    let v = b.select(x, new, old);
    b.set_reg(index, v);
    let zero = b.un(Un::Eqz, w, x);
    flush_flags(b);
    b.store_flag(ZF, zero);
    Ok(Flow::Next)
}
