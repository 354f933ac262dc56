//! SSE4.2's string comparisons (SDM vol. 2, 4.1) and CRC32. PCMPGTQ is in sse.rs.

use crate::backend::{Backend, Bin, Flow, Un, Vec2, W};
use crate::exec::Done;
use crate::host_ops::Vector;
use crate::operand::{op_width, read, write_reg};
use crate::sse::{Maybe, read_unaligned, xmm_index};
use iced_x86::{Instruction, Mnemonic as M};
use vkernel_abi::state::{AF, CF, OF, PF, RAX, RCX, RDX, SF, ZF};

pub fn exec<B: Backend>(b: &mut B, i: &Instruction) -> Maybe<B> {
    let (explicit, index) = match i.mnemonic() {
        M::Pcmpistri => (None, true),
        M::Pcmpistrm => (None, false),
        M::Pcmpestri => (Some(W::B4), true),
        M::Pcmpestri64 => (Some(W::B8), true),
        M::Pcmpestrm => (Some(W::B4), false),
        M::Pcmpestrm64 => (Some(W::B8), false),
        _ => return Ok(None),
    };
    let y = read_unaligned(b, i, 1)?;
    let x = b.xmm(xmm_index(i.op0_register()));
    compare(b, i.immediate8(), x, y, explicit, index);
    Ok(Some(Flow::Next))
}

/// Lowest `n` bits set, `n` being at most 16.
fn ones<B: Backend>(b: &mut B, n: B::V) -> B::V {
    let one = b.c(1);
    let end = b.bin(Bin::Shl, W::B4, one, n);
    b.bin(Bin::Sub, W::B4, end, one)
}

/// Elements in front of the first that is zero.
fn implicit_length<B: Backend>(b: &mut B, w: W, x: B::X) -> B::V {
    let zero = b.vconst(0);
    let zeros = b.vec2(Vec2::Eq(w), x, zero);
    let zeros = b.bitmask(w, zeros);
    let end = b.c(1 << (16 / w.bytes()));
    let zeros = b.bin(Bin::Or, W::B4, zeros, end);
    b.un(Un::Ctz, W::B4, zeros)
}

/// The magnitude of a register, at most the number of elements.
fn explicit_length<B: Backend>(b: &mut B, w: W, r: usize, count: B::V) -> B::V {
    let v = b.reg(r);
    let v = b.trunc(w, v);
    let zero = b.c(0);
    let negative = b.bin(Bin::LtS, w, v, zero);
    let minus = b.un(Un::Neg, w, v);
    let v = b.select(negative, minus, v);
    let less = b.bin(Bin::LtU, w, v, count);
    b.select(less, v, count)
}

/// `explicit`: the width of the registers that have the lengths. `index`: the result is one, in ecx,
/// instead of a mask, in xmm0.
fn compare<B: Backend>(b: &mut B, imm: u8, x: B::X, y: B::X, explicit: Option<W>, index: bool) {
    let w = if imm & 1 != 0 { W::B2 } else { W::B1 };
    let count = 16 / w.bytes();
    let n = b.c(u64::from(count));
    let (m, k) = match explicit {
        Some(size) => (explicit_length(b, size, RAX, n), explicit_length(b, size, RDX, n)),
        None => (implicit_length(b, w, x), implicit_length(b, w, y)),
    };
    let all = b.c((1 << count) - 1);
    let valid = ones(b, k);
    let mut r = if imm >> 2 & 3 == 2 {
        // Equal each: behind both strings' ends everything is equal, behind one's nothing.
        let equal = b.vec2(Vec2::Eq(w), x, y);
        let equal = b.bitmask(w, equal);
        let first = ones(b, m);
        let both = b.bin(Bin::And, W::B4, first, valid);
        let equal = b.bin(Bin::And, W::B4, equal, both);
        let either = b.bin(Bin::Or, W::B4, first, valid);
        let neither = b.bin(Bin::Xor, W::B4, either, all);
        b.bin(Bin::Or, W::B4, equal, neither)
    } else {
        let eight = b.c(8);
        let high = b.bin(Bin::Shl, W::B4, k, eight);
        let lengths = b.bin(Bin::Or, W::B4, m, high);
        let r = b.host_vector(Vector::Strings, imm & 15, x, y, lengths);
        b.extract(W::B2, r, 0)
    };
    match imm >> 4 & 3 {
        1 => r = b.bin(Bin::Xor, W::B4, r, all),
        3 => r = b.bin(Bin::Xor, W::B4, r, valid),
        _ => {}
    }
    if index {
        let v = if imm & 0x40 == 0 {
            let end = b.c(1 << count);
            let v = b.bin(Bin::Or, W::B4, r, end);
            b.un(Un::Ctz, W::B4, v)
        } else {
            let zeros = b.un(Un::Clz, W::B4, r);
            let last = b.c(31);
            let v = b.bin(Bin::Sub, W::B4, last, zeros);
            b.select(r, v, n)
        };
        b.set_reg(RCX, v);
    } else {
        let zero = b.vconst(0);
        let bits = b.replace(W::B2, zero, 0, r);
        let mask = if imm & 0x40 == 0 { bits } else { spread(b, w, bits) };
        b.set_xmm(0, mask);
    }
    *b.lazy() = None;
    let zero = b.c(0);
    let cf = b.bin(Bin::Ne, W::B4, r, zero);
    let zf = b.bin(Bin::LtU, W::B4, k, n);
    let sf = b.bin(Bin::LtU, W::B4, m, n);
    let one = b.c(1);
    let of = b.bin(Bin::And, W::B4, r, one);
    for (f, v) in [(CF, cf), (ZF, zf), (SF, sf), (OF, of), (AF, zero), (PF, zero)] {
        b.store_flag(f, v);
    }
}

/// Lanes of ones for the bits of lane 0.
fn spread<B: Backend>(b: &mut B, w: W, bits: B::X) -> B::X {
    let (sel, each) = if w == W::B1 {
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], 0x8040_2010_0804_0201_8040_2010_0804_0201)
    } else {
        ([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 0x0080_0040_0020_0010_0008_0004_0002_0001)
    };
    let copies = b.shuffle(bits, bits, sel);
    let each = b.vconst(each);
    let own = b.vec2(Vec2::And, copies, each);
    b.vec2(Vec2::Eq(w), own, each)
}

pub fn crc32<B: Backend>(b: &mut B, i: &Instruction) -> Done<B> {
    let v = read(b, i, 1)?;
    let crc = read(b, i, 0)?;
    let r = b.host(op_width(i, 1).bytes(), crc, v);
    write_reg(b, i.op0_register(), r);
    Ok(Flow::Next)
}
