//! REP MOVS and REP STOS as loops: 16 bytes at a time where the operands allow it, the rest element by
//! element. Downwards (DF set) is left to the interpreter. No bulk-memory operations: a fault inside
//! one is not the guest's (DESIGN, shape of the wasm).

use crate::lift::Lift;
use crate::usage::gpr;
use vkernel_abi::state::{DF, RAX, RCX, RDI, RSI};
use vkernel_abi::wasm::MEM_REGION;
use vkernel_semantics::backend::{Backend, W};
use wasm_encoder::{BlockType, MemArg, MemArgTarget};

const PLAIN: MemArg = MemArg { offset: 0, align: 0, target: MemArgTarget::Memory(MEM_REGION), ordering: None };

impl Lift<'_> {
    pub fn repeat_upwards(&mut self, copy: bool, w: W) {
        let down = self.stored_flag(DF);
        self.push32(down);
        self.sink().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
        let (rdi, rsi) = (self.locals.gpr(RDI), self.locals.gpr(RSI));
        let per_chunk = i64::from(16 / w.bytes());
        let pattern = (!copy).then(|| self.pattern(w));
        if copy {
            // Closer than a chunk, a copy upwards repeats what it has just written.
            self.sink().local_get(rdi).local_get(rsi).i64_sub().i64_const(16).i64_ge_u().if_(BlockType::Empty);
        }
        self.repeat_while(per_chunk, |l| {
            l.sink().local_get(rdi).i32_wrap_i64();
            match pattern {
                Some(v) => l.sink().local_get(v),
                None => l.sink().local_get(rsi).i32_wrap_i64().v128_load(PLAIN),
            };
            l.sink().v128_store(PLAIN);
            l.advance(copy, 16, per_chunk);
        });
        if copy {
            self.sink().end();
        }
        let rax = self.locals.gpr(RAX);
        self.repeat_while(1, |l| {
            l.sink().local_get(rdi).i32_wrap_i64();
            if copy {
                l.sink().local_get(rsi).i32_wrap_i64();
                let mut s = l.sink();
                match w {
                    W::B1 => s.i64_load8_u(PLAIN),
                    W::B2 => s.i64_load16_u(PLAIN),
                    W::B4 => s.i64_load32_u(PLAIN),
                    W::B8 => s.i64_load(PLAIN),
                };
            } else {
                l.sink().local_get(rax);
            }
            let mut s = l.sink();
            match w {
                W::B1 => s.i64_store8(PLAIN),
                W::B2 => s.i64_store16(PLAIN),
                W::B4 => s.i64_store32(PLAIN),
                W::B8 => s.i64_store(PLAIN),
            };
            l.advance(copy, i64::from(w.bytes()), 1);
        });
        self.dirty |= gpr(RCX) | gpr(RDI) | if copy { gpr(RSI) } else { 0 };
    }

    /// The accumulator in every lane.
    fn pattern(&mut self, w: W) -> u32 {
        let rax = self.locals.gpr(RAX);
        self.sink().local_get(rax);
        match w {
            W::B8 => self.sink().i64x2_splat(),
            W::B4 => self.sink().i32_wrap_i64().i32x4_splat(),
            W::B2 => self.sink().i32_wrap_i64().i16x8_splat(),
            W::B1 => self.sink().i32_wrap_i64().i8x16_splat(),
        };
        self.pop128()
    }

    /// A loop that goes on while at least `least` elements are left.
    fn repeat_while(&mut self, least: i64, body: impl FnOnce(&mut Self)) {
        let rcx = self.locals.gpr(RCX);
        self.sink().block(BlockType::Empty).loop_(BlockType::Empty);
        self.sink().local_get(rcx).i64_const(least).i64_lt_u().br_if(1);
        body(self);
        self.sink().br(0).end().end();
    }

    fn advance(&mut self, copy: bool, bytes: i64, elements: i64) {
        let (rcx, rdi, rsi) = (self.locals.gpr(RCX), self.locals.gpr(RDI), self.locals.gpr(RSI));
        self.sink().local_get(rdi).i64_const(bytes).i64_add().local_set(rdi);
        if copy {
            self.sink().local_get(rsi).i64_const(bytes).i64_add().local_set(rsi);
        }
        self.sink().local_get(rcx).i64_const(elements).i64_sub().local_set(rcx);
    }
}
