//! What each instruction reads and writes of the guest's registers and flags, found by running its
//! semantics on a backend that only takes notes (liveness.rs has the data flow that follows).

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, RflagsBits};
use vkernel_abi::state::{AF, CF, DF, OF, PF, R8, R9, R10, RAX, RBX, RCX, RDI, RDX, RSI, RSP, SF, ZF};
use vkernel_semantics::backend::{Backend, Bin, Cvt, Flow, Fp, Lazy, Rmw, Rounding, Un, Vec1, Vec2, VecShift, W};
use vkernel_semantics::host_ops::Vector;
use vkernel_semantics::operand::{address, is_memory};
use vkernel_semantics::x87_values;

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
    /// May be written.
    pub may_write: Set,
    /// Only the interpreter runs it: what is live is stored before, `may_write` is read back after.
    pub step: bool,
}

struct Notes {
    reads: Set,
    writes: Set,
    may_write: Set,
    lazy: Option<Lazy<()>>,
}

impl Notes {
    fn read(&mut self, s: Set) {
        self.reads |= s & !self.writes;
    }
}

/// Notes on one instruction.
pub fn of(i: &Instruction) -> Usage {
    let mut n = Notes { reads: 0, writes: 0, may_write: 0, lazy: None };
    let flow = vkernel_semantics::exec::exec(&mut n, i);
    if matches!(flow, Ok(Flow::Step | Flow::Unknown | Flow::Trap(_))) {
        return stepped(i);
    }
    if n.lazy.is_some() {
        n.writes |= ALL_FLAGS;
    }
    if matches!(flow, Ok(Flow::Syscall)) {
        n.reads |= SYSCALL_READS;
    }
    // A flag that is only carried over (a shift by 0, CF of INC) is neither read nor written for good.
    let carried = n.reads & n.writes & ALL_FLAGS & !flags(i.rflags_read());
    Usage { reads: n.reads & !carried, writes: n.writes & !carried, may_write: n.may_write | carried, step: false }
}

/// The flags that the decoder's `bits` name.
fn flags(bits: u32) -> Set {
    const FLAGS: [(u32, usize); 6] = [
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
        (RflagsBits::AF, AF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::SF, SF),
        (RflagsBits::OF, OF),
    ];
    FLAGS.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |s, (_, f)| s | flag(*f))
}

/// Number, arguments, stack (x86-64 psABI, A.2.1).
const SYSCALL_READS: Set = gpr(RAX) | gpr(RDI) | gpr(RSI) | gpr(RDX) | gpr(R10) | gpr(R8) | gpr(R9) | gpr(RSP);

/// What the interpreter may read and write for one instruction, from the decoder's tables. A partial
/// write of a register reads the rest of it.
fn stepped(i: &Instruction) -> Usage {
    let mut u = Usage { step: true, ..Usage::default() };
    if matches!(i.mnemonic(), Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64) {
        u.may_write = ALL_REGISTERS;
    }
    let mut info = InstructionInfoFactory::new();
    for r in info.info(i).used_registers() {
        let full = r.register().full_register();
        let set = if full.is_gpr() {
            gpr(full.number())
        } else if r.register().is_xmm() {
            xmm(r.register().number())
        } else {
            continue;
        };
        u.reads |= set;
        if !matches!(r.access(), OpAccess::Read | OpAccess::CondRead) {
            u.may_write |= set;
        }
    }
    u.reads |= u.may_write | flags(i.rflags_read());
    u.may_write |= flags(i.rflags_modified());
    u
}

/// Whether an instruction takes the stack pointer from memory that is not the frame's: then RET is a
/// jump to anywhere (setcontext, coroutine switches), with every register as an argument.
pub fn switches_stack(i: &Instruction) -> bool {
    let own = matches!(i.memory_base(), Register::RSP | Register::RBP | Register::RIP);
    i.op0_kind() == OpKind::Register
        && i.op0_register() == Register::RSP
        && match i.mnemonic() {
            Mnemonic::Mov => i.op1_kind() == OpKind::Memory && !own,
            Mnemonic::Xchg | Mnemonic::Pop => true,
            _ => false,
        }
}

