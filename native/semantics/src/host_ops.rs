//! Operations that wasm has no instruction for: the interpreter and, through an import, translated code have
//! them from here. Those of SSE and SSE4.2 are the host's own instructions, which are the definition (the host
//! has SSE4.2, see vector.rs); AES and PCLMULQDQ are written out, for hosts without them.

use crate::memory::{self, Access};
use std::arch::x86_64::*;
use vkernel_abi::generated::cpu;
use vkernel_abi::state::{CpuState, RAX, RBX, RCX, RDX};

/// Two vectors and an integer in, a vector out. `imm` is the instruction's immediate where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Vector {
    AesEnc,
    AesEncLast,
    AesDec,
    AesDecLast,
    AesImc,
    AesKeygenAssist,
    Clmul,
    /// The first intermediate result of PCMP*STR*, as bits, for the immediate's bits 0–3; the integer has
    /// the lengths, of the second vector in bits 8–15.
    Strings,
    /// RCPPS, RSQRTPS of the second vector.
    Reciprocal,
    ReciprocalRoot,
}

impl Vector {
    const ALL: [Self; 10] = [
        Self::AesEnc,
        Self::AesEncLast,
        Self::AesDec,
        Self::AesDecLast,
        Self::AesImc,
        Self::AesKeygenAssist,
        Self::Clmul,
        Self::Strings,
        Self::Reciprocal,
        Self::ReciprocalRoot,
    ];

    /// What the import takes.
    pub fn form(self, imm: u8) -> u32 {
        (1 + self as u32) << 8 | u32::from(imm)
    }
}

/// The result is in `v[0]`. In place, because the CPU is slow to load as 16 bytes what was stored as two integers.
pub fn vector(op: Vector, imm: u8, v: &mut [u128; 2], c: u64) {
    let [a, b] = v;
    *a = match op {
        Vector::AesEnc => mix(&COLUMN, bytes(&SBOX, shift_rows(*a, 1))) ^ *b,
        Vector::AesEncLast => bytes(&SBOX, shift_rows(*a, 1)) ^ *b,
        Vector::AesDec => mix(&INVERSE_COLUMN, bytes(&INVERSE_SBOX, shift_rows(*a, 3))) ^ *b,
        Vector::AesDecLast => bytes(&INVERSE_SBOX, shift_rows(*a, 3)) ^ *b,
        Vector::AesImc => mix(&INVERSE_COLUMN, *b),
        Vector::AesKeygenAssist => keygen_assist(imm, *b),
        Vector::Clmul if std::is_x86_feature_detected!("pclmulqdq") => {
            // SAFETY: just checked.
            return unsafe { multiply_by_host(imm, a, b) };
        }
        Vector::Clmul => {
            let half = |v: u128, high: u8| if high != 0 { (v >> 64) as u64 } else { v as u64 };
            clmul(half(*a, imm & 1), half(*b, imm & 16))
        }
        // SAFETY: the host has SSE4.2.
        Vector::Strings => return unsafe { strings(imm, a, b, c) },
        Vector::Reciprocal | Vector::ReciprocalRoot => {
            // SAFETY: SSE is part of x86-64; both operands are 16 bytes.
            return unsafe {
                let y = _mm_loadu_ps((&raw const *b).cast());
                _mm_storeu_ps(
                    (&raw mut *a).cast(),
                    if op == Vector::Reciprocal { _mm_rcp_ps(y) } else { _mm_rsqrt_ps(y) },
                );
            };
        }
    };
}

/// Forms of the `host` import that are no `Vector`'s.
pub mod form {
    // 1, 2, 4 and 8 are CRC32 of `a` by as many bytes of `b`.
    pub const RDTSC: u32 = 16;
    /// The guest's MXCSR, with the flags that the CPU has raised since.
    pub const MXCSR: u32 = 17;
    /// Sets it to `a`, which has no reserved bit.
    pub const SET_MXCSR: u32 = 18;
    /// CPUID of leaf `a`, part `b`: rax, rbx, rcx, rdx of the state.
    pub const CPUID: u32 = 19;
    /// CMPXCHG16B at address `a`, registers in the state: 1 exchanged, 0 not, 2 what only the interpreter raises.
    pub const CMPXCHG16B: u32 = 20;
}

