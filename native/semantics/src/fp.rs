//! Floating point on numbers: the host's SSE unit under the guest's MXCSR, so rounding, NaN payloads
//! and sticky flags are the CPU's own. Exceptions are masked on the host; one that the guest has
//! unmasked is reported by `unmasked`.

use crate::backend::{Cvt, Fp, Rounding, W};
use std::arch::asm;

const MASKS: u32 = 0x1f80;

/// MXCSR for the host: the guest's control and flags, every exception masked.
fn masked(mxcsr: u32) -> u32 {
    (mxcsr | MASKS) & 0xffff
}

/// The guest's MXCSR after an operation that left `after` on the host.
fn merge(guest: &mut u32, after: u32) {
    *guest |= after & 0x3f;
}

/// True if a flag is set whose exception the guest has unmasked.
pub fn unmasked(mxcsr: u32) -> bool {
    (mxcsr & 0x3f) & !(mxcsr >> 7) & 0x3f != 0
}

/// `op xmm0, xmm1` under the guest's MXCSR.
macro_rules! xmm_op {
    ($op:literal, $mxcsr:expr, $a:expr, $b:expr) => {
        xmm_op!(concat $op, " xmm0, xmm1", $mxcsr, $a, $b)
    };
    (concat $op:literal, $operands:expr, $mxcsr:expr, $a:expr, $b:expr) => {{
        let mut csr = masked(*$mxcsr);
        let host = 0x1f80u32;
        let (mut a, b): (u128, u128) = ($a, $b);
        // SAFETY: touches only the named registers and memory and restores MXCSR.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]",
                "movdqu xmm0, [{a}]",
                "movdqu xmm1, [{b}]",
                concat!($op, $operands),
                "movdqu [{a}], xmm0",
                "stmxcsr [{csr}]",
                "ldmxcsr [{host}]",
                csr = in(reg) &mut csr,
                host = in(reg) &host,
                a = in(reg) &mut a,
                b = in(reg) &b,
                out("xmm0") _,
                out("xmm1") _,
                options(nostack, preserves_flags)
            );
        }
        merge($mxcsr, csr);
        a
    }};
}

pub fn packed(op: Fp, w: W, m: &mut u32, a: u128, b: u128) -> u128 {
    match (op, w) {
        (Fp::Add, W::B4) => xmm_op!("addps", m, a, b),
        (Fp::Add, _) => xmm_op!("addpd", m, a, b),
        (Fp::Sub, W::B4) => xmm_op!("subps", m, a, b),
        (Fp::Sub, _) => xmm_op!("subpd", m, a, b),
        (Fp::Mul, W::B4) => xmm_op!("mulps", m, a, b),
        (Fp::Mul, _) => xmm_op!("mulpd", m, a, b),
        (Fp::Div, W::B4) => xmm_op!("divps", m, a, b),
        (Fp::Div, _) => xmm_op!("divpd", m, a, b),
        (Fp::Min, W::B4) => xmm_op!("minps", m, a, b),
        (Fp::Min, _) => xmm_op!("minpd", m, a, b),
        (Fp::Max, W::B4) => xmm_op!("maxps", m, a, b),
        (Fp::Max, _) => xmm_op!("maxpd", m, a, b),
        (Fp::Sqrt, W::B4) => xmm_op!("sqrtps", m, a, b),
        (Fp::Sqrt, _) => xmm_op!("sqrtpd", m, a, b),
    }
}

pub fn scalar(op: Fp, w: W, m: &mut u32, a: u64, b: u64) -> u64 {
    let (a, b) = (u128::from(a), u128::from(b));
    let r = match (op, w) {
        (Fp::Add, W::B4) => xmm_op!("addss", m, a, b),
        (Fp::Add, _) => xmm_op!("addsd", m, a, b),
        (Fp::Sub, W::B4) => xmm_op!("subss", m, a, b),
        (Fp::Sub, _) => xmm_op!("subsd", m, a, b),
        (Fp::Mul, W::B4) => xmm_op!("mulss", m, a, b),
        (Fp::Mul, _) => xmm_op!("mulsd", m, a, b),
        (Fp::Div, W::B4) => xmm_op!("divss", m, a, b),
        (Fp::Div, _) => xmm_op!("divsd", m, a, b),
        (Fp::Min, W::B4) => xmm_op!("minss", m, a, b),
        (Fp::Min, _) => xmm_op!("minsd", m, a, b),
        (Fp::Max, W::B4) => xmm_op!("maxss", m, a, b),
        (Fp::Max, _) => xmm_op!("maxsd", m, a, b),
        (Fp::Sqrt, W::B4) => xmm_op!("sqrtss", m, a, b),
        (Fp::Sqrt, _) => xmm_op!("sqrtsd", m, a, b),
    };
    (r as u64) & w.mask()
}

/// ROUND* of `a`: one `roundXX` for each immediate.
pub fn round(how: Rounding, w: W, packed: bool, m: &mut u32, a: u128) -> u128 {
    macro_rules! directions {
        ($($n:literal)*) => {
            match (how.0 & 15, w, packed) {
                $(($n, W::B4, true) => immediate_op!("roundps", $n, m, a),
                  ($n, W::B4, false) => immediate_op!("roundss", $n, m, a),
                  ($n, _, true) => immediate_op!("roundpd", $n, m, a),
                  ($n, _, false) => immediate_op!("roundsd", $n, m, a),)*
                _ => unreachable!("four bits"),
            }
        };
    }
    macro_rules! immediate_op {
        ($op:literal, $n:literal, $m:expr, $a:expr) => {
            xmm_op!(concat $op, concat!(" xmm0, xmm1, ", $n), $m, $a, $a)
        };
    }
    directions!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
}

