//! The lifter: instruction semantics on a backend whose values are wasm locals. One `Lift` emits the
//! body of one basic block; what happens between blocks is function.rs's.
//!
//! An instruction that cannot be expressed rolls its code back and becomes a `step` (the interpreter
//! runs it); a condition that only the interpreter can answer leaves the function at this
//! instruction (`bail`), with everything stored.

use crate::locals::Locals;
use iced_x86::Instruction;
use vkernel_abi::state::{self, DF, RAX, RDX};
use vkernel_abi::wasm::{MAX_MEMARG_OFFSET, MEM_REGION, MEM_STATE};
use vkernel_semantics::backend::{Backend, Bin, Cvt, Flow, Fp, Lazy, Rel, Rmw, Rounding, Un, Vec1, Vec2, VecShift, W};
use vkernel_semantics::host_ops::Vector;
use vkernel_semantics::x87_values;
use wasm_encoder::{BlockType, InstructionSink, MemArg, MemArgTarget};

/// A 64-bit value: a constant, or a local; `I32` locals stand for their zero-extension, `Sum` for a
/// 64-bit local plus a constant, `Shifted` for one shifted left, `Scaled` for the sum of one, another
/// shifted left, and a constant; `F32` and `F64` locals stand for their bits. What is not in a local
/// is computed where it is used: as 32 bits where it is an address.
#[derive(Clone, Copy, Debug)]
pub enum V {
    Const(u64),
    I64(u32),
    I32(u32),
    Sum(u32, u64),
    Shifted(u32, u8),
    Scaled(u32, u32, u8, u64),
    F32(u32),
    F64(u32),
}

/// Function indices of the imports, in their order.
pub const SYSCALL: u32 = 0;
pub const POLL: u32 = 1;
pub const STEP: u32 = 2;
pub const DIV: u32 = 3;
pub const X87: u32 = 4;
pub const HOST: u32 = 5;
pub const IMPORTS: u32 = 6;

pub fn state_arg(offset: u32, align: u32) -> MemArg {
    MemArg { offset: u64::from(offset), align, target: MemArgTarget::Memory(MEM_STATE), ordering: None }
}

pub struct Lift<'a> {
    pub code: Vec<u8>,
    pub locals: &'a mut Locals,
    pub lazy: Option<Lazy<V>>,
    /// Resources changed since they were last stored in the state; exact within a block, may-dirty
    /// at its start.
    pub dirty: crate::usage::Set,
    /// What is live before the instruction being lifted.
    pub live: crate::usage::Set,
    /// Address of the instruction being lifted.
    pub pc: u64,
    /// The instruction turned out to be inexpressible.
    pub give_up: bool,
    /// The x87 control word is known to mask every exception (lift_x87.rs).
    pub x87_masked: bool,
}

