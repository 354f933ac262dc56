//! Random instruction instances: bytes that decode to something both sides can run, and a state in
//! which its memory operands lie in scratch memory.

use crate::{SCRATCH, SCRATCH_LEN};
use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind, Register};
use vkernel_abi::state::{CpuState, RBP, RCX, RDI, RSI, RSP};
use vkernel_semantics::decode::decode;

/// xorshift64*: the same cases on every run of one seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    /// A 64-bit value, often one at a boundary.
    fn value(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(4),
            1 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            2 => (self.byte() as i8) as i64 as u64,
            3 => self.next() & 0xffff_ffff,
            _ => self.next(),
        }
    }
    /// Bits of a 32- or 64-bit float of every class.
    fn float(&mut self, wide: bool) -> u64 {
        let special32 = [0u32, 1, 0x7f_ffff, 0x80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0001, 0x7f80_0001];
        let special64 = [
            0u64, 1, 0xf_ffff_ffff_ffff, 0x10_0000_0000_0000, 0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000, 0x7ff8_0000_0000_0001, 0x7ff0_0000_0000_0001,
        ];
        let pick = self.below(8) as usize;
        let sign = self.below(2);
        match (wide, self.below(3)) {
            (true, 0) => special64[pick] | sign << 63,
            (true, 1) => ((self.below(2000) as f64 - 1000.0) / 7.0).to_bits(),
            (true, _) => self.next(),
            (false, 0) => u64::from(special32[pick]) | sign << 31,
            (false, 1) => u64::from(((self.below(2000) as f32 - 1000.0) / 7.0).to_bits()),
            (false, _) => self.next() & 0xffff_ffff,
        }
    }
    fn lanes(&mut self) -> u128 {
        match self.below(3) {
            0 => u128::from(self.float(true)) | u128::from(self.float(true)) << 64,
            1 => (0..4).fold(0, |v, n| v | u128::from(self.float(false)) << (32 * n)),
            _ => u128::from(self.next()) << 64 | u128::from(self.next()),
        }
    }
}

pub struct Case {
    pub bytes: Vec<u8>,
    pub instruction: Instruction,
    pub state: CpuState,
    pub memory: Vec<u8>,
}

impl Case {
    /// A second copy of the starting state.
    pub fn state_copy(&self) -> CpuState {
        let mut s = CpuState::new();
        s.gpr = self.state.gpr;
        s.flags = self.state.flags;
        s.mxcsr = self.state.mxcsr;
        s.xmm = self.state.xmm;
        s.fx = self.state.fx;
        s
    }

    /// Flags that are defined after the instruction.
    pub fn defined_flags(&self) -> u64 {
        use iced_x86::RflagsBits as F;
        let mut undefined = self.instruction.rflags_undefined();
        // The instruction info does not know these: a masked count of one defines OF, and shifts of
        // other counts leave it undefined; AF after logic is undefined.
        if matches!(
            self.instruction.mnemonic(),
            M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
        ) {
            undefined |= F::OF | F::AF;
        }
        let mut mask = 0xcd5;
        for (flag, bit) in [(F::OF, 11), (F::SF, 7), (F::ZF, 6), (F::AF, 4), (F::CF, 0), (F::PF, 2)] {
            if undefined & flag != 0 {
                mask &= !(1 << bit);
            }
        }
        mask
    }
}

fn usable(i: &Instruction) -> bool {
    if i.is_invalid() || i.flow_control() != FlowControl::Next || i.is_privileged() {
        return false;
    }
    let registers = (0..i.op_count()).filter(|&n| i.op_kind(n) == OpKind::Register);
    for n in registers {
        let r = i.op_register(n);
        // AMD-only and system registers, and loads of selectors.
        if !(r.is_gpr() || r.is_xmm() || r.is_st()) {
            return false;
        }
    }
    if matches!(
        i.mnemonic(),
        M::Cpuid | M::Rdtsc | M::Rdtscp | M::Syscall | M::Std | M::Xgetbv | M::Rdpmc | M::Rdpid
            | M::Maskmovdqu | M::Enter | M::Wait | M::Fxrstor | M::Fxrstor64 | M::Fxsave | M::Fxsave64
            | M::Fldenv | M::Frstor | M::Fnstenv | M::Fnsave
    ) {
        return false;
    }
    // BSWAP r16 and SHLD r16 with a count above 16 are undefined.
    if i.mnemonic() == M::Bswap && i.op0_register().size() == 2 {
        return false;
    }
    if matches!(i.mnemonic(), M::Shld | M::Shrd) && i.op0_kind() == OpKind::Register && i.op0_register().size() == 2 {
        return false;
    }
    if matches!(i.mnemonic(), M::Shld | M::Shrd) && i.memory_size().size() == 2 && i.op0_kind() == OpKind::Memory {
        return false;
    }
    if i.is_vsib() || matches!(i.memory_segment(), Register::FS | Register::GS) {
        return false;
    }
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        let (base, index) = (i.memory_base(), i.memory_index());
        if base == Register::None || base == Register::RIP || base == Register::EIP || base == index {
            return false;
        }
        if base.size() != 8 || index.full_register() == base.full_register() {
            return false;
        }
    }
    true
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    let mut b = Vec::new();
    if rng.one_in(4) {
        b.push(0x66);
    }
    if rng.one_in(5) {
        b.push([0xf2, 0xf3][rng.below(2) as usize]);
    }
    if rng.one_in(12) {
        b.push(0xf0);
    }
    if rng.one_in(2) {
        b.push(0x40 | rng.byte() & 15);
    }
    match rng.below(8) {
        0..=2 => b.push(rng.byte()),
        3 => b.push(0xd8 + rng.byte() % 8),
        _ => b.extend([0x0f, rng.byte()]),
    }
    while b.len() < 15 {
        b.push(rng.byte());
    }
    b
}

