//! The SSE control and status register at the border between the guest's code and the host's.

use vkernel_abi::state::CpuState;

/// MXCSR of host code.
const HOST_MXCSR: u32 = 0x1f80;

fn load_mxcsr(v: u32) {
    // SAFETY: no reserved bit is set: the guest's value was checked when it was loaded.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &v, options(nostack, readonly)) };
}

/// Translated code runs under the guest's MXCSR, exceptions masked (docs/quirks.md).
pub fn to_guest(s: &CpuState) {
    load_mxcsr(s.mxcsr & 0xffff | HOST_MXCSR);
}

/// Back in host code: takes the exception flags over.
pub fn from_guest(s: &mut CpuState) {
    let mut v = 0u32;
    // SAFETY: writes the local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack)) };
    s.mxcsr |= v & 0x3f;
    load_mxcsr(HOST_MXCSR);
}