impl Lift<'_> {
    pub fn sink(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.code)
    }

    /// Pushes a value as i64.
    pub fn push64(&mut self, v: V) {
        match v {
            V::Const(c) => self.sink().i64_const(c as i64),
            V::I64(l) => self.sink().local_get(l),
            V::I32(l) => self.sink().local_get(l).i64_extend_i32_u(),
            V::Sum(l, c) => self.sink().local_get(l).i64_const(c as i64).i64_add(),
            V::Shifted(l, k) => self.sink().local_get(l).i64_const(k.into()).i64_shl(),
            V::Scaled(a, b, k, c) => self.summands(Self::push64, [a, b], k, c).i64_add(),
            V::F32(l) => self.sink().local_get(l).i32_reinterpret_f32().i64_extend_i32_u(),
            V::F64(l) => self.sink().local_get(l).i64_reinterpret_f64(),
        };
    }

    /// Pushes the two summands of a `Scaled`.
    fn summands(&mut self, push: fn(&mut Self, V), [a, b]: [u32; 2], k: u8, c: u64) -> InstructionSink<'_> {
        push(self, if c == 0 { V::I64(a) } else { V::Sum(a, c) });
        push(self, if k == 0 { V::I64(b) } else { V::Shifted(b, k) });
        self.sink()
    }

    /// Pushes the low 32 bits.
    pub fn push32(&mut self, v: V) {
        match v {
            V::Const(c) => self.sink().i32_const(c as i32),
            V::I64(l) => self.sink().local_get(l).i32_wrap_i64(),
            V::I32(l) => self.sink().local_get(l),
            V::Sum(l, c) => self.sink().local_get(l).i32_wrap_i64().i32_const(c as i32).i32_add(),
            V::Shifted(l, k) => self.sink().local_get(l).i32_wrap_i64().i32_const(k.into()).i32_shl(),
            V::Scaled(a, b, k, c) => self.summands(Self::push32, [a, b], k, c).i32_add(),
            V::F32(l) => self.sink().local_get(l).i32_reinterpret_f32(),
            V::F64(l) => self.sink().local_get(l).i64_reinterpret_f64().i32_wrap_i64(),
        };
    }

    pub fn pop64(&mut self) -> V {
        let l = self.locals.temp64();
        self.sink().local_set(l);
        V::I64(l)
    }

    pub fn pop32(&mut self) -> V {
        let l = self.locals.temp32();
        self.sink().local_set(l);
        V::I32(l)
    }

    pub fn pop128(&mut self) -> u32 {
        let l = self.locals.temp128();
        self.sink().local_set(l);
        l
    }

    /// An i32 local that holds a condition.
    pub fn condition(&mut self, v: V) -> u32 {
        if let V::I32(l) = v {
            return l;
        }
        let l = self.locals.temp32();
        if let V::Const(c) = v {
            self.sink().i32_const(i32::from(c != 0)).local_set(l);
        } else {
            self.push64(v);
            self.sink().i64_const(0).i64_ne().local_set(l);
        }
        l
    }

    /// Pushes the 32-bit address and returns the memarg of an access.
    fn address(&mut self, v: V, align: u32) -> MemArg {
        let (offset, v) = match v {
            V::Sum(l, c) if c <= MAX_MEMARG_OFFSET => (c, V::I64(l)),
            V::Scaled(a, b, k, c) if c <= MAX_MEMARG_OFFSET => (c, V::Scaled(a, b, k, 0)),
            v => (0, v),
        };
        self.push32(v);
        MemArg { offset, align, target: MemArgTarget::Memory(MEM_REGION), ordering: None }
    }

    /// Lifts one instruction: its flow, or None when the interpreter has to run it.
    pub fn instruction(&mut self, i: &Instruction) -> Option<Flow<V>> {
        let (mark, lazy, dirty) = (self.code.len(), self.lazy, self.dirty);
        self.pc = i.ip();
        self.give_up = false;
        let flow = vkernel_semantics::exec::exec(self, i);
        match flow {
            Ok(Flow::Step | Flow::Unknown | Flow::Trap(_)) | Err(()) => {}
            Ok(flow) if !self.give_up => return Some(flow),
            Ok(_) => {}
        }
        self.code.truncate(mark);
        self.lazy = lazy;
        self.dirty = dirty;
        None
    }

    fn compare(&mut self, op: Bin, w: W, a: V, b: V) -> V {
        if w == W::B8 {
            self.push64(a);
            self.push64(b);
            let mut s = self.sink();
            match op {
                Bin::Eq => s.i64_eq(),
                Bin::Ne => s.i64_ne(),
                Bin::LtU => s.i64_lt_u(),
                Bin::LtS => s.i64_lt_s(),
                Bin::LeU => s.i64_le_u(),
                _ => s.i64_le_s(),
            };
        } else {
            let signed = matches!(op, Bin::LtS | Bin::LeS);
            for v in [a, b] {
                self.push32(v);
                match w {
                    W::B1 if signed => self.sink().i32_extend8_s(),
                    W::B2 if signed => self.sink().i32_extend16_s(),
                    _ => continue,
                };
            }
            let mut s = self.sink();
            match op {
                Bin::Eq => s.i32_eq(),
                Bin::Ne => s.i32_ne(),
                Bin::LtU => s.i32_lt_u(),
                Bin::LtS => s.i32_lt_s(),
                Bin::LeU => s.i32_le_u(),
                _ => s.i32_le_s(),
            };
        }
        self.pop32()
    }

    fn narrow(&mut self, w: W) -> V {
        match w {
            W::B1 => self.sink().i32_const(0xff).i32_and(),
            W::B2 => self.sink().i32_const(0xffff).i32_and(),
            _ => return self.pop32(),
        };
        self.pop32()
    }

    /// True when the misaligned case is impossible or has been taken care of.
    fn check_aligned(&mut self, w: W, addr: V) {
        if w == W::B1 {
            return;
        }
        self.push32(addr);
        self.sink().i32_const(w.bytes() as i32 - 1).i32_and().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
    }
}

