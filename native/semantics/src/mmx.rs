//! MMX on the host's own MMX unit, for the interpreter: registers are the low halves of the x87
//! registers in the state. Arithmetic runs as the very opcode on two registers; one stub for
//! each opcode 0F 60–0F FF and (SSSE3) 0F 38 00–1F, 32 bytes apart.

use crate::backend::{Backend, Cvt, Flow, W};
use crate::fp;
use crate::interp::{Interp, Text};
use crate::operand::{address, is_memory, read_reg, string_address, write_reg};
use crate::x87;
use iced_x86::{Instruction, Mnemonic as M, OpCodeTableKind, OpKind, Register};
use std::arch::global_asm;
use vkernel_abi::wasm::Trap;

global_asm!(
    ".pushsection .text.vk_mmx,\"ax\",@progbits",
    ".globl vk_mmx",
    // (rdi: first operand and result, rsi: second operand)
    ".p2align 5",
    "vk_mmx:",
    ".set vk_op, 0x60",
    ".rept 160",
    ".p2align 5",
    "movq mm0, [rdi]",
    "movq mm1, [rsi]",
    ".byte 0x0f, vk_op, 0xc1",
    "movq [rdi], mm0",
    "emms",
    "ret",
    ".set vk_op, vk_op + 1",
    ".endr",
    ".set vk_op, 0",
    ".rept 32",
    ".p2align 5",
    "movq mm0, [rdi]",
    "movq mm1, [rsi]",
    ".byte 0x0f, 0x38, vk_op, 0xc1",
    "movq [rdi], mm0",
    "emms",
    "ret",
    ".set vk_op, vk_op + 1",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    fn vk_mmx();
}

/// `number`: of the stub.
fn run(number: u8, a: u64, b: u64) -> u64 {
    let stub = vk_mmx as *const () as usize + usize::from(number) * 32;
    let mut r = a;
    // SAFETY: the stub reads and writes its two operands and leaves the x87 unit empty, as it was.
    unsafe {
        let f: unsafe extern "C" fn(*mut u64, *const u64) = std::mem::transmute(stub);
        f(&mut r, &b);
    }
    r
}

