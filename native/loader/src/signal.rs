//! Signals: host handlers record, safe points deliver.
//!
//! The host keeps what it does well: masks, queues, default actions and the wake-up of blocked calls
//! are the kernel's own, because the host's signal mask *is* the guest's (but for the synchronous
//! signals, which the engine needs) and default dispositions are installed as such. A handler
//! records one signal, raises the poll flag and returns with everything blocked, so the kernel keeps
//! the rest until `deliver` has built the guest's frame.

use crate::captured::{PREVIOUS, on_signal};
use crate::cpu::Thread;
use crate::errno::{EINVAL, Errno};
use crate::guest;
use std::sync::Mutex;
use vkernel_abi::state::{RAX, RDI, RDX, RSI, RSP};
use vkernel_semantics::host::{fxrstor, fxsave};

/// Linux's struct kernel_sigaction for x86-64.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Action {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

// SAFETY: four integers.
unsafe impl guest::Plain for Action {}

const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;
pub const SYNCHRONOUS: u64 = bit(libc::SIGSEGV) | bit(libc::SIGBUS) | bit(libc::SIGFPE) | bit(libc::SIGILL);
const UNBLOCKABLE: u64 = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
/// Asks a thread to leave (execve and exit of a process with several threads); told apart from a
/// guest's own signal 64 by its value.
pub const LEAVE_SIGNAL: i32 = 64;
pub const LEAVE_VALUE: usize = 0x766b_6c65;

pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

pub static ACTIONS: Mutex<[Action; 65]> = Mutex::new([Action { handler: 0, flags: 0, restorer: 0, mask: 0 }; 65]);

/// Installs our handler for the synchronous signals (after the engine's) and for leaving.
pub fn install() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, LEAVE_SIGNAL] {
        // SAFETY: plain sigaction calls; PREVIOUS is written before any handler can run.
        unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut old);
            PREVIOUS[signal as usize] = old.sa_sigaction;
        }
        host_handler(signal);
    }
}

/// The kernel's struct sigaction (x86-64).
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// sigaction(2) itself: libc's function refuses the signals that it cancels threads with (32, 33), and
/// those are the guest's here. The restorer is the one libc gave to a handler of its own.
fn host_action(signal: i32, handler: usize, flags: i32, mask: u64) {
    const SA_RESTORER: u64 = 0x0400_0000;
    let null = std::ptr::null::<KernelAction>();
    let mut known = KernelAction::default();
    // SAFETY: the kernel reads and writes live structs of its own layout; a handler has the SA_SIGINFO
    // signature and is async-signal-safe.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, libc::SIGSEGV, null, &raw mut known, 8);
        let a = KernelAction { handler, flags: flags as u64 | SA_RESTORER, restorer: known.restorer, mask };
        libc::syscall(libc::SYS_rt_sigaction, signal, &raw const a, null, 8);
    }
}

fn host_handler(signal: i32) {
    host_action(signal, on_signal as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK, !0);
}

fn host_disposition(signal: i32, handler: usize) {
    host_action(signal, handler, 0, 0);
}

/// Sets the host's mask to what the guest's `mask` asks for.
pub fn set_host_mask(mask: u64) {
    let m = mask & !(SYNCHRONOUS | bit(LEAVE_SIGNAL));
    // SAFETY: the kernel reads 8 bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &m, 0, 8) };
}

/// The guest's mask has changed: the host's follows, unless a captured signal waits for its delivery,
/// and what is held may be delivered now.
pub fn follow(t: &mut Thread) {
    if !t.captured.present {
        set_host_mask(t.sigmask);
    }
    if t.captured.next(t.sigmask) != 0 {
        // SAFETY: the thread's own flag.
        unsafe { t.captured.poll.write_volatile(1) };
    }
}

/// rt_sigaction(2) on the guest's table and the host's disposition.
pub fn set_action(signal: i32, new: Option<Action>) -> Result<Action, Errno> {
    if !(1..=64).contains(&signal) {
        return Err(EINVAL);
    }
    let mut table = ACTIONS.lock().expect("never poisoned");
    let old = table[signal as usize];
    if let Some(mut a) = new {
        if UNBLOCKABLE & bit(signal) != 0 {
            return Err(EINVAL);
        }
        a.mask &= !UNBLOCKABLE;
        table[signal as usize] = a;
        apply(signal, &a);
    }
    Ok(old)
}

fn apply(signal: i32, a: &Action) {
    if (SYNCHRONOUS | UNBLOCKABLE) & bit(signal) != 0 || signal == LEAVE_SIGNAL {
        return;
    }
    match a.handler {
        // The kernel looks at these itself when a child stops or exits.
        SIG_DFL if signal == libc::SIGCHLD => host_action(signal, libc::SIG_DFL, a.flags as i32 & CHILD_FLAGS, 0),
        SIG_DFL => host_disposition(signal, libc::SIG_DFL),
        SIG_IGN => host_disposition(signal, libc::SIG_IGN),
        _ if signal == libc::SIGCHLD => {
            let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | a.flags as i32 & CHILD_FLAGS;
            host_action(signal, on_signal as *const () as usize, flags, !0);
        }
        _ => host_handler(signal),
    }
}