fn fold(op: Bin, w: W, a: u64, b: u64) -> Option<u64> {
    let m = w.mask();
    Some(match op {
        Bin::Add => a.wrapping_add(b) & m,
        Bin::Sub => a.wrapping_sub(b) & m,
        Bin::And => a & b,
        Bin::Or => a | b,
        Bin::Xor => a ^ b,
        Bin::Shl => (a << (b & if w == W::B8 { 63 } else { 31 })) & m,
        Bin::ShrU => (a >> (b & if w == W::B8 { 63 } else { 31 })) & m,
        Bin::Eq => u64::from(a == b),
        Bin::Ne => u64::from(a != b),
        Bin::LtU => u64::from(a < b),
        _ => return None,
    })
}

impl Backend for Lift<'_> {
    type V = V;
    type X = u32;
    type Fault = ();
    const INTERPRETER: bool = false;

    fn known(&self, v: V) -> Option<u64> {
        if let V::Const(c) = v { Some(c) } else { None }
    }
    fn host_only(&mut self, i: &Instruction) -> Result<Flow<V>, ()> {
        if x87_values::is_translated(i) { self.x87(i) } else { Ok(Flow::Step) }
    }
    fn c(&mut self, value: u64) -> V {
        V::Const(value)
    }

    fn bin(&mut self, op: Bin, w: W, a: V, b: V) -> V {
        if let (V::Const(x), V::Const(y)) = (a, b)
            && let Some(v) = fold(op, w, x, y)
        {
            return V::Const(v);
        }
        if w == W::B8 {
            match (op, a, b) {
                (Bin::Add, V::I64(l), V::Const(c)) | (Bin::Add, V::Const(c), V::I64(l)) => return V::Sum(l, c),
                (Bin::Sub, V::I64(l), V::Const(c)) => return V::Sum(l, c.wrapping_neg()),
                (Bin::Add, V::Sum(l, x), V::Const(c)) => return V::Sum(l, x.wrapping_add(c)),
                (Bin::Add, V::I64(a), V::I64(b)) => return V::Scaled(a, b, 0, 0),
                (Bin::Add, V::I64(a), V::Sum(b, c)) | (Bin::Add, V::Sum(b, c), V::I64(a)) => {
                    return V::Scaled(a, b, 0, c);
                }
                (Bin::Add, V::I64(a), V::Shifted(b, k)) => return V::Scaled(a, b, k, 0),
                (Bin::Add, V::Scaled(a, b, k, x), V::Const(c)) => return V::Scaled(a, b, k, x.wrapping_add(c)),
                (Bin::Shl, V::I64(l), V::Const(k @ 1..=3)) => return V::Shifted(l, k as u8),
                (Bin::Shl | Bin::ShrU | Bin::Or, a, V::Const(0)) => return a,
                _ => {}
            }
        }
        match op {
            Bin::Eq | Bin::Ne | Bin::LtU | Bin::LtS | Bin::LeU | Bin::LeS => return self.compare(op, w, a, b),
            _ => {}
        }
        if w == W::B8 {
            self.push64(a);
            self.push64(b);
            let mut s = self.sink();
            match op {
                Bin::Add => s.i64_add(),
                Bin::Sub => s.i64_sub(),
                Bin::Mul => s.i64_mul(),
                Bin::And => s.i64_and(),
                Bin::Or => s.i64_or(),
                Bin::Xor => s.i64_xor(),
                Bin::Shl => s.i64_shl(),
                Bin::ShrU => s.i64_shr_u(),
                Bin::ShrS => s.i64_shr_s(),
                Bin::Rotl => s.i64_rotl(),
                Bin::Rotr => s.i64_rotr(),
                Bin::DivU => s.i64_div_u(),
                Bin::DivS => s.i64_div_s(),
                Bin::RemU => s.i64_rem_u(),
                _ => s.i64_rem_s(),
            };
            return self.pop64();
        }
        self.push32(a);
        if op == Bin::ShrS {
            match w {
                W::B1 => self.sink().i32_extend8_s(),
                W::B2 => self.sink().i32_extend16_s(),
                _ => &mut self.sink(),
            };
        }
        self.push32(b);
        let mut s = self.sink();
        match op {
            Bin::Add => s.i32_add(),
            Bin::Sub => s.i32_sub(),
            Bin::Mul => s.i32_mul(),
            Bin::And => s.i32_and(),
            Bin::Or => s.i32_or(),
            Bin::Xor => s.i32_xor(),
            Bin::Shl => s.i32_shl(),
            Bin::ShrU => s.i32_shr_u(),
            Bin::ShrS => s.i32_shr_s(),
            Bin::Rotl => s.i32_rotl(),
            Bin::Rotr => s.i32_rotr(),
            Bin::DivU => s.i32_div_u(),
            Bin::DivS => s.i32_div_s(),
            Bin::RemU => s.i32_rem_u(),
            _ => s.i32_rem_s(),
        };
        // Results of logic and right shifts of narrow values are narrow already.
        if matches!(op, Bin::And | Bin::Or | Bin::Xor | Bin::ShrU) { self.pop32() } else { self.narrow(w) }
    }

    fn un(&mut self, op: Un, w: W, a: V) -> V {
        match (op, w) {
            (Un::Eqz, W::B8) => {
                self.push64(a);
                self.sink().i64_eqz();
                self.pop32()
            }
            (Un::Eqz, _) => {
                self.push32(a);
                self.sink().i32_eqz();
                self.pop32()
            }
            (Un::Not, W::B8) => {
                self.push64(a);
                self.sink().i64_const(-1).i64_xor();
                self.pop64()
            }
            (Un::Not, _) => {
                self.push32(a);
                self.sink().i32_const(-1).i32_xor();
                self.narrow(w)
            }
            (Un::Neg, W::B8) => {
                self.sink().i64_const(0);
                self.push64(a);
                self.sink().i64_sub();
                self.pop64()
            }
            (Un::Neg, _) => {
                self.sink().i32_const(0);
                self.push32(a);
                self.sink().i32_sub();
                self.narrow(w)
            }
            (Un::Sext, _) => {
                self.push64(a);
                match w {
                    W::B1 => self.sink().i64_extend8_s(),
                    W::B2 => self.sink().i64_extend16_s(),
                    W::B4 => self.sink().i64_extend32_s(),
                    W::B8 => &mut self.sink(),
                };
                self.pop64()
            }
            (Un::Clz | Un::Ctz | Un::Popcnt | Un::Bswap, W::B8) => {
                if op == Un::Bswap {
                    return self.bswap64(a);
                }
                self.push64(a);
                let mut s = self.sink();
                match op {
                    Un::Clz => s.i64_clz(),
                    Un::Ctz => s.i64_ctz(),
                    _ => s.i64_popcnt(),
                };
                self.pop64()
            }
            (Un::Bswap, _) => {
                // Through the 64-bit form: the high half of the swapped value.
                let v = self.bswap64(a);
                self.push64(v);
                self.sink().i64_const(32).i64_shr_u();
                self.pop64()
            }
            _ => {
                self.push32(a);
                let mut s = self.sink();
                match op {
                    Un::Clz => s.i32_clz(),
                    Un::Ctz => s.i32_ctz(),
                    _ => s.i32_popcnt(),
                };
                self.pop32()
            }
        }
    }

    fn trunc(&mut self, w: W, a: V) -> V {
        match (w, a) {
            (_, V::Const(c)) => V::Const(c & w.mask()),
            (W::B8, v) => v,
            (W::B4, V::I32(_)) => a,
            _ => {
                self.push32(a);
                self.narrow(w)
            }
        }
    }

    fn select(&mut self, cond: V, a: V, b: V) -> V {
        if let V::Const(c) = cond {
            return if c != 0 { a } else { b };
        }
        let c = self.condition(cond);
        if let (V::I32(_), V::I32(_)) = (a, b) {
            self.push32(a);
            self.push32(b);
            self.sink().local_get(c).select();
            return self.pop32();
        }
        self.push64(a);
        self.push64(b);
        self.sink().local_get(c).select();
        self.pop64()
    }

    fn mul_hi(&mut self, signed: bool, a: V, b: V) -> V {
        self.wide_multiply(signed, a, b)
    }

    fn check_div(&mut self, cond: V) -> Result<(), ()> {
        let c = self.condition(cond);
        self.sink().local_get(c).i32_eqz().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
        Ok(())
    }

    fn div128(&mut self, signed: bool, divisor: V) -> Result<(), ()> {
        let pc = self.pc;
        for r in [RAX, RDX] {
            let l = self.locals.gpr(r);
            self.sink().i32_const(0).local_get(l).i64_store(state_arg(8 * r as u32, 3));
        }
        self.sink().i32_const(pc as i32).i32_const(i32::from(signed));
        self.push64(divisor);
        self.sink().call(DIV).nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
        self.reload(crate::usage::gpr(RAX) | crate::usage::gpr(RDX));
        self.dirty |= crate::usage::gpr(RAX) | crate::usage::gpr(RDX);
        Ok(())
    }

    fn reg(&mut self, r: usize) -> V {
        let l = self.locals.gpr(r);
        self.sink().local_get(l);
        self.pop64()
    }
    fn set_reg(&mut self, r: usize, v: V) {
        let l = self.locals.gpr(r);
        self.push64(v);
        self.sink().local_set(l);
        self.dirty |= crate::usage::gpr(r);
    }
    fn stored_flag(&mut self, f: usize) -> V {
        if f == DF {
            self.sink().i32_const(0).i32_load(state_arg(state::OFF_FLAGS + 4 * DF as u32, 2));
        } else {
            let l = self.locals.flag(f);
            self.sink().local_get(l);
        }
        self.pop32()
    }
    fn store_flag(&mut self, f: usize, v: V) {
        if f == DF {
            self.sink().i32_const(0);
            self.push32(v);
            self.sink().i32_store(state_arg(state::OFF_FLAGS + 4 * DF as u32, 2));
        } else {
            let l = self.locals.flag(f);
            self.push32(v);
            self.sink().local_set(l);
            self.dirty |= crate::usage::flag(f);
        }
    }
    fn lazy(&mut self) -> &mut Option<Lazy<V>> {
        &mut self.lazy
    }
    fn fs_base(&mut self) -> V {
        self.sink().i32_const(0).i64_load(state_arg(state::OFF_FS_BASE, 3));
        self.pop64()
    }
    fn gs_base(&mut self) -> V {
        self.sink().i32_const(0).i64_load(state_arg(state::OFF_GS_BASE, 3));
        self.pop64()
    }

    fn load(&mut self, w: W, addr: V) -> Result<V, ()> {
        let m = self.address(addr, 0);
        // The 64-bit forms, because the engine extends the result of a 32-bit load once more.
        match w {
            W::B8 => self.sink().i64_load(m),
            W::B4 => self.sink().i64_load32_u(m),
            W::B2 => self.sink().i64_load16_u(m),
            W::B1 => self.sink().i64_load8_u(m),
        };
        Ok(self.pop64())
    }
    fn load_float(&mut self, w: W, addr: V) -> Result<V, ()> {
        let m = self.address(addr, 0);
        let mut s = self.sink();
        if w == W::B4 {
            s.f32_load(m)
        } else {
            s.f64_load(m)
        };
        Ok(self.pop_float(w))
    }
    fn load_low(&mut self, w: W, addr: V) -> Result<u32, ()> {
        let m = self.address(addr, 0);
        let mut s = self.sink();
        if w == W::B4 {
            s.v128_load32_zero(m)
        } else {
            s.v128_load64_zero(m)
        };
        Ok(self.pop128())
    }
    fn store(&mut self, w: W, addr: V, v: V) -> Result<(), ()> {
        let m = self.address(addr, 0);
        match (w, v) {
            (W::B8, V::F64(l)) => {
                self.sink().local_get(l).f64_store(m);
                return Ok(());
            }
            (W::B4, V::F32(l)) => {
                self.sink().local_get(l).f32_store(m);
                return Ok(());
            }
            _ => {}
        }
        match w {
            W::B8 => {
                self.push64(v);
                self.sink().i64_store(m);
            }
            _ => {
                self.push32(v);
                let mut s = self.sink();
                match w {
                    W::B4 => s.i32_store(m),
                    W::B2 => s.i32_store16(m),
                    _ => s.i32_store8(m),
                };
            }
        }
        Ok(())
    }
    fn load128(&mut self, addr: V, _aligned: bool) -> Result<u32, ()> {
        let m = self.address(addr, 0);
        self.sink().v128_load(m);
        Ok(self.pop128())
    }
    fn store128(&mut self, addr: V, v: u32, _aligned: bool) -> Result<(), ()> {
        let m = self.address(addr, 0);
        self.sink().local_get(v).v128_store(m);
        Ok(())
    }

    fn rmw(&mut self, op: Rmw, w: W, addr: V, v: V) -> Result<V, ()> {
        self.check_aligned(w, addr);
        let align = w.bytes().trailing_zeros();
        self.push32(addr);
        let m = MemArg { offset: 0, align, target: MemArgTarget::Memory(MEM_REGION), ordering: None };
        if w == W::B8 {
            self.push64(v);
            let mut s = self.sink();
            match op {
                Rmw::Add => s.i64_atomic_rmw_add(m),
                Rmw::Sub => s.i64_atomic_rmw_sub(m),
                Rmw::And => s.i64_atomic_rmw_and(m),
                Rmw::Or => s.i64_atomic_rmw_or(m),
                Rmw::Xor => s.i64_atomic_rmw_xor(m),
                Rmw::Xchg => s.i64_atomic_rmw_xchg(m),
            };
            return Ok(self.pop64());
        }
        self.push32(v);
        let mut s = self.sink();
        match (op, w) {
            (Rmw::Add, W::B4) => s.i32_atomic_rmw_add(m),
            (Rmw::Add, W::B2) => s.i32_atomic_rmw16_add_u(m),
            (Rmw::Add, _) => s.i32_atomic_rmw8_add_u(m),
            (Rmw::Sub, W::B4) => s.i32_atomic_rmw_sub(m),
            (Rmw::Sub, W::B2) => s.i32_atomic_rmw16_sub_u(m),
            (Rmw::Sub, _) => s.i32_atomic_rmw8_sub_u(m),
            (Rmw::And, W::B4) => s.i32_atomic_rmw_and(m),
            (Rmw::And, W::B2) => s.i32_atomic_rmw16_and_u(m),
            (Rmw::And, _) => s.i32_atomic_rmw8_and_u(m),
            (Rmw::Or, W::B4) => s.i32_atomic_rmw_or(m),
            (Rmw::Or, W::B2) => s.i32_atomic_rmw16_or_u(m),
            (Rmw::Or, _) => s.i32_atomic_rmw8_or_u(m),
            (Rmw::Xor, W::B4) => s.i32_atomic_rmw_xor(m),
            (Rmw::Xor, W::B2) => s.i32_atomic_rmw16_xor_u(m),
            (Rmw::Xor, _) => s.i32_atomic_rmw8_xor_u(m),
            (Rmw::Xchg, W::B4) => s.i32_atomic_rmw_xchg(m),
            (Rmw::Xchg, W::B2) => s.i32_atomic_rmw16_xchg_u(m),
            (Rmw::Xchg, _) => s.i32_atomic_rmw8_xchg_u(m),
        };
        Ok(self.pop32())
    }

    fn cmpxchg(&mut self, w: W, addr: V, expected: V, new: V) -> Result<V, ()> {
        self.check_aligned(w, addr);
        self.push32(addr);
        let m = MemArg {
            offset: 0,
            align: w.bytes().trailing_zeros(),
            target: MemArgTarget::Memory(MEM_REGION),
            ordering: None,
        };
        if w == W::B8 {
            self.push64(expected);
            self.push64(new);
            self.sink().i64_atomic_rmw_cmpxchg(m);
            return Ok(self.pop64());
        }
        self.push32(expected);
        self.push32(new);
        let mut s = self.sink();
        match w {
            W::B4 => s.i32_atomic_rmw_cmpxchg(m),
            W::B2 => s.i32_atomic_rmw16_cmpxchg_u(m),
            _ => s.i32_atomic_rmw8_cmpxchg_u(m),
        };
        Ok(self.pop32())
    }

    fn repeat(&mut self, copy: bool, w: W) -> Result<(), ()> {
        self.repeat_upwards(copy, w);
        Ok(())
    }
    fn cmpxchg16b(&mut self, addr: V) -> Result<V, ()> {
        self.compare_exchange_pair(addr)
    }
    fn repeat_compare(&mut self, scan: bool, w: W, until_equal: bool) -> Result<(), ()> {
        self.compare_upwards(scan, w, until_equal);
        Ok(())
    }
    fn mxcsr(&mut self) -> V {
        self.read_mxcsr()
    }
    fn set_mxcsr(&mut self, v: V) -> Result<(), ()> {
        self.write_mxcsr(v);
        Ok(())
    }
    fn cpuid(&mut self) {
        self.query();
    }
    fn host(&mut self, form: u32, a: V, b: V) -> V {
        self.by_host(form, a, b)
    }
    fn fence(&mut self) {
        self.sink().atomic_fence(wasm_encoder::Ordering::SeqCst);
    }

    fn xmm(&mut self, r: usize) -> u32 {
        let l = self.locals.xmm(r);
        self.sink().local_get(l);
        self.pop128()
    }
    fn set_xmm(&mut self, r: usize, v: u32) {
        let l = self.locals.xmm(r);
        self.sink().local_get(v).local_set(l);
        self.dirty |= crate::usage::xmm(r);
    }
    fn vconst(&mut self, value: u128) -> u32 {
        self.sink().v128_const(value as i128);
        self.pop128()
    }
    fn vec1(&mut self, op: Vec1, a: u32) -> u32 {
        self.vector_unary(op, a)
    }
    fn blend(&mut self, w: W, mask: u32, a: u32, b: u32) -> u32 {
        self.vector_blend(w, mask, a, b)
    }
    fn vec2(&mut self, op: Vec2, a: u32, b: u32) -> u32 {
        self.vector(op, a, b)
    }
    fn vec_shift(&mut self, op: VecShift, a: u32, count: V) -> u32 {
        self.vector_shift(op, a, count)
    }
    fn host_vector(&mut self, op: Vector, imm: u8, a: u32, b: u32, c: V) -> u32 {
        self.vector_by_host(op.form(imm), [a, b], c)
    }
    fn shuffle(&mut self, a: u32, b: u32, sel: [u8; 16]) -> u32 {
        self.sink().local_get(a).local_get(b).i8x16_shuffle(sel);
        self.pop128()
    }
    fn extract(&mut self, w: W, a: u32, lane: u8) -> V {
        let mut s = self.sink();
        s.local_get(a);
        match w {
            W::B8 if lane == 0 => {
                s.f64x2_extract_lane(0);
                return self.pop_float(w);
            }
            W::B4 if lane == 0 => {
                s.f32x4_extract_lane(0);
                return self.pop_float(w);
            }
            W::B8 => {
                s.i64x2_extract_lane(lane);
                return self.pop64();
            }
            W::B4 => s.i32x4_extract_lane(lane),
            W::B2 => s.i16x8_extract_lane_u(lane),
            W::B1 => s.i8x16_extract_lane_u(lane),
        };
        self.pop32()
    }
    fn replace(&mut self, w: W, a: u32, lane: u8, v: V) -> u32 {
        self.sink().local_get(a);
        if let (W::B8, V::F64(l)) = (w, v) {
            self.sink().local_get(l).f64x2_replace_lane(lane);
        } else if let (W::B4, V::F32(l)) = (w, v) {
            self.sink().local_get(l).f32x4_replace_lane(lane);
        } else if w == W::B8 {
            self.push64(v);
            self.sink().i64x2_replace_lane(lane);
        } else {
            self.push32(v);
            let mut s = self.sink();
            match w {
                W::B4 => s.i32x4_replace_lane(lane),
                W::B2 => s.i16x8_replace_lane(lane),
                _ => s.i8x16_replace_lane(lane),
            };
        }
        self.pop128()
    }
    fn bitmask(&mut self, w: W, a: u32) -> V {
        let mut s = self.sink();
        s.local_get(a);
        match w {
            W::B1 => s.i8x16_bitmask(),
            W::B2 => s.i16x8_bitmask(),
            W::B4 => s.i32x4_bitmask(),
            W::B8 => s.i64x2_bitmask(),
        };
        self.pop32()
    }
    fn fp(&mut self, op: Fp, w: W, a: V, b: V) -> V {
        self.scalar(op, w, a, b)
    }
    fn round(&mut self, how: Rounding, w: W, a: V) -> V {
        self.scalar_round(how, w, a)
    }
    fn fcmp(&mut self, w: W, a: V, b: V, _signaling: bool) -> (V, V, V) {
        self.float_compare(w, a, b)
    }
    fn float_is(&mut self, op: Rel, w: W, a: V, b: V) -> V {
        self.float_relation(op, w, a, b)
    }
    fn cvt(&mut self, op: Cvt, a: V) -> V {
        self.convert(op, a)
    }
    fn cvt_lanes(&mut self, op: Cvt, a: u32) -> u32 {
        self.convert_lanes(op, a)
    }
}
