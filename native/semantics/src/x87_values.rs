//! x87 instructions for translated code: on the registers they name, without the FXSAVE image's way through
//! the unit, which costs more than the rest. What needs the whole unit falls back on x87.rs.
//!
//! Precondition of all: every exception is masked (translated code checks that). So nothing here traps,
//! and the CPU's own results, flags and condition codes go straight into the state.

use crate::x87;
use iced_x86::{ConditionCode, Instruction, Mnemonic as M};
use std::arch::asm;
use vkernel_abi::state::CpuState;

/// Opcode and ModRM byte, of memory forms without the address: `opcode << 8 | modrm`.
pub fn form(i: &Instruction) -> u32 {
    let code = i.code().op_code();
    let opcode = code.op_code();
    if opcode < 0x100 {
        return opcode << 8 | (code.group_index().max(0) as u32) << 3;
    }
    let register = (0..i.op_count()).rev().map(|n| i.op_register(n)).find(|r| r.is_st() && r.number() != 0);
    opcode + register.map_or(0, |r| r.number() as u32)
}

/// Whether translated code runs `i`, itself or by `run`: all but environments, BCD and what waits and does more.
pub fn is_translated(i: &Instruction) -> bool {
    i.mnemonic() == M::Wait
        || crate::exec::is_x87(i)
            && !matches!(
                i.mnemonic(),
                M::Fldenv
                    | M::Fnstenv
                    | M::Fnsave
                    | M::Frstor
                    | M::Fbld
                    | M::Fbstp
                    | M::Fstenv
                    | M::Fsave
                    | M::Fstcw
                    | M::Fstsw
                    | M::Fclex
                    | M::Finit
                    | M::Feni
                    | M::Fdisi
                    | M::Fsetpm
                    | M::Fstdw
                    | M::Fstsg
                    | M::Fnstdw
                    | M::Fnstsg
            )
}

/// What FCMOV* asks of the flags.
pub fn condition(i: &Instruction) -> Option<ConditionCode> {
    Some(match i.mnemonic() {
        M::Fcmovb => ConditionCode::b,
        M::Fcmovnb => ConditionCode::ae,
        M::Fcmove => ConditionCode::e,
        M::Fcmovne => ConditionCode::ne,
        M::Fcmovbe => ConditionCode::be,
        M::Fcmovnbe => ConditionCode::a,
        M::Fcmovu => ConditionCode::p,
        M::Fcmovnu => ConditionCode::np,
        _ => return None,
    })
}

const C1: u16 = 0x200;
const EXCEPTIONS: u16 = 0x3f;
const CONDITIONS: u16 = 0x4700;

fn set_status(s: &mut CpuState, v: u16) {
    s.fx[2..4].copy_from_slice(&v.to_le_bytes());
}

/// Physical number of ST(n).
fn physical(s: &CpuState, n: usize) -> usize {
    (x87::top(&s.fx) + n) & 7
}

fn is_valid(s: &CpuState, r: usize) -> bool {
    s.fx[4] >> r & 1 != 0
}

fn pop(s: &mut CpuState) {
    let r = physical(s, 0);
    s.fx[4] &= !(1 << r);
    let v = x87::status(&s.fx);
    set_status(s, v & !0x3800 | ((r as u16 + 1) & 7) << 11);
}

/// Runs `$code` on the host's unit with the guest's control word; leaves the status word in `ax` and the
/// unit empty, without flags.
macro_rules! unit {
    ($state:expr, [$($code:expr),*], $($operands:tt)*) => {{
        let control = u16::from_le_bytes([$state.fx[0], $state.fx[1]]);
        let default = 0x37fu16;
        let special = control & 0xf00 != 0x300;
        let mut sw: u16;
        // SAFETY: the code leaves the register stack as empty as it was, and the control word is put back.
        unsafe {
            if special {
                asm!("fldcw [{}]", in(reg) &control, options(nostack, readonly));
            }
            asm!($($code,)* out("ax") sw,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                $($operands)*);
            if special {
                asm!("fldcw [{}]", in(reg) &default, options(nostack, readonly));
            }
            if sw & EXCEPTIONS != 0 {
                asm!("fnclex", options(nostack, nomem));
            }
        }
        sw
    }};
}

/// Where the second operand of an arithmetic instruction comes from.
enum Source {
    Register(usize),
    Single,
    Double,
    Word,
    Long,
}

