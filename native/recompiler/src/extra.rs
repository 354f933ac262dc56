//! What is added to the code of a function for those who look at it: counts for profiles, marks for `extract`.

use crate::lift::{Lift, state_arg};
use crate::usage::Usage;
use vkernel_abi::state::OFF_EXECUTED;

#[derive(Clone, Copy, Default)]
pub struct Extra {
    /// Each block adds its instructions to `CpuState::executed`.
    pub count: bool,
    /// Each instruction is preceded by a mark.
    pub marks: bool,
}

/// The constant that is dropped before the code of the instruction at `pc`: no code comes of it.
pub const fn mark_of(pc: u64) -> u64 {
    0x7861_726b_0000_0000 | pc
}

impl Extra {
    pub fn mark(self, l: &mut Lift, pc: u64) {
        if self.marks {
            l.sink().i64_const(mark_of(pc) as i64).drop();
        }
    }

    /// At a block's start: counts its instructions but those that the interpreter runs.
    pub fn count(self, l: &mut Lift, block: &[Usage]) {
        let executed = block.iter().filter(|u| !u.step).count();
        if self.count && executed > 0 {
            let at = || state_arg(OFF_EXECUTED, 3);
            l.sink().i32_const(0).i32_const(0).i64_load(at()).i64_const(executed as i64).i64_add().i64_store(at());
        }
    }
}
