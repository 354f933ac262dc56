//! The vocabulary in which instruction semantics are written.
//!
//! Conventions:
//! - `V` is a 64-bit integer value. A value "of width w" is zero-extended to 64 bits; every
//!   operation that takes a width takes such operands and returns such a result, so no masking is
//!   ever written in the semantics.
//! - `X` is a 128-bit vector value, lane 0 in the low bits.
//! - Guest registers are read and written whole (64 bits); partial writes are read-modify-write in
//!   the semantics (`int.rs` has the helpers).
//! - Memory and division can fault: `Result<_, Self::Fault>`. Semantics read memory before they
//!   write registers, so an instruction that faults has changed nothing.

use crate::host_ops::Vector;
use vkernel_abi::wasm::Trap;

/// Operand width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum W {
    B1,
    B2,
    B4,
    B8,
}

impl W {
    pub const fn bits(self) -> u32 {
        match self {
            W::B1 => 8,
            W::B2 => 16,
            W::B4 => 32,
            W::B8 => 64,
        }
    }
    pub const fn bytes(self) -> u32 {
        self.bits() / 8
    }
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
}

/// Binary integer operations at a width. Results of comparisons are 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bin {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
    /// Shift and rotate counts are taken modulo the *wasm* width (32 for B1, B2 and B4, else 64);
    /// the semantics mask counts themselves first. For B1/B2 rotates use shifts in the semantics.
    Shl,
    ShrU,
    ShrS,
    Rotl,
    Rotr,
    Eq,
    Ne,
    LtU,
    LtS,
    LeU,
    LeS,
    /// Division of two w-bit values; the semantics have excluded divisor 0 (via `check_div`) and
    /// MIN / -1.
    DivU,
    DivS,
    RemU,
    RemS,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Un {
    /// 1 if zero else 0.
    Eqz,
    Not,
    Neg,
    /// Sign-extend a w-bit value to 64 bits (the result is a 64-bit value).
    Sext,
    /// Count leading/trailing zeros of a w-bit value (w = B4 or B8 only; of zero: the width).
    Clz,
    Ctz,
    Popcnt,
    /// Byte swap (B4, B8).
    Bswap,
}

/// Atomic read-modify-write; every one returns the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rmw {
    Add,
    Sub,
    And,
    Or,
    Xor,
    Xchg,
}

/// Scalar floating-point operations on bit patterns in `V` (B4: f32, B8: f64), with MXCSR's
/// rounding and x86's NaN rules (the first operand's NaN wins, quieted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fp {
    Add,
    Sub,
    Mul,
    Div,
    /// MINSS/MAXSS rules: the second operand when either is NaN or both are zero.
    Min,
    Max,
    /// Unary; the second operand is ignored.
    Sqrt,
}

/// Vector operations with one, two vector operands; names as in wasm SIMD where wasm has them.
/// Lane widths by `W` (B1 16 lanes … B8 2 lanes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vec2 {
    And,
    Or,
    Xor,
    /// !a & b (x86 PANDN order: the first operand is inverted).
    AndNot,
    Add(W),
    Sub(W),
    AddSatU(W),
    AddSatS(W),
    SubSatU(W),
    SubSatS(W),
    /// Low half of the product (B2, B4).
    MulLo(W),
    /// PMULHW / PMULHUW.
    MulHiS,
    MulHiU,
    /// PMULUDQ, PMULDQ: 32×32→64 of the even lanes.
    MulEvenU32,
    MulEvenS32,
    /// PMULHRSW: bits 15–30 of the product, rounded.
    MulRoundS16,
    /// PMADDWD.
    MaddS16,
    /// PMADDUBSW: the first operand's bytes unsigned, the second's signed.
    MaddU8S8,
    /// PSADBW.
    Sad,
    AvgU(W),
    MinU(W),
    MaxU(W),
    MinS(W),
    MaxS(W),
    Eq(W),
    GtS(W),
    /// PUNPCKL*/PUNPCKH*.
    InterleaveLo(W),
    InterleaveHi(W),
    /// PACKSSWB, PACKSSDW (source lane width); PACKUSWB, PACKUSDW.
    PackS(W),
    PackUS(W),
    /// PSHUFB: bytes of the first operand by the low four bits of the second's; zero where its bit 7 is set.
    Swizzle,
    /// Lane-wise packed floating point (B4: 4×f32, B8: 2×f64), MXCSR rules as `Fp`.
    F(Fp, W),
    /// CMPPS/CMPPD with predicate 0–7.
    FCmp(W, u8),
}

