//! Shifts and rotates. Counts are masked to 5 bits (6 for 64-bit operands); a masked count of zero
//! changes nothing, flags included (SDM vol. 2, SAL/SAR/SHL/SHR).

use crate::backend::{Backend, Bin, Flow, Lazy, Un, W};
use crate::exec::Done;
use crate::flags::{flush_flags, get_flag};
use crate::operand::{op_width, read, write};
use iced_x86::{Instruction, Mnemonic};
use vkernel_abi::state::{AF, CF, OF, PF, SF, ZF};

fn count<B: Backend>(b: &mut B, i: &Instruction, operand: u32, w: W) -> Result<B::V, B::Fault> {
    let raw = if operand < i.op_count() { read(b, i, operand)? } else { b.c(1) };
    let mask = b.c(if w == W::B8 { 63 } else { 31 });
    Ok(b.bin(Bin::And, W::B4, raw, mask))
}

/// Bit `n` (a value) of `x`, shifted in 64 bits; `n` is 0–63.
fn bit<B: Backend>(b: &mut B, x: B::V, n: B::V) -> B::V {
    let v = b.bin(Bin::ShrU, W::B8, x, n);
    let one = b.c(1);
    b.bin(Bin::And, W::B8, v, one)
}

fn top<B: Backend>(b: &mut B, w: W, x: B::V) -> B::V {
    let zero = b.c(0);
    b.bin(Bin::LtS, w, x, zero)
}

/// Writes the result and the flags of a shift by `c`, keeping all when `c` is zero.
fn finish<B: Backend>(b: &mut B, i: &Instruction, w: W, (c, r, cf, of): (B::V, B::V, B::V, B::V)) -> Done<B> {
    match b.known(c) {
        Some(0) => {
            // A 32-bit register is still written, which clears its upper half.
            let v = read(b, i, 0)?;
            write(b, i, 0, v)?;
        }
        Some(_) => {
            write(b, i, 0, r)?;
            *b.lazy() = Some(Lazy::Shift { w, r, cf, of });
        }
        None => {
            write(b, i, 0, r)?;
            keep_if_zero(b, c, Lazy::Shift { w, r, cf, of }, &[CF, PF, AF, ZF, SF, OF]);
        }
    }
    Ok(Flow::Next)
}

/// Stores `flags` as `new` has them, or as they were when `c` is zero.
fn keep_if_zero<B: Backend>(b: &mut B, c: B::V, new: Lazy<B::V>, flags: &[usize]) {
    flush_flags(b);
    for &f in flags {
        let old = b.stored_flag(f);
        *b.lazy() = Some(new);
        let v = get_flag(b, f);
        *b.lazy() = None;
        let v = b.select(c, v, old);
        b.store_flag(f, v);
    }
}

pub fn shift<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let c = count(b, i, 1, w)?;
    let x = read(b, i, 0)?;
    let one = b.c(1);
    let before = b.bin(Bin::Sub, W::B8, c, one);
    let sixty_three = b.c(63);
    let before = b.bin(Bin::And, W::B8, before, sixty_three);
    let (r, cf, of);
    match i.mnemonic() {
        Mnemonic::Shr => {
            let y = b.bin(Bin::ShrU, W::B8, x, c);
            r = b.trunc(w, y);
            cf = bit(b, x, before);
            of = top(b, w, x);
        }
        Mnemonic::Sar => {
            let s = b.un(Un::Sext, w, x);
            let y = b.bin(Bin::ShrS, W::B8, s, c);
            r = b.trunc(w, y);
            let y = b.bin(Bin::ShrS, W::B8, s, before);
            cf = b.bin(Bin::And, W::B8, y, one);
            of = b.c(0);
        }
        _ => {
            let y = b.bin(Bin::Shl, W::B8, x, c);
            r = b.trunc(w, y);
            let y = b.bin(Bin::Shl, W::B8, x, before);
            let last = b.c(u64::from(w.bits() - 1));
            cf = bit(b, y, last);
            let t = top(b, w, r);
            of = b.bin(Bin::Ne, W::B4, t, cf);
        }
    }
    finish(b, i, w, (c, r, cf, of))
}

/// ROL, ROR: only CF and OF change.
pub fn rotate<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let left = i.mnemonic() == Mnemonic::Rol;
    let c = count(b, i, 1, w)?;
    let x = read(b, i, 0)?;
    let r = if w >= W::B4 {
        b.bin(if left { Bin::Rotl } else { Bin::Rotr }, w, x, c)
    } else {
        // Repeat the operand to 32 bits: a rotate of the copies rotates the operand.
        let mut y = x;
        let mut n = w.bits();
        while n < 32 {
            let s = b.c(u64::from(n));
            let z = b.bin(Bin::Shl, W::B4, y, s);
            y = b.bin(Bin::Or, W::B4, y, z);
            n *= 2;
        }
        let y = b.bin(if left { Bin::Rotl } else { Bin::Rotr }, W::B4, y, c);
        b.trunc(w, y)
    };
    let msb = top(b, w, r);
    let one = b.c(1);
    let (cf, of);
    if left {
        cf = b.bin(Bin::And, W::B8, r, one);
        of = b.bin(Bin::Ne, W::B4, msb, cf);
    } else {
        cf = msb;
        let second = b.c(u64::from(w.bits() - 2));
        let next = bit(b, r, second);
        of = b.bin(Bin::Ne, W::B4, msb, next);
    }
    rotated(b, i, (c, r, cf, of))
}

