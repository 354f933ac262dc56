//! SSE3 and SSSE3: duplicating moves, horizontal and alternating arithmetic, PALIGNR, PABS*, PSIGN*. What
//! is two vectors in and one out of the lanes is in sse.rs.

use crate::backend::{Backend, Flow, Fp, Vec1, Vec2, W};
use crate::operand::{address, is_memory};
use crate::sse::{Maybe, read_x, selectors, xmm_index};
use iced_x86::{Instruction, Mnemonic as M};

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    let d = xmm_index(i.op0_register());
    let r = match i.mnemonic() {
        M::Movddup => {
            let x = if is_memory(i, 1) {
                let a = address(b, i);
                b.load_low(W::B8, a)?
            } else {
                b.xmm(xmm_index(i.op1_register()))
            };
            b.shuffle(x, x, selectors(8, &[0, 0]))
        }
        M::Movsldup | M::Movshdup => {
            let x = read_x(b, i, 1)?;
            let lanes = if i.mnemonic() == M::Movsldup { [0, 0, 2, 2] } else { [1, 1, 3, 3] };
            b.shuffle(x, x, selectors(4, &lanes))
        }
        M::Palignr => {
            let low = read_x(b, i, 1)?;
            let high = b.xmm(d);
            align(b, low, high, i.immediate8())
        }
        M::Pabsb | M::Pabsw | M::Pabsd => {
            let x = read_x(b, i, 1)?;
            let w = match i.mnemonic() {
                M::Pabsb => W::B1,
                M::Pabsw => W::B2,
                _ => W::B4,
            };
            b.vec1(Vec1::Abs(w), x)
        }
        M::Psignb | M::Psignw | M::Psignd => {
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            let w = match i.mnemonic() {
                M::Psignb => W::B1,
                M::Psignw => W::B2,
                _ => W::B4,
            };
            sign(b, w, x, y)
        }
        M::Addsubps | M::Addsubpd => {
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            alternate(b, if i.mnemonic() == M::Addsubps { W::B4 } else { W::B8 }, x, y)
        }
        m => {
            let Some((op, w)) = horizontal(m) else {
                return Ok(None);
            };
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            let n = (16 / w.bytes()) as u8;
            let even: Vec<u8> = (0..n).map(|k| 2 * k).collect();
            let odd: Vec<u8> = (0..n).map(|k| 2 * k + 1).collect();
            let bytes = w.bytes() as u8;
            let first = b.shuffle(x, y, selectors(bytes, &even));
            let second = b.shuffle(x, y, selectors(bytes, &odd));
            b.vec2(op, first, second)
        }
    };
    b.set_xmm(d, r);
    Ok(Some(Flow::Next))
}

/// What PHADD* and the like do with each pair of neighbours, and the width of a lane.
fn horizontal(m: M) -> Option<(Vec2, W)> {
    Some(match m {
        M::Phaddw => (Vec2::Add(W::B2), W::B2),
        M::Phaddd => (Vec2::Add(W::B4), W::B4),
        M::Phaddsw => (Vec2::AddSatS(W::B2), W::B2),
        M::Phsubw => (Vec2::Sub(W::B2), W::B2),
        M::Phsubd => (Vec2::Sub(W::B4), W::B4),
        M::Phsubsw => (Vec2::SubSatS(W::B2), W::B2),
        M::Haddps => (Vec2::F(Fp::Add, W::B4), W::B4),
        M::Haddpd => (Vec2::F(Fp::Add, W::B8), W::B8),
        M::Hsubps => (Vec2::F(Fp::Sub, W::B4), W::B4),
        M::Hsubpd => (Vec2::F(Fp::Sub, W::B8), W::B8),
        _ => return None,
    })
}

/// Bytes `n` to `n + 15` of high:low, zeros behind.
fn align<B: Backend>(b: &mut B, low: B::X, high: B::X, n: u8) -> B::X {
    let zero = b.vconst(0);
    if n >= 32 {
        return zero;
    }
    let from = n % 16;
    let (first, second) = if n < 16 { (low, high) } else { (high, zero) };
    let mut sel = [0; 16];
    for (k, s) in sel.iter_mut().enumerate() {
        *s = from + k as u8;
    }
    b.shuffle(first, second, sel)
}

/// `x` negated where `y` is negative, zero where it is zero.
fn sign<B: Backend>(b: &mut B, w: W, x: B::X, y: B::X) -> B::X {
    let zero = b.vconst(0);
    let negative = b.vec2(Vec2::GtS(w), zero, y);
    let nothing = b.vec2(Vec2::Eq(w), y, zero);
    let v = b.vec2(Vec2::Xor, x, negative);
    let v = b.vec2(Vec2::Sub(w), v, negative);
    b.vec2(Vec2::AndNot, nothing, v)
}

/// Even lanes subtracted, odd ones added. What the other operation sees is zero, which raises nothing.
fn alternate<B: Backend>(b: &mut B, w: W, x: B::X, y: B::X) -> B::X {
    let lane = u128::from(w.mask());
    let even = if w == W::B4 { lane | lane << 64 } else { lane };
    let mut half = |op, mask: u128| {
        let m = b.vconst(mask);
        let p = b.vec2(Vec2::And, x, m);
        let q = b.vec2(Vec2::And, y, m);
        let r = b.vec2(Vec2::F(op, w), p, q);
        b.vec2(Vec2::And, r, m)
    };
    let subtracted = half(Fp::Sub, even);
    let added = half(Fp::Add, !even);
    b.vec2(Vec2::Or, subtracted, added)
}
