//! The interpreter: `exec` over numbers. It runs what was not translated, single instructions on
//! behalf of translated code, and everything after a re-entry in the middle of a function.
//!
//! Invariant: between instructions the CpuState is complete, flags included, unless `lazy` holds
//! them; `flush` is called before anybody else may look.

use crate::backend::{Backend, Bin, Cvt, Flow, Fp, Lazy, Rmw, Rounding, Un, Vec1, Vec2, VecShift, W};
use crate::decode::{self, Cache, MAX_LEN};
use crate::flags::flush_flags;
use crate::host_ops::{self, MXCSR_MASK, Vector};
use crate::memory::{self, Access};
use crate::{fp, host, vector};
use iced_x86::Instruction;
use vkernel_abi::state::{CpuState, RAX, RCX, RDX};
use vkernel_abi::wasm::Trap;

/// Answers where guest code may be executed from.
pub trait Text {
    /// Number of bytes from `pc` on that are approved, read-only text; 0: none.
    fn executable(&self, pc: u32) -> usize;
}

/// Why the interpreter stopped; `state.rip` says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `rip` is an address where `run`'s caller wanted to stop.
    Stop,
    /// SYSCALL was executed; `rip` is the next instruction.
    Syscall,
    /// `rip` is the instruction that raised it.
    Trap(Trap),
    /// `rip` is an instruction without semantics, which is SIGILL for the guest.
    Unknown(iced_x86::Mnemonic),
    /// The poll flag was seen at a transfer of control.
    Poll,
}

pub struct Interp<'a, T: Text> {
    pub state: &'a mut CpuState,
    /// Host address of guest address 0.
    pub region: *mut u8,
    pub text: &'a T,
    pub cache: &'a mut Cache,
    lazy: Option<Lazy<u64>>,
    /// Instructions executed by this interpreter, for profiles.
    pub executed: u64,
}

enum Step {
    Next,
    Transfer,
    Exit(Exit),
}

impl<'a, T: Text> Interp<'a, T> {
    pub fn new(state: &'a mut CpuState, region: *mut u8, text: &'a T, cache: &'a mut Cache) -> Self {
        Self { state, region, text, cache, lazy: None, executed: 0 }
    }

    /// Runs from `rip` until a transfer of control arrives where `stop` says so, or an exit.
    pub fn run(&mut self, mut stop: impl FnMut(&CpuState) -> bool) -> Exit {
        let exit = loop {
            match self.step() {
                Step::Next => {}
                Step::Transfer => {
                    // SAFETY: the flag is a plain u32 that signal handlers write.
                    if unsafe { (&raw const self.state.poll).read_volatile() } != 0 {
                        break Exit::Poll;
                    }
                    if stop(self.state) {
                        break Exit::Stop;
                    }
                }
                Step::Exit(exit) => break exit,
            }
        };
        flush_flags(self);
        exit
    }

    /// Executes the instruction at `rip`. `Exit::Stop` means it was completed.
    pub fn one(&mut self) -> Exit {
        let exit = match self.step() {
            Step::Exit(exit) => exit,
            _ => Exit::Stop,
        };
        flush_flags(self);
        exit
    }

    fn fetch(&mut self, pc: u32) -> Result<Instruction, Trap> {
        if let Some(i) = self.cache.get(pc) {
            return Ok(i);
        }
        let mut bytes = [0u8; MAX_LEN];
        let len = self.text.executable(pc).min(MAX_LEN);
        // SAFETY: `len` bytes of the region, checked by `Text`; a fault becomes an error.
        let copied = unsafe { memory::copy(bytes.as_mut_ptr(), self.region.add(pc as usize), len) };
        if len == 0 || copied.is_err() {
            self.state.fault_addr = u64::from(pc);
            return Err(Trap::Page);
        }
        let i = decode::decode(&bytes[..len], u64::from(pc));
        self.cache.put(pc, i);
        Ok(i)
    }

