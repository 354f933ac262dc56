//! What each instruction reads and writes of the guest's registers and flags, found by running its
//! semantics on a backend that only takes notes (liveness.rs has the data flow that follows).

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, RflagsBits};
use vkernel_abi::state::{AF, CF, DF, OF, PF, R8, R9, R10, RAX, RBX, RCX, RDI, RDX, RSI, RSP, SF, ZF};
use vkernel_semantics::backend::{Backend, Bin, Cvt, Flow, Fp, Lazy, Rmw, Rounding, Un, Vec1, Vec2, VecShift, W};
use vkernel_semantics::host_ops::Vector;
use vkernel_semantics::operand::{address, is_memory};
use vkernel_semantics::{flags, x87_values};

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
    lazy: Option<Lazy<Option<u64>>>,
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
        return Usage { reads: n.reads | SYSCALL_READS, writes: n.writes, may_write: n.may_write, step: false };
    }
    // A flag that the instruction only keeps, as INC does CF, matters when somebody reads it later.
    let kept = n.reads & ALL_FLAGS & !flags_of(i.rflags_read());
    Usage { reads: n.reads & !kept, writes: n.writes & !kept, may_write: n.may_write | n.writes & kept, step: false }
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
    u.reads |= u.may_write | flags_of(i.rflags_read());
    u.may_write |= flags_of(i.rflags_modified());
    u
}

/// Read before any write, written, and possibly written by a block's instructions.
pub fn of_block(usage: &[Usage]) -> (Set, Set, Set) {
    let (mut reads, mut writes, mut may_write) = (0, 0, 0);
    for u in usage {
        reads |= u.reads & !writes;
        writes |= u.writes;
        may_write |= u.may_write;
    }
    (reads, writes, may_write)
}

/// SYSCALL reads the flags, for r11: those that have a meaning, `held` at the block's start.
pub fn limit_syscalls(instructions: &[Instruction], usage: &mut [Usage], mut held: Set) {
    for (i, u) in instructions.iter().zip(usage) {
        if i.mnemonic() == Mnemonic::Syscall {
            u.reads &= held | !ALL_FLAGS;
        }
        held |= u.writes | u.may_write;
    }
}