/// The `host` import of translated code, which runs under the guest's MXCSR. Vectors are in the state's
/// `operands`, the integer that goes with them is `a`. A form that is none gives 0.
///
/// Preconditions: `region` is the host's address of guest memory.
pub fn import(state: &mut CpuState, region: *mut u8, form: u32, a: u64, b: u64) -> u64 {
    if let Some(op) = (form >> 8).checked_sub(1) {
        if let Some(op) = Vector::ALL.get(op as usize) {
            vector(*op, form as u8, &mut state.operands, a);
        }
        return 0;
    }
    match form {
        1 | 2 | 4 | 8 => crc32(form, a, b),
        form::RDTSC => rdtsc(),
        form::MXCSR => {
            let mut v = 0u32;
            // SAFETY: writes the local.
            unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack)) };
            state.mxcsr |= v & 0x3f;
            u64::from(state.mxcsr)
        }
        form::SET_MXCSR => {
            state.mxcsr = a as u32 & MXCSR_MASK;
            let masked = state.mxcsr | 0x1f80;
            // SAFETY: no reserved bit is set.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &masked, options(nostack, readonly)) };
            0
        }
        form::CPUID => {
            set_cpuid(state, a as u32, b as u32);
            0
        }
        form::CMPXCHG16B if a & 15 == 0 => {
            let r = cmpxchg16b(state, region.wrapping_add((a & 0xffff_ffff) as usize));
            if r.faulted != 0 { 2 } else { r.value }
        }
        form::CMPXCHG16B => 2,
        _ => 0,
    }
}

/// Bits of MXCSR that exist (MXCSR_MASK with DAZ).
pub const MXCSR_MASK: u32 = 0xffff;

fn rdtsc() -> u64 {
    // SAFETY: RDTSC is available to user code on Linux.
    unsafe { _rdtsc() }
}

/// CRC32 by `n` bytes of `v`.
fn crc32(n: u32, crc: u64, v: u64) -> u64 {
    #[target_feature(enable = "sse4.2")]
    fn run(n: u32, crc: u64, v: u64) -> u64 {
        match n {
            1 => u64::from(_mm_crc32_u8(crc as u32, v as u8)),
            2 => u64::from(_mm_crc32_u16(crc as u32, v as u16)),
            4 => u64::from(_mm_crc32_u32(crc as u32, v as u32)),
            _ => _mm_crc32_u64(crc, v),
        }
    }
    // SAFETY: the host has SSE4.2.
    unsafe { run(n, crc, v) }
}

/// CMPXCHG16B at host address `at`, aligned: a fault, or whether it exchanged; if not, rdx:rax are set.
pub(crate) fn cmpxchg16b(state: &mut CpuState, at: *mut u8) -> Access {
    let g = &mut state.gpr;
    let mut pair = [g[RAX], g[RDX], g[RBX], g[RCX]];
    // SAFETY: covered by the fix-up table.
    let r = unsafe { memory::vk_cas128(at, &mut pair) };
    if r.faulted == 0 && r.value == 0 {
        (g[RAX], g[RDX]) = (pair[0], pair[1]);
    }
    r
}

pub fn set_cpuid(state: &mut CpuState, leaf: u32, sub: u32) {
    let [a, x, c, d] = cpuid(leaf, sub);
    for (r, v) in [(RAX, a), (RBX, x), (RCX, c), (RDX, d)] {
        state.gpr[r] = u64::from(v);
    }
}

/// What the guest's CPU says it is (src/abi/cpu.ts), with 32K/1M/8M caches through leaf 4, which glibc sizes
/// its copy loops by.
pub fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let text = |s: &[u8]| u32::from_le_bytes([s[0], s[1], s[2], s[3]]);
    let cache =
        |level: u32, kind: u32, ways: u32, sets: u32| [kind | level << 5 | 1 << 8, 63 | (ways - 1) << 22, sets - 1, 0];
    match (leaf, sub) {
        (0, _) => [cpu::LEVEL, text(&cpu::VENDOR[..4]), text(&cpu::VENDOR[8..]), text(&cpu::VENDOR[4..8])],
        // CLFLUSH line 8×8 bytes.
        (1, _) => [cpu::SIGNATURE, 8 << 8, cpu::LEAF1_ECX, cpu::LEAF1_EDX],
        (2, _) => [0xff01, 0, 0, 0],
        (4, 0) => cache(1, 1, 8, 64),
        (4, 1) => cache(1, 2, 8, 64),
        (4, 2) => cache(2, 3, 16, 1024),
        (4, 3) => cache(3, 3, 16, 8192),
        (7, 0) => [0, cpu::LEAF7_EBX, 0, 0],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, cpu::EXTENDED_ECX, cpu::EXTENDED_EDX],
        (0x8000_0002..=0x8000_0004, _) => {
            let mut name = [0; 48];
            name[..cpu::NAME.len()].copy_from_slice(cpu::NAME.as_bytes());
            let at = (leaf - 0x8000_0002) as usize * 16;
            [0, 4, 8, 12].map(|n| text(&name[at + n..]))
        }
        (0x8000_0008, _) => [40 | 48 << 8, 0, 0, 0],
        _ => [0; 4],
    }
}

