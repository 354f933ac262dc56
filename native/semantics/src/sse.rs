//! SSE and SSE2: moves, logic, integer arithmetic, shuffles; and what later extensions add of the same
//! shape, two vectors in and one out. Legacy encodings only: VEX forms are unknown instructions.

use crate::backend::{Backend, Flow, Vec2, VecShift, W};
use crate::operand::{address, is_memory, read_reg, write_reg};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

pub type Maybe<B> = Result<Option<Flow<<B as Backend>::V>>, <B as Backend>::Fault>;

/// Number of the XMM register.
pub fn xmm_index(r: Register) -> usize {
    r.number()
}

fn has_mmx(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}

/// Operand `n` as 128 bits; a memory operand of these instructions must be 16-byte aligned.
pub fn read_x<B: Backend>(b: &mut B, i: &Instruction, n: u32) -> Result<B::X, B::Fault> {
    if is_memory(i, n) {
        let a = address(b, i);
        return b.load128(a, true);
    }
    Ok(b.xmm(xmm_index(i.op_register(n))))
}

/// Operand `n` as 128 bits, wherever it is in memory.
pub fn read_unaligned<B: Backend>(b: &mut B, i: &Instruction, n: u32) -> Result<B::X, B::Fault> {
    if is_memory(i, n) {
        let a = address(b, i);
        return b.load128(a, false);
    }
    Ok(b.xmm(xmm_index(i.op_register(n))))
}

/// The low `w` bits of operand `n`: an XMM register's lane 0, a general register, or memory.
pub fn read_low<B: Backend>(b: &mut B, i: &Instruction, n: u32, w: W) -> Result<B::V, B::Fault> {
    if is_memory(i, n) {
        let a = address(b, i);
        return b.load(w, a);
    }
    let r = i.op_register(n);
    if r.is_xmm() {
        let x = b.xmm(xmm_index(r));
        return Ok(b.extract(w, x, 0));
    }
    let v = read_reg(b, r);
    Ok(b.trunc(w, v))
}

/// `read_low` of a float: from an XMM register or memory.
pub fn read_float<B: Backend>(b: &mut B, i: &Instruction, n: u32, w: W) -> Result<B::V, B::Fault> {
    if is_memory(i, n) {
        let a = address(b, i);
        return b.load_float(w, a);
    }
    let x = b.xmm(xmm_index(i.op_register(n)));
    Ok(b.extract(w, x, 0))
}

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    if has_mmx(i) {
        return Ok(None);
    }
    if let Some(op) = binary(i.mnemonic()) {
        let y = read_x(b, i, 1)?;
        let d = xmm_index(i.op0_register());
        let x = b.xmm(d);
        let zeroing = matches!(op, Vec2::Xor) && !is_memory(i, 1) && i.op0_register() == i.op1_register();
        let r = if zeroing { b.vconst(0) } else { b.vec2(op, x, y) };
        b.set_xmm(d, r);
        return Ok(Some(Flow::Next));
    }
    if let Some(op) = shift(i.mnemonic()) {
        let count = if i.op1_kind() == OpKind::Immediate8 {
            b.c(u64::from(i.immediate8()))
        } else {
            let y = read_x(b, i, 1)?;
            b.extract(W::B8, y, 0)
        };
        let d = xmm_index(i.op0_register());
        let x = b.xmm(d);
        let r = b.vec_shift(op, x, count);
        b.set_xmm(d, r);
        return Ok(Some(Flow::Next));
    }
    match moves(b, i)? {
        Some(flow) => Ok(Some(flow)),
        None => shuffles(b, i),
    }
}

