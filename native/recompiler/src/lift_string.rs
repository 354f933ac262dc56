//! REP MOVS, STOS, CMPS and SCAS as loops: 16 bytes at a time where the operands allow it, the rest element
//! by element. Downwards (DF set) is left to the interpreter. No bulk-memory operations: a fault inside
//! one is not the guest's (DESIGN, shape of the wasm).

use crate::lift::{Lift, V};
use crate::usage::gpr;
use vkernel_abi::state::{DF, RAX, RCX, RDI, RSI};
use vkernel_abi::wasm::MEM_REGION;
use vkernel_semantics::backend::{Backend, Bin, Lazy, W};
use wasm_encoder::{BlockType, MemArg, MemArgTarget};

const PLAIN: MemArg = MemArg { offset: 0, align: 0, target: MemArgTarget::Memory(MEM_REGION), ordering: None };

const PAGE: i32 = 4096;

impl Lift<'_> {
    pub fn repeat_upwards(&mut self, copy: bool, w: W) {
        self.only_upwards();
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

    fn only_upwards(&mut self) {
        let down = self.stored_flag(DF);
        self.push32(down);
        self.sink().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
    }

    /// REP SCAS (`scan`) and CMPS: chunks up to where they stop, then an element, which decides. A scan may
    /// look behind its end, so a chunk stays in the page of an element that is read.
    pub fn compare_upwards(&mut self, scan: bool, w: W, until_equal: bool) {
        self.only_upwards();
        let live = self.live;
        self.settle_flags(live);
        let (rcx, rdi, rsi) = (self.locals.gpr(RCX), self.locals.gpr(RDI), self.locals.gpr(RSI));
        self.dirty |= gpr(RCX) | gpr(RDI) | if scan { 0 } else { gpr(RSI) };
        self.sink().local_get(rcx).i64_eqz().i32_eqz().if_(BlockType::Empty);
        let pattern = scan.then(|| self.pattern(w));
        let per_chunk = i64::from(16 / w.bytes());
        self.sink().loop_(BlockType::Empty).block(BlockType::Empty).loop_(BlockType::Empty);
        self.sink().local_get(rcx).i64_const(per_chunk).i64_le_u().br_if(1);
        for address in std::iter::once(rdi).chain((!scan).then_some(rsi)) {
            let mut s = self.sink();
            s.local_get(address).i32_wrap_i64().i32_const(PAGE - 1).i32_and().i32_const(PAGE - 16).i32_gt_u().br_if(1);
        }
        self.sink().local_get(rdi).i32_wrap_i64().v128_load(PLAIN);
        match pattern {
            Some(v) => self.sink().local_get(v),
            None => self.sink().local_get(rsi).i32_wrap_i64().v128_load(PLAIN),
        };
        match w {
            W::B1 => self.sink().i8x16_eq(),
            W::B2 => self.sink().i16x8_eq(),
            W::B4 => self.sink().i32x4_eq(),
            W::B8 => self.sink().i64x2_eq(),
        };
        let stops = self.locals.temp32();
        self.sink().i8x16_bitmask().i32_const(if until_equal { 0 } else { 0xffff }).i32_xor().local_tee(stops);
        self.sink().if_(BlockType::Empty).local_get(stops).i32_ctz().i64_extend_i32_u();
        let V::I64(bytes) = self.pop64() else { unreachable!("pop64 gives a local") };
        self.sink().local_get(rdi).local_get(bytes).i64_add().local_set(rdi);
        if !scan {
            self.sink().local_get(rsi).local_get(bytes).i64_add().local_set(rsi);
        }
        self.sink().local_get(rcx).local_get(bytes).i64_const(w.bytes().trailing_zeros().into()).i64_shr_u();
        self.sink().i64_sub().local_set(rcx).br(2).end();
        self.advance(!scan, 16, per_chunk);
        self.sink().br(0).end().end();
        let rax = self.locals.gpr(RAX);
        let load = |l: &mut Self, r| l.load(w, V::I64(r)).expect("the lifter's loads do not fault");
        let x = if scan { V::I64(rax) } else { load(self, rsi) };
        let (x, y) = (self.trunc(w, x), load(self, rdi));
        self.advance(!scan, w.bytes().into(), 1);
        let goes_on = self.bin(if until_equal { Bin::Ne } else { Bin::Eq }, w, x, y);
        self.push32(goes_on);
        self.sink().local_get(rcx).i64_eqz().i32_eqz().i32_and().br_if(0).end();
        let r = self.bin(Bin::Sub, w, x, y);
        self.lazy = Some(Lazy::Sub { w, a: x, b: y, r });
        self.settle_flags(live);
        self.sink().end();
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
