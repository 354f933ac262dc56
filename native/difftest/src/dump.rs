//! Every program ends by jumping to `dump`, a guest function that stores all registers and flags and
//! leaves by EXIT. So a backend is seen only through what its own code stores, and everything is live
//! at the end of every program.

use crate::area::{DUMP, DUMP_LEN, EXIT, bytes};
use vkernel_abi::state::CpuState;

const XMM: usize = 128;
const FLAGS: usize = 384;

fn absolute(c: &mut Vec<u8>, opcode: &[u8], r: usize, wide: u8, off: usize) {
    c.push(wide | if r >= 8 { 0x44 } else { 0x40 });
    c.extend(opcode);
    c.extend([0x04 | ((r & 7) << 3) as u8, 0x25]);
    c.extend((DUMP as u32 + off as u32).to_le_bytes());
}

/// The code of `dump` at `at`.
pub fn code(at: u64) -> Vec<u8> {
    let mut c = Vec::new();
    for r in 0..16 {
        absolute(&mut c, &[0x89], r, 0x48, 8 * r);
    }
    for r in 0..16 {
        absolute(&mut c, &[0x0f, 0x11], r, 0x40, XMM + 16 * r);
    }
    // mov esp, top of the page; pushfq; pop [FLAGS]
    c.push(0xbc);
    c.extend((DUMP as u32 + DUMP_LEN as u32).to_le_bytes());
    c.extend([0x9c, 0x8f, 0x04, 0x25]);
    c.extend((DUMP as u32 + FLAGS as u32).to_le_bytes());
    jump(&mut c, at, EXIT);
    c
}

/// Appends a jump from a program that starts at `at`.
pub fn jump(c: &mut Vec<u8>, at: u64, to: u64) {
    let next = at + c.len() as u64 + 5;
    c.push(0xe9);
    c.extend((to.wrapping_sub(next) as u32).to_le_bytes());
}

/// Takes what `dump` has stored into `state`.
pub fn take(state: &mut CpuState) {
    let d = bytes(DUMP, DUMP_LEN);
    for (n, r) in state.gpr.iter_mut().enumerate() {
        *r = u64::from_le_bytes(d[8 * n..][..8].try_into().expect("8 bytes"));
    }
    for (n, x) in state.xmm.iter_mut().enumerate() {
        *x = u128::from_le_bytes(d[XMM + 16 * n..][..16].try_into().expect("16 bytes"));
    }
    state.set_rflags(u64::from_le_bytes(d[FLAGS..][..8].try_into().expect("8 bytes")));
}
