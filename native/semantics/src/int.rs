//! Moves, arithmetic, logic and exchanges on general registers.

use crate::backend::{Backend, Bin, Flow, Lazy, Rmw, Un, W};
use crate::exec::Done;
use crate::flags::{flush_flags, get_flag, set_flag};
use crate::operand::{address, is_memory, offset, op_width, read, read_reg, write, write_reg};
use iced_x86::{Instruction, Mnemonic};
use vkernel_abi::state::{AF, CF, DF, PF, RAX, RBX, SF, ZF};

pub fn mov<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use iced_x86::Register as R;
    if i.op_count() == 2 {
        // Segment registers: user code reads selectors now and then; their values are Linux's.
        for n in 0..2 {
            if i.op_kind(n) == iced_x86::OpKind::Register && i.op_register(n).is_segment_register() {
                if n == 0 {
                    return Ok(Flow::Trap(vkernel_abi::wasm::Trap::Protection));
                }
                let selector = match i.op_register(1) {
                    R::CS => 0x33,
                    R::SS => 0x2b,
                    _ => 0,
                };
                let v = b.c(selector);
                write(b, i, 0, v)?;
                return Ok(Flow::Next);
            }
            if i.op_kind(n) == iced_x86::OpKind::Register && !i.op_register(n).is_gpr() {
                return Ok(Flow::Trap(vkernel_abi::wasm::Trap::Protection));
            }
        }
    }
    let v = read(b, i, 1)?;
    write(b, i, 0, v)?;
    Ok(Flow::Next)
}

pub fn movzx<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = read(b, i, 1)?;
    write_reg(b, i.op0_register(), v);
    Ok(Flow::Next)
}

pub fn movsx<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = read(b, i, 1)?;
    let v = b.un(Un::Sext, op_width(i, 1), v);
    let v = b.trunc(op_width(i, 0), v);
    write_reg(b, i.op0_register(), v);
    Ok(Flow::Next)
}

pub fn lea<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = offset(b, i);
    let v = b.trunc(op_width(i, 0), v);
    write_reg(b, i.op0_register(), v);
    Ok(Flow::Next)
}

/// XCHG; with memory it is locked without a prefix (SDM vol. 2, XCHG).
pub fn xchg<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    for (m, r) in [(0, 1), (1, 0)] {
        if is_memory(i, m) {
            let v = read(b, i, r)?;
            let a = address(b, i);
            let old = b.rmw(Rmw::Xchg, w, a, v)?;
            write(b, i, r, old)?;
            return Ok(Flow::Next);
        }
    }
    let x = read(b, i, 0)?;
    let y = read(b, i, 1)?;
    write(b, i, 0, y)?;
    write(b, i, 1, x)?;
    Ok(Flow::Next)
}

/// ADD SUB ADC SBB AND OR XOR.
pub fn binary<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use Mnemonic as M;
    let w = op_width(i, 0);
    let m = i.mnemonic();
    // xor r,r and sub r,r do not depend on r.
    if matches!(m, M::Xor | M::Sub)
        && i.op1_kind() == iced_x86::OpKind::Register
        && i.op0_kind() == iced_x86::OpKind::Register
        && i.op0_register() == i.op1_register()
    {
        let zero = b.c(0);
        write_reg(b, i.op0_register(), zero);
        *b.lazy() = Some(Lazy::Logic { w, r: zero });
        return Ok(Flow::Next);
    }
    let y = read(b, i, 1)?;
    if i.has_lock_prefix() && is_memory(i, 0) {
        let op = match m {
            M::Add => Rmw::Add,
            M::Sub => Rmw::Sub,
            M::And => Rmw::And,
            M::Or => Rmw::Or,
            M::Xor => Rmw::Xor,
            _ => return locked_carry(b, i, w, y),
        };
        let a = address(b, i);
        let x = b.rmw(op, w, a, y)?;
        apply(b, m, w, x, y);
        return Ok(Flow::Next);
    }
    let x = read(b, i, 0)?;
    if is_memory(i, 0) {
        // The store can fault, so flags change after it.
        let carry = if matches!(m, M::Adc | M::Sbb) { get_flag(b, CF) } else { b.c(0) };
        let r = value(b, m, w, x, y, carry);
        write(b, i, 0, r)?;
        apply(b, m, w, x, y);
    } else {
        let r = apply(b, m, w, x, y);
        write_reg(b, i.op0_register(), r);
    }
    Ok(Flow::Next)
}

/// LOCK ADC, LOCK SBB: a compare-exchange loop, which only the interpreter can run.
fn locked_carry<B: Backend>(b: &mut B, i: &Instruction, w: W, y: B::V) -> Done<B> {
    if !B::INTERPRETER {
        return Ok(Flow::Step);
    }
    let a = address(b, i);
    loop {
        let x = b.load(w, a)?;
        let carry = get_flag(b, CF);
        let r = value(b, i.mnemonic(), w, x, y, carry);
        let old = b.cmpxchg(w, a, x, r)?;
        if b.known(old) == b.known(x) {
            apply(b, i.mnemonic(), w, x, y);
            return Ok(Flow::Next);
        }
    }
}

