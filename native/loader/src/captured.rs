//! What the host's handler records of a signal, for `signal::deliver` to find at the next safe point.
//!
//! One signal at a time: after it the host has all others blocked, so that the kernel keeps them. The
//! synchronous ones (SIGSEGV and kin) cannot be blocked on the host, because the engine lives on them:
//! where one was sent by somebody, it is held until the guest does not block it.

use crate::signal::{LEAVE_SIGNAL, LEAVE_VALUE, SYNCHRONOUS, bit};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use vkernel_abi::state::CpuState;

/// Synchronous signals are numbered below this.
const HELD: usize = 12;

/// One thread's captured signals, written by the host handler on the same thread.
pub struct Captured {
    pub info: libc::siginfo_t,
    pub present: bool,
    pub leave: bool,
    /// Address of the last synchronous memory fault.
    pub fault_addr: usize,
    /// SIGSEGV or SIGBUS.
    pub fault_signal: i32,
    /// The thread's poll flag.
    pub poll: *mut u32,
    pub state: *const CpuState,
    /// The interpreter runs, for profiles.
    pub interpreting: bool,
    /// Synchronous signals that were sent, as a set, and what came with each: like all standard signals,
    /// the first one counts.
    held: AtomicU64,
    infos: [libc::siginfo_t; HELD],
}

impl Captured {
    /// For the thread whose `state` lives as long as it.
    pub fn new(state: *mut CpuState) -> Box<Self> {
        // SAFETY: a zeroed siginfo is valid.
        let none: libc::siginfo_t = unsafe { std::mem::zeroed() };
        Box::new(Self {
            info: none,
            present: false,
            leave: false,
            fault_addr: 0,
            fault_signal: 0,
            // SAFETY: the address of a field of a live state.
            poll: unsafe { &raw mut (*state).poll },
            state,
            interpreting: false,
            held: AtomicU64::new(0),
            infos: [none; HELD],
        })
    }

    /// The signal to be delivered next to a thread that blocks `mask`; 0: none.
    pub fn next(&self, mask: u64) -> i32 {
        match self.held() & !mask {
            _ if self.present => self.info.si_signo,
            0 => 0,
            set => set.trailing_zeros() as i32 + 1,
        }
    }

    /// Takes the signal that `next` says.
    pub fn take(&mut self, mask: u64) -> Option<libc::siginfo_t> {
        let signal = self.next(mask);
        if std::mem::take(&mut self.present) {
            return Some(self.info);
        }
        (signal != 0).then(|| {
            let info = self.infos[signal as usize];
            self.held.fetch_and(!bit(signal), Ordering::AcqRel);
            info
        })
    }

    /// Held signals: they are pending (rt_sigpending(2)).
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// A forked child has no pending signals: those that were held before the fork, not its own since.
    pub fn forget(&self, before: u64) {
        self.held.fetch_and(!before, Ordering::AcqRel);
    }

    /// Async-signal-safe.
    fn hold(&mut self, info: libc::siginfo_t) {
        if self.held() & bit(info.si_signo) == 0 {
            self.infos[info.si_signo as usize] = info;
            self.held.fetch_or(bit(info.si_signo), Ordering::AcqRel);
        }
    }
}

thread_local! {
    static CAPTURED: Cell<*mut Captured> = const { Cell::new(std::ptr::null_mut()) };
}

/// Handlers that were there before ours (the engine's), by signal.
pub static mut PREVIOUS: [usize; 65] = [0; 65];

/// Makes `c` the place where this thread's handlers record.
pub fn attach(c: *mut Captured) {
    CAPTURED.with(|x| x.set(c));
}

pub fn fault_addr() -> usize {
    let c = CAPTURED.with(Cell::get);
    // SAFETY: attached by this thread and alive as long as it.
    if c.is_null() { 0 } else { unsafe { (*c).fault_addr } }
}

pub extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers; this thread owns its record.
    unsafe {
        let uc = &mut *context.cast::<libc::ucontext_t>();
        let pc = uc.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
        let c = CAPTURED.with(Cell::get);
        if SYNCHRONOUS & bit(signal) != 0 && (*info).si_code > 0 {
            if !c.is_null() {
                (*c).fault_signal = signal;
            }
            if let Some(to) = vkernel_semantics::memory::fixup(pc) {
                uc.uc_mcontext.gregs[libc::REG_RIP as usize] = to as i64;
                return;
            }
            if !c.is_null() {
                (*c).fault_addr = (*info).si_addr() as usize;
            }
            if crate::guest::holds((*info).si_addr() as usize) {
                // The engine looks for the one instance whose memory has the address, and all have
                // the region; it accepts a null address without looking (wasmtime Store::wasm_fault).
                info.cast::<usize>().add(2).write(0);
            }
            // The engine listens to SIGSEGV only; what the fault was is on record.
            let signal = if signal == libc::SIGBUS { libc::SIGSEGV } else { signal };
            let previous = PREVIOUS[signal as usize];
            if previous > 1 {
                let f: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = std::mem::transmute(previous);
                f(signal, info, context);
                return;
            }
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        if c.is_null() {
            return;
        }
        if signal == LEAVE_SIGNAL && crate::profile::sample(&*c, &*info, uc) {
            return;
        }
        if signal == LEAVE_SIGNAL && (*info).si_value().sival_ptr as usize == LEAVE_VALUE {
            (*c).leave = true;
        } else if SYNCHRONOUS & bit(signal) != 0 {
            (*c).hold(*info);
        } else {
            if (*c).present {
                // The mask was opened before the last one was taken: this one waits at the kernel.
                libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), libc::gettid(), signal, info);
            } else {
                (*c).info = *info;
                (*c).present = true;
            }
            // All blocked until the guest's frame is built.
            let mask = (&raw mut uc.uc_sigmask).cast::<u64>();
            *mask = !(SYNCHRONOUS | bit(LEAVE_SIGNAL));
        }
        (*c).poll.write_volatile(1);
        if let Some(to) = crate::host::interrupted(pc) {
            uc.uc_mcontext.gregs[libc::REG_RIP as usize] = to as i64;
        }
    }
}