fn fill_state(rng: &mut Rng) -> CpuState {
    let mut s = CpuState::new();
    s.gpr.iter_mut().for_each(|r| *r = rng.value());
    s.set_rflags(rng.next() & 0x8d5);
    s.xmm.iter_mut().for_each(|x| *x = rng.lanes());
    s.mxcsr = 0x1f80 | (rng.below(4) as u32) << 13;
    if rng.one_in(8) {
        s.mxcsr |= 0x8000;
    }
    s.fx[0..2].copy_from_slice(&(0x37fu16 & !0xf00 | (rng.next() as u16 & 0xf00)).to_le_bytes());
    s.fx[2..4].copy_from_slice(&(rng.next() as u16 & 0x7f00).to_le_bytes());
    s.fx[4] = [0, 0xff, rng.byte()][rng.below(3) as usize];
    for n in 0..8 {
        let mantissa = if rng.one_in(4) { rng.value() } else { rng.next() | 1 << 63 };
        let exponent = match rng.below(4) {
            0 => [0u16, 1, 0x7fff, 0x3fff][rng.below(4) as usize],
            1 => rng.next() as u16 & 0x7fff,
            _ => 0x3fff - 40 + rng.below(80) as u16,
        } | (rng.next() as u16 & 0x8000);
        s.fx[32 + 16 * n..][..8].copy_from_slice(&mantissa.to_le_bytes());
        s.fx[40 + 16 * n..][..2].copy_from_slice(&exponent.to_le_bytes());
    }
    s
}

/// The next usable case.
pub fn next(rng: &mut Rng) -> Case {
    loop {
        let raw = bytes(rng);
        let i = decode(&raw, 0x4000_0000);
        if !usable(&i) {
            continue;
        }
        // The guest's CPU has no TZCNT and LZCNT; the host's has.
        if matches!(i.mnemonic(), M::Bsf | M::Bsr) && raw[..i.len()].contains(&0xf3) {
            continue;
        }
        let mut state = fill_state(rng);
        let mut memory = vec![0u8; SCRATCH_LEN];
        for chunk in memory.chunks_exact_mut(16) {
            chunk.copy_from_slice(&rng.lanes().to_le_bytes());
        }
        let middle = (SCRATCH + SCRATCH_LEN / 2) as u64;
        state.gpr[RSP] = middle + 1024 + 8 * rng.below(16);
        if i.mnemonic() == M::Leave {
            state.gpr[RBP] = middle + rng.below(256);
        }
        if i.is_string_instruction() {
            state.gpr[RSI] = middle + rng.below(256);
            state.gpr[RDI] = middle + rng.below(256);
            state.gpr[RCX] = rng.below(40);
        }
        if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
            let mut target = middle + rng.below(512);
            if rng.one_in(4) || i.memory_size().size() >= 16 && !rng.one_in(8) {
                target &= !15;
            }
            let index = i.memory_index();
            let mut offset = i.memory_displacement64();
            if index != Register::None {
                let v = rng.below(1 << 20);
                state.gpr[index.number()] = v;
                offset = offset.wrapping_add(v << i.memory_index_scale().trailing_zeros());
            }
            // A bit-string index reaches far: keep it near.
            if matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) && i.op1_kind() == OpKind::Register {
                let r = vkernel_semantics::operand::gpr(i.op1_register());
                if r == i.memory_base().number() || index != Register::None && r == index.number() {
                    continue;
                }
                state.gpr[r] = (rng.below(4000) as i64 - 2000) as u64;
            }
            state.gpr[i.memory_base().number()] = target.wrapping_sub(offset);
            if matches!(i.mnemonic(), M::Pop) && i.memory_base() == Register::RSP {
                continue;
            }
            if i.memory_base() == Register::RSP && !(SCRATCH as u64 + 512..middle + 3000).contains(&state.gpr[RSP]) && i.stack_pointer_increment() != 0 {
                continue;
            }
        }
        if matches!(i.mnemonic(), M::Popf | M::Popfq) {
            let at = (state.gpr[RSP] - SCRATCH as u64) as usize;
            memory[at + 1] &= 0x0c;
            memory[at + 2] = 0;
            memory[at + 3] = 0;
        }
        if matches!(i.mnemonic(), M::Ldmxcsr) {
            let at = (state.gpr[i.memory_base().number()]
                .wrapping_add(i.memory_displacement64())
                .wrapping_add(match i.memory_index() {
                    Register::None => 0,
                    r => state.gpr[r.number()] << i.memory_index_scale().trailing_zeros(),
                })) as usize
                - SCRATCH;
            memory[at] |= 0x80;
            memory[at + 1] |= 0x1f;
        }
        return Case { bytes: raw[..i.len()].to_vec(), instruction: i, state, memory };
    }
}
