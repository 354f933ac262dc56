//! POPCNT, MOVBE, LZCNT, TZCNT, BMI1, BMI2 and ADX.

use crate::backend::{Backend, Bin, Flow, Lazy, Un, W};
use crate::exec::Done;
use crate::flags::{get_flag, set_flag};
use crate::operand::{op_width, read, write, write_reg};
use iced_x86::{Instruction, Mnemonic as M};
use vkernel_abi::state::{AF, CF, OF, PF, RDX, SF, ZF};

/// Clears the arithmetic flags but for those given.
fn only<B: Backend>(b: &mut B, given: [(usize, B::V); 2]) {
    *b.lazy() = None;
    for f in [CF, PF, AF, ZF, SF, OF] {
        let v = given.iter().find(|(g, _)| *g == f).map(|(_, v)| *v);
        let v = v.unwrap_or_else(|| b.c(0));
        b.store_flag(f, v);
    }
}

pub fn popcnt<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 1)?;
    let r = b.un(Un::Popcnt, if w == W::B8 { W::B8 } else { W::B4 }, v);
    let zero = b.un(Un::Eqz, w, v);
    let carry = b.c(0);
    write_reg(b, i.op0_register(), r);
    only(b, [(ZF, zero), (CF, carry)]);
    Ok(Flow::Next)
}

/// LZCNT, TZCNT; of zero the width. The flags but CF and ZF are undefined.
pub fn count_zeros<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 1)?;
    let leading = i.mnemonic() == M::Lzcnt;
    let r = match (w, leading) {
        (W::B2, true) => {
            let n = b.un(Un::Clz, W::B4, v);
            let above = b.c(16);
            b.bin(Bin::Sub, W::B4, n, above)
        }
        (W::B2, false) => {
            let end = b.c(1 << 16);
            let v = b.bin(Bin::Or, W::B4, v, end);
            b.un(Un::Ctz, W::B4, v)
        }
        (_, true) => b.un(Un::Clz, w, v),
        (_, false) => b.un(Un::Ctz, w, v),
    };
    write_reg(b, i.op0_register(), r);
    let none = b.un(Un::Eqz, w, v);
    let zero = b.un(Un::Eqz, w, r);
    only(b, [(CF, none), (ZF, zero)]);
    Ok(Flow::Next)
}

pub fn movbe<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 1)?;
    let v = if w == W::B2 {
        let eight = b.c(8);
        let low = b.bin(Bin::Shl, w, v, eight);
        let high = b.bin(Bin::ShrU, w, v, eight);
        b.bin(Bin::Or, w, low, high)
    } else {
        b.un(Un::Bswap, w, v)
    };
    write(b, i, 0, v)?;
    Ok(Flow::Next)
}

pub fn andn<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let x = read(b, i, 1)?;
    let y = read(b, i, 2)?;
    let x = b.un(Un::Not, w, x);
    let r = b.bin(Bin::And, w, x, y);
    write_reg(b, i.op0_register(), r);
    *b.lazy() = Some(Lazy::Logic { w, r });
    Ok(Flow::Next)
}

/// BLSI, BLSMSK, BLSR: the lowest set bit, the mask up to it, the rest. AF and PF are undefined.
pub fn lowest<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 1)?;
    let one = b.c(1);
    let zero = b.c(0);
    let before = b.bin(Bin::Sub, w, v, one);
    let none = b.un(Un::Eqz, w, v);
    let (r, cf) = match i.mnemonic() {
        M::Blsi => {
            let negative = b.un(Un::Neg, w, v);
            (b.bin(Bin::And, w, v, negative), b.un(Un::Eqz, W::B4, none))
        }
        M::Blsr => (b.bin(Bin::And, w, v, before), none),
        _ => (b.bin(Bin::Xor, w, v, before), none),
    };
    write_reg(b, i.op0_register(), r);
    *b.lazy() = Some(Lazy::Shift { w, r, cf, of: zero });
    Ok(Flow::Next)
}

/// `v` cut to its lowest `n` bits, n being 0–255.
fn low_bits<B: Backend>(b: &mut B, w: W, v: B::V, n: B::V) -> B::V {
    let limit = b.c(u64::from(w.bits()));
    let fits = b.bin(Bin::LtU, W::B8, n, limit);
    let one = b.c(1);
    // A count of 64 or more is taken modulo 64 and then not used.
    let end = b.bin(Bin::Shl, W::B8, one, n);
    let mask = b.bin(Bin::Sub, W::B8, end, one);
    let cut = b.bin(Bin::And, W::B8, v, mask);
    b.select(fits, cut, v)
}

