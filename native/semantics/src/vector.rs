//! Vector operations on numbers: the host's own instructions, which are the definition. Those above SSE2
//! are in functions of their own features; the host has SSE4.2 (engine's configuration, `doctor`).

use crate::backend::{Vec1, Vec2, VecShift, W};
use std::arch::x86_64::*;

fn to(v: u128) -> __m128i {
    // SAFETY: both are 16 plain bytes.
    unsafe { std::mem::transmute(v) }
}

fn from(v: __m128i) -> u128 {
    // SAFETY: both are 16 plain bytes.
    unsafe { std::mem::transmute(v) }
}

#[target_feature(enable = "sse4.2")]
fn later1(op: Vec1, x: __m128i) -> Option<__m128i> {
    Some(match op {
        Vec1::Abs(W::B1) => _mm_abs_epi8(x),
        Vec1::Abs(W::B2) => _mm_abs_epi16(x),
        Vec1::Abs(_) => _mm_abs_epi32(x),
        Vec1::ExtendS(W::B1) => _mm_cvtepi8_epi16(x),
        Vec1::ExtendS(W::B2) => _mm_cvtepi16_epi32(x),
        Vec1::ExtendS(_) => _mm_cvtepi32_epi64(x),
        Vec1::ExtendU(W::B1) => _mm_cvtepu8_epi16(x),
        Vec1::ExtendU(W::B2) => _mm_cvtepu16_epi32(x),
        Vec1::ExtendU(_) => _mm_cvtepu32_epi64(x),
        Vec1::Round(..) => return None,
    })
}

/// `None` for the floating-point ones (`fp.rs`).
pub fn unary(op: Vec1, a: u128) -> Option<u128> {
    // SAFETY: the host has SSE4.2.
    unsafe { later1(op, to(a)) }.map(from)
}

/// Operations that SSE3 to SSE4.2 added; `None` for others.
#[target_feature(enable = "sse4.2")]
fn later2(op: Vec2, x: __m128i, y: __m128i) -> Option<__m128i> {
    Some(match op {
        Vec2::MulLo(W::B4) => _mm_mullo_epi32(x, y),
        Vec2::MulEvenS32 => _mm_mul_epi32(x, y),
        Vec2::MulRoundS16 => _mm_mulhrs_epi16(x, y),
        Vec2::MaddU8S8 => _mm_maddubs_epi16(x, y),
        Vec2::MinU(W::B2) => _mm_min_epu16(x, y),
        Vec2::MinU(W::B4) => _mm_min_epu32(x, y),
        Vec2::MaxU(W::B2) => _mm_max_epu16(x, y),
        Vec2::MaxU(W::B4) => _mm_max_epu32(x, y),
        Vec2::MinS(W::B1) => _mm_min_epi8(x, y),
        Vec2::MinS(W::B4) => _mm_min_epi32(x, y),
        Vec2::MaxS(W::B1) => _mm_max_epi8(x, y),
        Vec2::MaxS(W::B4) => _mm_max_epi32(x, y),
        Vec2::Eq(W::B8) => _mm_cmpeq_epi64(x, y),
        Vec2::GtS(W::B8) => _mm_cmpgt_epi64(x, y),
        Vec2::PackUS(W::B4) => _mm_packus_epi32(x, y),
        Vec2::Swizzle => _mm_shuffle_epi8(x, y),
        _ => return None,
    })
}

