//! What each instruction reads and writes of the guest's registers and flags, found by running its
//! semantics on a backend that only takes notes; and the data flow over a function that follows.

use iced_x86::Instruction;
use vkernel_abi::state::{AF, CF, DF, OF, PF, SF, ZF};
use vkernel_semantics::backend::{Backend, Bin, Cvt, Flow, Fp, Lazy, Rmw, Un, Vec2, VecShift, W};

/// A set of guest resources: bits 0–15 general registers, 16–31 XMM, 32–38 flags (abi order).
pub type Set = u64;
pub const fn gpr(r: usize) -> Set {
    1 << r
}
pub const fn xmm(r: usize) -> Set {
    1 << (16 + r)
}
pub const fn flag(f: usize) -> Set {
    1 << (32 + f)
}
pub const ALL_REGISTERS: Set = 0xffff_ffff;
pub const ALL_FLAGS: Set = flag(CF) | flag(PF) | flag(AF) | flag(ZF) | flag(SF) | flag(OF);
pub const EVERYTHING: Set = ALL_REGISTERS | ALL_FLAGS;

#[derive(Default, Clone, Copy)]
pub struct Usage {
    /// Read before any write.
    pub reads: Set,
    /// Written on every path.
    pub writes: Set,
    /// Only the interpreter runs it: everything is stored before and may have changed after.
    pub step: bool,
    /// May leave the function at this instruction with everything stored.
    pub may_bail: bool,
}

struct Notes {
    reads: Set,
    writes: Set,
    lazy: Option<Lazy<()>>,
    may_bail: bool,
}

impl Notes {
    fn read(&mut self, s: Set) {
        self.reads |= s & !self.writes;
    }
}

/// Notes on one instruction.
pub fn of(i: &Instruction) -> Usage {
    let mut n = Notes { reads: 0, writes: 0, lazy: None, may_bail: false };
    let flow = vkernel_semantics::exec::exec(&mut n, i);
    if matches!(flow, Ok(Flow::Step | Flow::Unknown | Flow::Trap(_))) {
        return Usage { step: true, ..Usage::default() };
    }
    if n.lazy.is_some() {
        n.writes |= ALL_FLAGS;
    }
    Usage { reads: n.reads, writes: n.writes, step: false, may_bail: n.may_bail }
}

impl Backend for Notes {
    type V = ();
    type X = ();
    type Fault = ();
    const INTERPRETER: bool = false;

    fn known(&self, _: ()) -> Option<u64> {
        None
    }
    fn host_only(&mut self, _: &Instruction) -> Result<Flow<()>, ()> {
        Ok(Flow::Step)
    }
    fn c(&mut self, _: u64) {}
    fn bin(&mut self, _: Bin, _: W, _: (), _: ()) {}
    fn un(&mut self, _: Un, _: W, _: ()) {}
    fn trunc(&mut self, _: W, _: ()) {}
    fn select(&mut self, _: (), _: (), _: ()) {}
    fn mul_hi(&mut self, _: bool, _: (), _: ()) {}
    fn check_div(&mut self, _: ()) -> Result<(), ()> {
        self.may_bail = true;
        Ok(())
    }
    fn div128(&mut self, _: bool, _: ()) -> Result<(), ()> {
        self.may_bail = true;
        self.read(gpr(0) | gpr(2));
        self.writes |= gpr(0) | gpr(2);
        Ok(())
    }
    fn reg(&mut self, r: usize) {
        self.read(gpr(r));
    }
    fn set_reg(&mut self, r: usize, _: ()) {
        self.writes |= gpr(r);
    }
    fn stored_flag(&mut self, f: usize) {
        if f != DF {
            self.read(flag(f));
        }
    }
    fn store_flag(&mut self, f: usize, _: ()) {
        if f != DF {
            self.writes |= flag(f);
        }
    }
    fn lazy(&mut self) -> &mut Option<Lazy<()>> {
        &mut self.lazy
    }
    fn fs_base(&mut self) {}
    fn gs_base(&mut self) {}
    fn load(&mut self, _: W, _: ()) -> Result<(), ()> {
        Ok(())
    }
    fn store(&mut self, _: W, _: (), _: ()) -> Result<(), ()> {
        Ok(())
    }
    fn load128(&mut self, _: (), _: bool) -> Result<(), ()> {
        Ok(())
    }
    fn store128(&mut self, _: (), _: (), _: bool) -> Result<(), ()> {
        Ok(())
    }
    fn rmw(&mut self, _: Rmw, _: W, _: (), _: ()) -> Result<(), ()> {
        self.may_bail = true;
        Ok(())
    }
    fn cmpxchg(&mut self, _: W, _: (), _: (), _: ()) -> Result<(), ()> {
        self.may_bail = true;
        Ok(())
    }
    fn fence(&mut self) {}
    fn xmm(&mut self, r: usize) {
        self.read(xmm(r));
    }
    fn set_xmm(&mut self, r: usize, _: ()) {
        self.writes |= xmm(r);
    }
    fn vconst(&mut self, _: u128) {}
    fn vec2(&mut self, _: Vec2, _: (), _: ()) {}
    fn vec_shift(&mut self, _: VecShift, _: (), _: ()) {}
    fn shuffle(&mut self, _: (), _: (), _: [u8; 16]) {}
    fn extract(&mut self, _: W, _: (), _: u8) {}
    fn replace(&mut self, _: W, _: (), _: u8, _: ()) {}
    fn bitmask(&mut self, _: W, _: ()) {}
    fn fp(&mut self, _: Fp, _: W, _: (), _: ()) {}
    fn fcmp(&mut self, _: W, _: (), _: (), _: bool) -> ((), (), ()) {
        ((), (), ())
    }
    fn cvt(&mut self, _: Cvt, _: ()) {}
}
