//! Instructions that only the interpreter runs: FXSAVE, MASKMOVDQU, ENTER, MMX, and of the x87 set what
//! x87_values.rs leaves.

use crate::backend::{Backend, Flow, W};
use crate::host_ops::MXCSR_MASK;
use crate::interp::{Interp, Text};
use crate::operand::{address, is_memory, string_address};
use crate::sse::xmm_index;
use crate::{mmx, x87};
use iced_x86::{Instruction, MemorySize, Mnemonic as M, OpKind, Register};
use vkernel_abi::state::{RBP, RSP};
use vkernel_abi::wasm::Trap;

type Done = Result<Flow<u64>, Trap>;

pub fn exec<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Fxsave | M::Fxsave64 => {
            let a = aligned(b, i)?;
            let image = fxsave(b.state);
            b.copy_out(a, &image[..416])?;
        }
        M::Fxrstor | M::Fxrstor64 => {
            let a = aligned(b, i)?;
            let mut image = [0; 512];
            b.copy_in(&mut image, a)?;
            if !fxrstor(b.state, &image) {
                return Err(Trap::Protection);
            }
        }
        M::Maskmovdqu => {
            let (v, mask) = (b.xmm(xmm_index(i.op1_register())), b.xmm(xmm_index(i.op2_register())));
            let a = string_address(b, i, OpKind::MemoryESRDI);
            for (n, (v, m)) in v.to_le_bytes().into_iter().zip(mask.to_le_bytes()).enumerate() {
                if m & 0x80 != 0 {
                    b.store(W::B1, a.wrapping_add(n as u64), u64::from(v))?;
                }
            }
        }
        M::Enter => return enter(b, i),
        M::Wait if x87::pending(&b.state.fx) => return Err(Trap::X87),
        M::Wait => {}
        _ if mmx::is_mmx(i) => return mmx::exec(b, i),
        _ => return x87(b, i),
    }
    Ok(Flow::Next)
}

fn aligned<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Result<u64, Trap> {
    let a = address(b, i);
    if a & 15 == 0 { Ok(a) } else { Err(Trap::Protection) }
}