/// BEXTR, BZHI: AF and PF are undefined, of BEXTR SF too.
pub fn extract<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 1)?;
    let control = read(b, i, 2)?;
    let byte = b.c(0xff);
    let first = b.bin(Bin::And, W::B8, control, byte);
    let limit = b.c(u64::from(w.bits()));
    let zero = b.c(0);
    let (r, cf) = if i.mnemonic() == M::Bzhi {
        let cf = b.bin(Bin::LeU, W::B8, limit, first);
        (low_bits(b, w, v, first), cf)
    } else {
        let eight = b.c(8);
        let len = b.bin(Bin::ShrU, W::B8, control, eight);
        let len = b.bin(Bin::And, W::B8, len, byte);
        let shifted = b.bin(Bin::ShrU, W::B8, v, first);
        let inside = b.bin(Bin::LtU, W::B8, first, limit);
        let shifted = b.select(inside, shifted, zero);
        (low_bits(b, w, shifted, len), zero)
    };
    let r = b.trunc(w, r);
    write_reg(b, i.op0_register(), r);
    *b.lazy() = Some(Lazy::Shift { w, r, cf, of: zero });
    Ok(Flow::Next)
}

/// RORX, SARX, SHLX, SHRX: no flags.
pub fn shift<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let v = read(b, i, 1)?;
    let n = read(b, i, 2)?;
    let mask = b.c(u64::from(w.bits() - 1));
    let n = b.bin(Bin::And, W::B4, n, mask);
    let op = match i.mnemonic() {
        M::Rorx => Bin::Rotr,
        M::Sarx => Bin::ShrS,
        M::Shlx => Bin::Shl,
        _ => Bin::ShrU,
    };
    let r = b.bin(op, w, v, n);
    write_reg(b, i.op0_register(), r);
    Ok(Flow::Next)
}

/// ADCX, ADOX: an addition with carry in CF, in OF, whose other flags stay.
pub fn add_carry<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let y = read(b, i, 1)?;
    let x = read(b, i, 0)?;
    let flag = if i.mnemonic() == M::Adcx { CF } else { OF };
    let carry = get_flag(b, flag);
    let half = b.bin(Bin::Add, w, x, y);
    let r = b.bin(Bin::Add, w, half, carry);
    let first = b.bin(Bin::LtU, w, half, x);
    let second = b.bin(Bin::LtU, w, r, half);
    let out = b.bin(Bin::Or, W::B4, first, second);
    write_reg(b, i.op0_register(), r);
    set_flag(b, flag, out);
    Ok(Flow::Next)
}

/// MULX: rdx times the source, the low half to the second operand and then the high half to the first.
pub fn mulx<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let y = read(b, i, 2)?;
    let rdx = b.reg(RDX);
    let x = b.trunc(w, rdx);
    let low = b.bin(Bin::Mul, W::B8, x, y);
    let (low, high) = if w == W::B8 {
        (low, b.mul_hi(false, x, y))
    } else {
        let n = b.c(32);
        let high = b.bin(Bin::ShrU, W::B8, low, n);
        (b.trunc(w, low), high)
    };
    write_reg(b, i.op1_register(), low);
    write_reg(b, i.op0_register(), high);
    Ok(Flow::Next)
}

/// PEXT, PDEP (Hacker's Delight, 7-4 and 7-5): the bits move by powers of two, the mask's holes saying which.
pub fn gather<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let source = read(b, i, 1)?;
    let mask = read(b, i, 2)?;
    let steps = w.bits().trailing_zeros();
    let shift = |b: &mut B, op, v, n: u64| {
        let n = b.c(n);
        b.bin(op, w, v, n)
    };
    // Zeros below each bit, counted modulo 2 to begin with.
    let mut m = mask;
    let holes = b.un(Un::Not, w, mask);
    let mut count = shift(b, Bin::Shl, holes, 1);
    let mut moves = Vec::new();
    for k in 0..steps {
        let mut parity = count;
        for n in 0..steps {
            let v = shift(b, Bin::Shl, parity, 1 << n);
            parity = b.bin(Bin::Xor, w, parity, v);
        }
        let moved = b.bin(Bin::And, w, parity, m);
        moves.push(moved);
        let rest = b.bin(Bin::Xor, w, m, moved);
        let down = shift(b, Bin::ShrU, moved, 1 << k);
        m = b.bin(Bin::Or, w, rest, down);
        let not = b.un(Un::Not, w, parity);
        count = b.bin(Bin::And, w, count, not);
    }
    let r = if i.mnemonic() == M::Pext {
        let mut v = b.bin(Bin::And, w, source, mask);
        for (k, moved) in moves.into_iter().enumerate() {
            let t = b.bin(Bin::And, w, v, moved);
            let rest = b.bin(Bin::Xor, w, v, t);
            let down = shift(b, Bin::ShrU, t, 1 << k);
            v = b.bin(Bin::Or, w, rest, down);
        }
        v
    } else {
        let mut v = source;
        for (k, moved) in moves.into_iter().enumerate().rev() {
            let up = shift(b, Bin::Shl, v, 1 << k);
            let up = b.bin(Bin::And, w, up, moved);
            let not = b.un(Un::Not, w, moved);
            let stay = b.bin(Bin::And, w, v, not);
            v = b.bin(Bin::Or, w, stay, up);
        }
        b.bin(Bin::And, w, v, mask)
    };
    write_reg(b, i.op0_register(), r);
    Ok(Flow::Next)
}
