//! SSE4.1: blends, rounding, extensions, dot products, sums of differences, PTEST. What is two vectors in
//! and one out of the lanes, inserts and extracts are in sse.rs.

use crate::backend::{Backend, Flow, Fp, Rounding, Un, Vec1, Vec2, W};
use crate::operand::{address, is_memory};
use crate::sse::{Maybe, read_float, read_x, selectors, xmm_index};
use iced_x86::{Instruction, Mnemonic as M};
use vkernel_abi::state::{AF, CF, OF, PF, SF, ZF};

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    let d = xmm_index(i.op0_register());
    let r = match i.mnemonic() {
        M::Ptest => {
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            test(b, x, y);
            return Ok(Some(Flow::Next));
        }
        M::Blendvps | M::Blendvpd | M::Pblendvb => {
            let y = read_x(b, i, 1)?;
            let (x, mask) = (b.xmm(d), b.xmm(0));
            let w = match i.mnemonic() {
                M::Blendvps => W::B4,
                M::Blendvpd => W::B8,
                _ => W::B1,
            };
            b.blend(w, mask, x, y)
        }
        M::Blendps | M::Blendpd | M::Pblendw => {
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            let bytes = match i.mnemonic() {
                M::Blendps => 4,
                M::Blendpd => 8,
                _ => 2,
            };
            let n = 16 / bytes;
            let lanes: Vec<u8> = (0..n).map(|k| if i.immediate8() >> k & 1 != 0 { n + k } else { k }).collect();
            b.shuffle(x, y, selectors(bytes, &lanes))
        }
        M::Roundps | M::Roundpd => {
            let x = read_x(b, i, 1)?;
            let w = if i.mnemonic() == M::Roundps { W::B4 } else { W::B8 };
            b.vec1(Vec1::Round(w, Rounding(i.immediate8() & 15)), x)
        }
        M::Roundss | M::Roundsd => {
            let w = if i.mnemonic() == M::Roundss { W::B4 } else { W::B8 };
            let v = read_float(b, i, 1, w)?;
            let v = b.round(Rounding(i.immediate8() & 15), w, v);
            let x = b.xmm(d);
            b.replace(w, x, 0, v)
        }
        M::Insertps => insert(b, i)?,
        M::Dpps | M::Dppd => {
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            dot(b, if i.mnemonic() == M::Dpps { W::B4 } else { W::B8 }, i.immediate8(), x, y)
        }
        M::Mpsadbw => {
            let y = read_x(b, i, 1)?;
            let x = b.xmm(d);
            differences(b, i.immediate8(), x, y)
        }
        M::Phminposuw => {
            let x = read_x(b, i, 1)?;
            smallest(b, x)
        }
        m => {
            let Some((from, to, signed)) = extension(m) else {
                return Ok(None);
            };
            extend(b, i, from, to, signed)?
        }
    };
    b.set_xmm(d, r);
    Ok(Some(Flow::Next))
}

/// PTEST: ZF and CF say whether `y & x` and `y & !x` are zero; the others are cleared.
fn test<B: Backend>(b: &mut B, x: B::X, y: B::X) {
    let both = b.vec2(Vec2::And, x, y);
    let rest = b.vec2(Vec2::AndNot, x, y);
    *b.lazy() = None;
    for (f, v) in [(ZF, both), (CF, rest)] {
        let low = b.extract(W::B8, v, 0);
        let high = b.extract(W::B8, v, 1);
        let v = b.bin(crate::backend::Bin::Or, W::B8, low, high);
        let v = b.un(Un::Eqz, W::B8, v);
        b.store_flag(f, v);
    }
    for f in [OF, SF, AF, PF] {
        let v = b.c(0);
        b.store_flag(f, v);
    }
}

/// PMOVSX*, PMOVZX*: (from, to, signed).
fn extension(m: M) -> Option<(W, W, bool)> {
    Some(match m {
        M::Pmovsxbw => (W::B1, W::B2, true),
        M::Pmovsxbd => (W::B1, W::B4, true),
        M::Pmovsxbq => (W::B1, W::B8, true),
        M::Pmovsxwd => (W::B2, W::B4, true),
        M::Pmovsxwq => (W::B2, W::B8, true),
        M::Pmovsxdq => (W::B4, W::B8, true),
        M::Pmovzxbw => (W::B1, W::B2, false),
        M::Pmovzxbd => (W::B1, W::B4, false),
        M::Pmovzxbq => (W::B1, W::B8, false),
        M::Pmovzxwd => (W::B2, W::B4, false),
        M::Pmovzxwq => (W::B2, W::B8, false),
        M::Pmovzxdq => (W::B4, W::B8, false),
        _ => return None,
    })
}