/// The decoder's flag bits as a set.
fn flags_of(bits: u32) -> Set {
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
    type V = Option<u64>;
    type X = ();
    type Fault = ();
    const INTERPRETER: bool = false;

    fn known(&self, v: Option<u64>) -> Option<u64> {
        v
    }
    fn host_only(&mut self, i: &Instruction) -> Result<Flow<Option<u64>>, ()> {
        if !x87_values::is_translated(i) {
            return Ok(Flow::Step);
        }
        match i.mnemonic() {
            Mnemonic::Fnstsw if i.op0_kind() == OpKind::Register => {
                self.reg(RAX);
                self.set_reg(RAX, None);
            }
            Mnemonic::Fcomi | Mnemonic::Fcomip | Mnemonic::Fucomi | Mnemonic::Fucomip => {
                self.lazy = None;
                self.writes |= ALL_FLAGS;
            }
            _ if (0..i.op_count()).any(|n| is_memory(i, n)) => {
                address(self, i);
            }
            _ => {}
        }
        if let Some(c) = x87_values::condition(i) {
            flags::cond(self, c);
        }
        Ok(Flow::Next)
    }
    fn c(&mut self, value: u64) -> Option<u64> {
        Some(value)
    }
    fn bin(&mut self, op: Bin, _: W, a: Option<u64>, b: Option<u64>) -> Option<u64> {
        // What the lifter knows too: a shift by a constant that is not zero writes its flags.
        if op == Bin::And { Some(a? & b?) } else { None }
    }
    fn un(&mut self, _: Un, _: W, _: Option<u64>) -> Option<u64> {
        None
    }
    fn trunc(&mut self, _: W, _: Option<u64>) -> Option<u64> {
        None
    }
    fn select(&mut self, _: Option<u64>, _: Option<u64>, _: Option<u64>) -> Option<u64> {
        None
    }
    fn mul_hi(&mut self, _: bool, _: Option<u64>, _: Option<u64>) -> Option<u64> {
        None
    }
    fn check_div(&mut self, _: Option<u64>) -> Result<(), ()> {
        Ok(())
    }
    fn div128(&mut self, _: bool, _: Option<u64>) -> Result<(), ()> {
        self.read(gpr(0) | gpr(2));
        self.writes |= gpr(0) | gpr(2);
        Ok(())
    }
    fn reg(&mut self, r: usize) -> Option<u64> {
        self.read(gpr(r));
        None
    }
    fn set_reg(&mut self, r: usize, _: Option<u64>) {
        self.writes |= gpr(r);
    }
    fn stored_flag(&mut self, f: usize) -> Option<u64> {
        if f != DF {
            self.read(flag(f));
        }
        None
    }
    fn store_flag(&mut self, f: usize, _: Option<u64>) {
        if f != DF {
            self.writes |= flag(f);
        }
    }
    fn lazy(&mut self) -> &mut Option<Lazy<Option<u64>>> {
        &mut self.lazy
    }
    fn fs_base(&mut self) -> Option<u64> {
        None
    }
    fn gs_base(&mut self) -> Option<u64> {
        None
    }
    fn load(&mut self, _: W, _: Option<u64>) -> Result<Option<u64>, ()> {
        Ok(None)
    }
    fn store(&mut self, _: W, _: Option<u64>, _: Option<u64>) -> Result<(), ()> {
        Ok(())
    }
    fn load128(&mut self, _: Option<u64>, _: bool) -> Result<(), ()> {
        Ok(())
    }
    fn store128(&mut self, _: Option<u64>, _: (), _: bool) -> Result<(), ()> {
        Ok(())
    }
    fn rmw(&mut self, _: Rmw, _: W, _: Option<u64>, _: Option<u64>) -> Result<Option<u64>, ()> {
        Ok(None)
    }
    fn cmpxchg(&mut self, _: W, _: Option<u64>, _: Option<u64>, _: Option<u64>) -> Result<Option<u64>, ()> {
        Ok(None)
    }
    fn fence(&mut self) {}
    fn repeat(&mut self, copy: bool, _: W) -> Result<(), ()> {
        let changed = gpr(RCX) | gpr(RDI) | if copy { gpr(RSI) } else { 0 };
        self.read(changed | if copy { 0 } else { gpr(RAX) });
        self.writes |= changed;
        Ok(())
    }
    fn cmpxchg16b(&mut self, _: Option<u64>) -> Result<Option<u64>, ()> {
        let pair = gpr(RAX) | gpr(RDX);
        self.read(pair | gpr(RBX) | gpr(RCX));
        self.writes |= pair;
        Ok(None)
    }
    fn repeat_compare(&mut self, scan: bool, _: W, _: bool) -> Result<(), ()> {
        let changed = gpr(RCX) | gpr(RDI) | if scan { 0 } else { gpr(RSI) };
        self.read(changed | if scan { gpr(RAX) } else { 0 });
        self.writes |= changed;
        // Zero times changes no flag.
        self.may_write |= ALL_FLAGS;
        Ok(())
    }
    fn mxcsr(&mut self) -> Option<u64> {
        None
    }
    fn set_mxcsr(&mut self, _: Option<u64>) -> Result<(), ()> {
        Ok(())
    }
    fn cpuid(&mut self) {
        self.read(gpr(RAX) | gpr(RCX));
        self.writes |= gpr(RAX) | gpr(RBX) | gpr(RCX) | gpr(RDX);
    }
    fn host(&mut self, _: u32, _: Option<u64>, _: Option<u64>) -> Option<u64> {
        None
    }
    fn xmm(&mut self, r: usize) {
        self.read(xmm(r));
    }
    fn set_xmm(&mut self, r: usize, _: ()) {
        self.writes |= xmm(r);
    }
    fn vconst(&mut self, _: u128) {}
    fn vec1(&mut self, _: Vec1, _: ()) {}
    fn blend(&mut self, _: W, _: (), _: (), _: ()) {}
    fn round(&mut self, _: Rounding, _: W, _: Option<u64>) -> Option<u64> {
        None
    }
    fn vec2(&mut self, _: Vec2, _: (), _: ()) {}
    fn vec_shift(&mut self, _: VecShift, _: (), _: Option<u64>) {}
    fn host_vector(&mut self, _: Vector, _: u8, _: (), _: (), _: Option<u64>) {}
    fn shuffle(&mut self, _: (), _: (), _: [u8; 16]) {}
    fn extract(&mut self, _: W, _: (), _: u8) -> Option<u64> {
        None
    }
    fn replace(&mut self, _: W, _: (), _: u8, _: Option<u64>) {}
    fn bitmask(&mut self, _: W, _: ()) -> Option<u64> {
        None
    }
    fn fp(&mut self, _: Fp, _: W, _: Option<u64>, _: Option<u64>) -> Option<u64> {
        None
    }
    fn fcmp(&mut self, _: W, _: Option<u64>, _: Option<u64>, _: bool) -> (Option<u64>, Option<u64>, Option<u64>) {
        (None, None, None)
    }
    fn cvt(&mut self, _: Cvt, _: Option<u64>) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_are_only_kept_are_not_read() {
        let cf = flag(CF);
        // Bytes, flags read, surely written, possibly written.
        let cases: [(&[u8], Set, Set, Set); 6] = [
            (&[0xc1, 0xe0, 5], 0, ALL_FLAGS, 0),     // shl eax,5
            (&[0xd3, 0xe0], 0, 0, ALL_FLAGS),        // shl eax,cl
            (&[0xff, 0xc0], 0, ALL_FLAGS & !cf, cf), // inc eax
            (&[0x83, 0x00, 1], 0, ALL_FLAGS, 0),     // add dword [rax],1
            (&[0x83, 0x10, 1], cf, ALL_FLAGS, 0),    // adc dword [rax],1
            (&[0x0f, 0x05], ALL_FLAGS, 0, 0),        // syscall: r11
        ];
        for (bytes, reads, writes, may_write) in cases {
            let i = iced_x86::Decoder::new(64, bytes, 0).decode();
            let u = of(&i);
            let flags = [u.reads, u.writes, u.may_write].map(|s| s & ALL_FLAGS);
            assert_eq!(flags, [reads, writes, may_write], "{i}");
        }
    }
}