/// `a op b` for the operation that ModRM's middle bits name; 2 and 3 compare. `b` is a register's 80 bits,
/// or as many as the source says.
fn binary(s: &CpuState, op: u32, from: &Source, a: &mut [u8; 16], b: &[u8; 16]) -> u16 {
    let (p, q) = (a.as_mut_ptr(), b.as_ptr());
    macro_rules! arithmetic {
        ($register:literal, $float:literal, $integer:literal) => {
            match from {
                Source::Register(_) => unit!(s, ["fld tbyte ptr [{q}]", "fld tbyte ptr [{p}]", concat!($register, " st, st(1)"), "fnstsw ax", "fstp tbyte ptr [{p}]", "fstp st(0)"], p = in(reg) p, q = in(reg) q),
                Source::Single => arithmetic!(concat!($float, " dword ptr [{q}]")),
                Source::Double => arithmetic!(concat!($float, " qword ptr [{q}]")),
                Source::Word => arithmetic!(concat!($integer, " word ptr [{q}]")),
                Source::Long => arithmetic!(concat!($integer, " dword ptr [{q}]")),
            }
        };
        ($code:expr) => {
            unit!(s, ["fld tbyte ptr [{p}]", $code, "fnstsw ax", "fstp tbyte ptr [{p}]"], p = in(reg) p, q = in(reg) q)
        };
    }
    match op {
        0 => arithmetic!("fadd", "fadd", "fiadd"),
        1 => arithmetic!("fmul", "fmul", "fimul"),
        2 | 3 => match from {
            Source::Register(_) => {
                unit!(s, ["fld tbyte ptr [{q}]", "fld tbyte ptr [{p}]", "fcom st(1)", "fnstsw ax", "fstp st(0)", "fstp st(0)"], p = in(reg) p, q = in(reg) q)
            }
            Source::Single => arithmetic!("fcom dword ptr [{q}]"),
            Source::Double => arithmetic!("fcom qword ptr [{q}]"),
            Source::Word => arithmetic!("ficom word ptr [{q}]"),
            Source::Long => arithmetic!("ficom dword ptr [{q}]"),
        },
        4 => arithmetic!("fsub", "fsub", "fisub"),
        5 => arithmetic!("fsubr", "fsubr", "fisubr"),
        6 => arithmetic!("fdiv", "fdiv", "fidiv"),
        _ => arithmetic!("fdivr", "fdivr", "fidivr"),
    }
}

/// D8, DA, DC, DE: arithmetic and comparisons; `None`: not of this kind, or an operand is missing.
fn arithmetic(s: &mut CpuState, form: u32, bits: u64) -> Option<()> {
    let (opcode, modrm) = (form >> 8, form & 0xff);
    let op = modrm >> 3 & 7;
    let top = physical(s, 0);
    let other = physical(s, modrm as usize & 7);
    let (source, to, pops) = match (opcode, modrm >= 0xc0) {
        (0xd8, false) => (Source::Single, top, op == 3),
        (0xda, false) => (Source::Long, top, op == 3),
        (0xdc, false) => (Source::Double, top, op == 3),
        (0xde, false) => (Source::Word, top, op == 3),
        (0xd8, true) => (Source::Register(other), top, op == 3),
        (0xdc, true) if !matches!(op, 2 | 3) => (Source::Register(other), other, false),
        (0xde, true) if !matches!(op, 2 | 3) => (Source::Register(other), other, true),
        _ => return None,
    };
    if !is_valid(s, top) || matches!(source, Source::Register(r) if !is_valid(s, r)) {
        return None;
    }
    let mut b = [0u8; 16];
    match source {
        Source::Register(r) => b.copy_from_slice(&s.fx[32 + 16 * r..][..16]),
        _ => b[..8].copy_from_slice(&bits.to_le_bytes()),
    }
    let mut a = [0u8; 16];
    a.copy_from_slice(&s.fx[32 + 16 * top..][..16]);
    let sw = binary(s, op, &source, &mut a, &b);
    let v = x87::status(&s.fx);
    if matches!(op, 2 | 3) {
        set_status(s, v & !CONDITIONS | sw & (CONDITIONS | EXCEPTIONS));
    } else {
        s.fx[32 + 16 * to..][..10].copy_from_slice(&a[..10]);
        set_status(s, v & !C1 | sw & (C1 | EXCEPTIONS));
    }
    if pops {
        pop(s);
    }
    Some(())
}

