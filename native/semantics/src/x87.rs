//! x87 on the host's own x87 unit: the guest's FXSAVE image is loaded, the very opcode runs, the
//! image is saved again. Every result, tag, flag and stack fault is therefore the CPU's.
//!
//! The state has the registers by their physical numbers, so that translated code pushes and pops without
//! moving them; an FXSAVE image has them by their distance from the top (`to_image`, `from_image`).
//!
//! One stub for each register form (D8–DF × C0–FF) and each memory form (D8–DF × /0–7), 64 bytes
//! apart. A pending unmasked exception is reported at the next waiting instruction, as the CPU does
//! (SDM vol. 1, 8.6).

use std::arch::global_asm;
use vkernel_abi::state::CpuState;

global_asm!(
    ".pushsection .text.vk_x87,\"ax\",@progbits",
    ".globl vk_x87_reg, vk_x87_mem",
    // (rdi: fx image, rsi: RFLAGS in and out)
    ".p2align 6",
    "vk_x87_reg:",
    ".set vk_op, 0xd8",
    ".rept 8",
    ".set vk_modrm, 0xc0",
    ".rept 64",
    ".p2align 6",
    "fxrstor64 [rdi]",
    "push qword ptr [rsi]",
    "popfq",
    ".byte vk_op, vk_modrm",
    "pushfq",
    "pop qword ptr [rsi]",
    "fxsave64 [rdi]",
    "ret",
    ".set vk_modrm, vk_modrm + 1",
    ".endr",
    ".set vk_op, vk_op + 1",
    ".endr",
    // (rdi: fx image, rsi: operand)
    ".p2align 6",
    "vk_x87_mem:",
    ".set vk_op, 0xd8",
    ".rept 8",
    ".set vk_modrm, 0x06",
    ".rept 8",
    ".p2align 6",
    "fxrstor64 [rdi]",
    ".byte vk_op, vk_modrm",
    "fxsave64 [rdi]",
    "ret",
    ".set vk_modrm, vk_modrm + 8",
    ".endr",
    ".set vk_op, vk_op + 1",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    fn vk_x87_reg();
    fn vk_x87_mem();
}

/// The arithmetic flags and DF: what FCMOV reads and FCOMI writes.
const STUB_FLAGS: u64 = 0x8d5;

fn control(fx: &[u8; 512]) -> u16 {
    u16::from_le_bytes([fx[0], fx[1]])
}

pub fn status(fx: &[u8; 512]) -> u16 {
    u16::from_le_bytes([fx[2], fx[3]])
}

/// True when an exception flag is set that the control word does not mask.
pub fn pending(fx: &[u8; 512]) -> bool {
    status(fx) & !control(fx) & 0x3f != 0
}

pub fn top(fx: &[u8; 512]) -> usize {
    usize::from(fx[3] >> 3 & 7)
}

/// The registers of the state in an image's order.
pub fn to_image(fx: &mut [u8; 512]) {
    let n = 16 * top(fx);
    fx[32..160].rotate_left(n);
}

/// The registers of an image in the state's order.
pub fn from_image(fx: &mut [u8; 512]) {
    let n = 16 * top(fx);
    fx[32..160].rotate_right(n);
}

/// Runs `run` on the guest's image, under the guest's own exception masks: an unmasked one leaves the
/// operands alone and stays pending, and none of the stubs' other instructions waits for it. The image's
/// XMM area, which is not the guest's, is overwritten.
fn with_image(fx: &mut [u8; 512], run: impl FnOnce(*mut u8)) {
    assert!(fx.as_ptr().addr().is_multiple_of(16), "FXSAVE wants 16 bytes' alignment, which CpuState gives");
    // The host's MXCSR travels in the image as well: keep it at the default.
    fx[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    to_image(fx);
    run(fx.as_mut_ptr());
    from_image(fx);
}

/// Calls a stub, telling the compiler that everything FXRSTOR loads is lost.
fn call(stub: usize, fx: *mut u8, second: *mut u8) {
    // SAFETY: the stub reads and writes only the image, its operand and caller-saved registers.
    unsafe {
        std::arch::asm!(
            "call {stub}",
            stub = in(reg) stub,
            inout("rdi") fx => _,
            inout("rsi") second => _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    // SAFETY: leaves the host's x87 unit empty and with its default control word.
    unsafe { std::arch::asm!("fninit", options(nostack)) };
}

/// Runs a register form; `opcode` D8–DF, `modrm` C0–FF.
pub fn register(state: &mut CpuState, opcode: u8, modrm: u8) {
    let stub = vk_x87_reg as *const () as usize + (usize::from(opcode - 0xd8) * 64 + usize::from(modrm - 0xc0)) * 64;
    let mut flags = state.rflags() & STUB_FLAGS | 2;
    with_image(&mut state.fx, |p| call(stub, p, (&raw mut flags).cast()));
    let kept = state.rflags() & !STUB_FLAGS;
    state.set_rflags(kept | flags & STUB_FLAGS);
}

/// Runs a memory form on a host copy of the operand (at least 112 bytes).
pub fn memory(state: &mut CpuState, opcode: u8, reg: u8, operand: &mut [u8; 128]) {
    let stub = vk_x87_mem as *const () as usize + (usize::from(opcode - 0xd8) * 8 + usize::from(reg)) * 64;
    with_image(&mut state.fx, |p| call(stub, p, operand.as_mut_ptr()));
}

/// Remembers where the last non-control instruction was (FIP, FOP) and its operand (FDP), which
/// FNSTENV and FXSAVE show to the guest.
pub fn set_last(fx: &mut [u8; 512], fop: u16, ip: u64, operand: Option<u64>) {
    fx[6..8].copy_from_slice(&(fop & 0x7ff).to_le_bytes());
    fx[8..16].copy_from_slice(&ip.to_le_bytes());
    if let Some(a) = operand {
        fx[16..24].copy_from_slice(&a.to_le_bytes());
    }
}