fn binary(m: Mnemonic) -> Option<Vec2> {
    use Mnemonic as M;
    use Vec2 as V;
    Some(match m {
        M::Pand | M::Andps | M::Andpd => V::And,
        M::Por | M::Orps | M::Orpd => V::Or,
        M::Pxor | M::Xorps | M::Xorpd => V::Xor,
        M::Pandn | M::Andnps | M::Andnpd => V::AndNot,
        M::Paddb => V::Add(W::B1),
        M::Paddw => V::Add(W::B2),
        M::Paddd => V::Add(W::B4),
        M::Paddq => V::Add(W::B8),
        M::Psubb => V::Sub(W::B1),
        M::Psubw => V::Sub(W::B2),
        M::Psubd => V::Sub(W::B4),
        M::Psubq => V::Sub(W::B8),
        M::Paddusb => V::AddSatU(W::B1),
        M::Paddusw => V::AddSatU(W::B2),
        M::Paddsb => V::AddSatS(W::B1),
        M::Paddsw => V::AddSatS(W::B2),
        M::Psubusb => V::SubSatU(W::B1),
        M::Psubusw => V::SubSatU(W::B2),
        M::Psubsb => V::SubSatS(W::B1),
        M::Psubsw => V::SubSatS(W::B2),
        M::Pmullw => V::MulLo(W::B2),
        M::Pmulhw => V::MulHiS,
        M::Pmulhuw => V::MulHiU,
        M::Pmuludq => V::MulEvenU32,
        M::Pmaddwd => V::MaddS16,
        M::Psadbw => V::Sad,
        M::Pavgb => V::AvgU(W::B1),
        M::Pavgw => V::AvgU(W::B2),
        M::Pminub => V::MinU(W::B1),
        M::Pmaxub => V::MaxU(W::B1),
        M::Pminsw => V::MinS(W::B2),
        M::Pmaxsw => V::MaxS(W::B2),
        M::Pcmpeqb => V::Eq(W::B1),
        M::Pcmpeqw => V::Eq(W::B2),
        M::Pcmpeqd => V::Eq(W::B4),
        M::Pcmpgtb => V::GtS(W::B1),
        M::Pcmpgtw => V::GtS(W::B2),
        M::Pcmpgtd => V::GtS(W::B4),
        M::Punpcklbw => V::InterleaveLo(W::B1),
        M::Punpcklwd => V::InterleaveLo(W::B2),
        M::Punpckldq | M::Unpcklps => V::InterleaveLo(W::B4),
        M::Punpcklqdq | M::Unpcklpd => V::InterleaveLo(W::B8),
        M::Punpckhbw => V::InterleaveHi(W::B1),
        M::Punpckhwd => V::InterleaveHi(W::B2),
        M::Punpckhdq | M::Unpckhps => V::InterleaveHi(W::B4),
        M::Punpckhqdq | M::Unpckhpd => V::InterleaveHi(W::B8),
        M::Packsswb => V::PackS(W::B2),
        M::Packssdw => V::PackS(W::B4),
        M::Packuswb => V::PackUS(W::B2),
        M::Pshufb => V::Swizzle,
        M::Pmaddubsw => V::MaddU8S8,
        M::Pmulhrsw => V::MulRoundS16,
        M::Pmulld => V::MulLo(W::B4),
        M::Pmuldq => V::MulEvenS32,
        M::Pminsb => V::MinS(W::B1),
        M::Pmaxsb => V::MaxS(W::B1),
        M::Pminuw => V::MinU(W::B2),
        M::Pmaxuw => V::MaxU(W::B2),
        M::Pminsd => V::MinS(W::B4),
        M::Pmaxsd => V::MaxS(W::B4),
        M::Pminud => V::MinU(W::B4),
        M::Pmaxud => V::MaxU(W::B4),
        M::Pcmpeqq => V::Eq(W::B8),
        M::Pcmpgtq => V::GtS(W::B8),
        M::Packusdw => V::PackUS(W::B4),
        _ => return None,
    })
}

fn shift(m: Mnemonic) -> Option<VecShift> {
    use Mnemonic as M;
    Some(match m {
        M::Psllw => VecShift::Shl(W::B2),
        M::Pslld => VecShift::Shl(W::B4),
        M::Psllq => VecShift::Shl(W::B8),
        M::Psrlw => VecShift::ShrU(W::B2),
        M::Psrld => VecShift::ShrU(W::B4),
        M::Psrlq => VecShift::ShrU(W::B8),
        M::Psraw => VecShift::ShrS(W::B2),
        M::Psrad => VecShift::ShrS(W::B4),
        _ => return None,
    })
}