const CHILD_FLAGS: i32 = libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;

/// execve(2): caught signals go back to the default, ignored ones stay.
pub fn reset_for_exec() {
    let mut table = ACTIONS.lock().expect("never poisoned");
    for signal in 1..=64 {
        let a = &mut table[signal as usize];
        let caught = a.handler > SIG_IGN;
        *a = Action { handler: if a.handler == SIG_IGN { SIG_IGN } else { SIG_DFL }, ..Action::default() };
        if caught {
            apply(signal, a);
        }
    }
}

/// Dispositions a new container's first process starts with: all default.
pub fn reset_all() {
    *ACTIONS.lock().expect("never poisoned") = [Action::default(); 65];
    for signal in 1..=64 {
        apply(signal, &Action::default());
    }
    install_leave();
}

fn install_leave() {
    host_handler(LEAVE_SIGNAL);
}

/// Offsets in struct rt_sigframe (arch/x86/include/asm/sigframe.h): pretcode, ucontext, siginfo.
const FRAME: u64 = 440;
const UC: usize = 8;
const MC: usize = UC + 40;
const SIGMASK: usize = UC + 296;
const INFO: usize = UC + 304;
/// Order of the general registers in struct sigcontext.
const MC_GPR: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];
const MC_RIP: usize = MC + 128;
const MC_EFLAGS: usize = MC + 136;
const MC_SELECTORS: usize = MC + 144;
const MC_TRAPNO: usize = MC + 160;
const MC_CR2: usize = MC + 176;
const MC_FPSTATE: usize = MC + 184;

/// What a delivery did.
pub enum Delivered {
    Nothing,
    /// A frame was built; the state is at the handler's first instruction.
    Handler,
    /// The signal had its default action, which did not end the process.
    Default,
}

/// Delivers the captured signal, if any, by building the guest's frame.
pub fn deliver(t: &mut Thread) -> Delivered {
    // SAFETY: the thread's own flag.
    unsafe { t.captured.poll.write_volatile(0) };
    let Some(info) = t.captured.take(t.sigmask) else { return Delivered::Nothing };
    let signal = info.si_signo;
    let mut table = ACTIONS.lock().expect("never poisoned");
    let a = table[signal as usize];
    if a.handler == SIG_DFL || a.handler == SIG_IGN {
        drop(table);
        follow(t);
        if a.handler == SIG_DFL {
            default_action(signal, t.sigmask);
        }
        return Delivered::Default;
    }
    if a.flags & libc::SA_RESETHAND as u32 as u64 != 0 {
        table[signal as usize].handler = SIG_DFL;
        apply(signal, &Action::default());
    }
    drop(table);
    let saved = t.saved_mask.take().unwrap_or(t.sigmask);
    if build_frame(t, &info, &a, saved).is_err() {
        die(libc::SIGSEGV);
    }
    let mut mask = t.sigmask | a.mask;
    if a.flags & libc::SA_NODEFER as u64 == 0 {
        mask |= bit(signal);
    }
    t.sigmask = mask & !UNBLOCKABLE;
    follow(t);
    Delivered::Handler
}

/// Lets the kernel do the default action of a signal that was captured.
fn default_action(signal: i32, mask: u64) {
    host_disposition(signal, libc::SIG_DFL);
    // SAFETY: signals this thread; it is taken when unblocked.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal);
        let open = mask & !bit(signal);
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &open, 0, 8);
    }
    set_host_mask(mask);
    if SYNCHRONOUS & bit(signal) != 0 {
        host_handler(signal);
    }
}

/// Ends the process by `signal`, as the kernel does for a fault nobody handles.
pub fn die(signal: i32) -> ! {
    host_disposition(signal, libc::SIG_DFL);
    // SAFETY: ends this process.
    unsafe {
        let open = 0u64;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &open, 0, 8);
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal);
        libc::_exit(128 + signal)
    }
}

/// A synchronous signal of the guest's own making (force_sig_fault): blocked or ignored ones kill.
/// Leaves the state at the handler.
pub fn force(t: &mut Thread, signal: i32, code: i32, addr: u64, trapno: u64) {
    let a = ACTIONS.lock().expect("never poisoned")[signal as usize];
    if a.handler <= SIG_IGN || t.sigmask & bit(signal) != 0 {
        crate::trace::fatal(t, signal, code, addr);
        crate::profile::flush();
        die(signal);
    }
    // SAFETY: siginfo is plain data; the fields are those of a fault.
    let info = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_signo = signal;
        info.si_code = code;
        (&raw mut info).cast::<u64>().add(2).write(addr);
        info
    };
    t.fault = (trapno, addr);
    let mask = t.sigmask;
    if build_frame(t, &info, &a, mask).is_err() {
        die(libc::SIGSEGV);
    }
    if a.flags & libc::SA_RESETHAND as u32 as u64 != 0 {
        ACTIONS.lock().expect("never poisoned")[signal as usize].handler = SIG_DFL;
    }
    t.sigmask |= a.mask & !UNBLOCKABLE;
    if a.flags & libc::SA_NODEFER as u64 == 0 {
        t.sigmask |= bit(signal);
    }
    follow(t);
}