fn load(v: &u128) -> __m128i {
    // SAFETY: 16 bytes.
    unsafe { _mm_loadu_si128((&raw const *v).cast()) }
}

fn store(to: &mut u128, v: __m128i) {
    // SAFETY: 16 bytes.
    unsafe { _mm_storeu_si128((&raw mut *to).cast(), v) };
}

#[target_feature(enable = "sse4.2")]
fn strings(imm: u8, a: &mut u128, b: &u128, lengths: u64) {
    let (x, y) = (load(a), load(b));
    let (m, n) = (i32::from(lengths as u8), (lengths >> 8) as i32);
    macro_rules! forms {
        ($($n:literal)*) => {
            match imm & 15 {
                $($n => _mm_cmpestrm::<$n>(x, m, y, n),)*
                _ => unreachable!("four bits"),
            }
        };
    }
    store(a, forms!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15));
}

#[target_feature(enable = "pclmulqdq")]
fn multiply_by_host(imm: u8, a: &mut u128, b: &u128) {
    let (x, y) = (load(a), load(b));
    let r = match imm & 0x11 {
        0 => _mm_clmulepi64_si128::<0>(x, y),
        1 => _mm_clmulepi64_si128::<1>(x, y),
        0x10 => _mm_clmulepi64_si128::<0x10>(x, y),
        _ => _mm_clmulepi64_si128::<0x11>(x, y),
    };
    store(a, r);
}

/// The product of polynomials over GF(2).
fn clmul(a: u64, b: u64) -> u128 {
    (0..64).filter(|n| b >> n & 1 != 0).fold(0, |r, n| r ^ u128::from(a) << n)
}

/// Of polynomials modulo x⁸ + x⁴ + x³ + x + 1 (FIPS 197, 4.2).
const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut r = 0;
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}

/// FIPS 197, 5.1.1: the inverse, which is the 254th power, and an affine map.
const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (x2, mut r) = (multiply(n as u8, n as u8), 1);
        // 254 = 2 + 4 + … + 128.
        let (mut power, mut k) = (x2, 0);
        while k < 7 {
            r = multiply(r, power);
            power = multiply(power, power);
            k += 1;
        }
        table[n] = r ^ r.rotate_left(1) ^ r.rotate_left(2) ^ r.rotate_left(3) ^ r.rotate_left(4) ^ 0x63;
        n += 1;
    }
    table
};

const INVERSE_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[SBOX[n] as usize] = n as u8;
        n += 1;
    }
    table
};

/// First columns of the matrices of MixColumns and its inverse (FIPS 197, 5.1.3, 5.3.3).
const COLUMN: [u8; 4] = [2, 1, 1, 3];
const INVERSE_COLUMN: [u8; 4] = [14, 9, 13, 11];

fn bytes(table: &[u8; 256], v: u128) -> u128 {
    u128::from_le_bytes(v.to_le_bytes().map(|b| table[usize::from(b)]))
}

/// Row `r` of the columns moves by `r` columns, or by three times as many, which is back.
fn shift_rows(v: u128, columns: usize) -> u128 {
    let v = v.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|n| v[(n + 4 * columns * (n % 4)) % 16]))
}

fn mix(column: &[u8; 4], v: u128) -> u128 {
    let v = v.to_le_bytes();
    let byte = |n: usize| (0..4).fold(0, |r, k| r ^ multiply(v[n & !3 | k], column[(n + 4 - k) % 4]));
    u128::from_le_bytes(std::array::from_fn(byte))
}

fn keygen_assist(round: u8, v: u128) -> u128 {
    let v = bytes(&SBOX, v);
    let (x1, x3) = ((v >> 32) as u32, (v >> 96) as u32);
    let rotated = |x: u32| x.rotate_right(8) ^ u32::from(round);
    [x1, rotated(x1), x3, rotated(x3)].iter().rev().fold(0, |r, x| r << 32 | u128::from(*x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_written_out_are_the_hosts() {
        if !std::is_x86_feature_detected!("pclmulqdq") {
            return;
        }
        let mut v = 1u64;
        for _ in 0..1000 {
            let a = u128::from(v);
            v = v.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let mut r = a;
            // SAFETY: just checked.
            unsafe { multiply_by_host(0, &mut r, &u128::from(v)) };
            assert_eq!(r, clmul(a as u64, v));
        }
    }
}
