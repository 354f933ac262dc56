//! Runs a program on the host CPU with a given state.
//!
//! The state page and the stub are in the low 2 GiB, so that the stub reaches them with 32-bit
//! absolute addresses and needs no register of its own.

use crate::area::{self, EXIT, SCRATCH, SCRATCH_LEN};
use crate::dump;
use crate::snapshot::Snapshot;
use std::cell::UnsafeCell;
use std::sync::Once;
use vkernel_abi::state::CpuState;

const STATE: u64 = 0x2000_0000;
const FX_IN: u32 = 0;
const FX_OUT: u32 = 512;
const GPR_IN: u32 = 1024;
const FLAGS_IN: u32 = 1152;
const TARGET: u32 = 1160;
const HOST_RSP: u32 = 1168;

/// What the signal handler saw: written by it and read after the run, on one thread.
struct Caught(UnsafeCell<(i32, [i64; 23])>);
// SAFETY: the bench's lock lets one thread at it.
unsafe impl Sync for Caught {}
static CAUGHT: Caught = Caught(UnsafeCell::new((0, [0; 23])));

extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let gregs = &mut context.uc_mcontext.gregs;
    let pc = gregs[libc::REG_RIP as usize] as u64;
    if let Some(to) = vkernel_semantics::memory::fixup(pc as usize) {
        gregs[libc::REG_RIP as usize] = to as i64;
        return;
    }
    if !(area::TEXT..area::TEXT + area::TEXT_LEN as u64).contains(&pc) {
        eprintln!("signal {signal} outside the tested programs, at {pc:#x}");
        // SAFETY: ends the test process.
        unsafe { libc::_exit(99) };
    }
    // SAFETY: see `Caught`.
    unsafe { *CAUGHT.0.get() = (signal, *gregs) };
    gregs[libc::REG_RIP as usize] = EXIT as i64;
    gregs[libc::REG_EFL as usize] &= !0x40500;
}

pub struct Host {
    state: *mut u8,
}

// SAFETY: the pointer is to a mapping that stays.
unsafe impl Send for Host {}

/// Installs the handlers, once per process and before any engine exists (its own go first and pass
/// on what is not theirs), and gives the calling thread an alternate stack.
pub fn prepare_thread() {
    static HANDLERS: Once = Once::new();
    // SAFETY: plain calls; the alternate stack is leaked on purpose.
    unsafe {
        let stack = Box::leak(vec![0u8; 1 << 18].into_boxed_slice());
        let ss = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: 1 << 18 };
        assert_eq!(libc::sigaltstack(&ss, std::ptr::null_mut()), 0);
        HANDLERS.call_once(|| {
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL] {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
        });
    }
}

impl Host {
    /// Maps the pages and writes the stub. Once per process.
    pub fn new() -> Self {
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let state = area::map(STATE, 4096, rw);
        let code = area::map(EXIT, 4096, rw | libc::PROT_EXEC);
        let c = stub();
        // SAFETY: the page is ours.
        unsafe { std::ptr::copy_nonoverlapping(c.as_ptr(), code, c.len()) };
        Self { state }
    }

    fn put(&self, off: u32, v: &[u8]) {
        // SAFETY: offsets are within the state page.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), self.state.add(off as usize), v.len()) };
    }

    /// Runs the program at `pc` natively from `state`; scratch memory is read and written in place.
    pub fn run(&mut self, pc: u64, state: &CpuState) -> Snapshot {
        let mut fx = vkernel_semantics::host::fxsave(state);
        fx[416..].fill(0);
        self.put(FX_IN, &fx);
        for (n, r) in state.gpr.iter().enumerate() {
            self.put(GPR_IN + 8 * n as u32, &r.to_le_bytes());
        }
        self.put(FLAGS_IN, &(state.rflags() & 0xcd5 | 2).to_le_bytes());
        self.put(TARGET, &pc.to_le_bytes());
        // SAFETY: see `Caught`.
        unsafe { (*CAUGHT.0.get()).0 = 0 };
        let default_mxcsr = 0x1f80u32;
        // SAFETY: the stub keeps the callee-saved registers and restores DF and x87; MXCSR is restored here.
        unsafe {
            let enter: extern "C" fn() = std::mem::transmute((EXIT + ENTER) as *const u8);
            enter();
            std::arch::asm!("ldmxcsr [{}]", in(reg) &default_mxcsr);
        }
        let mut after = CpuState::new();
        let mut image = [0u8; 512];
        // SAFETY: within the state page.
        unsafe { std::ptr::copy_nonoverlapping(self.state.add(FX_OUT as usize), image.as_mut_ptr(), 512) };
        assert!(vkernel_semantics::host::fxrstor(&mut after, &image));
        // SAFETY: see `Caught`.
        let (signal, gregs) = unsafe { *CAUGHT.0.get() };
        if signal == 0 {
            dump::take(&mut after);
        } else {
            const ORDER: [i32; 16] = [
                libc::REG_RAX,
                libc::REG_RCX,
                libc::REG_RDX,
                libc::REG_RBX,
                libc::REG_RSP,
                libc::REG_RBP,
                libc::REG_RSI,
                libc::REG_RDI,
                libc::REG_R8,
                libc::REG_R9,
                libc::REG_R10,
                libc::REG_R11,
                libc::REG_R12,
                libc::REG_R13,
                libc::REG_R14,
                libc::REG_R15,
            ];
            for (r, n) in after.gpr.iter_mut().zip(ORDER) {
                *r = gregs[n as usize] as u64;
            }
            after.set_rflags(gregs[libc::REG_EFL as usize] as u64);
            after.rip = gregs[libc::REG_RIP as usize] as u64;
        }
        Snapshot::of(&after, area::bytes(SCRATCH, SCRATCH_LEN), signal)
    }
}

/// Offset of the way in; the way out is at 0.
const ENTER: u64 = 256;

fn stub() -> Vec<u8> {
    let abs = |off: u32| (STATE as u32 + off).to_le_bytes();
    let mov = |c: &mut Vec<u8>, opcode: u8, r: usize, off: u32| {
        c.extend([0x48 | if r >= 8 { 4 } else { 0 }, opcode, 0x04 | ((r & 7) << 3) as u8, 0x25]);
        c.extend(abs(off));
    };
    let mut c = Vec::new();
    mov(&mut c, 0x8b, 4, HOST_RSP);
    c.extend([0xfc, 0x48, 0x0f, 0xae, 0x04, 0x25]); // cld; fxsave64
    c.extend(abs(FX_OUT));
    c.extend([0xdb, 0xe3]); // fninit
    c.extend([0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
    assert!(c.len() <= ENTER as usize);
    c.resize(ENTER as usize, 0xcc);
    c.extend([0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]);
    mov(&mut c, 0x89, 4, HOST_RSP);
    c.extend([0x48, 0x0f, 0xae, 0x0c, 0x25]); // fxrstor64
    c.extend(abs(FX_IN));
    c.extend([0xff, 0x34, 0x25]); // push flags
    c.extend(abs(FLAGS_IN));
    c.push(0x9d);
    for r in 0..16 {
        mov(&mut c, 0x8b, r, GPR_IN + 8 * r as u32);
    }
    c.extend([0xff, 0x24, 0x25]); // jmp [target]
    c.extend(abs(TARGET));
    c
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}