fn rotated<B: Backend>(b: &mut B, i: &Instruction, (c, r, cf, of): (B::V, B::V, B::V, B::V)) -> Done<B> {
    write(b, i, 0, r)?;
    if b.known(c) == Some(0) {
        return Ok(Flow::Next);
    }
    keep_if_zero(b, c, Lazy::Shift { w: W::B8, r, cf, of }, &[CF, OF]);
    Ok(Flow::Next)
}

/// RCL, RCR: a rotate of w+1 bits, the carry being the top one. OF is defined for a count of 1.
pub fn rotate_carry<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let left = i.mnemonic() == Mnemonic::Rcl;
    let c = count(b, i, 1, w)?;
    let x = read(b, i, 0)?;
    let carry = get_flag(b, CF);
    let n = b.c(u64::from(w.bits()));
    let (r, cf) = if w == W::B8 {
        rotate_64_carry(b, left, x, carry, c)
    } else {
        // The carry above the operand, all of it in 64 bits.
        let turn = b.c(u64::from(w.bits() + 1));
        let steps = if w == W::B4 { c } else { b.bin(Bin::RemU, W::B4, c, turn) };
        let back = b.bin(Bin::Sub, W::B8, turn, steps);
        let top = b.bin(Bin::Shl, W::B8, carry, n);
        let v = b.bin(Bin::Or, W::B8, top, x);
        let (up, down) = if left { (steps, back) } else { (back, steps) };
        let high = b.bin(Bin::Shl, W::B8, v, up);
        let low = b.bin(Bin::ShrU, W::B8, v, down);
        let v = b.bin(Bin::Or, W::B8, high, low);
        let r = b.trunc(w, v);
        (r, bit(b, v, n))
    };
    let msb = top(b, w, if left { r } else { x });
    let of = b.bin(Bin::Ne, W::B4, msb, if left { cf } else { carry });
    rotated(b, i, (c, r, cf, of))
}

/// The result and CF of 65 bits rotated by `c`; for a `c` of zero only the result means something.
fn rotate_64_carry<B: Backend>(b: &mut B, left: bool, x: B::V, carry: B::V, c: B::V) -> (B::V, B::V) {
    let one = b.c(1);
    let sixty_four = b.c(64);
    let before = b.bin(Bin::Sub, W::B8, c, one);
    let back = b.bin(Bin::Sub, W::B8, sixty_four, c);
    let (near, far) = if left { (Bin::Shl, Bin::ShrU) } else { (Bin::ShrU, Bin::Shl) };
    let moved = b.bin(near, W::B8, x, c);
    // What comes in at the other end is one place further than a rotation of 64 bits has it.
    let around = b.bin(far, W::B8, x, one);
    let around = b.bin(far, W::B8, around, back);
    let place = if left { before } else { back };
    let carried = b.bin(Bin::Shl, W::B8, carry, place);
    let r = b.bin(Bin::Or, W::B8, moved, around);
    let r = b.bin(Bin::Or, W::B8, r, carried);
    let r = b.select(c, r, x);
    let out = bit(b, x, if left { back } else { before });
    (r, out)
}

/// SHLD, SHRD. A 16-bit count above 16 is undefined.
pub fn double<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = op_width(i, 0);
    let left = i.mnemonic() == Mnemonic::Shld;
    let c = count(b, i, 2, w)?;
    let x = read(b, i, 0)?;
    let y = read(b, i, 1)?;
    let n = u64::from(w.bits());
    let one = b.c(1);
    let before = b.bin(Bin::Sub, W::B8, c, one);
    let sixty_three = b.c(63);
    let before = b.bin(Bin::And, W::B8, before, sixty_three);
    let (r, cf);
    if w == W::B8 {
        let inverse = b.bin(Bin::Sub, W::B8, sixty_three, before);
        let (p, q);
        if left {
            p = b.bin(Bin::Shl, W::B8, x, c);
            q = b.bin(Bin::ShrU, W::B8, y, inverse);
            let z = b.bin(Bin::Shl, W::B8, x, before);
            cf = bit(b, z, sixty_three);
        } else {
            p = b.bin(Bin::ShrU, W::B8, x, c);
            q = b.bin(Bin::Shl, W::B8, y, inverse);
            cf = bit(b, x, before);
        }
        let v = b.bin(Bin::Or, W::B8, p, q);
        r = b.select(c, v, x);
    } else {
        let s = b.c(n);
        if left {
            let hi = b.bin(Bin::Shl, W::B8, x, s);
            let both = b.bin(Bin::Or, W::B8, hi, y);
            let z = b.bin(Bin::Shl, W::B8, both, c);
            let z2 = b.bin(Bin::ShrU, W::B8, z, s);
            r = b.trunc(w, z2);
            let z = b.bin(Bin::Shl, W::B8, both, before);
            let last = b.c(2 * n - 1);
            cf = bit(b, z, last);
        } else {
            let hi = b.bin(Bin::Shl, W::B8, y, s);
            let both = b.bin(Bin::Or, W::B8, hi, x);
            let z = b.bin(Bin::ShrU, W::B8, both, c);
            r = b.trunc(w, z);
            cf = bit(b, both, before);
        }
    }
    let t = top(b, w, r);
    let t0 = top(b, w, x);
    let of = b.bin(Bin::Ne, W::B4, t, t0);
    finish(b, i, w, (c, r, cf, of))
}