fn value<B: Backend>(b: &mut B, m: Mnemonic, w: W, x: B::V, y: B::V, carry: B::V) -> B::V {
    use Mnemonic as M;
    match m {
        M::Add => b.bin(Bin::Add, w, x, y),
        M::Sub => b.bin(Bin::Sub, w, x, y),
        M::And => b.bin(Bin::And, w, x, y),
        M::Or => b.bin(Bin::Or, w, x, y),
        M::Xor => b.bin(Bin::Xor, w, x, y),
        M::Adc => {
            let r = b.bin(Bin::Add, w, x, y);
            b.bin(Bin::Add, w, r, carry)
        }
        _ => {
            let r = b.bin(Bin::Sub, w, x, y);
            b.bin(Bin::Sub, w, r, carry)
        }
    }
}

/// The result, with the flags it sets.
fn apply<B: Backend>(b: &mut B, m: Mnemonic, w: W, x: B::V, y: B::V) -> B::V {
    use Mnemonic as M;
    let c = if matches!(m, M::Adc | M::Sbb) { get_flag(b, CF) } else { b.c(0) };
    let r = value(b, m, w, x, y, c);
    *b.lazy() = Some(match m {
        M::Add => Lazy::Add { w, a: x, b: y, r },
        M::Sub => Lazy::Sub { w, a: x, b: y, r },
        M::Adc => Lazy::Adc { w, a: x, b: y, c, r },
        M::Sbb => Lazy::Sbb { w, a: x, b: y, c, r },
        _ => Lazy::Logic { w, r },
    });
    r
}

pub fn cmp<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let x = read(b, i, 0)?;
    let y = read(b, i, 1)?;
    apply(b, Mnemonic::Sub, op_width(i, 0), x, y);
    Ok(Flow::Next)
}

pub fn test<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let x = read(b, i, 0)?;
    let y = read(b, i, 1)?;
    apply(b, Mnemonic::And, op_width(i, 0), x, y);
    Ok(Flow::Next)
}

pub fn inc_dec<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let inc = i.mnemonic() == Mnemonic::Inc;
    let one = b.c(1);
    let op = if inc { Bin::Add } else { Bin::Sub };
    let r;
    if i.has_lock_prefix() && is_memory(i, 0) {
        let a = address(b, i);
        let old = b.rmw(if inc { Rmw::Add } else { Rmw::Sub }, w, a, one)?;
        r = b.bin(op, w, old, one);
    } else {
        let x = read(b, i, 0)?;
        r = b.bin(op, w, x, one);
        write(b, i, 0, r)?;
    }
    let cf = get_flag(b, CF);
    *b.lazy() = Some(if inc { Lazy::Inc { w, r, cf } } else { Lazy::Dec { w, r, cf } });
    Ok(Flow::Next)
}

pub fn not_neg<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let neg = i.mnemonic() == Mnemonic::Neg;
    let zero = b.c(0);
    if i.has_lock_prefix() && is_memory(i, 0) {
        if !neg {
            let ones = b.c(w.mask());
            let a = address(b, i);
            b.rmw(Rmw::Xor, w, a, ones)?;
            return Ok(Flow::Next);
        }
        if !B::INTERPRETER {
            return Ok(Flow::Step);
        }
        let a = address(b, i);
        loop {
            let x = b.load(w, a)?;
            let r = b.bin(Bin::Sub, w, zero, x);
            let old = b.cmpxchg(w, a, x, r)?;
            if b.known(old) == b.known(x) {
                *b.lazy() = Some(Lazy::Sub { w, a: zero, b: x, r });
                return Ok(Flow::Next);
            }
        }
    }
    let x = read(b, i, 0)?;
    if neg {
        let r = b.bin(Bin::Sub, w, zero, x);
        write(b, i, 0, r)?;
        *b.lazy() = Some(Lazy::Sub { w, a: zero, b: x, r });
    } else {
        let r = b.un(Un::Not, w, x);
        write(b, i, 0, r)?;
    }
    Ok(Flow::Next)
}

/// CBW CWDE CDQE CWD CDQ CQO.
pub fn extend_acc<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use Mnemonic as M;
    use iced_x86::Register as R;
    let (from, to, from_reg, to_reg) = match i.mnemonic() {
        M::Cbw => (W::B1, W::B2, R::AL, R::AX),
        M::Cwde => (W::B2, W::B4, R::AX, R::EAX),
        M::Cdqe => (W::B4, W::B8, R::EAX, R::RAX),
        M::Cwd => (W::B2, W::B2, R::AX, R::DX),
        M::Cdq => (W::B4, W::B4, R::EAX, R::EDX),
        _ => (W::B8, W::B8, R::RAX, R::RDX),
    };
    let v = read_reg(b, from_reg);
    let mut v = b.un(Un::Sext, from, v);
    if from == to {
        let last = b.c(63);
        v = b.bin(Bin::ShrS, W::B8, v, last);
    }
    let v = b.trunc(to, v);
    write_reg(b, to_reg, v);
    Ok(Flow::Next)
}