    fn step(&mut self) -> Step {
        self.executed += 1;
        let i = match self.fetch(self.state.rip as u32) {
            Ok(i) => i,
            Err(trap) => return Step::Exit(Exit::Trap(trap)),
        };
        self.execute(&i)
    }

    /// Executes a decoded instruction whose address is `rip`, and says where control goes.
    fn execute(&mut self, i: &Instruction) -> Step {
        let next = i.next_ip();
        let flow = match crate::exec::exec(self, i) {
            Ok(flow) => flow,
            Err(trap) => return Step::Exit(Exit::Trap(trap)),
        };
        match flow {
            Flow::Next => {
                self.state.rip = next;
                Step::Next
            }
            Flow::Branch { cond: 0, .. } => {
                self.state.rip = next;
                Step::Next
            }
            Flow::Branch { target, .. } | Flow::Jump(target) | Flow::Call(target) => {
                self.state.rip = target;
                Step::Transfer
            }
            Flow::JumpTo(v) | Flow::CallTo(v) | Flow::Ret(v) => {
                self.state.rip = v & 0xffff_ffff;
                Step::Transfer
            }
            Flow::Syscall => {
                self.state.rip = next;
                Step::Exit(Exit::Syscall)
            }
            Flow::Trap(trap) => Step::Exit(Exit::Trap(trap)),
            Flow::Step | Flow::Unknown => Step::Exit(Exit::Unknown(i.mnemonic())),
        }
    }

    /// Host address of a guest address.
    pub(crate) fn at(&self, addr: u64) -> *mut u8 {
        self.region.wrapping_add((addr & 0xffff_ffff) as usize)
    }

    /// The value of an access, or #PF at `addr`.
    pub(crate) fn access(&mut self, addr: u64, a: Access) -> Result<u64, Trap> {
        if a.faulted != 0 {
            self.state.fault_addr = addr & 0xffff_ffff;
            return Err(Trap::Page);
        }
        Ok(a.value)
    }

    /// Reads guest memory into `to`.
    pub(crate) fn copy_in(&mut self, to: &mut [u8], addr: u64) -> Result<(), Trap> {
        // SAFETY: the guest side lies in the region or its guard.
        let r = unsafe { memory::copy(to.as_mut_ptr(), self.at(addr), to.len()) };
        r.map_err(|left| self.fault(addr + (to.len() - left) as u64))
    }

    pub(crate) fn copy_out(&mut self, addr: u64, from: &[u8]) -> Result<(), Trap> {
        // SAFETY: as above.
        let r = unsafe { memory::copy(self.at(addr), from.as_ptr(), from.len()) };
        r.map_err(|left| self.fault(addr + (from.len() - left) as u64))
    }

    fn fault(&mut self, addr: u64) -> Trap {
        self.state.fault_addr = addr & 0xffff_ffff;
        Trap::Page
    }
}

fn sext(w: W, a: u64) -> i64 {
    let n = 64 - w.bits();
    ((a << n) as i64) >> n
}

