//! SSE and SSE2 floating point: arithmetic, comparisons, conversions.

use crate::backend::{Backend, Cvt, Flow, Fp, Lazy, Vec2, W};
use crate::flags::flush_flags;
use crate::host_ops::Vector;
use crate::operand::{address, is_memory, op_width, read_reg, write_reg};
use crate::sse::{Maybe, read_float, read_x, xmm_index};
use iced_x86::{Instruction, Mnemonic, OpKind};
use vkernel_abi::state::{AF, CF, OF, PF, SF, ZF};

enum Form {
    Packed(W),
    Scalar(W),
}

fn arithmetic(m: Mnemonic) -> Option<(Fp, Form)> {
    use Form::{Packed, Scalar};
    use Mnemonic as M;
    Some(match m {
        M::Addps => (Fp::Add, Packed(W::B4)),
        M::Addpd => (Fp::Add, Packed(W::B8)),
        M::Addss => (Fp::Add, Scalar(W::B4)),
        M::Addsd => (Fp::Add, Scalar(W::B8)),
        M::Subps => (Fp::Sub, Packed(W::B4)),
        M::Subpd => (Fp::Sub, Packed(W::B8)),
        M::Subss => (Fp::Sub, Scalar(W::B4)),
        M::Subsd => (Fp::Sub, Scalar(W::B8)),
        M::Mulps => (Fp::Mul, Packed(W::B4)),
        M::Mulpd => (Fp::Mul, Packed(W::B8)),
        M::Mulss => (Fp::Mul, Scalar(W::B4)),
        M::Mulsd => (Fp::Mul, Scalar(W::B8)),
        M::Divps => (Fp::Div, Packed(W::B4)),
        M::Divpd => (Fp::Div, Packed(W::B8)),
        M::Divss => (Fp::Div, Scalar(W::B4)),
        M::Divsd => (Fp::Div, Scalar(W::B8)),
        M::Minps => (Fp::Min, Packed(W::B4)),
        M::Minpd => (Fp::Min, Packed(W::B8)),
        M::Minss => (Fp::Min, Scalar(W::B4)),
        M::Minsd => (Fp::Min, Scalar(W::B8)),
        M::Maxps => (Fp::Max, Packed(W::B4)),
        M::Maxpd => (Fp::Max, Packed(W::B8)),
        M::Maxss => (Fp::Max, Scalar(W::B4)),
        M::Maxsd => (Fp::Max, Scalar(W::B8)),
        M::Sqrtps => (Fp::Sqrt, Packed(W::B4)),
        M::Sqrtpd => (Fp::Sqrt, Packed(W::B8)),
        M::Sqrtss => (Fp::Sqrt, Scalar(W::B4)),
        M::Sqrtsd => (Fp::Sqrt, Scalar(W::B8)),
        _ => return None,
    })
}

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    use Mnemonic as M;
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm()) {
        return Ok(None);
    }
    if let Some((op, form)) = arithmetic(i.mnemonic()) {
        let d = xmm_index(i.op0_register());
        match form {
            Form::Packed(w) => {
                let y = read_x(b, i, 1)?;
                // A unary operation works on its source.
                let x = if op == Fp::Sqrt { y } else { b.xmm(d) };
                let r = b.vec2(Vec2::F(op, w), x, y);
                b.set_xmm(d, r);
            }
            Form::Scalar(w) => {
                let y = read_float(b, i, 1, w)?;
                let x = b.xmm(d);
                let low = if op == Fp::Sqrt { y } else { b.extract(w, x, 0) };
                let v = b.fp(op, w, low, y);
                let r = b.replace(w, x, 0, v);
                b.set_xmm(d, r);
            }
        }
        return Ok(Some(Flow::Next));
    }
    match i.mnemonic() {
        M::Ucomiss | M::Comiss => compare_flags(b, i, W::B4),
        M::Ucomisd | M::Comisd => compare_flags(b, i, W::B8),
        M::Cmpps | M::Cmppd => {
            let w = if i.mnemonic() == M::Cmpps { W::B4 } else { W::B8 };
            let y = read_x(b, i, 1)?;
            let d = xmm_index(i.op0_register());
            let x = b.xmm(d);
            let r = b.vec2(Vec2::FCmp(w, i.immediate8() & 7), x, y);
            b.set_xmm(d, r);
            Ok(Some(Flow::Next))
        }
        M::Cmpss | M::Cmpsd => {
            let w = if i.mnemonic() == M::Cmpss { W::B4 } else { W::B8 };
            let y = read_float(b, i, 1, w)?;
            let d = xmm_index(i.op0_register());
            let x = b.xmm(d);
            // Only lane 0 may compare, or the others would raise flags: both other lanes are zero.
            let zero = b.vconst(0);
            let low = b.extract(w, x, 0);
            let p = b.replace(w, zero, 0, low);
            let q = b.replace(w, zero, 0, y);
            let r = b.vec2(Vec2::FCmp(w, i.immediate8() & 7), p, q);
            let v = b.extract(w, r, 0);
            let r = b.replace(w, x, 0, v);
            b.set_xmm(d, r);
            Ok(Some(Flow::Next))
        }
        M::Rcpps | M::Rcpss => approximate(b, i, Vector::Reciprocal),
        M::Rsqrtps | M::Rsqrtss => approximate(b, i, Vector::ReciprocalRoot),
        _ => convert(b, i),
    }
}