pub fn compare_mask(w: W, predicate: u8, m: &mut u32, a: u128, b: u128) -> u128 {
    macro_rules! predicates {
        ($($n:literal => $ps:literal, $pd:literal;)*) => {
            match (w, predicate & 7) {
                $((W::B4, $n) => xmm_op!($ps, m, a, b), (_, $n) => xmm_op!($pd, m, a, b),)*
                _ => unreachable!("three bits"),
            }
        };
    }
    predicates! {
        0 => "cmpeqps", "cmpeqpd";
        1 => "cmpltps", "cmpltpd";
        2 => "cmpleps", "cmplepd";
        3 => "cmpunordps", "cmpunordpd";
        4 => "cmpneqps", "cmpneqpd";
        5 => "cmpnltps", "cmpnltpd";
        6 => "cmpnleps", "cmpnlepd";
        7 => "cmpordps", "cmpordpd";
    }
}

/// (unordered, less, equal) of UCOMIS* or COMIS*.
pub fn compare(w: W, signaling: bool, m: &mut u32, a: u64, b: u64) -> (u64, u64, u64) {
    macro_rules! ucomi {
        ($op:literal) => {{
            let mut csr = masked(*m);
            let host = 0x1f80u32;
            let (p, c, z): (u8, u8, u8);
            // SAFETY: touches only the named registers and restores MXCSR.
            unsafe {
                asm!(
                    "ldmxcsr [{csr}]",
                    "movq xmm0, {a}",
                    "movq xmm1, {b}",
                    concat!($op, " xmm0, xmm1"),
                    "setp {p}", "setb {c}", "sete {z}",
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{host}]",
                    csr = in(reg) &mut csr, host = in(reg) &host,
                    a = in(reg) a, b = in(reg) b,
                    p = out(reg_byte) p, c = out(reg_byte) c, z = out(reg_byte) z,
                    out("xmm0") _, out("xmm1") _,
                    options(nostack)
                );
            }
            merge(m, csr);
            let unordered = u64::from(p);
            (unordered, u64::from(c) & !unordered, u64::from(z) & !unordered)
        }};
    }
    match (w, signaling) {
        (W::B4, false) => ucomi!("ucomiss"),
        (W::B4, true) => ucomi!("comiss"),
        (_, false) => ucomi!("ucomisd"),
        (_, true) => ucomi!("comisd"),
    }
}

/// `op xmm0, general` and `op general, xmm0`.
macro_rules! gpr_op {
    (to_f $op:literal, $reg:literal, $m:expr, $v:expr) => {{
        let mut csr = masked(*$m);
        let host = 0x1f80u32;
        let r: u64;
        // SAFETY: touches only the named registers and restores MXCSR.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]",
                "pxor xmm0, xmm0",
                concat!($op, " xmm0, ", $reg),
                "movq {r}, xmm0",
                "stmxcsr [{csr}]",
                "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &host, v = in(reg) $v, r = out(reg) r,
                out("xmm0") _,
                options(nostack, preserves_flags)
            );
        }
        merge($m, csr);
        r
    }};
    (to_i $op:literal, $reg:literal, $m:expr, $v:expr) => {{
        let mut csr = masked(*$m);
        let host = 0x1f80u32;
        let r: u64;
        // SAFETY: touches only the named registers and restores MXCSR.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]",
                "movq xmm0, {v}",
                concat!($op, " ", $reg, ", xmm0"),
                "stmxcsr [{csr}]",
                "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &host, v = in(reg) $v, r = out(reg) r,
                out("xmm0") _,
                options(nostack, preserves_flags)
            );
        }
        merge($m, csr);
        r
    }};
}

pub fn convert(op: Cvt, m: &mut u32, v: u64) -> u64 {
    match op {
        Cvt::IntToF(W::B8, W::B4) => gpr_op!(to_f "cvtsi2ss", "{v}", m, v) & 0xffff_ffff,
        Cvt::IntToF(W::B8, _) => gpr_op!(to_f "cvtsi2sd", "{v}", m, v),
        Cvt::IntToF(_, W::B4) => gpr_op!(to_f "cvtsi2ss", "{v:e}", m, v) & 0xffff_ffff,
        Cvt::IntToF(..) => gpr_op!(to_f "cvtsi2sd", "{v:e}", m, v),
        Cvt::FToInt(W::B4, W::B8, false) => gpr_op!(to_i "cvtss2si", "{r}", m, v),
        Cvt::FToInt(W::B4, W::B8, true) => gpr_op!(to_i "cvttss2si", "{r}", m, v),
        Cvt::FToInt(W::B4, _, false) => gpr_op!(to_i "cvtss2si", "{r:e}", m, v) & 0xffff_ffff,
        Cvt::FToInt(W::B4, _, true) => gpr_op!(to_i "cvttss2si", "{r:e}", m, v) & 0xffff_ffff,
        Cvt::FToInt(_, W::B8, false) => gpr_op!(to_i "cvtsd2si", "{r}", m, v),
        Cvt::FToInt(_, W::B8, true) => gpr_op!(to_i "cvttsd2si", "{r}", m, v),
        Cvt::FToInt(_, _, false) => gpr_op!(to_i "cvtsd2si", "{r:e}", m, v) & 0xffff_ffff,
        Cvt::FToInt(_, _, true) => gpr_op!(to_i "cvttsd2si", "{r:e}", m, v) & 0xffff_ffff,
        Cvt::F32ToF64 => xmm_op!("cvtss2sd", m, 0, u128::from(v)) as u64,
        Cvt::F64ToF32 => (xmm_op!("cvtsd2ss", m, 0, u128::from(v)) as u64) & 0xffff_ffff,
    }
}
