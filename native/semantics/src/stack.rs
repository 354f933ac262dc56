//! Stack operations, calls, returns, loops.

use crate::backend::{Backend, Bin, Flow, Un, W};
use crate::exec::Done;
use crate::flags::{flush_flags, get_flag};
use crate::int::store_bit;
use crate::operand::{op_width, read, write, write_reg};
use iced_x86::{Instruction, Mnemonic, OpKind};
use vkernel_abi::state::{DF, FLAG_BITS, RBP, RCX, RSP, ZF};

/// Pushes `v`; rsp changes only when the store has succeeded.
fn push_value<B: Backend>(b: &mut B, w: W, v: B::V) -> Result<(), B::Fault> {
    let rsp = b.reg(RSP);
    let n = b.c(u64::from(w.bytes()));
    let a = b.bin(Bin::Sub, W::B8, rsp, n);
    b.store(w, a, v)?;
    b.set_reg(RSP, a);
    Ok(())
}

fn pop_value<B: Backend>(b: &mut B, w: W) -> Result<B::V, B::Fault> {
    let rsp = b.reg(RSP);
    let v = b.load(w, rsp)?;
    let n = b.c(u64::from(w.bytes()));
    let a = b.bin(Bin::Add, W::B8, rsp, n);
    b.set_reg(RSP, a);
    Ok(v)
}

/// The operand size of PUSH and POP: the stack pointer's step, also for immediates.
fn step(i: &Instruction) -> W {
    if i.stack_pointer_increment().unsigned_abs() == 2 { W::B2 } else { W::B8 }
}

pub fn push<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let w = step(i);
    let v = match i.op0_kind() {
        OpKind::Register if !i.op0_register().is_gpr() => b.c(0),
        OpKind::Register | OpKind::Memory => read(b, i, 0)?,
        _ => b.c(i.immediate(0) & w.mask()),
    };
    push_value(b, w, v)?;
    Ok(Flow::Next)
}

/// POP: a memory destination is addressed with the rsp after the pop (SDM vol. 2, POP).
pub fn pop<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let old = b.reg(RSP);
    let v = pop_value(b, step(i))?;
    if i.op0_kind() == OpKind::Register {
        write_reg(b, i.op0_register(), v);
    } else if let Err(fault) = write(b, i, 0, v) {
        b.set_reg(RSP, old);
        return Err(fault);
    }
    Ok(Flow::Next)
}

/// RFLAGS as user code reads them: IF and bit 1 set.
pub fn rflags<B: Backend>(b: &mut B) -> B::V {
    let mut v = b.c(0x202);
    for (f, bit) in FLAG_BITS.iter().enumerate() {
        let x = if f == DF { b.stored_flag(DF) } else { get_flag(b, f) };
        let s = b.c(u64::from(*bit));
        let x = b.bin(Bin::Shl, W::B8, x, s);
        v = b.bin(Bin::Or, W::B8, v, x);
    }
    v
}

pub fn pushf<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = rflags(b);
    let v = b.trunc(step(i), v);
    push_value(b, step(i), v)?;
    Ok(Flow::Next)
}

pub fn popf<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = pop_value(b, step(i))?;
    flush_flags(b);
    for (f, bit) in FLAG_BITS.iter().enumerate() {
        store_bit(b, f, v, u64::from(*bit));
    }
    Ok(Flow::Next)
}

pub fn leave<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let short = i.code() == iced_x86::Code::Leavew;
    let rbp = b.reg(RBP);
    let v = b.load(if short { W::B2 } else { W::B8 }, rbp)?;
    let n = b.c(if short { 2 } else { 8 });
    let a = b.bin(Bin::Add, W::B8, rbp, n);
    b.set_reg(RSP, a);
    write_reg(b, if short { iced_x86::Register::BP } else { iced_x86::Register::RBP }, v);
    Ok(Flow::Next)
}

pub fn call<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let target = match i.op0_kind() {
        OpKind::NearBranch64 => None,
        OpKind::Register | OpKind::Memory if op_width(i, 0) == W::B8 => Some(read(b, i, 0)?),
        _ => return Ok(Flow::Unknown),
    };
    let next = b.c(i.next_ip());
    push_value(b, W::B8, next)?;
    Ok(match target {
        None => Flow::Call(i.near_branch64()),
        Some(v) => Flow::CallTo(v),
    })
}

pub fn ret<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = pop_value(b, W::B8)?;
    if i.op_count() == 1 {
        let rsp = b.reg(RSP);
        let n = b.c(i.immediate(0));
        let rsp = b.bin(Bin::Add, W::B8, rsp, n);
        b.set_reg(RSP, rsp);
    }
    Ok(Flow::Ret(v))
}

/// JRCXZ, JECXZ, LOOP, LOOPE, LOOPNE.
pub fn loop_branch<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use Mnemonic as M;
    let rcx = b.reg(RCX);
    let short = i.code().op_code().address_size() == 32;
    let w = if short { W::B4 } else { W::B8 };
    let target = i.near_branch64();
    if matches!(i.mnemonic(), M::Jrcxz | M::Jecxz) {
        let v = b.trunc(w, rcx);
        let cond = b.un(Un::Eqz, w, v);
        return Ok(Flow::Branch { cond, target });
    }
    let one = b.c(1);
    let v = b.trunc(w, rcx);
    let v = b.bin(Bin::Sub, w, v, one);
    b.set_reg(RCX, v);
    let zero = b.un(Un::Eqz, w, v);
    let mut cond = b.un(Un::Eqz, W::B4, zero);
    if i.mnemonic() != M::Loop {
        let mut z = get_flag(b, ZF);
        if i.mnemonic() == M::Loopne {
            z = b.un(Un::Eqz, W::B4, z);
        }
        cond = b.bin(Bin::And, W::B4, cond, z);
    }
    Ok(Flow::Branch { cond, target })
}
