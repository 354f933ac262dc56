//! Decoding, with a cache of decoded instructions by guest address.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use std::mem::MaybeUninit;

/// `rep bsf` and `rep bsr` are TZCNT and LZCNT, as on every CPU of this decade.
pub const OPTIONS: u32 = DecoderOptions::NONE;

/// Longest x86 instruction in bytes (SDM vol. 2, 2.3.11).
pub const MAX_LEN: usize = 15;

/// Decodes the instruction at guest address `pc`; invalid and truncated ones are `Code::INVALID`.
pub fn decode(bytes: &[u8], pc: u64) -> Instruction {
    Decoder::with_ip(64, bytes, pc, OPTIONS).decode()
}

struct Slot {
    /// 0: empty (page 0 is never mapped).
    pc: u32,
    instruction: MaybeUninit<Instruction>,
}

const SLOTS: usize = 4096;

/// Direct-mapped by the low bits of the address. Must be cleared when executable mappings change.
pub struct Cache {
    slots: Box<[Slot]>,
}

impl Cache {
    pub fn new() -> Self {
        let slots = Box::new_zeroed_slice(SLOTS);
        // SAFETY: all zero bytes are an empty slot: `pc` 0 and an uninitialised instruction.
        Self { slots: unsafe { slots.assume_init() } }
    }

    pub fn get(&self, pc: u32) -> Option<Instruction> {
        let slot = &self.slots[pc as usize % SLOTS];
        // SAFETY: a slot with a non-zero pc has been filled by `put`.
        (slot.pc == pc).then(|| unsafe { slot.instruction.assume_init() })
    }

    pub fn put(&mut self, pc: u32, instruction: Instruction) {
        self.slots[pc as usize % SLOTS] = Slot { pc, instruction: MaybeUninit::new(instruction) };
    }

    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            if slot.pc != 0 {
                slot.pc = 0;
            }
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}
