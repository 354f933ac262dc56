//! AES, PCLMULQDQ and SHA, legacy encodings. AES and PCLMULQDQ are the host's (host_ops.rs); SHA is sums,
//! rotations and bits, which a backend has. Numbers of words and rounds are those of SDM vol. 2.

use crate::backend::{Backend, Bin, Flow, Vec2, VecShift, W};
use crate::host_ops::Vector;
use crate::sse::{Maybe, read_unaligned, read_x, selectors, xmm_index};
use iced_x86::{Instruction, Mnemonic as M};

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    let host = match i.mnemonic() {
        M::Aesenc => Some((Vector::AesEnc, 0)),
        M::Aesenclast => Some((Vector::AesEncLast, 0)),
        M::Aesdec => Some((Vector::AesDec, 0)),
        M::Aesdeclast => Some((Vector::AesDecLast, 0)),
        M::Aesimc => Some((Vector::AesImc, 0)),
        M::Aeskeygenassist => Some((Vector::AesKeygenAssist, i.immediate8())),
        M::Pclmulqdq => Some((Vector::Clmul, i.immediate8())),
        M::Sha1rnds4 | M::Sha1nexte | M::Sha1msg1 | M::Sha1msg2 | M::Sha256rnds2 | M::Sha256msg1 | M::Sha256msg2 => {
            None
        }
        _ => return Ok(None),
    };
    let d = xmm_index(i.op0_register());
    // SHA asks for no alignment on AMD's CPUs.
    let y = if host.is_some() { read_x(b, i, 1)? } else { read_unaligned(b, i, 1)? };
    let x = b.xmm(d);
    let r = match (host, i.mnemonic()) {
        (Some((op, imm)), _) => {
            let none = b.c(0);
            b.host_vector(op, imm, x, y, none)
        }
        (_, M::Sha1rnds4) => sha1_rounds(b, i.immediate8() & 3, x, y),
        (_, M::Sha1nexte) => {
            let zero = b.vconst(0);
            let e = rotate(b, x, 30);
            let e = b.shuffle(e, zero, selectors(4, &[4, 4, 4, 3]));
            b.vec2(Vec2::Add(W::B4), y, e)
        }
        (_, M::Sha1msg1) => {
            let later = b.shuffle(x, y, selectors(4, &[6, 7, 0, 1]));
            b.vec2(Vec2::Xor, x, later)
        }
        (_, M::Sha1msg2) => {
            // W16 to W18, and W19 = (W19's part ^ W16) <<< 1: the part of W16 comes in by a second rotation.
            let zero = b.vconst(0);
            let words = b.shuffle(y, zero, selectors(4, &[4, 0, 1, 2]));
            let v = b.vec2(Vec2::Xor, x, words);
            let v = rotate(b, v, 1);
            let first = b.shuffle(v, zero, selectors(4, &[3, 4, 4, 4]));
            let first = rotate(b, first, 1);
            b.vec2(Vec2::Xor, v, first)
        }
        (_, M::Sha256rnds2) => sha256_rounds(b, x, y),
        (_, M::Sha256msg1) => {
            let next = b.shuffle(x, y, selectors(4, &[1, 2, 3, 4]));
            let s = sigma(b, next, [7, 18, 3]);
            b.vec2(Vec2::Add(W::B4), x, s)
        }
        _ => {
            // W16 and W17 from the source, then W18 and W19 from those.
            let zero = b.vconst(0);
            let s = sigma(b, y, [17, 19, 10]);
            let s = b.shuffle(s, zero, selectors(4, &[2, 3, 4, 4]));
            let first = b.vec2(Vec2::Add(W::B4), x, s);
            let s = sigma(b, first, [17, 19, 10]);
            let s = b.shuffle(s, zero, selectors(4, &[4, 4, 0, 1]));
            b.vec2(Vec2::Add(W::B4), first, s)
        }
    };
    b.set_xmm(d, r);
    Ok(Some(Flow::Next))
}

/// 32-bit lanes rotated left.
fn rotate<B: Backend>(b: &mut B, x: B::X, n: u32) -> B::X {
    let (up, down) = (b.c(n.into()), b.c((32 - n).into()));
    let high = b.vec_shift(VecShift::Shl(W::B4), x, up);
    let low = b.vec_shift(VecShift::ShrU(W::B4), x, down);
    b.vec2(Vec2::Or, high, low)
}

