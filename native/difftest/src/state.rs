//! Random states and memory.

use crate::area::SCRATCH_LEN;
use crate::rng::Rng;
use vkernel_abi::state::CpuState;

pub fn random_memory(rng: &mut Rng) -> Vec<u8> {
    let mut memory = vec![0u8; SCRATCH_LEN];
    for chunk in memory.chunks_exact_mut(16) {
        chunk.copy_from_slice(&rng.lanes().to_le_bytes());
    }
    memory
}

pub fn random_state(rng: &mut Rng) -> CpuState {
    let mut s = CpuState::new();
    s.gpr.iter_mut().for_each(|r| *r = rng.value());
    s.set_rflags(rng.next() & 0x8d5 | u64::from(rng.one_in(4)) << 10);
    s.xmm.iter_mut().for_each(|x| *x = rng.lanes());
    s.mxcsr = 0x1f80 | (rng.below(4) as u32) << 13;
    if rng.one_in(8) {
        s.mxcsr |= 0x8000;
    }
    if rng.one_in(8) {
        s.mxcsr |= 0x40;
    }
    s.fx[0..2].copy_from_slice(&(0x37fu16 & !0xf00 | (rng.next() as u16 & 0xf00)).to_le_bytes());
    s.fx[2..4].copy_from_slice(&(rng.next() as u16 & 0x7f00).to_le_bytes());
    s.fx[4] = [0, 0xff, rng.byte()][rng.below(3) as usize];
    for n in 0..8 {
        let mantissa = if rng.one_in(4) { rng.value() } else { rng.next() | 1 << 63 };
        let exponent = match rng.below(4) {
            0 => rng.pick(&[0u16, 1, 0x7fff, 0x3fff]),
            1 => rng.next() as u16 & 0x7fff,
            _ => 0x3fff - 40 + rng.below(80) as u16,
        } | (rng.next() as u16 & 0x8000);
        s.fx[32 + 16 * n..][..8].copy_from_slice(&mantissa.to_le_bytes());
        s.fx[40 + 16 * n..][..2].copy_from_slice(&exponent.to_le_bytes());
    }
    s
}