/// EMMS, and whatever has an MMX register as an operand, or could.
pub fn is_mmx(i: &Instruction) -> bool {
    matches!(i.mnemonic(), M::Emms | M::Cvtpi2ps | M::Cvtpi2pd)
        || (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}

fn get<T: Text>(b: &Interp<T>, r: Register) -> u64 {
    let at = 32 + 16 * r.number();
    u64::from_le_bytes(b.state.fx[at..at + 8].try_into().expect("8 bytes"))
}

/// A write sets the rest of the x87 register to ones (SDM vol. 1, 9.2).
fn set<T: Text>(b: &mut Interp<T>, r: Register, v: u64) {
    let at = 32 + 16 * r.number();
    b.state.fx[at..at + 8].copy_from_slice(&v.to_le_bytes());
    b.state.fx[at + 8..at + 10].fill(0xff);
}

/// From x87 to MMX: the stack's top becomes 0, all tags valid (SDM vol. 1, 9.5.1).
fn enter(fx: &mut [u8; 512]) {
    fx[3] &= !0x38;
    fx[4] = 0xff;
}

/// Operand `n` as 64 bits.
fn source<T: Text>(b: &mut Interp<T>, i: &Instruction, n: u32) -> Result<u64, Trap> {
    if is_memory(i, n) {
        let a = address(b, i);
        let w = if i.memory_size().size() == 4 { W::B4 } else { W::B8 };
        return b.load(w, a);
    }
    let r = i.op_register(n);
    Ok(if r.is_mm() {
        get(b, r)
    } else if r.is_xmm() {
        b.state.xmm[r.number()] as u64
    } else {
        read_reg(b, r)
    })
}

pub fn exec<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Result<Flow<u64>, Trap> {
    if matches!(i.mnemonic(), M::Cvtpi2ps | M::Cvtpi2pd) && is_memory(i, 1) {
        // Has no MMX register, and leaves the x87 state alone.
        return operate(b, i);
    }
    if x87::pending(&b.state.fx) {
        return Err(Trap::X87);
    }
    if i.mnemonic() == M::Emms {
        enter(&mut b.state.fx);
        b.state.fx[4] = 0;
        return Ok(Flow::Next);
    }
    let before = b.state.fx;
    enter(&mut b.state.fx);
    let done = operate(b, i);
    if done.is_err() {
        b.state.fx = before;
    }
    done
}

fn operate<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Result<Flow<u64>, Trap> {
    let d = i.op0_register();
    match i.mnemonic() {
        M::Movd | M::Movq | M::Movntq | M::Movdq2q | M::Movq2dq => {
            let v = source(b, i, 1)?;
            if is_memory(i, 0) {
                let a = address(b, i);
                let w = if i.memory_size().size() == 4 { W::B4 } else { W::B8 };
                b.store(w, a, v)?;
            } else if d.is_mm() {
                set(b, d, v);
            } else if d.is_xmm() {
                b.state.xmm[d.number()] = u128::from(v);
            } else {
                write_reg(b, d, if d.size() == 4 { v & 0xffff_ffff } else { v });
            }
        }
        M::Pshufw => {
            let (v, order) = (source(b, i, 1)?, i.immediate8());
            let lane = |n: u32| v >> (16 * (order >> (2 * n) & 3)) & 0xffff;
            set(b, d, (0..4).map(|n| lane(n) << (16 * n)).sum());
        }
        M::Palignr => {
            let low = source(b, i, 1)?;
            let n = u32::from(i.immediate8());
            let both = u128::from(get(b, d)) << 64 | u128::from(low);
            set(b, d, if n < 16 { (both >> (8 * n)) as u64 } else { 0 });
        }
        M::Pextrw => {
            let v = get(b, i.op1_register()) >> (16 * (i.immediate8() & 3)) & 0xffff;
            write_reg(b, d, v);
        }
        M::Pinsrw => {
            let v = if is_memory(i, 1) {
                let a = address(b, i);
                b.load(W::B2, a)?
            } else {
                read_reg(b, i.op1_register()) & 0xffff
            };
            let at = 16 * (i.immediate8() & 3);
            let r = get(b, d) & !(0xffff << at) | v << at;
            set(b, d, r);
        }
        M::Pmovmskb => {
            let v = get(b, i.op1_register());
            write_reg(b, d, (0..8).map(|n| (v >> (8 * n + 7) & 1) << n).sum());
        }
        M::Maskmovq => {
            let (v, mask) = (get(b, d), get(b, i.op1_register()));
            let (v, mask) = if i.op_count() == 3 { (mask, get(b, i.op2_register())) } else { (v, mask) };
            let a = string_address(
                b,
                i,
                if i.op0_kind() == OpKind::MemorySegEDI { OpKind::MemoryESEDI } else { OpKind::MemoryESRDI },
            );
            for n in (0..8).filter(|n| mask >> (8 * n + 7) & 1 != 0) {
                b.store(W::B1, a.wrapping_add(n), v >> (8 * n) & 0xff)?;
            }
        }
        M::Cvtpi2ps | M::Cvtpi2pd | M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi => convert(b, i)?,
        _ => return arithmetic(b, i),
    }
    Ok(Flow::Next)
}

fn convert<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Result<(), Trap> {
    let d = i.op0_register();
    let (op, to) = match i.mnemonic() {
        M::Cvtpi2ps => (Cvt::IntToF(W::B4, W::B4), W::B4),
        M::Cvtpi2pd => (Cvt::IntToF(W::B4, W::B8), W::B8),
        M::Cvtps2pi => (Cvt::FToInt(W::B4, W::B4, false), W::B4),
        M::Cvttps2pi => (Cvt::FToInt(W::B4, W::B4, true), W::B4),
        M::Cvtpd2pi => (Cvt::FToInt(W::B8, W::B4, false), W::B4),
        _ => (Cvt::FToInt(W::B8, W::B4, true), W::B4),
    };
    let lanes = if matches!(op, Cvt::FToInt(W::B8, ..)) {
        let x = crate::sse::read_x(b, i, 1)?;
        [x as u64, (x >> 64) as u64]
    } else {
        let v = source(b, i, 1)?;
        [v & 0xffff_ffff, v >> 32]
    };
    let [x, y] = lanes.map(|v| fp::convert(op, &mut b.state.mxcsr, v));
    if to == W::B8 {
        b.state.xmm[d.number()] = u128::from(x) | u128::from(y) << 64;
    } else if d.is_xmm() {
        let r = &mut b.state.xmm[d.number()];
        *r = *r & !u128::from(u64::MAX) | u128::from(x | y << 32);
    } else {
        set(b, d, x | y << 32);
    }
    Ok(())
}

fn arithmetic<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Result<Flow<u64>, Trap> {
    let immediate = i.op1_kind() == OpKind::Immediate8;
    let code = i.code().op_code();
    let opcode = code.op_code() as u8;
    // Shifts by an immediate run as those by a register.
    let opcode = match (immediate, i.mnemonic()) {
        (false, _) => opcode,
        (_, M::Psrlw) => 0xd1,
        (_, M::Psrld) => 0xd2,
        (_, M::Psrlq) => 0xd3,
        (_, M::Psraw) => 0xe1,
        (_, M::Psrad) => 0xe2,
        (_, M::Psllw) => 0xf1,
        (_, M::Pslld) => 0xf2,
        _ => 0xf3,
    };
    let y = if immediate { u64::from(i.immediate8()) } else { source(b, i, 1)? };
    let number = match (code.table(), opcode) {
        (OpCodeTableKind::T0F, 0x60..) => opcode - 0x60,
        (OpCodeTableKind::T0F38, 0..0x20) => 0xa0 + opcode,
        _ => return Ok(Flow::Unknown),
    };
    let d = i.op0_register();
    let r = run(number, get(b, d), y);
    set(b, d, r);
    Ok(Flow::Next)
}
