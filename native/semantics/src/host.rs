//! Instructions that only the interpreter runs: CPUID and the other queries, FXSAVE and MXCSR,
//! 16-byte compare-exchange, approximations, ENTER, and the x87 set.

use crate::backend::{Backend, Flow, W};
use crate::flags::set_flag;
use crate::interp::{Interp, Text};
use crate::operand::{address, is_memory, string_address};
use crate::sse::{read_low, read_x, xmm_index};
use crate::{fp, memory, mmx, x87};
use iced_x86::{Instruction, MemorySize, Mnemonic as M, OpKind, Register};
use vkernel_abi::generated::cpu;
use vkernel_abi::state::{RAX, RBP, RBX, RCX, RDX, RSP, ZF};
use vkernel_abi::wasm::Trap;

type Done = Result<Flow<u64>, Trap>;

/// Bits of MXCSR that exist (MXCSR_MASK with DAZ).
const MXCSR_MASK: u32 = 0xffff;

pub fn exec<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Cpuid => {
            let [a, x, c, d] = cpuid(b.state.gpr[RAX] as u32, b.state.gpr[RCX] as u32);
            for (r, v) in [(RAX, a), (RBX, x), (RCX, c), (RDX, d)] {
                b.state.gpr[r] = u64::from(v);
            }
        }
        M::Rdtsc => {
            // SAFETY: RDTSC is available to user code on Linux.
            let v = unsafe { std::arch::x86_64::_rdtsc() };
            b.state.gpr[RAX] = v & 0xffff_ffff;
            b.state.gpr[RDX] = v >> 32;
        }
        M::Cmpxchg8b => return cmpxchg8b(b, i),
        M::Cmpxchg16b => return cmpxchg16b(b, i),
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
        M::Stmxcsr => {
            let a = address(b, i);
            b.store(W::B4, a, u64::from(b.state.mxcsr))?;
        }
        M::Ldmxcsr => {
            let a = address(b, i);
            let v = b.load(W::B4, a)? as u32;
            if v & !MXCSR_MASK != 0 {
                return Err(Trap::Protection);
            }
            b.state.mxcsr = v;
        }
        M::Rcpps | M::Rsqrtps | M::Rcpss | M::Rsqrtss => {
            let scalar = matches!(i.mnemonic(), M::Rcpss | M::Rsqrtss);
            let root = matches!(i.mnemonic(), M::Rsqrtps | M::Rsqrtss);
            let y = if scalar { u128::from(read_low(b, i, 1, W::B4)?) } else { read_x(b, i, 1)? };
            let d = xmm_index(i.op0_register());
            let x = b.state.xmm[d];
            b.state.xmm[d] = fp::approximate(root, scalar, &mut b.state.mxcsr, x, y);
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
        _ if mmx::is_mmx(i) => return mmx::exec(b, i),
        _ => return x87(b, i),
    }
    Ok(Flow::Next)
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

fn cmpxchg8b<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Done {
    let a = address(b, i);
    let g = b.state.gpr;
    let pair = |hi: u64, lo: u64| (hi << 32) | (lo & 0xffff_ffff);
    let (expected, new) = (pair(g[RDX], g[RAX]), pair(g[RCX], g[RBX]));
    let old = b.cmpxchg(W::B8, a, expected, new)?;
    if old != expected {
        b.state.gpr[RAX] = old & 0xffff_ffff;
        b.state.gpr[RDX] = old >> 32;
    }
    set_flag(b, ZF, u64::from(old == expected));
    Ok(Flow::Next)
}

fn cmpxchg16b<T: Text>(b: &mut Interp<T>, i: &Instruction) -> Done {
    let a = aligned(b, i)?;
    let g = b.state.gpr;
    let mut pair = [g[RAX], g[RDX], g[RBX], g[RCX]];
    // SAFETY: covered by the fix-up table.
    let r = unsafe { memory::vk_cas128(b.at(a), &mut pair) };
    let exchanged = b.access(a, r)?;
    if exchanged == 0 {
        b.state.gpr[RAX] = pair[0];
        b.state.gpr[RDX] = pair[1];
    }
    set_flag(b, ZF, exchanged);
    Ok(Flow::Next)
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