// SAFETY of the blocks below: every access goes to the region or its guard (`at`) and is covered by
// the fix-up table of memory.rs.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all, stated above")]
impl<T: Text> Backend for Interp<'_, T> {
    type V = u64;
    type X = u128;
    type Fault = Trap;
    const INTERPRETER: bool = true;

    fn known(&self, v: u64) -> Option<u64> {
        Some(v)
    }
    fn host_only(&mut self, i: &Instruction) -> Result<Flow<u64>, Trap> {
        host::exec(self, i)
    }
    fn c(&mut self, value: u64) -> u64 {
        value
    }

    fn bin(&mut self, op: Bin, w: W, a: u64, b: u64) -> u64 {
        let count = if w == W::B8 { b as u32 & 63 } else { b as u32 & 31 };
        let r = match op {
            Bin::Add => a.wrapping_add(b),
            Bin::Sub => a.wrapping_sub(b),
            Bin::Mul => a.wrapping_mul(b),
            Bin::And => a & b,
            Bin::Or => a | b,
            Bin::Xor => a ^ b,
            Bin::Shl => a << count,
            Bin::ShrU => a >> count,
            Bin::ShrS => (sext(w, a) >> count) as u64,
            Bin::Rotl if w == W::B8 => a.rotate_left(count),
            Bin::Rotl => u64::from((a as u32).rotate_left(count)),
            Bin::Rotr if w == W::B8 => a.rotate_right(count),
            Bin::Rotr => u64::from((a as u32).rotate_right(count)),
            Bin::Eq => u64::from(a == b),
            Bin::Ne => u64::from(a != b),
            Bin::LtU => u64::from(a < b),
            Bin::LeU => u64::from(a <= b),
            Bin::LtS => u64::from(sext(w, a) < sext(w, b)),
            Bin::LeS => u64::from(sext(w, a) <= sext(w, b)),
            Bin::DivU => a / b,
            Bin::RemU => a % b,
            Bin::DivS => sext(w, a).wrapping_div(sext(w, b)) as u64,
            Bin::RemS => sext(w, a).wrapping_rem(sext(w, b)) as u64,
        };
        r & w.mask()
    }

    fn un(&mut self, op: Un, w: W, a: u64) -> u64 {
        match op {
            Un::Eqz => u64::from(a == 0),
            Un::Not => !a & w.mask(),
            Un::Neg => a.wrapping_neg() & w.mask(),
            Un::Sext => sext(w, a) as u64,
            Un::Clz if w == W::B8 => u64::from(a.leading_zeros()),
            Un::Clz => u64::from((a as u32).leading_zeros()),
            Un::Ctz if w == W::B8 => u64::from(a.trailing_zeros()),
            Un::Ctz => u64::from((a as u32).trailing_zeros()),
            Un::Popcnt => u64::from(a.count_ones()),
            Un::Bswap if w == W::B8 => a.swap_bytes(),
            Un::Bswap => u64::from((a as u32).swap_bytes()),
        }
    }

    fn trunc(&mut self, w: W, a: u64) -> u64 {
        a & w.mask()
    }
    fn select(&mut self, cond: u64, a: u64, b: u64) -> u64 {
        if cond != 0 { a } else { b }
    }
    fn mul_hi(&mut self, signed: bool, a: u64, b: u64) -> u64 {
        if signed {
            ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
        } else {
            ((u128::from(a) * u128::from(b)) >> 64) as u64
        }
    }
    fn check_div(&mut self, cond: u64) -> Result<(), Trap> {
        if cond == 0 { Err(Trap::Divide) } else { Ok(()) }
    }
    fn div128(&mut self, signed: bool, divisor: u64) -> Result<(), Trap> {
        let g = &mut self.state.gpr;
        let (q, r) = div128(signed, g[RDX], g[RAX], divisor).ok_or(Trap::Divide)?;
        g[RAX] = q;
        g[RDX] = r;
        Ok(())
    }

    fn reg(&mut self, r: usize) -> u64 {
        self.state.gpr[r]
    }
    fn set_reg(&mut self, r: usize, v: u64) {
        self.state.gpr[r] = v;
    }
    fn stored_flag(&mut self, f: usize) -> u64 {
        u64::from(self.state.flags[f])
    }
    fn store_flag(&mut self, f: usize, v: u64) {
        self.state.flags[f] = v as u32;
    }
    fn lazy(&mut self) -> &mut Option<Lazy<u64>> {
        &mut self.lazy
    }
    fn fs_base(&mut self) -> u64 {
        self.state.fs_base
    }
    fn gs_base(&mut self) -> u64 {
        self.state.gs_base
    }

    fn load(&mut self, w: W, addr: u64) -> Result<u64, Trap> {
        let p = self.at(addr);
        let a = unsafe {
            match w {
                W::B1 => memory::vk_load8(p),
                W::B2 => memory::vk_load16(p),
                W::B4 => memory::vk_load32(p),
                W::B8 => memory::vk_load64(p),
            }
        };
        self.access(addr, a)
    }
    fn store(&mut self, w: W, addr: u64, v: u64) -> Result<(), Trap> {
        let p = self.at(addr);
        let a = unsafe {
            match w {
                W::B1 => memory::vk_store8(p, v),
                W::B2 => memory::vk_store16(p, v),
                W::B4 => memory::vk_store32(p, v),
                W::B8 => memory::vk_store64(p, v),
            }
        };
        self.access(addr, a).map(|_| ())
    }
    fn load128(&mut self, addr: u64, aligned: bool) -> Result<u128, Trap> {
        if aligned && addr & 15 != 0 {
            return Err(Trap::Protection);
        }
        let mut v = 0u128;
        let a = unsafe { memory::vk_load128(self.at(addr), &mut v) };
        self.access(addr, a).map(|_| v)
    }
    fn store128(&mut self, addr: u64, v: u128, aligned: bool) -> Result<(), Trap> {
        if aligned && addr & 15 != 0 {
            return Err(Trap::Protection);
        }
        let a = unsafe { memory::vk_store128(self.at(addr), &v) };
        self.access(addr, a).map(|_| ())
    }

    fn rmw(&mut self, op: Rmw, w: W, addr: u64, v: u64) -> Result<u64, Trap> {
        let p = self.at(addr);
        let a = unsafe {
            match (op, w) {
                (Rmw::Xchg, W::B1) => memory::vk_xchg8(p, v),
                (Rmw::Xchg, W::B2) => memory::vk_xchg16(p, v),
                (Rmw::Xchg, W::B4) => memory::vk_xchg32(p, v),
                (Rmw::Xchg, W::B8) => memory::vk_xchg64(p, v),
                (Rmw::Add, W::B1) => memory::vk_xadd8(p, v),
                (Rmw::Add, W::B2) => memory::vk_xadd16(p, v),
                (Rmw::Add, W::B4) => memory::vk_xadd32(p, v),
                (Rmw::Add, W::B8) => memory::vk_xadd64(p, v),
                (Rmw::Sub, _) => return self.rmw(Rmw::Add, w, addr, v.wrapping_neg() & w.mask()),
                _ => {
                    let mut old = self.load(w, addr)?;
                    loop {
                        let new = match op {
                            Rmw::And => old & v,
                            Rmw::Or => old | v,
                            _ => old ^ v,
                        };
                        let seen = self.cmpxchg(w, addr, old, new)?;
                        if seen == old {
                            return Ok(old);
                        }
                        old = seen;
                    }
                }
            }
        };
        self.access(addr, a)
    }
    fn cmpxchg(&mut self, w: W, addr: u64, expected: u64, new: u64) -> Result<u64, Trap> {
        let p = self.at(addr);
        let a = unsafe {
            match w {
                W::B1 => memory::vk_cas8(p, expected, new),
                W::B2 => memory::vk_cas16(p, expected, new),
                W::B4 => memory::vk_cas32(p, expected, new),
                W::B8 => memory::vk_cas64(p, expected, new),
            }
        };
        self.access(addr, a).map(|v| v & w.mask())
    }
    fn cmpxchg16b(&mut self, addr: u64) -> Result<u64, Trap> {
        if addr & 15 != 0 {
            return Err(Trap::Protection);
        }
        let r = host_ops::cmpxchg16b(self.state, self.at(addr));
        self.access(addr, r)
    }
    fn repeat(&mut self, _: bool, _: W) -> Result<(), Trap> {
        unreachable!("the interpreter repeats single iterations")
    }
    fn repeat_compare(&mut self, _: bool, _: W, _: bool) -> Result<(), Trap> {
        unreachable!("the interpreter repeats single iterations")
    }
    fn mxcsr(&mut self) -> u64 {
        u64::from(self.state.mxcsr)
    }
    fn set_mxcsr(&mut self, v: u64) -> Result<(), Trap> {
        if v & !u64::from(MXCSR_MASK) != 0 {
            return Err(Trap::Protection);
        }
        self.state.mxcsr = v as u32;
        Ok(())
    }
    fn cpuid(&mut self) {
        let (leaf, sub) = (self.state.gpr[RAX] as u32, self.state.gpr[RCX] as u32);
        host_ops::set_cpuid(self.state, leaf, sub);
    }
    fn host(&mut self, form: u32, a: u64, b: u64) -> u64 {
        host_ops::import(self.state, self.region, form, a, b)
    }
    fn fence(&mut self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    fn xmm(&mut self, r: usize) -> u128 {
        self.state.xmm[r]
    }
    fn set_xmm(&mut self, r: usize, v: u128) {
        self.state.xmm[r] = v;
    }
    fn vconst(&mut self, value: u128) -> u128 {
        value
    }
    fn vec1(&mut self, op: Vec1, a: u128) -> u128 {
        match op {
            Vec1::Round(w, how) => fp::round(how, w, true, &mut self.state.mxcsr, a),
            _ => vector::unary(op, a).expect("every other operation is an integer one"),
        }
    }
    fn blend(&mut self, w: W, mask: u128, a: u128, b: u128) -> u128 {
        vector::blend(w, mask, a, b)
    }
    fn vec2(&mut self, op: Vec2, a: u128, b: u128) -> u128 {
        match op {
            Vec2::F(op, w) => fp::packed(op, w, &mut self.state.mxcsr, a, b),
            Vec2::FCmp(w, p) => fp::compare_mask(w, p, &mut self.state.mxcsr, a, b),
            _ => vector::integer(op, a, b).expect("every other operation is an integer one"),
        }
    }
    fn vec_shift(&mut self, op: VecShift, a: u128, count: u64) -> u128 {
        vector::shift(op, a, count)
    }
    fn host_vector(&mut self, op: Vector, imm: u8, a: u128, b: u128, c: u64) -> u128 {
        let mut v = [a, b];
        host_ops::vector(op, imm, &mut v, c);
        v[0]
    }
    fn shuffle(&mut self, a: u128, b: u128, sel: [u8; 16]) -> u128 {
        vector::shuffle(a, b, sel)
    }
    fn extract(&mut self, w: W, a: u128, lane: u8) -> u64 {
        (a >> (u32::from(lane) * w.bits())) as u64 & w.mask()
    }
    fn replace(&mut self, w: W, a: u128, lane: u8, v: u64) -> u128 {
        let n = u32::from(lane) * w.bits();
        (a & !(u128::from(w.mask()) << n)) | (u128::from(v & w.mask()) << n)
    }
    fn bitmask(&mut self, w: W, a: u128) -> u64 {
        vector::bitmask(w, a)
    }
    fn fp(&mut self, op: Fp, w: W, a: u64, b: u64) -> u64 {
        fp::scalar(op, w, &mut self.state.mxcsr, a, b)
    }
    fn round(&mut self, how: Rounding, w: W, a: u64) -> u64 {
        fp::round(how, w, false, &mut self.state.mxcsr, u128::from(a)) as u64 & w.mask()
    }
    fn fcmp(&mut self, w: W, a: u64, b: u64, signaling: bool) -> (u64, u64, u64) {
        fp::compare(w, signaling, &mut self.state.mxcsr, a, b)
    }
    fn cvt(&mut self, op: Cvt, a: u64) -> u64 {
        fp::convert(op, &mut self.state.mxcsr, a)
    }
}

/// (quotient, remainder) of hi:lo by `divisor`; `None` for #DE.
pub fn div128(signed: bool, hi: u64, lo: u64, divisor: u64) -> Option<(u64, u64)> {
    let n = (u128::from(hi) << 64) | u128::from(lo);
    if signed {
        let (n, d) = (n as i128, i128::from(divisor as i64));
        let q = n.checked_div(d)?;
        Some((i64::try_from(q).ok()? as u64, (n % d) as u64))
    } else {
        let d = u128::from(divisor);
        let q = n.checked_div(d)?;
        Some((u64::try_from(q).ok()?, (n % d) as u64))
    }
}