/// The FXSAVE64 image of the state; also the floating-point part of a signal frame.
pub fn fxsave(state: &vkernel_abi::state::CpuState) -> [u8; 512] {
    let mut image = state.fx;
    x87::to_image(&mut image);
    image[24..28].copy_from_slice(&state.mxcsr.to_le_bytes());
    image[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    for (n, x) in state.xmm.iter().enumerate() {
        image[160 + n * 16..][..16].copy_from_slice(&x.to_le_bytes());
    }
    image[416..].fill(0);
    image
}

/// Loads an FXSAVE64 image; false (nothing changed) when MXCSR has reserved bits set.
pub fn fxrstor(state: &mut vkernel_abi::state::CpuState, image: &[u8; 512]) -> bool {
    let mxcsr = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
    if mxcsr & !MXCSR_MASK != 0 {
        return false;
    }
    state.fx[..160].copy_from_slice(&image[..160]);
    x87::from_image(&mut state.fx);
    state.mxcsr = mxcsr;
    for (n, x) in state.xmm.iter_mut().enumerate() {
        *x = u128::from_le_bytes(image[160 + n * 16..][..16].try_into().expect("16 bytes"));
    }
    true
}

/// ENTER (SDM vol. 2), 64-bit operand size.
fn enter<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Done {
    let (size, level) = (i.immediate(0), i.immediate(1) & 31);
    let frame = b.state.gpr[RSP].wrapping_sub(8);
    b.store(W::B8, frame, b.state.gpr[RBP])?;
    let mut rsp = frame;
    for n in 1..level {
        let v = b.load(W::B8, b.state.gpr[RBP].wrapping_sub(8 * n))?;
        rsp = rsp.wrapping_sub(8);
        b.store(W::B8, rsp, v)?;
    }
    if level > 0 {
        rsp = rsp.wrapping_sub(8);
        b.store(W::B8, rsp, frame)?;
    }
    b.state.gpr[RBP] = frame;
    b.state.gpr[RSP] = rsp.wrapping_sub(size);
    Ok(Flow::Next)
}

enum Operand {
    Read(usize),
    Write(usize),
}

/// Size and direction of an x87 memory operand by opcode and ModRM.reg (SDM vol. 2, table A-7 on).
fn memory_form(opcode: u8, reg: u8) -> Option<Operand> {
    use Operand::{Read, Write};
    Some(match (opcode, reg) {
        (0xd8 | 0xda, _) => Read(4),
        (0xdc, _) => Read(8),
        (0xde, _) => Read(2),
        (0xd9, 0) => Read(4),
        (0xd9, 2 | 3) => Write(4),
        (0xd9, 4) => Read(28),
        (0xd9, 5) => Read(2),
        (0xd9, 6) => Write(28),
        (0xd9, 7) => Write(2),
        (0xdb, 0) => Read(4),
        (0xdb, 1..=3) => Write(4),
        (0xdb, 5) => Read(10),
        (0xdb, 7) => Write(10),
        (0xdd, 0) => Read(8),
        (0xdd, 1..=3) => Write(8),
        (0xdd, 4) => Read(108),
        (0xdd, 6) => Write(108),
        (0xdd, 7) => Write(2),
        (0xdf, 0) => Read(2),
        (0xdf, 1..=3) => Write(2),
        (0xdf, 4) => Read(10),
        (0xdf, 5) => Read(8),
        (0xdf, 6) => Write(10),
        (0xdf, 7) => Write(8),
        _ => return None,
    })
}

fn x87<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Done {
    let mut bytes = [0u8; 15];
    b.copy_in(&mut bytes[..i.len()], i.ip())?;
    let is_prefix = |v: &u8| matches!(v, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0x9b | 0xf2 | 0xf3);
    let at = bytes.iter().position(|v| !is_prefix(v)).unwrap_or(0);
    let (opcode, modrm) = (bytes[at], bytes[at + 1]);
    if !(0xd8..=0xdf).contains(&opcode) {
        return Ok(Flow::Unknown);
    }
    if matches!(i.memory_size(), MemorySize::FpuEnv14 | MemorySize::FpuState94) {
        return Ok(Flow::Unknown);
    }
    let waits = !matches!(i.mnemonic(), M::Fninit | M::Fnstcw | M::Fnstsw | M::Fnstenv | M::Fnsave | M::Fnclex);
    if waits && x87::pending(&b.state.fx) {
        return Err(Trap::X87);
    }
    let control = !waits || matches!(i.mnemonic(), M::Fldcw | M::Fldenv | M::Frstor);
    let fop = u16::from(opcode & 7) << 8 | u16::from(modrm);
    let mut last = None;
    if modrm >= 0xc0 {
        crate::flags::flush_flags(b);
        // FNSTSW AX is the one register form that writes a general register.
        if i.mnemonic() == M::Fnstsw {
            let v = u64::from(u16::from_le_bytes([b.state.fx[2], b.state.fx[3]]));
            crate::operand::write_reg(b, Register::AX, v);
            return Ok(Flow::Next);
        }
        x87::register(b.state, opcode, modrm);
    } else {
        let reg = (modrm >> 3) & 7;
        if !is_memory(i, 0) && !is_memory(i, 1) {
            return Ok(Flow::Unknown);
        }
        let a = address(b, i);
        let mut operand = [0u8; 128];
        match memory_form(opcode, reg) {
            None => return Ok(Flow::Trap(Trap::Invalid)),
            Some(Operand::Read(n)) => {
                b.copy_in(&mut operand[..n], a)?;
                x87::memory(b.state, opcode, reg, &mut operand);
            }
            Some(Operand::Write(n)) => {
                let before = b.state.fx;
                // An instruction that an unmasked exception stops does not store.
                b.copy_in(&mut operand[..n], a)?;
                x87::memory(b.state, opcode, reg, &mut operand);
                if let Err(trap) = b.copy_out(a, &operand[..n]) {
                    b.state.fx = before;
                    return Err(trap);
                }
            }
        }
        last = Some(a);
    }
    if !control {
        x87::set_last(&mut b.state.fx, fop, i.ip(), last);
    }
    Ok(Flow::Next)
}
