//! The lifter's vectors in terms of wasm's.

use crate::lift::{Lift, V};
use vkernel_semantics::backend::{Fp, Vec1, Vec2, VecShift, W};

impl Lift<'_> {
    pub fn vector(&mut self, op: Vec2, a: u32, b: u32) -> u32 {
        // x86 MINPS/MAXPS give the second operand when unordered: wasm's pmin and pmax swapped.
        // The relaxed dot product has the unsigned operand second.
        let swapped = matches!(op, Vec2::F(Fp::Min | Fp::Max, _) | Vec2::AndNot | Vec2::MaddU8S8);
        let (x, y) = if swapped { (b, a) } else { (a, b) };
        if let Vec2::InterleaveLo(w) | Vec2::InterleaveHi(w) = op {
            let bytes = w.bytes() as u8;
            let first = if matches!(op, Vec2::InterleaveHi(_)) { 8 } else { 0 };
            let mut sel = [0u8; 16];
            for (n, s) in sel.iter_mut().enumerate() {
                let n = n as u8;
                let lane = n / bytes / 2;
                *s = first + lane * bytes + n % bytes + if (n / bytes) % 2 == 1 { 16 } else { 0 };
            }
            self.sink().local_get(a).local_get(b).i8x16_shuffle(sel);
            return self.pop128();
        }
        if let Vec2::FCmp(w, predicate) = op {
            return self.float_mask(w, predicate, a, b);
        }
        if matches!(op, Vec2::MulHiS | Vec2::MulHiU) {
            return self.multiply_high(op == Vec2::MulHiS, a, b);
        }
        if op == Vec2::Sad {
            return self.absolute_differences(a, b);
        }
        if op == Vec2::MulEvenS32 {
            // The even lanes moved together, and the engine's widening multiplication takes them from there.
            const EVEN: [u8; 16] = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];
            for l in [a, b] {
                self.sink().local_get(l).local_get(l).i8x16_shuffle(EVEN);
            }
            self.sink().i64x2_extmul_low_i32x4_s();
            return self.pop128();
        }
        if op == Vec2::MulEvenU32 {
            let mask = 0x0000_0000_ffff_ffff_0000_0000_ffff_ffffu128 as i128;
            self.sink().local_get(a).v128_const(mask).v128_and().local_get(b).v128_const(mask).v128_and().i64x2_mul();
            return self.pop128();
        }
        let mut s = self.sink();
        s.local_get(x).local_get(y);
        match op {
            Vec2::And => s.v128_and(),
            Vec2::Or => s.v128_or(),
            Vec2::Xor => s.v128_xor(),
            Vec2::AndNot => s.v128_andnot(),
            Vec2::Add(W::B1) => s.i8x16_add(),
            Vec2::Add(W::B2) => s.i16x8_add(),
            Vec2::Add(W::B4) => s.i32x4_add(),
            Vec2::Add(W::B8) => s.i64x2_add(),
            Vec2::Sub(W::B1) => s.i8x16_sub(),
            Vec2::Sub(W::B2) => s.i16x8_sub(),
            Vec2::Sub(W::B4) => s.i32x4_sub(),
            Vec2::Sub(W::B8) => s.i64x2_sub(),
            Vec2::AddSatU(W::B1) => s.i8x16_add_sat_u(),
            Vec2::AddSatU(_) => s.i16x8_add_sat_u(),
            Vec2::AddSatS(W::B1) => s.i8x16_add_sat_s(),
            Vec2::AddSatS(_) => s.i16x8_add_sat_s(),
            Vec2::SubSatU(W::B1) => s.i8x16_sub_sat_u(),
            Vec2::SubSatU(_) => s.i16x8_sub_sat_u(),
            Vec2::SubSatS(W::B1) => s.i8x16_sub_sat_s(),
            Vec2::SubSatS(_) => s.i16x8_sub_sat_s(),
            Vec2::MulLo(W::B4) => s.i32x4_mul(),
            Vec2::MulLo(_) => s.i16x8_mul(),
            // Relaxed operations are the CPU's own instructions (engine's configuration).
            Vec2::MulRoundS16 => s.i16x8_relaxed_q15mulr_s(),
            Vec2::MaddU8S8 => s.i16x8_relaxed_dot_i8x16_i7x16_s(),
            Vec2::Swizzle => s.i8x16_relaxed_swizzle(),
            Vec2::MaddS16 => s.i32x4_dot_i16x8_s(),
            Vec2::AvgU(W::B1) => s.i8x16_avgr_u(),
            Vec2::AvgU(_) => s.i16x8_avgr_u(),
            Vec2::MinU(W::B1) => s.i8x16_min_u(),
            Vec2::MinU(W::B2) => s.i16x8_min_u(),
            Vec2::MinU(_) => s.i32x4_min_u(),
            Vec2::MaxU(W::B1) => s.i8x16_max_u(),
            Vec2::MaxU(W::B2) => s.i16x8_max_u(),
            Vec2::MaxU(_) => s.i32x4_max_u(),
            Vec2::MinS(W::B1) => s.i8x16_min_s(),
            Vec2::MinS(W::B2) => s.i16x8_min_s(),
            Vec2::MinS(_) => s.i32x4_min_s(),
            Vec2::MaxS(W::B1) => s.i8x16_max_s(),
            Vec2::MaxS(W::B2) => s.i16x8_max_s(),
            Vec2::MaxS(_) => s.i32x4_max_s(),
            Vec2::Eq(W::B1) => s.i8x16_eq(),
            Vec2::Eq(W::B2) => s.i16x8_eq(),
            Vec2::Eq(W::B4) => s.i32x4_eq(),
            Vec2::Eq(_) => s.i64x2_eq(),
            Vec2::GtS(W::B1) => s.i8x16_gt_s(),
            Vec2::GtS(W::B2) => s.i16x8_gt_s(),
            Vec2::GtS(W::B4) => s.i32x4_gt_s(),
            Vec2::GtS(_) => s.i64x2_gt_s(),
            Vec2::PackS(W::B4) => s.i16x8_narrow_i32x4_s(),
            Vec2::PackS(_) => s.i8x16_narrow_i16x8_s(),
            Vec2::PackUS(W::B4) => s.i16x8_narrow_i32x4_u(),
            Vec2::PackUS(_) => s.i8x16_narrow_i16x8_u(),
            Vec2::F(Fp::Add, W::B4) => s.f32x4_add(),
            Vec2::F(Fp::Add, _) => s.f64x2_add(),
            Vec2::F(Fp::Sub, W::B4) => s.f32x4_sub(),
            Vec2::F(Fp::Sub, _) => s.f64x2_sub(),
            Vec2::F(Fp::Mul, W::B4) => s.f32x4_mul(),
            Vec2::F(Fp::Mul, _) => s.f64x2_mul(),
            Vec2::F(Fp::Div, W::B4) => s.f32x4_div(),
            Vec2::F(Fp::Div, _) => s.f64x2_div(),
            Vec2::F(Fp::Min, W::B4) => s.f32x4_pmin(),
            Vec2::F(Fp::Min, _) => s.f64x2_pmin(),
            Vec2::F(Fp::Max, W::B4) => s.f32x4_pmax(),
            Vec2::F(Fp::Max, _) => s.f64x2_pmax(),
            Vec2::F(Fp::Sqrt, w) => {
                s.drop();
                if w == W::B4 { s.f32x4_sqrt() } else { s.f64x2_sqrt() }
            }
            _ => unreachable!("handled above"),
        };
        self.pop128()
    }

    pub fn vector_unary(&mut self, op: Vec1, a: u32) -> u32 {
        if let Vec1::Round(w, how) = op {
            self.by_mxcsr(how);
            let mut s = self.sink();
            s.local_get(a);
            match (how.0 & 7, w) {
                (1, W::B4) => s.f32x4_floor(),
                (1, _) => s.f64x2_floor(),
                (2, W::B4) => s.f32x4_ceil(),
                (2, _) => s.f64x2_ceil(),
                (3, W::B4) => s.f32x4_trunc(),
                (3, _) => s.f64x2_trunc(),
                (_, W::B4) => s.f32x4_nearest(),
                _ => s.f64x2_nearest(),
            };
            return self.pop128();
        }
        let mut s = self.sink();
        s.local_get(a);
        match op {
            Vec1::Abs(W::B1) => s.i8x16_abs(),
            Vec1::Abs(W::B2) => s.i16x8_abs(),
            Vec1::Abs(_) => s.i32x4_abs(),
            Vec1::ExtendS(W::B1) => s.i16x8_extend_low_i8x16_s(),
            Vec1::ExtendS(W::B2) => s.i32x4_extend_low_i16x8_s(),
            Vec1::ExtendS(_) => s.i64x2_extend_low_i32x4_s(),
            Vec1::ExtendU(W::B1) => s.i16x8_extend_low_i8x16_u(),
            Vec1::ExtendU(W::B2) => s.i32x4_extend_low_i16x8_u(),
            Vec1::ExtendU(_) => s.i64x2_extend_low_i32x4_u(),
            Vec1::Round(..) => unreachable!("handled above"),
        };
        self.pop128()
    }

    /// BLENDV*: the engine's relaxed selection is the CPU's, by the sign of each lane.
    pub fn vector_blend(&mut self, w: W, mask: u32, a: u32, b: u32) -> u32 {
        let mut s = self.sink();
        s.local_get(b).local_get(a).local_get(mask);
        match w {
            W::B8 => s.i64x2_relaxed_laneselect(),
            W::B4 => s.i32x4_relaxed_laneselect(),
            _ => s.i8x16_relaxed_laneselect(),
        };
        self.pop128()
    }

    /// PMULHW, PMULHUW: the high halves of the products of 16-bit lanes.
    fn multiply_high(&mut self, signed: bool, a: u32, b: u32) -> u32 {
        let mut sel = [0u8; 16];
        for (n, s) in sel.iter_mut().enumerate() {
            *s = (n / 2 * 4 + 2 + n % 2) as u8;
        }
        let mut s = self.sink();
        s.local_get(a).local_get(b);
        if signed {
            s.i32x4_extmul_low_i16x8_s()
        } else {
            s.i32x4_extmul_low_i16x8_u()
        };
        s.local_get(a).local_get(b);
        if signed {
            s.i32x4_extmul_high_i16x8_s()
        } else {
            s.i32x4_extmul_high_i16x8_u()
        };
        s.i8x16_shuffle(sel);
        self.pop128()
    }

    /// PSADBW: the sum of eight bytes' differences in each half.
    fn absolute_differences(&mut self, a: u32, b: u32) -> u32 {
        let mut s = self.sink();
        s.local_get(a).local_get(b).i8x16_max_u().local_get(a).local_get(b).i8x16_min_u().i8x16_sub();
        s.i16x8_extadd_pairwise_i8x16_u().i32x4_extadd_pairwise_i16x8_u();
        let fours = self.pop128();
        self.sink().local_get(fours).i32_const(32).i64x2_shr_u().local_get(fours).i32x4_add();
        // The upper halves hold sums of no use.
        self.sink().v128_const(0x0000_0000_ffff_ffff_0000_0000_ffff_ffffu128 as i128).v128_and();
        self.pop128()
    }

    pub fn vector_shift(&mut self, op: VecShift, a: u32, count: V) -> u32 {
        let (VecShift::Shl(w) | VecShift::ShrU(w) | VecShift::ShrS(w)) = op;
        let bits = u64::from(w.bits());
        let arithmetic = matches!(op, VecShift::ShrS(_));
        let emit = |s: &mut Self| {
            let mut k = s.sink();
            match op {
                VecShift::Shl(W::B2) => k.i16x8_shl(),
                VecShift::Shl(W::B4) => k.i32x4_shl(),
                VecShift::Shl(_) => k.i64x2_shl(),
                VecShift::ShrU(W::B2) => k.i16x8_shr_u(),
                VecShift::ShrU(W::B4) => k.i32x4_shr_u(),
                VecShift::ShrU(_) => k.i64x2_shr_u(),
                VecShift::ShrS(W::B2) => k.i16x8_shr_s(),
                VecShift::ShrS(_) => k.i32x4_shr_s(),
            };
        };
        if let V::Const(n) = count {
            if n >= bits && !arithmetic {
                self.sink().v128_const(0);
                return self.pop128();
            }
            self.sink().local_get(a).i32_const(n.min(bits - 1) as i32);
            emit(self);
            return self.pop128();
        }
        // Out of range: zero, or the sign everywhere.
        self.push64(count);
        self.sink().i64_const(bits as i64).i64_lt_u();
        let V::I32(fits) = self.pop32() else { unreachable!("pop32 gives a local") };
        self.sink().local_get(a);
        self.push32(count);
        self.sink().i32_const(bits as i32 - 1).local_get(fits).select();
        emit(self);
        if !arithmetic {
            self.sink().v128_const(0).local_get(fits).select();
        }
        self.pop128()
    }

    fn float_mask(&mut self, w: W, predicate: u8, a: u32, b: u32) -> u32 {
        let single = w == W::B4;
        if matches!(predicate & 3, 3) {
            // Unordered: either is not equal to itself.
            let mut s = self.sink();
            for l in [a, b] {
                s.local_get(l).local_get(l);
                if single {
                    s.f32x4_ne()
                } else {
                    s.f64x2_ne()
                };
            }
            s.v128_or();
        } else {
            let mut s = self.sink();
            s.local_get(a).local_get(b);
            match (predicate & 3, single) {
                (0, true) => s.f32x4_eq(),
                (0, false) => s.f64x2_eq(),
                (1, true) => s.f32x4_lt(),
                (1, false) => s.f64x2_lt(),
                (_, true) => s.f32x4_le(),
                (_, false) => s.f64x2_le(),
            };
        }
        if predicate & 4 != 0 {
            self.sink().v128_not();
        }
        self.pop128()
    }
}