/// Integer operations of `Vec2`; `None` for the floating-point ones (`fp.rs`).
pub fn integer(op: Vec2, a: u128, b: u128) -> Option<u128> {
    let (x, y) = (to(a), to(b));
    // SAFETY: the host has SSE4.2.
    if let Some(r) = unsafe { later2(op, x, y) } {
        return Some(from(r));
    }
    // SAFETY: SSE2 is part of x86-64.
    let r = unsafe {
        match op {
            Vec2::And => return Some(a & b),
            Vec2::Or => return Some(a | b),
            Vec2::Xor => return Some(a ^ b),
            Vec2::AndNot => return Some(!a & b),
            Vec2::Add(W::B1) => _mm_add_epi8(x, y),
            Vec2::Add(W::B2) => _mm_add_epi16(x, y),
            Vec2::Add(W::B4) => _mm_add_epi32(x, y),
            Vec2::Add(W::B8) => _mm_add_epi64(x, y),
            Vec2::Sub(W::B1) => _mm_sub_epi8(x, y),
            Vec2::Sub(W::B2) => _mm_sub_epi16(x, y),
            Vec2::Sub(W::B4) => _mm_sub_epi32(x, y),
            Vec2::Sub(W::B8) => _mm_sub_epi64(x, y),
            Vec2::AddSatU(W::B1) => _mm_adds_epu8(x, y),
            Vec2::AddSatU(_) => _mm_adds_epu16(x, y),
            Vec2::AddSatS(W::B1) => _mm_adds_epi8(x, y),
            Vec2::AddSatS(_) => _mm_adds_epi16(x, y),
            Vec2::SubSatU(W::B1) => _mm_subs_epu8(x, y),
            Vec2::SubSatU(_) => _mm_subs_epu16(x, y),
            Vec2::SubSatS(W::B1) => _mm_subs_epi8(x, y),
            Vec2::SubSatS(_) => _mm_subs_epi16(x, y),
            Vec2::MulLo(_) => _mm_mullo_epi16(x, y),
            Vec2::MulHiS => _mm_mulhi_epi16(x, y),
            Vec2::MulHiU => _mm_mulhi_epu16(x, y),
            Vec2::MulEvenU32 => _mm_mul_epu32(x, y),
            Vec2::MaddS16 => _mm_madd_epi16(x, y),
            Vec2::Sad => _mm_sad_epu8(x, y),
            Vec2::AvgU(W::B1) => _mm_avg_epu8(x, y),
            Vec2::AvgU(_) => _mm_avg_epu16(x, y),
            Vec2::MinU(_) => _mm_min_epu8(x, y),
            Vec2::MaxU(_) => _mm_max_epu8(x, y),
            Vec2::MinS(_) => _mm_min_epi16(x, y),
            Vec2::MaxS(_) => _mm_max_epi16(x, y),
            Vec2::Eq(W::B1) => _mm_cmpeq_epi8(x, y),
            Vec2::Eq(W::B2) => _mm_cmpeq_epi16(x, y),
            Vec2::Eq(_) => _mm_cmpeq_epi32(x, y),
            Vec2::GtS(W::B1) => _mm_cmpgt_epi8(x, y),
            Vec2::GtS(W::B2) => _mm_cmpgt_epi16(x, y),
            Vec2::GtS(_) => _mm_cmpgt_epi32(x, y),
            Vec2::InterleaveLo(W::B1) => _mm_unpacklo_epi8(x, y),
            Vec2::InterleaveLo(W::B2) => _mm_unpacklo_epi16(x, y),
            Vec2::InterleaveLo(W::B4) => _mm_unpacklo_epi32(x, y),
            Vec2::InterleaveLo(W::B8) => _mm_unpacklo_epi64(x, y),
            Vec2::InterleaveHi(W::B1) => _mm_unpackhi_epi8(x, y),
            Vec2::InterleaveHi(W::B2) => _mm_unpackhi_epi16(x, y),
            Vec2::InterleaveHi(W::B4) => _mm_unpackhi_epi32(x, y),
            Vec2::InterleaveHi(W::B8) => _mm_unpackhi_epi64(x, y),
            Vec2::PackS(W::B4) => _mm_packs_epi32(x, y),
            Vec2::PackS(_) => _mm_packs_epi16(x, y),
            Vec2::PackUS(_) => _mm_packus_epi16(x, y),
            Vec2::F(..) | Vec2::FCmp(..) => return None,
            Vec2::MulEvenS32 | Vec2::MulRoundS16 | Vec2::MaddU8S8 | Vec2::Swizzle => unreachable!("in `later2`"),
        }
    };
    Some(from(r))
}

/// The count operand is 64 bits and is not reduced: counts ≥ the width clear (or sign-fill).
pub fn shift(op: VecShift, a: u128, count: u64) -> u128 {
    let (x, n) = (to(a), to(u128::from(count)));
    // SAFETY: SSE2 is part of x86-64.
    from(unsafe {
        match op {
            VecShift::Shl(W::B2) => _mm_sll_epi16(x, n),
            VecShift::Shl(W::B4) => _mm_sll_epi32(x, n),
            VecShift::Shl(_) => _mm_sll_epi64(x, n),
            VecShift::ShrU(W::B2) => _mm_srl_epi16(x, n),
            VecShift::ShrU(W::B4) => _mm_srl_epi32(x, n),
            VecShift::ShrU(_) => _mm_srl_epi64(x, n),
            VecShift::ShrS(W::B2) => _mm_sra_epi16(x, n),
            VecShift::ShrS(_) => _mm_sra_epi32(x, n),
        }
    })
}

pub fn shuffle(a: u128, b: u128, sel: [u8; 16]) -> u128 {
    let (x, y) = (a.to_le_bytes(), b.to_le_bytes());
    let mut r = [0; 16];
    for (to, &s) in r.iter_mut().zip(&sel) {
        *to = if s < 16 { x[usize::from(s)] } else { y[usize::from(s - 16)] };
    }
    u128::from_le_bytes(r)
}

pub fn blend(w: W, mask: u128, a: u128, b: u128) -> u128 {
    let n = w.bits();
    (0..128 / n).fold(0, |r, k| {
        let lane = u128::from(w.mask()) << (k * n);
        r | lane & if mask >> (k * n + n - 1) & 1 != 0 { b } else { a }
    })
}

pub fn bitmask(w: W, a: u128) -> u64 {
    let n = 128 / w.bits();
    (0..n).map(|k| (((a >> (k * w.bits() + w.bits() - 1)) & 1) as u64) << k).sum()
}