/// FIPS 180-4, 4.1.2, σ: two rotations to the right and a shift.
fn sigma<B: Backend>(b: &mut B, x: B::X, [p, q, n]: [u32; 3]) -> B::X {
    let r = rotate(b, x, 32 - p);
    let s = rotate(b, x, 32 - q);
    let r = b.vec2(Vec2::Xor, r, s);
    let n = b.c(n.into());
    let s = b.vec_shift(VecShift::ShrU(W::B4), x, n);
    b.vec2(Vec2::Xor, r, s)
}

fn words<B: Backend>(b: &mut B, x: B::X) -> [B::V; 4] {
    [0, 1, 2, 3].map(|n| {
        // Through 64 bits: a lane 0 of 32 would be taken for a float.
        let v = b.extract(W::B8, x, n / 2);
        if n % 2 == 0 {
            b.trunc(W::B4, v)
        } else {
            let half = b.c(32);
            b.bin(Bin::ShrU, W::B8, v, half)
        }
    })
}

fn vector<B: Backend>(b: &mut B, words: [B::V; 4]) -> B::X {
    let zero = b.vconst(0);
    (0..4).fold(zero, |x, n| b.replace(W::B4, x, n, words[n as usize]))
}

fn rotated<B: Backend>(b: &mut B, v: B::V, n: u64) -> B::V {
    let n = b.c(n);
    b.bin(Bin::Rotl, W::B4, v, n)
}

fn sum<B: Backend, const N: usize>(b: &mut B, v: [B::V; N]) -> B::V {
    v[1..].iter().fold(v[0], |s, x| b.bin(Bin::Add, W::B4, s, *x))
}

fn xor3<B: Backend>(b: &mut B, [x, y, z]: [B::V; 3]) -> B::V {
    let v = b.bin(Bin::Xor, W::B4, x, y);
    b.bin(Bin::Xor, W::B4, v, z)
}

/// y where x is set, z elsewhere.
fn choose<B: Backend>(b: &mut B, [x, y, z]: [B::V; 3]) -> B::V {
    let v = b.bin(Bin::Xor, W::B4, y, z);
    let v = b.bin(Bin::And, W::B4, v, x);
    b.bin(Bin::Xor, W::B4, v, z)
}

fn majority<B: Backend>(b: &mut B, [x, y, z]: [B::V; 3]) -> B::V {
    let both = b.bin(Bin::And, W::B4, x, y);
    let either = b.bin(Bin::Or, W::B4, x, y);
    let either = b.bin(Bin::And, W::B4, either, z);
    b.bin(Bin::Or, W::B4, both, either)
}

/// Four rounds with the function and constant that `kind` names; the first word brings E along.
fn sha1_rounds<B: Backend>(b: &mut B, kind: u8, x: B::X, y: B::X) -> B::X {
    let constant = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6][usize::from(kind)];
    let constant = b.c(constant);
    let w = words(b, y);
    let [mut vd, mut vc, mut vb, mut va] = words(b, x);
    let mut ve = b.c(0);
    for word in w.into_iter().rev() {
        let f = match kind {
            0 => choose(b, [vb, vc, vd]),
            2 => majority(b, [vb, vc, vd]),
            _ => xor3(b, [vb, vc, vd]),
        };
        let turned = rotated(b, va, 5);
        let next = sum(b, [f, turned, word, constant, ve]);
        (ve, vd, vc, vb, va) = (vd, vc, rotated(b, vb, 30), va, next);
    }
    vector(b, [vd, vc, vb, va])
}

/// Two rounds; `x` has C D G H from the top, `y` A B E F, xmm0 the words with their constants.
fn sha256_rounds<B: Backend>(b: &mut B, x: B::X, y: B::X) -> B::X {
    let xmm0 = b.xmm(0);
    let k = words(b, xmm0);
    let [mut h, mut g, mut d, mut c] = words(b, x);
    let [mut f, mut e, mut vb, mut a] = words(b, y);
    for word in [k[0], k[1]] {
        let turns = [26, 21, 7].map(|n| rotated(b, e, n));
        let big = xor3(b, turns);
        let chosen = choose(b, [e, f, g]);
        let t = sum(b, [chosen, big, word, h]);
        let turns = [30, 19, 10].map(|n| rotated(b, a, n));
        let big = xor3(b, turns);
        let most = majority(b, [a, vb, c]);
        (h, g, f, e) = (g, f, e, sum(b, [t, d]));
        (d, c, vb, a) = (c, vb, a, sum(b, [t, most, big]));
    }
    vector(b, [f, e, vb, a])
}
