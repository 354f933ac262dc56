//! MUL, IMUL, DIV, IDIV.

use crate::backend::{Backend, Bin, Flow, Lazy, Un, W};
use crate::exec::Done;
use crate::operand::{op_width, read, read_reg, write_reg};
use iced_x86::{Instruction, Mnemonic, Register};
use vkernel_abi::state::{RAX, RDX};

/// The registers that hold the low and high half of a product or dividend of a width.
fn halves(w: W) -> (Register, Register) {
    match w {
        W::B1 => (Register::AL, Register::AH),
        W::B2 => (Register::AX, Register::DX),
        W::B4 => (Register::EAX, Register::EDX),
        W::B8 => (Register::RAX, Register::RDX),
    }
}

pub fn mul<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let signed = i.mnemonic() == Mnemonic::Imul;
    let w = op_width(i, 0);
    let (x, y) = match i.op_count() {
        1 => {
            let y = read(b, i, 0)?;
            (read_reg(b, halves(w).0), y)
        }
        2 => {
            let y = read(b, i, 1)?;
            (read(b, i, 0)?, y)
        }
        _ => {
            let x = read(b, i, 1)?;
            (x, read(b, i, 2)?)
        }
    };
    let (lo, hi) = product(b, w, signed, x, y);
    // CF = OF = the high half matters.
    let expected = if signed {
        let s = b.un(Un::Sext, w, lo);
        let last = b.c(63);
        let s = b.bin(Bin::ShrS, W::B8, s, last);
        b.trunc(w, s)
    } else {
        b.c(0)
    };
    let cf = b.bin(Bin::Ne, w, hi, expected);
    if i.op_count() == 1 {
        let (low, high) = halves(w);
        write_reg(b, low, lo);
        write_reg(b, high, hi);
    } else {
        write_reg(b, i.op0_register(), lo);
    }
    *b.lazy() = Some(Lazy::Shift { w, r: lo, cf, of: cf });
    Ok(Flow::Next)
}

fn product<B: Backend>(b: &mut B, w: W, signed: bool, x: B::V, y: B::V) -> (B::V, B::V) {
    if w == W::B8 {
        let lo = b.bin(Bin::Mul, W::B8, x, y);
        return (lo, b.mul_hi(signed, x, y));
    }
    let (x, y) = if signed { (b.un(Un::Sext, w, x), b.un(Un::Sext, w, y)) } else { (x, y) };
    let p = b.bin(Bin::Mul, W::B8, x, y);
    let lo = b.trunc(w, p);
    let n = b.c(u64::from(w.bits()));
    let hi = b.bin(Bin::ShrU, W::B8, p, n);
    (lo, b.trunc(w, hi))
}

/// DIV and IDIV; flags are undefined and kept.
pub fn div<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let signed = i.mnemonic() == Mnemonic::Idiv;
    let w = op_width(i, 0);
    let d = read(b, i, 0)?;
    if w == W::B8 {
        b.div128(signed, d)?;
        return Ok(Flow::Next);
    }
    let ok = b.un(Un::Eqz, w, d);
    let ok = b.un(Un::Eqz, W::B4, ok);
    b.check_div(ok)?;
    let (low, high) = halves(w);
    let (rax, rdx) = (b.reg(RAX), b.reg(RDX));
    let n = b.c(u64::from(w.bits()));
    let dividend = if w == W::B1 {
        b.trunc(W::B2, rax)
    } else {
        let hi = b.trunc(w, rdx);
        let lo = b.trunc(w, rax);
        let hi = b.bin(Bin::Shl, W::B8, hi, n);
        b.bin(Bin::Or, W::B8, hi, lo)
    };
    let (q, r);
    if signed {
        let dividend =
            if w == W::B4 { dividend } else { b.un(Un::Sext, if w == W::B1 { W::B2 } else { W::B4 }, dividend) };
        let d = b.un(Un::Sext, w, d);
        // i64::MIN / -1 overflows the wide division itself.
        let min = b.c(1 << 63);
        let is_min = b.bin(Bin::Eq, W::B8, dividend, min);
        let ones = b.c(u64::MAX);
        let is_neg1 = b.bin(Bin::Eq, W::B8, d, ones);
        let both = b.bin(Bin::And, W::B4, is_min, is_neg1);
        let ok = b.un(Un::Eqz, W::B4, both);
        b.check_div(ok)?;
        q = b.bin(Bin::DivS, W::B8, dividend, d);
        r = b.bin(Bin::RemS, W::B8, dividend, d);
        let short = b.trunc(w, q);
        let back = b.un(Un::Sext, w, short);
        let fits = b.bin(Bin::Eq, W::B8, back, q);
        b.check_div(fits)?;
    } else {
        q = b.bin(Bin::DivU, W::B8, dividend, d);
        r = b.bin(Bin::RemU, W::B8, dividend, d);
        let mask = b.c(w.mask());
        let fits = b.bin(Bin::LeU, W::B8, q, mask);
        b.check_div(fits)?;
    }
    let q = b.trunc(w, q);
    let r = b.trunc(w, r);
    write_reg(b, low, q);
    write_reg(b, high, r);
    Ok(Flow::Next)
}
