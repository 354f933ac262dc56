//! What goes between the wasm locals and the guest's state: stores, reloads, and leaving a function in
//! the middle.

use crate::lift::{Lift, state_arg};
use crate::locals::Locals;
use vkernel_abi::state::{self, DF, RAX, RDX};
use vkernel_semantics::backend::Backend;

impl<'a> Lift<'a> {
    /// For one basic block, at whose start `dirty` may have changed and `live` is live.
    pub fn new(locals: &'a mut Locals, dirty: crate::usage::Set, live: crate::usage::Set) -> Self {
        Self { code: Vec::new(), locals, lazy: None, dirty, live, pc: 0, give_up: false, x87_masked: false }
    }
}

impl Lift<'_> {
    /// Stores what `set` and the dirty set have in common. Does not change the dirty set.
    pub fn store_dirty(&mut self, set: crate::usage::Set) {
        use crate::usage::{flag, gpr, xmm};
        let set = set & self.dirty;
        for r in (0..16).filter(|r| set & gpr(*r) != 0) {
            let l = self.locals.gpr(r);
            self.sink().i32_const(0).local_get(l).i64_store(state_arg(state::OFF_GPR + 8 * r as u32, 3));
        }
        for r in (0..16).filter(|r| set & xmm(*r) != 0) {
            let l = self.locals.xmm(r);
            self.sink().i32_const(0).local_get(l).v128_store(state_arg(state::OFF_XMM + 16 * r as u32, 4));
        }
        for f in (0..state::FLAG_COUNT).filter(|f| set & flag(*f) != 0) {
            let l = self.locals.flag(f);
            self.sink().i32_const(0).local_get(l).i32_store(state_arg(state::OFF_FLAGS + 4 * f as u32, 2));
        }
    }

    /// Reads `set` back from the state.
    pub fn reload(&mut self, set: crate::usage::Set) {
        use crate::usage::{flag, gpr, xmm};
        self.x87_masked = false;
        for r in (0..16).filter(|r| set & gpr(*r) != 0) {
            let l = self.locals.gpr(r);
            self.sink().i32_const(0).i64_load(state_arg(state::OFF_GPR + 8 * r as u32, 3)).local_set(l);
        }
        for r in (0..16).filter(|r| set & xmm(*r) != 0) {
            let l = self.locals.xmm(r);
            self.sink().i32_const(0).v128_load(state_arg(state::OFF_XMM + 16 * r as u32, 4)).local_set(l);
        }
        for f in (0..state::FLAG_COUNT).filter(|f| set & flag(*f) != 0) {
            let l = self.locals.flag(f);
            self.sink().i32_const(0).i32_load(state_arg(state::OFF_FLAGS + 4 * f as u32, 2)).local_set(l);
        }
    }

    /// Returns upward with rax, rsp, rdx taken from the state; the pc (i32) is on the stack.
    pub fn return_from_state(&mut self) {
        for r in [RAX, state::RSP, RDX] {
            self.sink().i32_const(0).i64_load(state_arg(state::OFF_GPR + 8 * r as u32, 3));
        }
        self.sink().return_();
    }

    /// Code that leaves the function at the current instruction, what is live stored: the interpreter
    /// executes it. Pending flags are computed on the way.
    pub fn bail(&mut self) {
        let (lazy, dirty) = (self.lazy, self.dirty);
        self.settle_flags(self.live);
        self.store_dirty(self.live);
        self.lazy = lazy;
        self.dirty = dirty;
        let pc = self.pc;
        self.sink().i32_const(pc as i32);
        self.return_from_state();
    }

    /// Computes those pending flags that `live` has.
    pub fn settle_flags(&mut self, live: crate::usage::Set) {
        if self.lazy.is_none() {
            return;
        }
        for f in (0..state::FLAG_COUNT).filter(|f| *f != DF && live & crate::usage::flag(*f) != 0) {
            let v = vkernel_semantics::flags::get_flag(self, f);
            self.store_flag(f, v);
        }
        self.lazy = None;
    }
}