/// RCP*, RSQRT*: the host's approximations, which raise no flag and ask nothing of MXCSR.
fn approximate<B: Backend>(b: &mut B, i: &Instruction, op: Vector) -> Maybe<B> {
    let d = xmm_index(i.op0_register());
    let none = b.c(0);
    if matches!(i.mnemonic(), Mnemonic::Rcpps | Mnemonic::Rsqrtps) {
        let y = read_x(b, i, 1)?;
        let r = b.host_vector(op, 0, y, y, none);
        b.set_xmm(d, r);
        return Ok(Some(Flow::Next));
    }
    let v = read_float(b, i, 1, W::B4)?;
    let zero = b.vconst(0);
    let y = b.replace(W::B4, zero, 0, v);
    let r = b.host_vector(op, 0, y, y, none);
    let v = b.extract(W::B4, r, 0);
    set_lane0(b, i, W::B4, v);
    Ok(Some(Flow::Next))
}

/// UCOMIS*, COMIS*: ZF PF CF say unordered 111, greater 000, less 001, equal 100; OF SF AF are 0.
fn compare_flags<B: Backend>(b: &mut B, i: &Instruction, w: W) -> Maybe<B> {
    let y = read_float(b, i, 1, w)?;
    let x = read_float(b, i, 0, w)?;
    if !B::INTERPRETER {
        *b.lazy() = Some(Lazy::Float { w, a: x, b: y });
        return Ok(Some(Flow::Next));
    }
    let signaling = matches!(i.mnemonic(), Mnemonic::Comiss | Mnemonic::Comisd);
    let (unordered, less, equal) = b.fcmp(w, x, y, signaling);
    flush_flags(b);
    let or = crate::backend::Bin::Or;
    let z = b.bin(or, W::B4, unordered, equal);
    let c = b.bin(or, W::B4, unordered, less);
    b.store_flag(ZF, z);
    b.store_flag(PF, unordered);
    b.store_flag(CF, c);
    let zero = b.c(0);
    for f in [OF, SF, AF] {
        b.store_flag(f, zero);
    }
    Ok(Some(Flow::Next))
}

fn convert<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Cvtsi2sd | M::Cvtsi2ss => {
            let from = op_width(i, 1);
            let to = if i.mnemonic() == M::Cvtsi2ss { W::B4 } else { W::B8 };
            let v = if is_memory(i, 1) {
                let a = address(b, i);
                b.load(from, a)?
            } else {
                read_reg(b, i.op1_register())
            };
            let v = b.cvt(Cvt::IntToF(from, to), v);
            set_lane0(b, i, to, v);
        }
        M::Cvtsd2si | M::Cvttsd2si | M::Cvtss2si | M::Cvttss2si => {
            let from = if matches!(i.mnemonic(), M::Cvtsd2si | M::Cvttsd2si) { W::B8 } else { W::B4 };
            let truncate = matches!(i.mnemonic(), M::Cvttsd2si | M::Cvttss2si);
            let v = read_float(b, i, 1, from)?;
            let v = b.cvt(Cvt::FToInt(from, op_width(i, 0), truncate), v);
            write_reg(b, i.op0_register(), v);
        }
        M::Cvtss2sd => {
            let v = read_float(b, i, 1, W::B4)?;
            let v = b.cvt(Cvt::F32ToF64, v);
            set_lane0(b, i, W::B8, v);
        }
        M::Cvtsd2ss => {
            let v = read_float(b, i, 1, W::B8)?;
            let v = b.cvt(Cvt::F64ToF32, v);
            set_lane0(b, i, W::B4, v);
        }
        M::Cvtdq2ps => lanes(b, i, Cvt::IntToF(W::B4, W::B4))?,
        M::Cvtps2dq => lanes(b, i, Cvt::FToInt(W::B4, W::B4, false))?,
        M::Cvttps2dq => lanes(b, i, Cvt::FToInt(W::B4, W::B4, true))?,
        M::Cvtdq2pd => lanes(b, i, Cvt::IntToF(W::B4, W::B8))?,
        M::Cvtpd2dq => lanes(b, i, Cvt::FToInt(W::B8, W::B4, false))?,
        M::Cvttpd2dq => lanes(b, i, Cvt::FToInt(W::B8, W::B4, true))?,
        M::Cvtps2pd => lanes(b, i, Cvt::F32ToF64)?,
        M::Cvtpd2ps => lanes(b, i, Cvt::F64ToF32)?,
        _ => return Ok(None),
    }
    Ok(Some(Flow::Next))
}

fn set_lane0<B: Backend>(b: &mut B, i: &Instruction, w: W, v: B::V) {
    let d = xmm_index(i.op0_register());
    let x = b.xmm(d);
    let r = b.replace(w, x, 0, v);
    b.set_xmm(d, r);
}

/// Converts all lanes that fit on both sides; lanes of the result that have no source become zero.
fn lanes<B: Backend>(b: &mut B, i: &Instruction, op: Cvt) -> Result<(), B::Fault> {
    let (from, to) = op.widths();
    let x = if is_memory(i, 1) && from < to {
        // A 64-bit operand, which need not be aligned.
        let a = address(b, i);
        b.load_low(W::B8, a)?
    } else {
        read_x(b, i, 1)?
    };
    let r = b.cvt_lanes(op, x);
    b.set_xmm(xmm_index(i.op0_register()), r);
    Ok(())
}