/// Vector operations with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vec1 {
    Abs(W),
    /// The lower half's lanes of this width to twice it, sign- or zero-extended.
    ExtendS(W),
    ExtendU(W),
    /// ROUNDPS, ROUNDPD.
    Round(W, Rounding),
}

/// The immediate of ROUND*: bits 0–1 are the direction, bit 2 takes MXCSR's instead, bit 3 keeps PE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rounding(pub u8);

/// Vector shift by one count for all lanes (x86: counts ≥ width give 0, or the sign for ShrS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VecShift {
    Shl(W),
    ShrU(W),
    ShrS(W),
}

/// Conversions between numbers (bit patterns in V). x86 results on overflow ("integer indefinite").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cvt {
    /// Signed integer of width `.0` to float of width `.1`, rounded by MXCSR.
    IntToF(W, W),
    /// Float of width `.0` to signed integer of width `.1`; rounded by MXCSR, or truncated if `.2`.
    FToInt(W, W, bool),
    F32ToF64,
    F64ToF32,
}

impl Cvt {
    /// Of the operand and of the result.
    pub fn widths(self) -> (W, W) {
        match self {
            Cvt::IntToF(from, to) | Cvt::FToInt(from, to, _) => (from, to),
            Cvt::F32ToF64 => (W::B4, W::B8),
            Cvt::F64ToF32 => (W::B8, W::B4),
        }
    }
}

/// Relations of two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rel {
    Unordered,
    Greater,
    GreaterOrEqual,
    LessOrGreater,
}

/// What is left of the last flag-setting operation: flags are computed from it when asked for.
/// Values are of width `w`; `r` is the result.
#[derive(Clone, Copy, Debug)]
pub enum Lazy<V> {
    /// r = a + b
    Add { w: W, a: V, b: V, r: V },
    /// r = a + b + c
    Adc { w: W, a: V, b: V, c: V, r: V },
    /// r = a - b (SUB, CMP, NEG with a = 0)
    Sub { w: W, a: V, b: V, r: V },
    /// r = a - b - c
    Sbb { w: W, a: V, b: V, c: V, r: V },
    /// AND, OR, XOR, TEST: CF = OF = 0, AF undefined (given as 0)
    Logic { w: W, r: V },
    /// r = a + 1, CF kept as `cf`
    Inc { w: W, r: V, cf: V },
    /// r = a - 1, CF kept as `cf`
    Dec { w: W, r: V, cf: V },
    /// Shifts and multiplications: CF and OF as given, the rest from the result
    Shift { w: W, r: V, cf: V, of: V },
    /// UCOMIS* or COMIS* of floats of width `w`: ZF PF CF say unordered 111, greater 000, less 001,
    /// equal 100; OF SF AF are 0. Only in the lifter: the interpreter compares at once, for MXCSR.
    Float { w: W, a: V, b: V },
}

/// Where control goes after an instruction. `V` targets are 64-bit guest addresses.
#[derive(Clone, Copy, Debug)]
pub enum Flow<V> {
    /// To the next instruction.
    Next,
    /// Direct jump.
    Jump(u64),
    /// To `target` if `cond` is non-zero, else to the next instruction.
    Branch {
        cond: V,
        target: u64,
    },
    /// Indirect jump.
    JumpTo(V),
    /// Direct call; the return address is already pushed.
    Call(u64),
    /// Indirect call; the return address is already pushed.
    CallTo(V),
    /// Return to `V`; already popped, rsp adjusted.
    Ret(V),
    /// SYSCALL: rcx and r11 are already set as the CPU does.
    Syscall,
    Trap(Trap),
    /// The lifter emits a `step`; the interpreter never returns it.
    Step,
    /// No semantics: SIGILL for the guest, counted by mnemonic.
    Unknown,
}

