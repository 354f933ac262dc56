//! Random instructions of the guest's CPU, whatever form they have, evenly over their codes.

use crate::rng::Rng;
use iced_x86::{Code, CpuidFeature as F, Decoder, FlowControl, Instruction, Mnemonic as M, OpKind};
use std::collections::HashMap;
use vkernel_semantics::decode::OPTIONS;

/// An instruction and its bytes.
#[derive(Clone)]
pub struct Encoded {
    pub instruction: Instruction,
    pub bytes: Vec<u8>,
    /// Offset of the displacement's four bytes, if it has four.
    pub displacement: Option<usize>,
}

pub fn decode(raw: &[u8], pc: u64) -> Encoded {
    let mut d = Decoder::with_ip(64, raw, pc, OPTIONS);
    let instruction = d.decode();
    let offsets = d.get_constant_offsets(&instruction);
    let displacement = (offsets.displacement_size() == 4).then(|| offsets.displacement_offset());
    Encoded { instruction, bytes: raw[..instruction.len()].to_vec(), displacement }
}

/// Whether the semantics have the instruction: the x86-64 baseline and what came later without VEX, and BMI.
pub fn is_known(i: &Instruction) -> bool {
    i.cpuid_features().iter().all(|f| {
        matches!(
            f,
            F::INTEL8086
                | F::INTEL186
                | F::INTEL286
                | F::INTEL386
                | F::INTEL486
                | F::X64
                | F::CMOV
                | F::CX8
                | F::CMPXCHG16B
                | F::FPU
                | F::FPU287
                | F::FPU387
                | F::FXSR
                | F::MMX
                | F::SSE
                | F::SSE2
                | F::CLFSH
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
                | F::AES
                | F::PCLMULQDQ
                | F::SHA
                | F::ADX
                | F::POPCNT
                | F::MOVBE
                | F::LZCNT
                | F::BMI1
                | F::BMI2
                | F::PAUSE
                | F::MULTIBYTENOP
        )
    })
}

/// Whether running it twice, natively and in a backend, can be compared.
fn usable(e: &Encoded) -> bool {
    let i = &e.instruction;
    if i.is_invalid() || i.flow_control() != FlowControl::Next || i.is_privileged() || !is_known(i) {
        return false;
    }
    let mut registers = (0..i.op_count()).filter(|&n| i.op_kind(n) == OpKind::Register).map(|n| i.op_register(n));
    // System registers, and selectors.
    if !registers.all(|r| r.is_gpr() || r.is_xmm() || r.is_st() || r.is_mm()) {
        return false;
    }
    if matches!(
        i.mnemonic(),
        M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Lfs
            | M::Lgs
            | M::Lss
            | M::Reservednop
    ) {
        return false;
    }
    // 16-bit forms that no compiler emits and that are unknown: the x87 environment, ENTER.
    const NARROW: [Code; 5] = [
        Code::Fnstenv_m14byte,
        Code::Fldenv_m14byte,
        Code::Fnsave_m94byte,
        Code::Frstor_m94byte,
        Code::Enterw_imm16_imm8,
    ];
    if NARROW.contains(&i.code()) {
        return false;
    }
    // Undefined results: BSWAP r16, and SHLD or SHRD of 16 bits by more.
    let narrow = i.op0_kind() == OpKind::Register && i.op0_register().size() == 2
        || i.op0_kind() == OpKind::Memory && i.memory_size().size() == 2;
    if matches!(i.mnemonic(), M::Bswap | M::Shld | M::Shrd) && narrow {
        return false;
    }
    // The CPU takes PAUSE with REX.B for an exchange with r8, the decoder for a PAUSE.
    if i.mnemonic() == M::Pause && e.bytes.iter().any(|b| b & 0xf1 == 0x41) {
        return false;
    }
    // The engine takes the smaller of x and x for x, denormal or not; no compiler asks.
    let extreme =
        matches!(i.mnemonic(), M::Minps | M::Minpd | M::Maxps | M::Maxpd | M::Minss | M::Minsd | M::Maxss | M::Maxsd);
    if extreme && i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register() {
        return false;
    }
    !i.is_vsib()
}

fn bytes(rng: &mut Rng) -> [u8; 15] {
    let mut b = [0u8; 15];
    let mut n = 0;
    let mut push = |v: u8| {
        b[n] = v;
        n += 1;
    };
    let kind = rng.below(12);
    let vector = (4..=6).contains(&kind);
    if if vector { !rng.one_in(4) } else { kind != 7 && rng.one_in(4) } {
        push(0x66);
    }
    if kind != 7 && rng.one_in(5) {
        push(rng.pick(&[0xf2, 0xf3]));
    }
    if rng.one_in(12) {
        push(0xf0);
    }
    if rng.one_in(24) {
        push(0x67);
    }
    if rng.one_in(24) {
        push(rng.pick(&[0x64, 0x65]));
    }
    if kind != 7 && rng.one_in(2) {
        push(0x40 | rng.byte() & 15);
    }
    match kind {
        0..=2 => push(rng.byte()),
        3 => push(0xd8 + rng.byte() % 8),
        4..=6 => {
            push(0x0f);
            if rng.one_in(4) {
                push(0x3a);
                let (low, dot, string) = (rng.byte() % 0x24, 0x40 + rng.byte() % 5, 0x60 + rng.byte() % 4);
                push(rng.pick(&[low, dot, string, 0xcc, 0xdf]));
            } else {
                push(0x38);
                let (low, sha, aes) = (rng.byte() % 0x42, 0xc8 + rng.byte() % 8, 0xd8 + rng.byte() % 8);
                push(rng.pick(&[low, low, sha, aes, 0xf0, 0xf1, 0xf6]));
            }
        }
        7 => {
            // BMI: VEX in the three-byte form.
            push(0xc4);
            push(rng.byte() & 0xe0 | if rng.one_in(8) { 3 } else { 2 });
            push(rng.byte() & 0xfb);
            push(0xf0 + rng.byte() % 8);
        }
        _ => {
            push(0x0f);
            push(rng.byte());
        }
    }
    while n < 15 {
        b[n] = rng.byte();
        n += 1;
    }
    b
}

/// Draws instructions so that rare codes come up as often as common ones.
pub struct Generator {
    pub rng: Rng,
    seen: HashMap<Code, u32>,
    drawn: u32,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), seen: HashMap::new(), drawn: 0 }
    }

    /// The next usable instruction for address `pc`.
    pub fn next(&mut self, pc: u64) -> Encoded {
        loop {
            let e = decode(&bytes(&mut self.rng), pc);
            if !usable(&e) {
                continue;
            }
            let seen = self.seen.entry(e.instruction.code()).or_default();
            // What has had its share comes up less often.
            if *seen > 8 + self.drawn / 400 && !self.rng.one_in(16) {
                continue;
            }
            *seen += 1;
            self.drawn += 1;
            return e;
        }
    }

    /// How many different codes have come up.
    pub fn codes(&self) -> usize {
        self.seen.len()
    }
}