/// FCOMI, FUCOMI and their popping forms; the result is RFLAGS.
fn compare(s: &mut CpuState, form: u32) -> Option<u64> {
    let (top, other) = (physical(s, 0), physical(s, form as usize & 7));
    if !is_valid(s, top) || !is_valid(s, other) {
        return None;
    }
    let (p, q) = (s.fx[32 + 16 * top..].as_ptr(), s.fx[32 + 16 * other..].as_ptr());
    let flags: u64;
    macro_rules! compared {
        ($code:literal) => {
            unit!(s, ["fld tbyte ptr [{q}]", "fld tbyte ptr [{p}]", "xor eax, eax", $code, "pushfq", "pop {f}", "fnstsw ax", "fstp st(0)", "fstp st(0)"],
                p = in(reg) p, q = in(reg) q, f = out(reg) flags)
        };
    }
    let sw = if form & 0xf8 == 0xe8 { compared!("fucomi st, st(1)") } else { compared!("fcomi st, st(1)") };
    let v = x87::status(&s.fx);
    set_status(s, v | sw & EXCEPTIONS);
    if form >> 8 == 0xdf {
        pop(s);
    }
    Some(flags)
}

/// FST, FIST, FISTTP to memory of up to 64 bits, popping or not: the bits to store.
fn store(s: &mut CpuState, form: u32) -> Option<u64> {
    let top = physical(s, 0);
    if !is_valid(s, top) {
        return None;
    }
    let p = s.fx[32 + 16 * top..].as_ptr();
    let mut bits = 0u64;
    macro_rules! stored {
        ($code:literal) => {
            unit!(s, ["fld tbyte ptr [{p}]", $code, "fnstsw ax"], p = in(reg) p, m = in(reg) &mut bits)
        };
    }
    let sw = match form {
        0xd910 | 0xd918 => stored!("fstp dword ptr [{m}]"),
        0xdd10 | 0xdd18 => stored!("fstp qword ptr [{m}]"),
        0xdf10 | 0xdf18 => stored!("fistp word ptr [{m}]"),
        0xdb10 | 0xdb18 => stored!("fistp dword ptr [{m}]"),
        0xdf38 => stored!("fistp qword ptr [{m}]"),
        0xdf08 => stored!("fisttp word ptr [{m}]"),
        0xdb08 => stored!("fisttp dword ptr [{m}]"),
        0xdd08 => stored!("fisttp qword ptr [{m}]"),
        _ => return None,
    };
    let v = x87::status(&s.fx);
    set_status(s, v & !C1 | sw & (C1 | EXCEPTIONS));
    if !matches!(form, 0xd910 | 0xdd10 | 0xdf10 | 0xdb10) {
        pop(s);
    }
    Some(bits)
}

/// FSQRT, FRNDINT.
fn unary(s: &mut CpuState, form: u32) -> Option<()> {
    let top = physical(s, 0);
    if !is_valid(s, top) {
        return None;
    }
    let p = s.fx[32 + 16 * top..].as_mut_ptr();
    let sw = match form {
        0xd9fa => unit!(s, ["fld tbyte ptr [{p}]", "fsqrt", "fnstsw ax", "fstp tbyte ptr [{p}]"], p = in(reg) p),
        0xd9fc => unit!(s, ["fld tbyte ptr [{p}]", "frndint", "fnstsw ax", "fstp tbyte ptr [{p}]"], p = in(reg) p),
        _ => return None,
    };
    let v = x87::status(&s.fx);
    set_status(s, v & !C1 | sw & (C1 | EXCEPTIONS));
    Some(())
}

/// Runs an instruction: `bits` is the memory operand of those that read one; the result is the memory
/// operand of those that write one, RFLAGS of those that compare into them.
pub fn run(s: &mut CpuState, form: u32, bits: u64) -> u64 {
    let done = match (form >> 8, form & 0xff) {
        (0xdb | 0xdf, 0xe8..=0xf7) => compare(s, form),
        (0xd9, 0xfa | 0xfc) => unary(s, form).map(|()| 0),
        (0xd9 | 0xdb | 0xdd | 0xdf, 0..0xc0) => store(s, form),
        _ => arithmetic(s, form, bits).map(|()| 0),
    };
    if let Some(v) = done {
        return v;
    }
    // The image brings an MXCSR of its own; translated code runs under the guest's.
    let mut mxcsr = 0u32;
    // SAFETY: writes the local.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut mxcsr, options(nostack)) };
    let v = by_image(s, form, bits);
    // SAFETY: puts back what was there.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack, readonly)) };
    v
}

fn by_image(s: &mut CpuState, form: u32, bits: u64) -> u64 {
    let (opcode, modrm) = ((form >> 8) as u8, form as u8);
    if modrm >= 0xc0 {
        x87::register(s, opcode, modrm);
        return s.rflags();
    }
    let mut operand = [0u8; 128];
    operand[..8].copy_from_slice(&bits.to_le_bytes());
    x87::memory(s, opcode, modrm >> 3 & 7, &mut operand);
    u64::from_le_bytes(operand[..8].try_into().expect("8 bytes"))
}