fn extend<B: Backend>(b: &mut B, i: &Instruction, from: W, to: W, signed: bool) -> Result<B::X, B::Fault> {
    let mut x = if is_memory(i, 1) {
        let a = address(b, i);
        match 16 / to.bytes() * from.bytes() {
            8 => b.load_low(W::B8, a)?,
            4 => b.load_low(W::B4, a)?,
            _ => {
                let v = b.load(W::B2, a)?;
                let zero = b.vconst(0);
                b.replace(W::B2, zero, 0, v)
            }
        }
    } else {
        b.xmm(xmm_index(i.op1_register()))
    };
    for w in [W::B1, W::B2, W::B4] {
        if from <= w && w < to {
            x = b.vec1(if signed { Vec1::ExtendS(w) } else { Vec1::ExtendU(w) }, x);
        }
    }
    Ok(x)
}

/// INSERTPS: a lane of the source, or memory, to a lane of the destination; lanes of the mask become zero.
fn insert<B: Backend>(b: &mut B, i: &Instruction) -> Result<B::X, B::Fault> {
    let imm = i.immediate8();
    let v = if is_memory(i, 1) {
        let a = address(b, i);
        b.load(W::B4, a)?
    } else {
        let y = b.xmm(xmm_index(i.op1_register()));
        b.extract(W::B4, y, imm >> 6)
    };
    let x = b.xmm(xmm_index(i.op0_register()));
    let x = b.replace(W::B4, x, imm >> 4 & 3, v);
    if imm & 15 == 0 {
        return Ok(x);
    }
    let lanes = [0, 1, 2, 3].map(|k| if imm >> k & 1 != 0 { 4 } else { k });
    let zero = b.vconst(0);
    Ok(b.shuffle(x, zero, selectors(4, &lanes)))
}

/// DPPS, DPPD: products of the lanes that the immediate's upper half names, summed in pairs, to those that
/// its lower half names. What is left out is multiplied as zero, which raises nothing.
fn dot<B: Backend>(b: &mut B, w: W, imm: u8, x: B::X, y: B::X) -> B::X {
    let n = 16 / w.bytes();
    let mask =
        |bits: u8| (0..n).filter(|k| bits >> k & 1 != 0).map(|k| u128::from(w.mask()) << (k * w.bits())).sum::<u128>();
    let taken = b.vconst(mask(imm >> 4));
    let x = b.vec2(Vec2::And, x, taken);
    let y = b.vec2(Vec2::And, y, taken);
    let mut sum = b.vec2(Vec2::F(Fp::Mul, w), x, y);
    // 0 × 0 may be -0 only of a sign that the mask has cleared.
    if w == W::B4 {
        let swapped = b.shuffle(sum, sum, selectors(4, &[1, 0, 3, 2]));
        sum = b.vec2(Vec2::F(Fp::Add, w), sum, swapped);
        let lower = b.shuffle(sum, sum, selectors(4, &[0, 0, 0, 0]));
        let upper = b.shuffle(sum, sum, selectors(4, &[2, 2, 2, 2]));
        sum = b.vec2(Vec2::F(Fp::Add, w), lower, upper);
    } else {
        let lower = b.shuffle(sum, sum, selectors(8, &[0, 0]));
        let upper = b.shuffle(sum, sum, selectors(8, &[1, 1]));
        sum = b.vec2(Vec2::F(Fp::Add, w), lower, upper);
    }
    let wanted = b.vconst(mask(imm));
    b.vec2(Vec2::And, sum, wanted)
}

/// MPSADBW: eight sums of four differences, of a block of the source and places one byte apart.
fn differences<B: Backend>(b: &mut B, imm: u8, x: B::X, y: B::X) -> B::X {
    let block = 4 * (imm & 3);
    let start = 4 * (imm >> 2 & 1);
    let zero = b.vconst(0);
    let mut sum = zero;
    for k in 0..4u8 {
        let mut places = [16; 16];
        let mut same = [16; 16];
        for n in 0..8 {
            places[2 * n] = start + n as u8 + k;
            same[2 * n] = block + k;
        }
        let p = b.shuffle(x, zero, places);
        let q = b.shuffle(y, zero, same);
        let difference = b.vec2(Vec2::Sub(W::B2), p, q);
        let difference = b.vec1(Vec1::Abs(W::B2), difference);
        sum = b.vec2(Vec2::Add(W::B2), sum, difference);
    }
    sum
}

/// PHMINPOSUW: the smallest word, and which of equal ones comes first; in the order of word, then number.
fn smallest<B: Backend>(b: &mut B, x: B::X) -> B::X {
    let numbers = b.vconst(0x0007_0006_0005_0004_0003_0002_0001_0000);
    let low = b.vec2(Vec2::InterleaveLo(W::B2), numbers, x);
    let high = b.vec2(Vec2::InterleaveHi(W::B2), numbers, x);
    let mut m = b.vec2(Vec2::MinU(W::B4), low, high);
    for lanes in [[2, 3, 0, 1], [1, 0, 3, 2]] {
        let other = b.shuffle(m, m, selectors(4, &lanes));
        m = b.vec2(Vec2::MinU(W::B4), m, other);
    }
    let zero = b.vconst(0);
    b.shuffle(m, zero, [2, 3, 0, 1, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16])
}
