//! Runs one instruction on the host CPU with a given state.
//!
//! The state page and the code page are in the low 2 GiB, so that the stub reaches them with 32-bit
//! absolute addresses and needs no register of its own.

use crate::{SCRATCH, SCRATCH_LEN, Snapshot};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use vkernel_abi::state::CpuState;

const STATE: usize = 0x2000_0000;
const CODE: usize = 0x3000_0000;
const FX_IN: u32 = 0;
const FX_OUT: u32 = 512;
const GPR_IN: u32 = 1024;
const GPR_OUT: u32 = 1152;
const FLAGS_IN: u32 = 1280;
const FLAGS_OUT: u32 = 1288;
const HOST_RSP: u32 = 1296;

static SIGNAL: AtomicI32 = AtomicI32::new(0);
static RECOVER: AtomicUsize = AtomicUsize::new(0);

pub struct Host {
    state: *mut u8,
    code: *mut u8,
}

fn map(at: usize, len: usize, prot: i32) -> *mut u8 {
    // SAFETY: a fresh anonymous mapping; NOREPLACE keeps others' memory.
    let p = unsafe {
        libc::mmap(
            at as *mut _,
            len,
            prot,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(p as usize, at, "cannot map the test's low memory");
    p.cast()
}

extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    SIGNAL.store(signal, Ordering::Relaxed);
    // SAFETY: the kernel passes a valid ucontext.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let at = RECOVER.load(Ordering::Relaxed);
    let faulted = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    if let Some(to) = vkernel_semantics::memory::fixup(faulted) {
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = to as i64;
        return;
    }
    let pc = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    if at == 0 || !(CODE..CODE + 4096).contains(&pc) {
        eprintln!("signal {signal} outside the tested instruction, at {pc:#x}");
        // SAFETY: ends the test process.
        unsafe { libc::_exit(99) };
    }
    context.uc_mcontext.gregs[libc::REG_RIP as usize] = at as i64;
    context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !0x40100;
}

impl Host {
    /// Maps the pages and installs the signal handlers. Once per process.
    pub fn new() -> Self {
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        map(SCRATCH, SCRATCH_LEN, rw);
        let state = map(STATE, 4096, rw);
        let code = map(CODE, 4096, rw | libc::PROT_EXEC);
        // SAFETY: plain calls; the alternate stack is leaked on purpose.
        unsafe {
            let stack = Box::leak(vec![0u8; 65536].into_boxed_slice());
            let ss = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: 65536 };
            assert_eq!(libc::sigaltstack(&ss, std::ptr::null_mut()), 0);
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL] {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
        }
        Self { state, code }
    }

    pub fn scratch(&mut self) -> &mut [u8] {
        // SAFETY: mapped by `new`, borrowed through self.
        unsafe { std::slice::from_raw_parts_mut(SCRATCH as *mut u8, SCRATCH_LEN) }
    }

    fn put(&self, off: u32, v: &[u8]) {
        // SAFETY: offsets are within the state page.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), self.state.add(off as usize), v.len()) };
    }

    fn get<const N: usize>(&self, off: u32) -> [u8; N] {
        let mut v = [0; N];
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(self.state.add(off as usize), v.as_mut_ptr(), N) };
        v
    }

    /// Runs `bytes` natively from `state`; scratch memory is read and written in place.
    pub fn run(&mut self, bytes: &[u8], state: &CpuState) -> Snapshot {
        let mut fx = vkernel_semantics::host::fxsave(state);
        fx[416..].fill(0);
        self.put(FX_IN, &fx);
        for (n, r) in state.gpr.iter().enumerate() {
            self.put(GPR_IN + 8 * n as u32, &r.to_le_bytes());
        }
        self.put(FLAGS_IN, &(state.rflags() & 0xcd5 | 2).to_le_bytes());

        let abs = |off: u32| (STATE as u32 + off).to_le_bytes();
        let mut c: Vec<u8> = vec![0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57];
        let mov = |c: &mut Vec<u8>, opcode: u8, r: usize, off: u32| {
            c.extend([0x48 | if r >= 8 { 4 } else { 0 }, opcode, 0x04 | ((r & 7) << 3) as u8, 0x25]);
            c.extend(abs(off));
        };
        mov(&mut c, 0x89, 4, HOST_RSP);
        c.extend([0x48, 0x0f, 0xae, 0x0c, 0x25]); // fxrstor64
        c.extend(abs(FX_IN));
        c.extend([0xff, 0x34, 0x25]); // push flags
        c.extend(abs(FLAGS_IN));
        c.push(0x9d);
        for r in 0..16 {
            mov(&mut c, 0x8b, r, GPR_IN + 8 * r as u32);
        }
        c.extend(bytes);
        RECOVER.store(CODE + c.len(), Ordering::Relaxed);
        for r in 0..16 {
            mov(&mut c, 0x89, r, GPR_OUT + 8 * r as u32);
        }
        mov(&mut c, 0x8b, 4, HOST_RSP);
        c.extend([0x9c, 0x8f, 0x04, 0x25]); // pushfq; pop [flags]
        c.extend(abs(FLAGS_OUT));
        c.extend([0xfc, 0x48, 0x0f, 0xae, 0x04, 0x25]); // cld; fxsave64
        c.extend(abs(FX_OUT));
        c.extend([0xdb, 0xe3]); // fninit
        c.extend([0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
        SIGNAL.store(0, Ordering::Relaxed);
        let default_mxcsr = 0x1f80u32;
        // SAFETY: the stub restores the callee-saved registers, DF, x87; MXCSR is restored here.
        unsafe {
            std::ptr::copy_nonoverlapping(c.as_ptr(), self.code, c.len());
            let stub: extern "C" fn() = std::mem::transmute(self.code);
            stub();
            std::arch::asm!("ldmxcsr [{}]", in(reg) &default_mxcsr);
        }
        let mut after = CpuState::new();
        for (n, r) in after.gpr.iter_mut().enumerate() {
            *r = u64::from_le_bytes(self.get(GPR_OUT + 8 * n as u32));
        }
        after.set_rflags(u64::from_le_bytes(self.get(FLAGS_OUT)));
        assert!(vkernel_semantics::host::fxrstor(&mut after, &self.get::<512>(FX_OUT)));
        let signal = SIGNAL.load(Ordering::Relaxed);
        let memory = self.scratch().to_vec();
        Snapshot::of(&after, &memory, signal)
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}
