//! What translated code has the host do through the `host` import (vkernel_abi::wasm).

use crate::lift::{HOST, Lift, V, state_arg};
use crate::usage::{ALL_REGISTERS, Set, gpr};
use vkernel_abi::state::{OFF_OPERANDS, RAX, RBX, RCX, RDX};
use vkernel_semantics::backend::{Backend, W};
use vkernel_semantics::host_ops::{MXCSR_MASK, form};
use wasm_encoder::BlockType;

/// The XMM registers.
const VECTORS: Set = ALL_REGISTERS & !0xffff;

impl Lift<'_> {
    pub fn by_host(&mut self, form: u32, a: V, b: V) -> V {
        self.sink().i32_const(form as i32);
        self.push64(a);
        self.push64(b);
        self.sink().call(HOST);
        self.pop64()
    }

    pub fn vector_by_host(&mut self, form: u32, operands: [u32; 2], c: V) -> u32 {
        for (n, l) in operands.into_iter().enumerate() {
            self.sink().i32_const(0).local_get(l).v128_store(state_arg(OFF_OPERANDS + 16 * n as u32, 4));
        }
        self.by_host(form, c, V::Const(0));
        self.sink().i32_const(0).v128_load(state_arg(OFF_OPERANDS, 4));
        self.pop128()
    }

    fn store_registers(&mut self, list: &[usize]) {
        for &r in list {
            let l = self.locals.gpr(r);
            self.sink().i32_const(0).local_get(l).i64_store(state_arg(8 * r as u32, 3));
        }
    }

    /// STMXCSR. Storing what is computed so far keeps the engine from computing it later.
    pub fn read_mxcsr(&mut self) -> V {
        self.store_dirty(self.live & VECTORS);
        self.by_host(form::MXCSR, V::Const(0), V::Const(0))
    }

    /// LDMXCSR. Reading back keeps the engine from computing earlier.
    pub fn write_mxcsr(&mut self, v: V) {
        self.push32(v);
        self.sink().i32_const(!MXCSR_MASK as i32).i32_and().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
        self.store_dirty(self.live & VECTORS);
        self.by_host(form::SET_MXCSR, v, V::Const(0));
        self.reload(self.live & VECTORS);
    }

    pub fn query(&mut self) {
        let (leaf, sub) = (self.reg(RAX), self.reg(RCX));
        self.by_host(form::CPUID, leaf, sub);
        let all = gpr(RAX) | gpr(RBX) | gpr(RCX) | gpr(RDX);
        self.reload(all);
        self.dirty |= all;
    }

    /// CMPXCHG16B; what is misaligned or faults is the interpreter's.
    pub fn compare_exchange_pair(&mut self, addr: V) -> Result<V, ()> {
        self.store_registers(&[RAX, RDX, RBX, RCX]);
        let done = self.by_host(form::CMPXCHG16B, addr, V::Const(0));
        self.push64(done);
        self.sink().i64_const(2).i64_eq().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
        self.reload(gpr(RAX) | gpr(RDX));
        self.dirty |= gpr(RAX) | gpr(RDX);
        Ok(self.trunc(W::B4, done))
    }
}
