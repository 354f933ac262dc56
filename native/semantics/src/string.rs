//! String instructions. The lifter has loops of its own for the REP forms (all but LODS), and leaves those
//! with a segment or 32-bit addresses to the interpreter, which runs the whole repetition as one step; there
//! every iteration leaves the registers exact, so a fault in the middle is restartable (SDM vol. 2, REP).

use crate::backend::{Backend, Bin, Flow, Lazy, W};
use crate::exec::Done;
use crate::flags::get_flag;
use crate::operand::{string_address, width_of_bytes};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use vkernel_abi::state::{DF, RAX, RCX, RDI, RSI, ZF};

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Movs,
    Stos,
    Lods,
    Scas,
    Cmps,
}

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    use Mnemonic as M;
    let op = match i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => Op::Movs,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => Op::Stos,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Op::Lods,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => Op::Scas,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => Op::Cmps,
        _ => return Ok(Flow::Trap(vkernel_abi::wasm::Trap::Protection)),
    };
    let Some(w) = width_of_bytes(i.memory_size().size()) else {
        return Ok(Flow::Unknown);
    };
    if !(i.has_rep_prefix() || i.has_repne_prefix()) {
        once(b, i, op, w)?;
        return Ok(Flow::Next);
    }
    let short = short_address(i);
    if !B::INTERPRETER {
        if short || op == Op::Lods || i.has_segment_prefix() {
            return Ok(Flow::Step);
        }
        match op {
            Op::Movs | Op::Stos => b.repeat(op == Op::Movs, w)?,
            _ => b.repeat_compare(op == Op::Scas, w, i.has_repne_prefix())?,
        }
        return Ok(Flow::Next);
    }
    loop {
        let count = b.reg(RCX);
        let count = if short { b.trunc(W::B4, count) } else { count };
        if b.known(count) == Some(0) {
            return Ok(Flow::Next);
        }
        once(b, i, op, w)?;
        let one = b.c(1);
        let left = b.bin(Bin::Sub, if short { W::B4 } else { W::B8 }, count, one);
        b.set_reg(RCX, left);
        if matches!(op, Op::Scas | Op::Cmps) {
            let z = get_flag(b, ZF);
            if (b.known(z) == Some(1)) == i.has_repne_prefix() {
                return Ok(Flow::Next);
            }
        }
    }
}

fn short_address(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| matches!(i.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI))
}

/// One iteration.
fn once<B: Backend>(b: &mut B, i: &Instruction, op: Op, w: W) -> Result<(), B::Fault> {
    let short = short_address(i);
    let (si, di) =
        if short { (OpKind::MemorySegESI, OpKind::MemoryESEDI) } else { (OpKind::MemorySegRSI, OpKind::MemoryESRDI) };
    let accumulator = match w {
        W::B1 => Register::AL,
        W::B2 => Register::AX,
        W::B4 => Register::EAX,
        W::B8 => Register::RAX,
    };
    match op {
        Op::Movs => {
            let from = string_address(b, i, si);
            let v = b.load(w, from)?;
            let to = string_address(b, i, di);
            b.store(w, to, v)?;
        }
        Op::Stos => {
            let rax = b.reg(RAX);
            let v = b.trunc(w, rax);
            let to = string_address(b, i, di);
            b.store(w, to, v)?;
        }
        Op::Lods => {
            let from = string_address(b, i, si);
            let v = b.load(w, from)?;
            crate::operand::write_reg(b, accumulator, v);
        }
        Op::Scas | Op::Cmps => {
            let x = if op == Op::Scas {
                crate::operand::read_reg(b, accumulator)
            } else {
                let from = string_address(b, i, si);
                b.load(w, from)?
            };
            let to = string_address(b, i, di);
            let y = b.load(w, to)?;
            let r = b.bin(Bin::Sub, w, x, y);
            *b.lazy() = Some(Lazy::Sub { w, a: x, b: y, r });
        }
    }
    let df = b.stored_flag(DF);
    let down = b.c(u64::from(w.bytes()).wrapping_neg());
    let up = b.c(u64::from(w.bytes()));
    let delta = b.select(df, down, up);
    for (r, used) in [(RSI, !matches!(op, Op::Stos | Op::Scas)), (RDI, op != Op::Lods)] {
        if used {
            let v = b.reg(r);
            let v = b.bin(Bin::Add, W::B8, v, delta);
            let v = if short { b.trunc(W::B4, v) } else { v };
            b.set_reg(r, v);
        }
    }
    Ok(())
}
