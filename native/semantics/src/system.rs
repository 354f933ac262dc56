//! MXCSR, CPUID, RDTSC, and the compare-exchanges of register pairs.

use crate::backend::{Backend, Bin, Flow, W};
use crate::exec::Done;
use crate::flags::{flush_flags, set_flag};
use crate::host_ops::form;
use crate::operand::address;
use iced_x86::{Instruction, Mnemonic as M};
use vkernel_abi::state::{RAX, RBX, RCX, RDX, ZF};

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    match i.mnemonic() {
        M::Stmxcsr => {
            let a = address(b, i);
            let v = b.mxcsr();
            b.store(W::B4, a, v)?;
        }
        M::Ldmxcsr => {
            let a = address(b, i);
            let v = b.load(W::B4, a)?;
            b.set_mxcsr(v)?;
        }
        M::Cpuid => b.cpuid(),
        M::Rdtsc => {
            let none = b.c(0);
            let v = b.host(form::RDTSC, none, none);
            let low = b.trunc(W::B4, v);
            let half = b.c(32);
            let high = b.bin(Bin::ShrU, W::B8, v, half);
            b.set_reg(RAX, low);
            b.set_reg(RDX, high);
        }
        M::Cmpxchg16b => {
            let a = address(b, i);
            let exchanged = b.cmpxchg16b(a)?;
            flush_flags(b);
            b.store_flag(ZF, exchanged);
        }
        _ => cmpxchg8b(b, i)?,
    }
    Ok(Flow::Next)
}

fn cmpxchg8b<B: Backend>(b: &mut B, i: &Instruction) -> Result<(), B::Fault> {
    let a = address(b, i);
    let half = b.c(32);
    let pair = |b: &mut B, high, low| {
        let high = b.reg(high);
        let high = b.bin(Bin::Shl, W::B8, high, half);
        let low = b.reg(low);
        let low = b.trunc(W::B4, low);
        b.bin(Bin::Or, W::B8, high, low)
    };
    let expected = pair(b, RDX, RAX);
    let new = pair(b, RCX, RBX);
    let old = b.cmpxchg(W::B8, a, expected, new)?;
    let equal = b.bin(Bin::Eq, W::B8, old, expected);
    // Exchanged, the registers keep even their upper halves.
    let low = b.trunc(W::B4, old);
    let high = b.bin(Bin::ShrU, W::B8, old, half);
    for (r, v) in [(RAX, low), (RDX, high)] {
        let own = b.reg(r);
        let v = b.select(equal, own, v);
        b.set_reg(r, v);
    }
    set_flag(b, ZF, equal);
    Ok(())
}
