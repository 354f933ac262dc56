//! `CpuState`: the home of every guest register, one per guest thread.
//!
//! It is the first bytes of wasm memory 1 of every instance of the thread, so translated code
//! reaches it with constant addresses, and the interpreter and the loader with a plain pointer.
//! Invariant: whenever control is outside translated code (a host call, a trap, the dispatcher),
//! the state is complete, except that a trap may have lost what was in wasm locals.

/// General registers in x86 encoding order (SDM vol. 2, table 3-1): rax rcx rdx rbx rsp rbp rsi rdi r8…r15.
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;
pub const R8: usize = 8;
pub const R9: usize = 9;
pub const R10: usize = 10;
pub const R11: usize = 11;

/// Flags, one byte-sized truth value (0 or 1) each in a u32, in this order in `CpuState::flags`.
pub const CF: usize = 0;
pub const PF: usize = 1;
pub const AF: usize = 2;
pub const ZF: usize = 3;
pub const SF: usize = 4;
pub const OF: usize = 5;
pub const DF: usize = 6;
pub const FLAG_COUNT: usize = 7;
/// Bit of each flag in RFLAGS, same order.
pub const FLAG_BITS: [u32; FLAG_COUNT] = [0, 2, 4, 6, 7, 11, 10];

/// Layout: gpr u64×16 @0, rip u64 @128, flags u32×7 @136, poll u32 @164, fs_base u64 @168,
/// gs_base u64 @176, mxcsr u32 @184, fault_addr u64 @192, executed u64 @200, xmm u128×16 @208, fx u8×512 @464,
/// operands u128×2 @976.
#[repr(C, align(16))]
pub struct CpuState {
    pub gpr: [u64; 16],
    pub rip: u64,
    pub flags: [u32; FLAG_COUNT],
    /// Non-zero when translated code shall call `poll` at its next loop back-edge.
    /// Written by host signal handlers: access atomically.
    pub poll: u32,
    pub fs_base: u64,
    pub gs_base: u64,
    pub mxcsr: u32,
    pub reserved: u32,
    /// Guest address of the last memory fault, valid while a fault is being reported.
    pub fault_addr: u64,
    /// Instructions executed by translated code, counted by images that are built for it (`--count`).
    pub executed: u64,
    pub xmm: [u128; 16],
    /// The x87/MMX state as in an FXSAVE64 image (its XMM area is unused), but with the registers by
    /// their physical numbers: ST(n) is number (TOP + n) & 7, and MMn is number n.
    pub fx: [u8; 512],
    /// Vectors that the `host` import takes; the first is also its result.
    pub operands: [u128; 2],
}

pub const OFF_GPR: u32 = 0;
pub const OFF_RIP: u32 = 128;
pub const OFF_FLAGS: u32 = 136;
pub const OFF_POLL: u32 = 164;
pub const OFF_FS_BASE: u32 = 168;
pub const OFF_GS_BASE: u32 = 176;
pub const OFF_MXCSR: u32 = 184;
pub const OFF_EXECUTED: u32 = 200;
pub const OFF_XMM: u32 = 208;
pub const OFF_FX: u32 = 464;
pub const OFF_OPERANDS: u32 = 976;
/// In the x87 state: control, status and tag words (a bit a register, set when valid), registers.
pub const OFF_X87_CONTROL: u32 = OFF_FX;
pub const OFF_X87_STATUS: u32 = OFF_FX + 2;
pub const OFF_X87_TAGS: u32 = OFF_FX + 4;
pub const OFF_X87_REGISTERS: u32 = OFF_FX + 32;

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(CpuState, gpr) == OFF_GPR as usize);
    assert!(offset_of!(CpuState, rip) == OFF_RIP as usize);
    assert!(offset_of!(CpuState, flags) == OFF_FLAGS as usize);
    assert!(offset_of!(CpuState, poll) == OFF_POLL as usize);
    assert!(offset_of!(CpuState, fs_base) == OFF_FS_BASE as usize);
    assert!(offset_of!(CpuState, gs_base) == OFF_GS_BASE as usize);
    assert!(offset_of!(CpuState, mxcsr) == OFF_MXCSR as usize);
    assert!(offset_of!(CpuState, executed) == OFF_EXECUTED as usize);
    assert!(offset_of!(CpuState, xmm) == OFF_XMM as usize);
    assert!(offset_of!(CpuState, fx) == OFF_FX as usize);
    assert!(offset_of!(CpuState, operands) == OFF_OPERANDS as usize);
    assert!(size_of::<CpuState>() <= 4096);
};

impl CpuState {
    /// The state Linux gives a new process (x86-64 psABI 3.4.1): MXCSR 0x1f80, x87 control word 0x37f.
    pub fn new() -> Self {
        let mut fx = [0u8; 512];
        fx[0] = 0x7f;
        fx[1] = 0x03;
        fx[24] = 0x80;
        fx[25] = 0x1f;
        Self {
            gpr: [0; 16],
            rip: 0,
            flags: [0; FLAG_COUNT],
            poll: 0,
            fs_base: 0,
            gs_base: 0,
            mxcsr: 0x1f80,
            reserved: 0,
            fault_addr: 0,
            executed: 0,
            xmm: [0; 16],
            fx,
            operands: [0; 2],
        }
    }

    /// RFLAGS with IF and the always-one bit set, as user code reads it.
    pub fn rflags(&self) -> u64 {
        let mut v = 0x202u64;
        for (i, bit) in FLAG_BITS.iter().enumerate() {
            v |= u64::from(self.flags[i] & 1) << bit;
        }
        v
    }

    pub fn set_rflags(&mut self, v: u64) {
        for (i, bit) in FLAG_BITS.iter().enumerate() {
            self.flags[i] = ((v >> bit) & 1) as u32;
        }
    }
}

impl Default for CpuState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rflags_round_trip() {
        let mut s = CpuState::new();
        s.set_rflags(0x8d5 | 0x400);
        assert_eq!(s.flags, [1; FLAG_COUNT]);
        assert_eq!(s.rflags(), 0xed7 | 0x200);
    }
}