pub const NO_ALTSTACK: libc::stack_t =
    libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };

/// Of sigaltstack(2): a handler's frame takes the stack out of use until it returns.
pub const SS_AUTODISARM: i32 = 1 << 31;

pub fn on_altstack(t: &Thread, sp: u64) -> bool {
    t.altstack.ss_flags & (libc::SS_DISABLE | SS_AUTODISARM) == 0
        && sp.wrapping_sub(t.altstack.ss_sp as u64) <= t.altstack.ss_size as u64
}

fn build_frame(t: &mut Thread, info: &libc::siginfo_t, a: &Action, mask: u64) -> Result<(), Errno> {
    let s = t.state();
    let rsp = s.gpr[RSP] & 0xffff_ffff;
    let enabled = t.altstack.ss_flags & libc::SS_DISABLE == 0;
    let switch = a.flags & libc::SA_ONSTACK as u64 != 0 && enabled && !on_altstack(t, rsp);
    let top = if switch { t.altstack.ss_sp as u64 + t.altstack.ss_size as u64 } else { rsp.wrapping_sub(128) };
    let fpstate = top.wrapping_sub(512) & !63;
    let frame = (fpstate.wrapping_sub(FRAME) & !15).wrapping_sub(8);
    let mut b = [0u8; FRAME as usize];
    let mut put = |off: usize, v: u64| b[off..off + 8].copy_from_slice(&v.to_le_bytes());
    put(0, a.restorer);
    put(UC, 6); // UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
    put(UC + 16, t.altstack.ss_sp as u64);
    put(UC + 24, u64::from(t.altstack.ss_flags as u32));
    put(UC + 32, t.altstack.ss_size as u64);
    for (n, r) in MC_GPR.into_iter().enumerate() {
        put(MC + 8 * n, s.gpr[r]);
    }
    put(MC_RIP, s.rip);
    put(MC_EFLAGS, s.rflags());
    put(MC_SELECTORS, 0x33 | 0x2b << 48);
    put(MC_TRAPNO, t.fault.0);
    put(MC_CR2, t.fault.1);
    put(MC_FPSTATE, fpstate);
    put(SIGMASK, mask);
    // SAFETY: siginfo is 128 plain bytes.
    b[INFO..INFO + 128].copy_from_slice(unsafe { &*(&raw const *info).cast::<[u8; 128]>() });
    guest::write_bytes(fpstate, &fxsave(s))?;
    guest::write_bytes(frame, &b)?;
    if t.altstack.ss_flags & SS_AUTODISARM != 0 {
        t.altstack = NO_ALTSTACK;
    }
    s.gpr[RDI] = info.si_signo as u64;
    s.gpr[RSI] = frame + INFO as u64;
    s.gpr[RDX] = frame + UC as u64;
    s.gpr[RAX] = 0;
    s.gpr[RSP] = frame;
    s.rip = a.handler & 0xffff_ffff;
    s.flags = [0; 7];
    s.mxcsr = 0x1f80;
    s.fx = vkernel_abi::state::CpuState::new().fx;
    Ok(())
}

/// rt_sigreturn(2): the state and the mask of the frame at rsp - 8.
pub fn sigreturn(t: &mut Thread) -> Result<(), Errno> {
    let frame = t.state().gpr[RSP].wrapping_sub(8);
    let mut b = [0u8; FRAME as usize];
    guest::read_bytes(frame, &mut b)?;
    let get = |off: usize| u64::from_le_bytes(b[off..off + 8].try_into().expect("8 bytes"));
    let mut image = [0u8; 512];
    let fpstate = get(MC_FPSTATE);
    if fpstate != 0 {
        guest::read_bytes(fpstate, &mut image)?;
    }
    let s = t.state();
    for (n, r) in MC_GPR.into_iter().enumerate() {
        s.gpr[r] = get(MC + 8 * n);
    }
    s.rip = get(MC_RIP) & 0xffff_ffff;
    s.set_rflags(get(MC_EFLAGS));
    if fpstate != 0 && !fxrstor(s, &image) {
        return Err(crate::errno::EFAULT);
    }
    // restore_altstack: as sigaltstack would, without its errors.
    let (sp, size, flags) = (get(UC + 16), get(UC + 32), get(UC + 24) as i32);
    if !on_altstack(t, t.state().gpr[RSP]) && flags & !(libc::SS_DISABLE | libc::SS_ONSTACK | SS_AUTODISARM) == 0 {
        if flags & libc::SS_DISABLE != 0 {
            t.altstack = NO_ALTSTACK;
        } else if size >= 2048 {
            t.altstack = libc::stack_t { ss_sp: sp as *mut _, ss_flags: flags & SS_AUTODISARM, ss_size: size as usize };
        }
    }
    t.sigmask = get(SIGMASK) & !UNBLOCKABLE;
    follow(t);
    Ok(())
}