/// A whole-register move, `aligned` saying what a memory operand must be.
fn move128<B: Backend>(b: &mut B, i: &Instruction, aligned: bool) -> Maybe<B> {
    let x = if is_memory(i, 1) {
        let a = address(b, i);
        b.load128(a, aligned)?
    } else {
        b.xmm(xmm_index(i.op1_register()))
    };
    if is_memory(i, 0) {
        let a = address(b, i);
        b.store128(a, x, aligned)?;
    } else {
        b.set_xmm(xmm_index(i.op0_register()), x);
    }
    Ok(Some(Flow::Next))
}

/// Replaces lane `lane` (of width w) of the destination by lane `from` of a register or by memory;
/// or stores that lane.
fn move_lane<B: Backend>(b: &mut B, i: &Instruction, w: W, lane: u8, from: u8) -> Maybe<B> {
    if is_memory(i, 0) {
        let x = b.xmm(xmm_index(i.op1_register()));
        let v = b.extract(w, x, lane);
        let a = address(b, i);
        b.store(w, a, v)?;
        return Ok(Some(Flow::Next));
    }
    let v = if is_memory(i, 1) {
        let a = address(b, i);
        b.load(w, a)?
    } else {
        let x = b.xmm(xmm_index(i.op1_register()));
        b.extract(w, x, from)
    };
    let d = xmm_index(i.op0_register());
    let x = b.xmm(d);
    let r = b.replace(w, x, lane, v);
    b.set_xmm(d, r);
    Ok(Some(Flow::Next))
}

/// MOVD, MOVQ and the loading forms of MOVSS, MOVSD: the rest of the register becomes zero.
fn move_zero_extend<B: Backend>(b: &mut B, i: &Instruction, w: W) -> Maybe<B> {
    if is_memory(i, 1) && i.op0_register().is_xmm() {
        let a = address(b, i);
        let r = b.load_low(w, a)?;
        b.set_xmm(xmm_index(i.op0_register()), r);
        return Ok(Some(Flow::Next));
    }
    let v = read_low(b, i, 1, w)?;
    if is_memory(i, 0) {
        let a = address(b, i);
        b.store(w, a, v)?;
    } else if i.op0_register().is_xmm() {
        let zero = b.vconst(0);
        let r = b.replace(w, zero, 0, v);
        b.set_xmm(xmm_index(i.op0_register()), r);
    } else {
        write_reg(b, i.op0_register(), v);
    }
    Ok(Some(Flow::Next))
}

fn moves<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => move128(b, i, true),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => move128(b, i, false),
        M::Movd => move_zero_extend(b, i, W::B4),
        M::Movq => move_zero_extend(b, i, W::B8),
        M::Movss | M::Movsd => {
            let w = if i.mnemonic() == M::Movss { W::B4 } else { W::B8 };
            if is_memory(i, 1) { move_zero_extend(b, i, w) } else { move_lane(b, i, w, 0, 0) }
        }
        M::Movlps | M::Movlpd => move_lane(b, i, W::B8, 0, 0),
        M::Movhps | M::Movhpd => move_lane(b, i, W::B8, 1, 0),
        M::Movlhps => move_lane(b, i, W::B8, 1, 0),
        M::Movhlps => move_lane(b, i, W::B8, 0, 1),
        M::Pmovmskb | M::Movmskps | M::Movmskpd => {
            let w = match i.mnemonic() {
                M::Pmovmskb => W::B1,
                M::Movmskps => W::B4,
                _ => W::B8,
            };
            let x = b.xmm(xmm_index(i.op1_register()));
            let v = b.bitmask(w, x);
            write_reg(b, i.op0_register(), v);
            Ok(Some(Flow::Next))
        }
        M::Pextrb | M::Pextrw | M::Pextrd | M::Pextrq | M::Extractps => {
            let (w, lane) = lane(i);
            let x = b.xmm(xmm_index(i.op1_register()));
            let v = b.extract(w, x, lane);
            if is_memory(i, 0) {
                let a = address(b, i);
                b.store(w, a, v)?;
            } else {
                write_reg(b, i.op0_register(), v);
            }
            Ok(Some(Flow::Next))
        }
        M::Pinsrb | M::Pinsrw | M::Pinsrd | M::Pinsrq => {
            let (w, lane) = lane(i);
            let v = if is_memory(i, 1) {
                let a = address(b, i);
                b.load(w, a)?
            } else {
                let v = read_reg(b, i.op1_register());
                b.trunc(w, v)
            };
            let d = xmm_index(i.op0_register());
            let x = b.xmm(d);
            let r = b.replace(w, x, lane, v);
            b.set_xmm(d, r);
            Ok(Some(Flow::Next))
        }
        _ => Ok(None),
    }
}

