//! x87 in translated code. Loads, stores, exchanges and signs are done here, on the registers in the state;
//! arithmetic, comparisons and conversions that may round are the host's (`x87` import), on the CPU's own
//! unit, as is whatever meets an empty register or a full stack. A control word that unmasks an exception
//! leaves the function (`bail`): the interpreter does what the CPU would.

use crate::lift::{Lift, V, X87, state_arg};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};
use vkernel_abi::state::{AF, CF, OF, OFF_X87_CONTROL, OFF_X87_REGISTERS, OFF_X87_STATUS, OFF_X87_TAGS, PF, SF, ZF};
use vkernel_semantics::backend::{Backend, Flow, W};
use vkernel_semantics::operand::{address, op_width, write_reg};
use vkernel_semantics::x87_values::{condition, form};
use wasm_encoder::BlockType;

/// Status bits: C1, which all that moves the top clears, and those that TOP takes.
const C1: i32 = 0x200;
const TOP: i32 = 0x3800;
const FST_SINGLE: i32 = 0xd910;
const FLD1: i32 = 0xd9e8;

impl Lift<'_> {
    pub fn x87(&mut self, i: &Instruction) -> Result<Flow<V>, ()> {
        let f = form(i);
        let memory = f & 0xff < 0xc0;
        let other = (f & 7) as u8;
        self.x87_only_masked();
        match i.mnemonic() {
            M::Fnop | M::Wait => {}
            M::Fnstsw | M::Fnstcw => {
                let word = if i.mnemonic() == M::Fnstsw { OFF_X87_STATUS } else { OFF_X87_CONTROL };
                self.sink().i32_const(0).i32_load16_u(state_arg(word, 1));
                let v = self.pop32();
                if i.op0_kind() == OpKind::Register {
                    write_reg(self, Register::AX, v);
                } else {
                    let a = address(self, i);
                    self.store(W::B2, a, v)?;
                }
            }
            M::Fldcw => {
                let a = address(self, i);
                let v = self.load(W::B2, a)?;
                self.x87_control(v);
            }
            M::Fld if f == 0xdb28 => {
                let a = address(self, i);
                let mantissa = self.load(W::B8, a)?;
                let eight = self.c(8);
                let a = self.bin(vkernel_semantics::backend::Bin::Add, W::B8, a, eight);
                let exponent = self.load(W::B2, a)?;
                self.x87_push(mantissa, exponent);
            }
            M::Fld if memory => {
                let a = address(self, i);
                let w = op_width(i, 0);
                let v = self.load(w, a)?;
                self.x87_push_float(f, w, v);
            }
            M::Fld => {
                let top = self.x87_top();
                let from = self.x87_st(top, other);
                self.x87_unless_empty(f, &[from], |l| {
                    let (mantissa, exponent) = l.x87_get(from);
                    l.x87_push(mantissa, exponent);
                });
            }
            M::Fldz => self.x87_push(V::Const(0), V::Const(0)),
            M::Fld1 => self.x87_push(V::Const(1 << 63), V::Const(0x3fff)),
            M::Fild => {
                let a = address(self, i);
                let w = op_width(i, 0);
                let v = self.load(w, a)?;
                self.x87_push_integer(w, v);
            }
            M::Fstp if f == 0xdb38 => {
                let top = self.x87_top();
                self.x87_are_valid(&[top]);
                let valid = self.pop32();
                // An empty register: another store raises what this one would.
                self.push32(valid);
                self.sink().i32_eqz().nop().if_(BlockType::Empty);
                self.sink().i32_const(FST_SINGLE).i64_const(0).call(X87).drop().end();
                let (mantissa, exponent) = self.x87_get(top);
                let mantissa = self.select(valid, mantissa, V::Const(3 << 62));
                let exponent = self.select(valid, exponent, V::Const(0xffff));
                let a = address(self, i);
                self.store(W::B8, a, mantissa)?;
                let eight = self.c(8);
                let a = self.bin(vkernel_semantics::backend::Bin::Add, W::B8, a, eight);
                self.store(W::B2, a, exponent)?;
                self.x87_pop(top);
            }
            M::Fst | M::Fstp if !memory && f >> 8 == 0xdd => {
                let top = self.x87_top();
                let to = self.x87_st(top, other);
                self.x87_unless_empty(f, &[top], |l| {
                    let (mantissa, exponent) = l.x87_get(top);
                    l.x87_put(to, mantissa, exponent);
                    l.x87_tag(to, true);
                    if i.mnemonic() == M::Fstp {
                        l.x87_pop(top);
                    } else {
                        l.x87_set_top(top);
                    }
                });
            }
            M::Fxch if f >> 8 == 0xd9 => {
                let top = self.x87_top();
                let with = self.x87_st(top, other);
                self.x87_unless_empty(f, &[top, with], |l| {
                    let (m0, e0) = l.x87_get(top);
                    let (m1, e1) = l.x87_get(with);
                    l.x87_put(top, m1, e1);
                    l.x87_put(with, m0, e0);
                    l.x87_set_top(top);
                });
            }
            M::Fabs | M::Fchs => {
                let top = self.x87_top();
                self.x87_unless_empty(f, &[top], |l| {
                    let (_, exponent) = l.x87_get(top);
                    l.sink().local_get(top);
                    l.push32(exponent);
                    if i.mnemonic() == M::Fabs {
                        l.sink().i32_const(0x7fff).i32_and();
                    } else {
                        l.sink().i32_const(0x8000).i32_xor();
                    }
                    l.sink().i32_store16(state_arg(OFF_X87_REGISTERS + 8, 1));
                    l.x87_set_top(top);
                });
            }
            _ if condition(i).is_some() => {
                let c = condition(i).ok_or(())?;
                let top = self.x87_top();
                let from = self.x87_st(top, other);
                self.x87_are_valid(&[top, from]);
                self.sink().i32_eqz();
                self.x87_bail_if();
                let c = vkernel_semantics::flags::cond(self, c);
                let (m0, e0) = self.x87_get(top);
                let (m1, e1) = self.x87_get(from);
                let m = self.select(c, m1, m0);
                let e = self.select(c, e1, e0);
                self.x87_put(top, m, e);
            }
            M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => {
                self.sink().i32_const(f as i32).i64_const(0).call(X87);
                let flags = self.pop64();
                self.lazy = None;
                for (flag, bit) in [(CF, 0), (PF, 2), (ZF, 6)] {
                    vkernel_semantics::int::store_bit(self, flag, flags, bit);
                }
                for flag in [OF, SF, AF] {
                    self.store_flag(flag, V::Const(0));
                }
            }
            _ if memory && writes_memory(f) => {
                self.sink().i32_const(f as i32).i64_const(0).call(X87);
                let v = self.pop64();
                let a = address(self, i);
                self.store(op_width(i, 0), a, v)?;
            }
            _ if memory => {
                let a = address(self, i);
                let v = self.load(op_width(i, 0), a)?;
                self.sink().i32_const(f as i32);
                self.push64(v);
                self.sink().call(X87).drop();
            }
            _ => {
                self.sink().i32_const(f as i32).i64_const(0).call(X87).drop();
            }
        }
        Ok(Flow::Next)
    }

    /// Leaves the function when the control word unmasks an exception; once in a block.
    fn x87_only_masked(&mut self) {
        if !self.x87_masked {
            self.sink().i32_const(0).i32_load16_u(state_arg(OFF_X87_CONTROL, 1));
            self.x87_bail_unless_masked();
            self.x87_masked = true;
        }
    }

    /// The control word is on the stack.
    fn x87_bail_unless_masked(&mut self) {
        self.sink().i32_const(0x3f).i32_and().i32_const(0x3f).i32_ne();
        self.x87_bail_if();
    }

    /// The condition is on the stack.
    fn x87_bail_if(&mut self) {
        self.sink().nop().if_(BlockType::Empty);
        self.bail();
        self.sink().end();
    }

    /// FLDCW: bit 6 is always set, bits 7 and 13–15 never.
    fn x87_control(&mut self, v: V) {
        self.push32(v);
        self.x87_bail_unless_masked();
        self.sink().i32_const(0);
        self.push32(v);
        self.sink().i32_const(0x1f7f).i32_and().i32_const(0x40).i32_or();
        self.sink().i32_store16(state_arg(OFF_X87_CONTROL, 1));
    }

    /// A local with the offset of ST(0) from the registers' start: 16 × its physical number.
    fn x87_top(&mut self) -> u32 {
        self.sink().i32_const(0).i32_load16_u(state_arg(OFF_X87_STATUS, 1));
        self.sink().i32_const(7).i32_shr_u().i32_const(0x70).i32_and();
        self.x87_local()
    }

    fn x87_local(&mut self) -> u32 {
        let V::I32(l) = self.pop32() else { unreachable!("pop32 gives a local") };
        l
    }

    /// The same of ST(n).
    fn x87_st(&mut self, top: u32, n: u8) -> u32 {
        if n == 0 {
            return top;
        }
        self.sink().local_get(top).i32_const(16 * i32::from(n)).i32_add().i32_const(0x70).i32_and();
        self.x87_local()
    }

    /// Pushes 1 when none of the registers is empty, else 0.
    fn x87_are_valid(&mut self, registers: &[u32]) {
        self.sink().i32_const(0).i32_load8_u(state_arg(OFF_X87_TAGS, 0));
        let tags = self.x87_local();
        for (n, r) in registers.iter().enumerate() {
            self.sink().local_get(tags).local_get(*r).i32_const(4).i32_shr_u().i32_shr_u();
            if n > 0 {
                self.sink().i32_and();
            }
        }
        self.sink().i32_const(1).i32_and();
    }

    /// `body`, or the host's `form` when one of the registers is empty.
    fn x87_unless_empty(&mut self, form: u32, registers: &[u32], body: impl FnOnce(&mut Self)) {
        self.x87_are_valid(registers);
        self.sink().if_(BlockType::Empty);
        body(self);
        self.sink().else_().i32_const(form as i32).i64_const(0).call(X87).drop().end();
    }

    fn x87_get(&mut self, r: u32) -> (V, V) {
        self.sink().local_get(r).i64_load(state_arg(OFF_X87_REGISTERS, 3));
        let mantissa = self.pop64();
        self.sink().local_get(r).i32_load16_u(state_arg(OFF_X87_REGISTERS + 8, 1));
        (mantissa, self.pop32())
    }

    fn x87_put(&mut self, r: u32, mantissa: V, exponent: V) {
        self.sink().local_get(r);
        self.push64(mantissa);
        self.sink().i64_store(state_arg(OFF_X87_REGISTERS, 3)).local_get(r);
        self.push32(exponent);
        self.sink().i32_store16(state_arg(OFF_X87_REGISTERS + 8, 1));
    }

    fn x87_tag(&mut self, r: u32, valid: bool) {
        self.sink().i32_const(0).i32_const(0).i32_load8_u(state_arg(OFF_X87_TAGS, 0));
        self.sink().i32_const(1).local_get(r).i32_const(4).i32_shr_u().i32_shl();
        if valid {
            self.sink().i32_or();
        } else {
            self.sink().i32_const(-1).i32_xor().i32_and();
        }
        self.sink().i32_store8(state_arg(OFF_X87_TAGS, 0));
    }

    /// Makes `r` the top, and clears C1.
    fn x87_set_top(&mut self, r: u32) {
        self.sink().i32_const(0).i32_const(0).i32_load16_u(state_arg(OFF_X87_STATUS, 1));
        self.sink().i32_const(!(C1 | TOP)).i32_and().local_get(r).i32_const(7).i32_shl().i32_or();
        self.sink().i32_store16(state_arg(OFF_X87_STATUS, 1));
    }

    fn x87_pop(&mut self, top: u32) {
        self.x87_tag(top, false);
        let next = self.x87_st(top, 1);
        self.x87_set_top(next);
    }

    /// Pushes a value that is exact; on a full stack the host does what any load does there.
    fn x87_push(&mut self, mantissa: V, exponent: V) {
        let top = self.x87_top();
        let to = self.x87_st(top, 7);
        self.sink().i32_const(0).i32_load8_u(state_arg(OFF_X87_TAGS, 0));
        self.sink().local_get(to).i32_const(4).i32_shr_u().i32_shr_u().i32_const(1).i32_and();
        self.sink().nop().if_(BlockType::Empty).i32_const(FLD1).i64_const(0).call(X87).drop().else_();
        self.x87_put(to, mantissa, exponent);
        self.x87_tag(to, true);
        self.x87_set_top(to);
        self.sink().end();
    }

    /// FLD of a float: zeros and normal numbers here; others raise flags.
    fn x87_push_float(&mut self, form: u32, w: W, v: V) {
        let (fraction, mask, bias) = if w == W::B4 { (23, 0xff, 16383 - 127) } else { (52, 0x7ff, 16383 - 1023) };
        self.push64(v);
        let V::I64(bits) = self.pop64() else { unreachable!("pop64 gives a local") };
        self.sink().local_get(bits).i64_const(fraction).i64_shr_u().i64_const(mask).i64_and().i32_wrap_i64();
        let exponent = self.x87_local();
        self.sink().local_get(bits).i64_const(64 - i64::from(w.bits()) + 1).i64_shl().i64_const(0).i64_ne();
        let nonzero = self.x87_local();
        self.sink().local_get(exponent).i32_const(1).i32_add().i32_const(mask as i32).i32_and().i32_const(2).i32_lt_u();
        self.sink().local_get(nonzero).i32_and().nop().if_(BlockType::Empty);
        self.sink().i32_const(form as i32).local_get(bits).call(X87).drop().else_();
        self.sink().local_get(bits).i64_const(63 - fraction).i64_shl().i64_const(i64::MIN).i64_or();
        self.sink().i64_const(0).local_get(nonzero).select();
        let mantissa = self.pop64();
        self.sink().local_get(exponent).i32_const(bias).i32_add().i32_const(0).local_get(nonzero).select();
        self.sink().local_get(bits).i64_const(i64::from(w.bits()) - 1).i64_shr_u().i32_wrap_i64();
        self.sink().i32_const(15).i32_shl().i32_or();
        let exponent = self.pop32();
        self.x87_push(mantissa, exponent);
        self.sink().end();
    }

    fn x87_push_integer(&mut self, w: W, v: V) {
        let v = self.un(vkernel_semantics::backend::Un::Sext, w, v);
        self.push64(v);
        let V::I64(v) = self.pop64() else { unreachable!("pop64 gives a local") };
        self.sink().local_get(v).i64_const(63).i64_shr_s();
        let V::I64(sign) = self.pop64() else { unreachable!("pop64 gives a local") };
        self.sink().local_get(v).local_get(sign).i64_xor().local_get(sign).i64_sub();
        let V::I64(magnitude) = self.pop64() else { unreachable!("pop64 gives a local") };
        self.sink().local_get(magnitude).i64_clz();
        let V::I64(shift) = self.pop64() else { unreachable!("pop64 gives a local") };
        // A count of 64 shifts by nothing, and zero stays zero.
        self.sink().local_get(magnitude).local_get(shift).i64_shl();
        let mantissa = self.pop64();
        self.sink().i32_const(16383 + 63).local_get(shift).i32_wrap_i64().i32_sub().i32_const(0);
        self.sink().local_get(magnitude).i64_const(0).i64_ne().select();
        self.sink().local_get(sign).i32_wrap_i64().i32_const(0x8000).i32_and().i32_or();
        let exponent = self.pop32();
        self.x87_push(mantissa, exponent);
    }
}

/// FST, FIST, FISTTP to memory.
fn writes_memory(form: u32) -> bool {
    matches!(form >> 8, 0xd9 | 0xdb | 0xdd | 0xdf) && matches!(form >> 3 & 7, 1..=3 | 7)
}
