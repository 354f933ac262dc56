//! The lifter's floating point, conversions and wide multiplication in terms of wasm's.
//!
//! The loader keeps the guest's MXCSR in the host's while translated code runs, so rounding and
//! sticky flags are the CPU's own.

use crate::lift::{Lift, V};
use vkernel_semantics::backend::{Cvt, Fp, Rel, Rounding, W};

impl Lift<'_> {
    pub fn bswap64(&mut self, a: V) -> V {
        // No byte swap in wasm: a shuffle of the vector's low half, which the engine does in one step.
        let mut sel = [0u8; 16];
        for (n, s) in sel.iter_mut().enumerate().take(8) {
            *s = 7 - n as u8;
        }
        self.push64(a);
        self.sink().i64x2_splat();
        let v = self.pop128();
        self.sink().local_get(v).local_get(v).i8x16_shuffle(sel).i64x2_extract_lane(0);
        self.pop64()
    }

    /// High half of a 64×64 product.
    pub fn wide_multiply(&mut self, signed: bool, a: V, b: V) -> V {
        self.push64(a);
        self.push64(b);
        let mut s = self.sink();
        if signed {
            s.i64_mul_wide_s()
        } else {
            s.i64_mul_wide_u()
        };
        let high = self.pop64();
        self.sink().drop();
        high
    }

    /// Pushes a bit pattern as a float.
    fn push_float(&mut self, w: W, v: V) {
        match (w, v) {
            (W::B4, V::F32(l)) | (W::B8, V::F64(l)) => {
                self.sink().local_get(l);
            }
            (W::B4, _) => {
                self.push32(v);
                self.sink().f32_reinterpret_i32();
            }
            _ => {
                self.push64(v);
                self.sink().f64_reinterpret_i64();
            }
        }
    }

    pub fn pop_float(&mut self, w: W) -> V {
        let l = self.locals.temp_float(w == W::B4);
        self.sink().local_set(l);
        if w == W::B4 { V::F32(l) } else { V::F64(l) }
    }

    /// MINS*, MAXS* in vectors of one value: wasm has the CPU's rules there.
    fn scalar_extreme(&mut self, op: Fp, w: W, a: V, b: V) -> V {
        for v in [b, a] {
            self.push_float(w, v);
            let mut s = self.sink();
            if w == W::B4 {
                s.f32x4_splat()
            } else {
                s.f64x2_splat()
            };
        }
        let mut s = self.sink();
        match (op, w) {
            (Fp::Min, W::B4) => s.f32x4_pmin(),
            (Fp::Min, _) => s.f64x2_pmin(),
            (_, W::B4) => s.f32x4_pmax(),
            _ => s.f64x2_pmax(),
        };
        if w == W::B4 {
            s.f32x4_extract_lane(0)
        } else {
            s.f64x2_extract_lane(0)
        };
        self.pop_float(w)
    }

    pub fn scalar(&mut self, op: Fp, w: W, a: V, b: V) -> V {
        if matches!(op, Fp::Min | Fp::Max) {
            return self.scalar_extreme(op, w, a, b);
        }
        let single = w == W::B4;
        self.push_float(w, a);
        if op == Fp::Sqrt {
            let mut s = self.sink();
            if single {
                s.f32_sqrt()
            } else {
                s.f64_sqrt()
            };
            return self.pop_float(w);
        }
        self.push_float(w, b);
        let mut s = self.sink();
        match (op, single) {
            (Fp::Add, true) => s.f32_add(),
            (Fp::Add, false) => s.f64_add(),
            (Fp::Sub, true) => s.f32_sub(),
            (Fp::Sub, false) => s.f64_sub(),
            (Fp::Mul, true) => s.f32_mul(),
            (Fp::Mul, false) => s.f64_mul(),
            (Fp::Div, true) => s.f32_div(),
            (Fp::Div, false) => s.f64_div(),
            (Fp::Sqrt | Fp::Min | Fp::Max, _) => unreachable!("handled above"),
        };
        self.pop_float(w)
    }

    fn float_test(&mut self, w: W, a: V, b: V, op: Test) -> V {
        self.push_float(w, a);
        self.push_float(w, b);
        let mut s = self.sink();
        match (op, w) {
            (Test::Ne, W::B4) => s.f32_ne(),
            (Test::Ne, _) => s.f64_ne(),
            (Test::Lt, W::B4) => s.f32_lt(),
            (Test::Lt, _) => s.f64_lt(),
            (Test::Le, W::B4) => s.f32_le(),
            (Test::Le, _) => s.f64_le(),
            (Test::Eq, W::B4) => s.f32_eq(),
            (Test::Eq, _) => s.f64_eq(),
        };
        self.pop32()
    }

    fn either(&mut self, x: V, y: V) -> V {
        self.push32(x);
        self.push32(y);
        self.sink().i32_or();
        self.pop32()
    }

    pub fn float_compare(&mut self, w: W, a: V, b: V) -> (V, V, V) {
        let unordered = self.float_relation(Rel::Unordered, w, a, b);
        let less = self.float_test(w, a, b, Test::Lt);
        let equal = self.float_test(w, a, b, Test::Eq);
        (unordered, less, equal)
    }

    pub fn float_relation(&mut self, op: Rel, w: W, a: V, b: V) -> V {
        match op {
            Rel::Greater => self.float_test(w, b, a, Test::Lt),
            Rel::GreaterOrEqual => self.float_test(w, b, a, Test::Le),
            Rel::Unordered => {
                let x = self.float_test(w, a, a, Test::Ne);
                let y = self.float_test(w, b, b, Test::Ne);
                self.either(x, y)
            }
            Rel::LessOrGreater => {
                let x = self.float_test(w, a, b, Test::Lt);
                let y = self.float_test(w, b, a, Test::Lt);
                self.either(x, y)
            }
        }
    }

    pub fn convert(&mut self, op: Cvt, a: V) -> V {
        match op {
            Cvt::IntToF(from, to) => {
                if from == W::B8 {
                    self.push64(a)
                } else {
                    self.push32(a)
                }
                let mut s = self.sink();
                match (from, to) {
                    (W::B8, W::B4) => s.f32_convert_i64_s(),
                    (W::B8, _) => s.f64_convert_i64_s(),
                    (_, W::B4) => s.f32_convert_i32_s(),
                    _ => s.f64_convert_i32_s(),
                };
                self.pop_float(to)
            }
            Cvt::F32ToF64 => {
                self.push_float(W::B4, a);
                self.sink().f64_promote_f32();
                self.pop_float(W::B8)
            }
            Cvt::F64ToF32 => {
                self.push_float(W::B8, a);
                self.sink().f32_demote_f64();
                self.pop_float(W::B4)
            }
            Cvt::FToInt(from, to, false) => {
                self.only_to_nearest();
                self.push_float(from, a);
                let mut s = self.sink();
                if from == W::B4 {
                    s.f32_nearest()
                } else {
                    s.f64_nearest()
                };
                let rounded = self.pop_float(from);
                self.truncate(from, to, rounded)
            }
            Cvt::FToInt(from, to, true) => self.truncate(from, to, a),
        }
    }

    /// Leaves the function when MXCSR says another rounding than to the nearest.
    fn only_to_nearest(&mut self) {
        let m = crate::lift::state_arg(vkernel_abi::state::OFF_MXCSR, 2);
        self.sink().i32_const(0).i32_load(m).i32_const(0x6000).i32_and().nop().if_(wasm_encoder::BlockType::Empty);
        self.bail();
        self.sink().end();
    }

    /// What wasm rounds to is fixed: where MXCSR decides, only to the nearest.
    pub fn by_mxcsr(&mut self, how: Rounding) {
        if how.0 & 4 != 0 {
            self.only_to_nearest();
        }
    }

    pub fn scalar_round(&mut self, how: Rounding, w: W, a: V) -> V {
        self.by_mxcsr(how);
        self.push_float(w, a);
        let mut s = self.sink();
        match (how.0 & 7, w) {
            (1, W::B4) => s.f32_floor(),
            (1, _) => s.f64_floor(),
            (2, W::B4) => s.f32_ceil(),
            (2, _) => s.f64_ceil(),
            (3, W::B4) => s.f32_trunc(),
            (3, _) => s.f64_trunc(),
            (_, W::B4) => s.f32_nearest(),
            _ => s.f64_nearest(),
        };
        self.pop_float(w)
    }

    pub fn convert_lanes(&mut self, op: Cvt, a: u32) -> u32 {
        if let Cvt::FToInt(from, _, truncated) = op {
            return self.lanes_to_integers(from, truncated, a);
        }
        let mut s = self.sink();
        s.local_get(a);
        match op {
            Cvt::IntToF(_, W::B4) => s.f32x4_convert_i32x4_s(),
            Cvt::IntToF(..) => s.f64x2_convert_low_i32x4_s(),
            Cvt::F32ToF64 => s.f64x2_promote_low_f32x4(),
            _ => s.f32x4_demote_f64x2_zero(),
        };
        self.pop128()
    }

    /// CVT(T)PS2DQ, CVT(T)PD2DQ. wasm saturates and makes zero of NaN: too large and NaN become the
    /// integer indefinite value, which too small already is.
    fn lanes_to_integers(&mut self, from: W, truncated: bool, a: u32) -> u32 {
        let single = from == W::B4;
        let mut a = a;
        if !truncated {
            self.only_to_nearest();
            let mut s = self.sink();
            s.local_get(a);
            if single {
                s.f32x4_nearest()
            } else {
                s.f64x2_nearest()
            };
            a = self.pop128();
        }
        let mut s = self.sink();
        s.v128_const(0x8000_0000_8000_0000_8000_0000_8000_0000u128 as i128).local_get(a);
        if single {
            s.i32x4_trunc_sat_f32x4_s()
        } else {
            s.i32x4_trunc_sat_f64x2_s_zero()
        };
        // Not (a < 2^31), in both halves of a lane.
        s.local_get(a);
        if single {
            s.f32_const(2_147_483_648.0f32.into()).f32x4_splat().f32x4_lt().v128_not();
        } else {
            s.f64_const(2_147_483_648.0f64.into()).f64x2_splat().f64x2_lt().v128_not();
            // The two upper lanes of the result are zero whatever is there.
            let mask = self.pop128();
            self.sink().local_get(mask).v128_const(0);
            self.sink().i8x16_shuffle([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23]);
        }
        self.sink().v128_bitselect();
        self.pop128()
    }

    /// CVTT*: what does not fit is the integer indefinite value (SDM vol. 1, table E-1).
    fn truncate(&mut self, from: W, to: W, a: V) -> V {
        self.push_float(from, a);
        let mut s = self.sink();
        if from == W::B4 {
            s.i64_trunc_sat_f32_s()
        } else {
            s.i64_trunc_sat_f64_s()
        };
        let r = self.pop64();
        let V::I64(r) = r else { unreachable!("pop64 gives a local") };
        let nan = self.float_test(from, a, a, Test::Ne);
        let V::I32(nan) = nan else { unreachable!("pop32 gives a local") };
        let indefinite = if to == W::B8 { i64::MIN } else { 0x8000_0000 };
        self.sink().i64_const(indefinite).local_get(r);
        // Condition: NaN or out of range.
        if to == W::B8 {
            self.sink().local_get(r).i64_const(i64::MAX).i64_eq();
        } else {
            self.sink().local_get(r).local_get(r).i64_extend32_s().i64_ne();
        }
        self.sink().local_get(nan).i32_or().select();
        if to == W::B8 {
            return self.pop64();
        }
        self.sink().i32_wrap_i64();
        self.pop32()
    }
}

#[derive(Clone, Copy)]
enum Test {
    Ne,
    Lt,
    Le,
    Eq,
}