/// Width and number of the lane that PEXTR*, EXTRACTPS or PINSR* names.
fn lane(i: &Instruction) -> (W, u8) {
    use Mnemonic as M;
    let w = match i.mnemonic() {
        M::Pextrb | M::Pinsrb => W::B1,
        M::Pextrw | M::Pinsrw => W::B2,
        M::Pextrd | M::Pinsrd | M::Extractps => W::B4,
        _ => W::B8,
    };
    (w, i.immediate8() & (16 / w.bytes() - 1) as u8)
}

/// Byte selectors for lanes of `bytes` bytes chosen by the fields of an immediate.
pub fn selectors(bytes: u8, lanes: &[u8]) -> [u8; 16] {
    let mut sel = [0; 16];
    for (n, &lane) in lanes.iter().enumerate() {
        for k in 0..bytes {
            sel[n * usize::from(bytes) + usize::from(k)] = lane * bytes + k;
        }
    }
    sel
}

fn shuffles<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    use Mnemonic as M;
    let m = i.mnemonic();
    if !matches!(m, M::Pshufd | M::Pshuflw | M::Pshufhw | M::Shufps | M::Shufpd | M::Pslldq | M::Psrldq) {
        return Ok(None);
    }
    let d = xmm_index(i.op0_register());
    let imm = if i.op_count() == 3 { i.immediate(2) as u8 } else { i.immediate(1) as u8 };
    let field = |n: u8| (imm >> (2 * n)) & 3;
    let (first, second, sel);
    match m {
        M::Pslldq | M::Psrldq => {
            first = b.xmm(d);
            second = b.vconst(0);
            let n = imm.min(16);
            let mut s = [16u8; 16];
            for k in 0..16u8 {
                if m == M::Pslldq && k >= n {
                    s[usize::from(k)] = k - n;
                } else if m == M::Psrldq && k + n < 16 {
                    s[usize::from(k)] = k + n;
                }
            }
            sel = s;
        }
        M::Shufps | M::Shufpd => {
            second = read_x(b, i, 1)?;
            first = b.xmm(d);
            sel = if m == M::Shufps {
                selectors(4, &[field(0), field(1), 4 + field(2), 4 + field(3)])
            } else {
                selectors(8, &[imm & 1, 2 + ((imm >> 1) & 1)])
            };
        }
        _ => {
            first = read_x(b, i, 1)?;
            second = first;
            sel = match m {
                M::Pshufd => selectors(4, &[field(0), field(1), field(2), field(3)]),
                M::Pshuflw => selectors(2, &[field(0), field(1), field(2), field(3), 4, 5, 6, 7]),
                _ => selectors(2, &[0, 1, 2, 3, 4 + field(0), 4 + field(1), 4 + field(2), 4 + field(3)]),
            };
        }
    }
    let r = b.shuffle(first, second, sel);
    b.set_xmm(d, r);
    Ok(Some(Flow::Next))
}