impl Backend for Notes {
    type V = ();
    type X = ();
    type Fault = ();
    const INTERPRETER: bool = false;

    fn known(&self, _: ()) -> Option<u64> {
        None
    }
    fn host_only(&mut self, i: &Instruction) -> Result<Flow<()>, ()> {
        if !x87_values::is_translated(i) {
            return Ok(Flow::Step);
        }
        match i.mnemonic() {
            Mnemonic::Fnstsw if i.op0_kind() == OpKind::Register => {
                self.reg(RAX);
                self.set_reg(RAX, ());
            }
            Mnemonic::Fcomi | Mnemonic::Fcomip | Mnemonic::Fucomi | Mnemonic::Fucomip => {
                self.lazy = None;
                self.writes |= ALL_FLAGS;
            }
            _ if (0..i.op_count()).any(|n| is_memory(i, n)) => address(self, i),
            _ => {}
        }
        if let Some(c) = x87_values::condition(i) {
            vkernel_semantics::flags::cond(self, c);
        }
        Ok(Flow::Next)
    }
    fn c(&mut self, _: u64) {}
    fn bin(&mut self, _: Bin, _: W, _: (), _: ()) {}
    fn un(&mut self, _: Un, _: W, _: ()) {}
    fn trunc(&mut self, _: W, _: ()) {}
    fn select(&mut self, _: (), _: (), _: ()) {}
    fn mul_hi(&mut self, _: bool, _: (), _: ()) {}
    fn check_div(&mut self, _: ()) -> Result<(), ()> {
        Ok(())
    }
    fn div128(&mut self, _: bool, _: ()) -> Result<(), ()> {
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
        Ok(())
    }
    fn cmpxchg(&mut self, _: W, _: (), _: (), _: ()) -> Result<(), ()> {
        Ok(())
    }
    fn fence(&mut self) {}
    fn repeat(&mut self, copy: bool, _: W) -> Result<(), ()> {
        let changed = gpr(RCX) | gpr(RDI) | if copy { gpr(RSI) } else { 0 };
        self.read(changed | if copy { 0 } else { gpr(RAX) });
        self.writes |= changed;
        Ok(())
    }
    fn cmpxchg16b(&mut self, _: ()) -> Result<(), ()> {
        let pair = gpr(RAX) | gpr(RDX);
        self.read(pair | gpr(RBX) | gpr(RCX));
        self.writes |= pair;
        Ok(())
    }
    fn repeat_compare(&mut self, scan: bool, _: W, _: bool) -> Result<(), ()> {
        let changed = gpr(RCX) | gpr(RDI) | if scan { 0 } else { gpr(RSI) };
        self.read(changed | if scan { gpr(RAX) } else { 0 });
        self.writes |= changed;
        // Zero times changes no flag.
        self.may_write |= ALL_FLAGS;
        Ok(())
    }
    fn mxcsr(&mut self) {}
    fn set_mxcsr(&mut self, _: ()) -> Result<(), ()> {
        Ok(())
    }
    fn cpuid(&mut self) {
        self.read(gpr(RAX) | gpr(RCX));
        self.writes |= gpr(RAX) | gpr(RBX) | gpr(RCX) | gpr(RDX);
    }
    fn host(&mut self, _: u32, _: (), _: ()) {}
    fn xmm(&mut self, r: usize) {
        self.read(xmm(r));
    }
    fn set_xmm(&mut self, r: usize, _: ()) {
        self.writes |= xmm(r);
    }
    fn vconst(&mut self, _: u128) {}
    fn vec1(&mut self, _: Vec1, _: ()) {}
    fn blend(&mut self, _: W, _: (), _: (), _: ()) {}
    fn round(&mut self, _: Rounding, _: W, _: ()) {}
    fn vec2(&mut self, _: Vec2, _: (), _: ()) {}
    fn vec_shift(&mut self, _: VecShift, _: (), _: ()) {}
    fn host_vector(&mut self, _: Vector, _: u8, _: (), _: (), _: ()) {}
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