pub fn bswap<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 0)?;
    // BSWAP of a 16-bit register is undefined; CPUs write zero.
    let v = if w == W::B2 { b.c(0) } else { b.un(Un::Bswap, w, v) };
    write(b, i, 0, v)?;
    Ok(Flow::Next)
}

pub fn xadd<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let y = read(b, i, 1)?;
    let x;
    if i.has_lock_prefix() && is_memory(i, 0) {
        let a = address(b, i);
        x = b.rmw(Rmw::Add, w, a, y)?;
        write(b, i, 1, x)?;
    } else {
        x = read(b, i, 0)?;
        let r = b.bin(Bin::Add, w, x, y);
        if is_memory(i, 0) {
            write(b, i, 0, r)?;
            write(b, i, 1, x)?;
        } else {
            write(b, i, 1, x)?;
            write(b, i, 0, r)?;
        }
    }
    apply(b, Mnemonic::Add, w, x, y);
    Ok(Flow::Next)
}

/// CMPXCHG: the accumulator is written only when the comparison fails.
pub fn cmpxchg<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let acc = b.reg(RAX);
    let expected = b.trunc(w, acc);
    let new = read(b, i, 1)?;
    let old;
    if is_memory(i, 0) {
        let a = address(b, i);
        if i.has_lock_prefix() {
            old = b.cmpxchg(w, a, expected, new)?;
        } else {
            old = b.load(w, a)?;
            let same = b.bin(Bin::Eq, w, old, expected);
            let v = b.select(same, new, old);
            b.store(w, a, v)?;
        }
    } else {
        old = read(b, i, 0)?;
    }
    let same = b.bin(Bin::Eq, w, old, expected);
    if !is_memory(i, 0) {
        // A register destination is written, upper half included, only when equal.
        let d = crate::operand::gpr(i.op0_register());
        let before = b.reg(d);
        write_reg(b, i.op0_register(), new);
        let written = b.reg(d);
        let v = b.select(same, written, before);
        b.set_reg(d, v);
    }
    let accumulator = match w {
        W::B1 => iced_x86::Register::AL,
        W::B2 => iced_x86::Register::AX,
        W::B4 => iced_x86::Register::EAX,
        W::B8 => iced_x86::Register::RAX,
    };
    let before = b.reg(RAX);
    write_reg(b, accumulator, old);
    let written = b.reg(RAX);
    let v = b.select(same, before, written);
    b.set_reg(RAX, v);
    apply(b, Mnemonic::Sub, w, expected, old);
    Ok(Flow::Next)
}

/// STC CLC CMC STD CLD LAHF SAHF.
pub fn flag_op<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Stc => {
            let v = b.c(1);
            set_flag(b, CF, v);
        }
        M::Clc => {
            let v = b.c(0);
            set_flag(b, CF, v);
        }
        M::Cmc => {
            let v = get_flag(b, CF);
            let v = b.un(Un::Eqz, W::B4, v);
            set_flag(b, CF, v);
        }
        M::Std => {
            let v = b.c(1);
            b.store_flag(DF, v);
        }
        M::Cld => {
            let v = b.c(0);
            b.store_flag(DF, v);
        }
        M::Lahf => {
            let mut v = b.c(2);
            for (f, bit) in [(CF, 0), (PF, 2), (AF, 4), (ZF, 6), (SF, 7)] {
                let x = get_flag(b, f);
                let s = b.c(bit);
                let x = b.bin(Bin::Shl, W::B4, x, s);
                v = b.bin(Bin::Or, W::B4, v, x);
            }
            write_reg(b, iced_x86::Register::AH, v);
        }
        _ => {
            flush_flags(b);
            let v = read_reg(b, iced_x86::Register::AH);
            for (f, bit) in [(CF, 0), (PF, 2), (AF, 4), (ZF, 6), (SF, 7)] {
                store_bit(b, f, v, bit);
            }
        }
    }
    Ok(Flow::Next)
}

/// Stores bit `bit` of `v` as flag `f`.
pub fn store_bit<B: Backend>(b: &mut B, f: usize, v: B::V, bit: u64) {
    let s = b.c(bit);
    let one = b.c(1);
    let x = b.bin(Bin::ShrU, W::B8, v, s);
    let x = b.bin(Bin::And, W::B8, x, one);
    b.store_flag(f, x);
}

pub fn xlat<B: Backend>(b: &mut B) -> Done<B> {
    let base = b.reg(RBX);
    let al = read_reg(b, iced_x86::Register::AL);
    let a = b.bin(Bin::Add, W::B8, base, al);
    let v = b.load(W::B1, a)?;
    write_reg(b, iced_x86::Register::AL, v);
    Ok(Flow::Next)
}