pub trait Backend {
    type V: Copy;
    type X: Copy;
    type Fault;

    /// True in the interpreter, which may loop where the lifter has a `step`.
    const INTERPRETER: bool;

    /// The number behind a value: always in the interpreter, for constants in the lifter.
    fn known(&self, v: Self::V) -> Option<u64>;
    /// Executes what has no definition in terms of this trait; the lifter answers `Flow::Step`.
    fn host_only(&mut self, i: &iced_x86::Instruction) -> Result<Flow<Self::V>, Self::Fault>;

    // Integers
    fn c(&mut self, value: u64) -> Self::V;
    fn bin(&mut self, op: Bin, w: W, a: Self::V, b: Self::V) -> Self::V;
    fn un(&mut self, op: Un, w: W, a: Self::V) -> Self::V;
    /// Low bits of a 64-bit value, zero-extended.
    fn trunc(&mut self, w: W, a: Self::V) -> Self::V;
    /// `a` if `cond` is non-zero else `b`; both are evaluated.
    fn select(&mut self, cond: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// High 64 bits of the 128-bit product.
    fn mul_hi(&mut self, signed: bool, a: Self::V, b: Self::V) -> Self::V;
    /// #DE unless `cond` is non-zero.
    fn check_div(&mut self, cond: Self::V) -> Result<(), Self::Fault>;
    /// rdx:rax divided by a 64-bit divisor, with all of #DE's checks; writes rax and rdx.
    fn div128(&mut self, signed: bool, divisor: Self::V) -> Result<(), Self::Fault>;

    // Registers
    fn reg(&mut self, r: usize) -> Self::V;
    fn set_reg(&mut self, r: usize, v: Self::V);
    /// Stored value of a flag (abi::state CF…DF), 0 or 1, ignoring `lazy`.
    fn stored_flag(&mut self, f: usize) -> Self::V;
    fn store_flag(&mut self, f: usize, v: Self::V);
    /// The pending flag operation; `None`: all flags are in their stored places. DF is never lazy.
    fn lazy(&mut self) -> &mut Option<Lazy<Self::V>>;
    fn fs_base(&mut self) -> Self::V;
    fn gs_base(&mut self) -> Self::V;

    // Memory; `addr` is a 64-bit guest address of which bits 0–31 count.
    fn load(&mut self, w: W, addr: Self::V) -> Result<Self::V, Self::Fault>;
    fn store(&mut self, w: W, addr: Self::V, v: Self::V) -> Result<(), Self::Fault>;
    /// `load` of a float (B4, B8).
    fn load_float(&mut self, w: W, addr: Self::V) -> Result<Self::V, Self::Fault> {
        self.load(w, addr)
    }
    /// Loads lane 0 (B4, B8); the others are zero.
    fn load_low(&mut self, w: W, addr: Self::V) -> Result<Self::X, Self::Fault> {
        let v = self.load(w, addr)?;
        let zero = self.vconst(0);
        Ok(self.replace(w, zero, 0, v))
    }
    fn load128(&mut self, addr: Self::V, aligned: bool) -> Result<Self::X, Self::Fault>;
    fn store128(&mut self, addr: Self::V, v: Self::X, aligned: bool) -> Result<(), Self::Fault>;
    /// LOCKed operation: returns the old value.
    fn rmw(&mut self, op: Rmw, w: W, addr: Self::V, v: Self::V) -> Result<Self::V, Self::Fault>;
    /// LOCK CMPXCHG: stores `new` if memory equals `expected`; returns the old value.
    fn cmpxchg(&mut self, w: W, addr: Self::V, expected: Self::V, new: Self::V) -> Result<Self::V, Self::Fault>;
    /// CMPXCHG16B but for ZF, which is the result.
    fn cmpxchg16b(&mut self, addr: Self::V) -> Result<Self::V, Self::Fault>;
    fn fence(&mut self);
    /// REP MOVS (`copy`) or REP STOS with 64-bit addresses and no segment. The lifter only.
    fn repeat(&mut self, copy: bool, w: W) -> Result<(), Self::Fault>;
    /// REP SCAS (`scan`) or REP CMPS, the same, flags included; until elements are equal, or not.
    fn repeat_compare(&mut self, scan: bool, w: W, until_equal: bool) -> Result<(), Self::Fault>;
    /// MXCSR, with what the instructions so far have raised.
    fn mxcsr(&mut self) -> Self::V;
    /// #GP when a reserved bit is set.
    fn set_mxcsr(&mut self, v: Self::V) -> Result<(), Self::Fault>;
    /// CPUID: rax, rbx, rcx, rdx by eax and ecx.
    fn cpuid(&mut self);
    /// One of `host_ops::form` that works on its operands only.
    fn host(&mut self, form: u32, a: Self::V, b: Self::V) -> Self::V;

    // Vectors
    fn xmm(&mut self, r: usize) -> Self::X;
    fn set_xmm(&mut self, r: usize, v: Self::X);
    fn vconst(&mut self, value: u128) -> Self::X;
    fn vec1(&mut self, op: Vec1, a: Self::X) -> Self::X;
    fn vec2(&mut self, op: Vec2, a: Self::X, b: Self::X) -> Self::X;
    /// Lane-wise `b` where the mask's sign bit is set, else `a` (B1, B4, B8).
    fn blend(&mut self, w: W, mask: Self::X, a: Self::X, b: Self::X) -> Self::X;
    /// Shift lanes by a count (64-bit value, not reduced).
    fn vec_shift(&mut self, op: VecShift, a: Self::X, count: Self::V) -> Self::X;
    fn host_vector(&mut self, op: Vector, imm: u8, a: Self::X, b: Self::X, c: Self::V) -> Self::X;
    /// Result byte i is byte `sel[i]` of a (0–15) or of b (16–31).
    fn shuffle(&mut self, a: Self::X, b: Self::X, sel: [u8; 16]) -> Self::X;
    fn extract(&mut self, w: W, a: Self::X, lane: u8) -> Self::V;
    fn replace(&mut self, w: W, a: Self::X, lane: u8, v: Self::V) -> Self::X;
    /// Sign bits of the lanes, as PMOVMSKB (B1), MOVMSKPS (B4), MOVMSKPD (B8).
    fn bitmask(&mut self, w: W, a: Self::X) -> Self::V;

    // Floating point, bit patterns in V
    fn fp(&mut self, op: Fp, w: W, a: Self::V, b: Self::V) -> Self::V;
    /// ROUNDSS, ROUNDSD.
    fn round(&mut self, how: Rounding, w: W, a: Self::V) -> Self::V;
    /// UCOMIS/COMIS: (unordered, less, equal), each 0 or 1; equal and less are 0 when unordered.
    /// `signaling`: COMIS sets IE for a quiet NaN too.
    fn fcmp(&mut self, w: W, a: Self::V, b: Self::V, signaling: bool) -> (Self::V, Self::V, Self::V);
    /// One of the relations that conditions ask of a float comparison, 0 or 1.
    fn float_is(&mut self, op: Rel, w: W, a: Self::V, b: Self::V) -> Self::V {
        let (unordered, less, equal) = self.fcmp(w, a, b, false);
        let neither = |s: &mut Self, x, y| {
            let v = s.bin(Bin::Or, W::B4, x, y);
            let v = s.bin(Bin::Or, W::B4, v, unordered);
            s.un(Un::Eqz, W::B4, v)
        };
        match op {
            Rel::Unordered => unordered,
            Rel::Greater => neither(self, less, equal),
            Rel::GreaterOrEqual => neither(self, less, less),
            Rel::LessOrGreater => neither(self, equal, equal),
        }
    }
    fn cvt(&mut self, op: Cvt, a: Self::V) -> Self::V;
    /// `cvt` of as many first lanes of `a` as fit a vector on both sides; lanes without a source are zero.
    fn cvt_lanes(&mut self, op: Cvt, a: Self::X) -> Self::X {
        let (from, to) = op.widths();
        let mut r = self.vconst(0);
        for lane in 0..(16 / from.bytes().max(to.bytes())) as u8 {
            let v = self.extract(from, a, lane);
            let v = self.cvt(op, v);
            r = self.replace(to, r, lane, v);
        }
        r
    }
}
