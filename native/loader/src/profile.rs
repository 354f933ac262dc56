//! `recompiler run --profile`: where a guest's time goes, and what runs in the interpreter, as records on a
//! descriptor of the client's (vkernel_abi::profile). Off unless that descriptor came with the request.
//!
//! Each thread has a timer of its own processor time, whose signal is the loader's (`signal::LEAVE_SIGNAL`, told
//! apart by its value); the handler writes the sample at once, so that fork, execve and a sudden end lose
//! nothing. Counts are kept in the process and written at its end, at execve, and now and then; a forked child
//! starts with none.

use crate::captured::Captured;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use vkernel_abi::profile as raw;
use vkernel_abi::state::CpuState;

/// Value of the timers' signal.
const SAMPLE_VALUE: usize = 0x7661_6d70;

static FD: AtomicI32 = AtomicI32::new(-1);
/// The program's index in the megabinary.
static PROGRAM: AtomicU32 = AtomicU32::new(u32::MAX);
static CODE: AtomicUsize = AtomicUsize::new(0);
static CODE_LEN: AtomicUsize = AtomicUsize::new(0);
/// Counts are worth writing.
static DUE: AtomicBool = AtomicBool::new(false);
static SAMPLES: AtomicU32 = AtomicU32::new(0);

/// (how, address it began at) → (times, instructions).
static INTERPRETED: Mutex<BTreeMap<(u64, u32), (u64, u64)>> = Mutex::new(BTreeMap::new());
/// States of the process's threads: where translated code counts.
static THREADS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

thread_local! {
    /// Above the frames of the guest's code on this thread's stack; 0: no guest thread.
    static STACK: Cell<usize> = const { Cell::new(0) };
}

pub fn on() -> bool {
    FD.load(Ordering::Relaxed) >= 0
}

/// Turns profiling on for this process and its children.
pub fn attach(fd: i32) {
    FD.store(fd, Ordering::Relaxed);
}

/// Where the image's native code is mapped.
pub fn code_at(code: *const u8, len: usize) {
    CODE.store(code as usize, Ordering::Relaxed);
    CODE_LEN.store(len, Ordering::Relaxed);
}

/// The ELF file at the program's addresses from now on.
pub fn program(elf: u32) {
    PROGRAM.store(elf, Ordering::Relaxed);
}

/// Begins with this thread: `state` is its own, `stack` an address above its frames.
pub fn thread(state: *const CpuState, stack: usize) {
    if !on() {
        return;
    }
    STACK.set(stack);
    let mut threads = THREADS.lock().expect("never poisoned");
    if !threads.contains(&(state as usize)) {
        threads.push(state as usize);
        arm();
    }
}

/// The calling thread's timer; timers are not inherited.
fn arm() {
    // SAFETY: live structs of the kernel's layout; without a timer there are no samples, nothing worse.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_notify_thread_id = libc::gettid();
        event.sigev_signo = crate::signal::LEAVE_SIGNAL;
        event.sigev_value.sival_ptr = SAMPLE_VALUE as *mut libc::c_void;
        let mut timer = 0i32;
        let r = libc::syscall(libc::SYS_timer_create, libc::CLOCK_THREAD_CPUTIME_ID, &raw const event, &raw mut timer);
        let interval = libc::timespec { tv_sec: 0, tv_nsec: raw::INTERVAL_NS as i64 };
        let spec = libc::itimerspec { it_interval: interval, it_value: interval };
        if r == 0 {
            libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const spec, 0);
        }
    }
}

/// The thread ends, or its program does.
pub fn thread_ended(state: *const CpuState) {
    if on() {
        flush();
        THREADS.lock().expect("never poisoned").retain(|s| *s != state as usize);
    }
}

/// In a forked child, whose only thread has `state`.
pub fn forked(state: *mut CpuState) {
    if on() {
        INTERPRETED.lock().expect("never poisoned").clear();
        *THREADS.lock().expect("never poisoned") = vec![state as usize];
        // SAFETY: the calling thread's own state.
        unsafe { (*state).executed = 0 };
        arm();
    }
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    (INTERPRETED.lock().expect("never poisoned"), THREADS.lock().expect("never poisoned"))
}

/// Counts a stretch of interpretation that began at `pc`.
pub fn interpreted(how: u64, pc: u32, instructions: u64) {
    if !on() {
        return;
    }
    let mut all = INTERPRETED.lock().expect("never poisoned");
    let e = all.entry((how, pc)).or_default();
    e.0 += 1;
    e.1 += instructions;
    drop(all);
    if DUE.swap(false, Ordering::Relaxed) {
        flush();
    }
}

fn write(bytes: &[u8]) {
    // SAFETY: writes a live buffer; the descriptor appends.
    unsafe { libc::write(FD.load(Ordering::Relaxed), bytes.as_ptr().cast(), bytes.len()) };
}

/// Writes what has been counted.
pub fn flush() {
    if !on() {
        return;
    }
    let program = u64::from(PROGRAM.load(Ordering::Relaxed));
    let mut words = Vec::new();
    for ((how, pc), (times, n)) in std::mem::take(&mut *INTERPRETED.lock().expect("never poisoned")) {
        words.extend([raw::INTERPRETED | 5 << 8, program, how, u64::from(pc), times, n]);
    }
    let mut executed = 0;
    for state in THREADS.lock().expect("never poisoned").iter() {
        // SAFETY: states of living threads; one that counts meanwhile may count a block twice.
        executed += std::mem::take(unsafe { &mut (*(*state as *mut CpuState)).executed });
    }
    if executed > 0 {
        words.extend([raw::TRANSLATED | 1 << 8, executed]);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    if !bytes.is_empty() {
        write(&bytes);
    }
}

/// Words of the host's stack that are searched for the frame of translated code below host code.
const SEARCHED: usize = 16_384;

/// Takes a sample when the signal is a timer's; false: it is not. Nothing of it is the guest's: the poll flag
/// stays, and a host call that it interrupted is begun anew (host::blocking_raw). Async-signal-safe: it reads
/// this thread's stack and writes.
pub fn sample(c: &Captured, info: &libc::siginfo_t, context: &libc::ucontext_t) -> bool {
    // SAFETY: every sender of this signal gives it a value.
    let ours = on() && unsafe { info.si_value() }.sival_ptr as usize == SAMPLE_VALUE;
    if ours {
        // SAFETY: si_overrun, the fifth word of a timer's siginfo: how many more times it has expired.
        let overrun = unsafe { std::ptr::from_ref(info).cast::<u32>().add(5).read() };
        take(c, context, overrun);
    }
    ours
}

fn take(c: &Captured, context: &libc::ucontext_t, overrun: u32) {
    let stack = STACK.get();
    let g = &context.uc_mcontext.gregs;
    let [rip, rsp, rbp] = [libc::REG_RIP, libc::REG_RSP, libc::REG_RBP].map(|r| g[r as usize] as usize);
    if stack == 0 || rsp >= stack {
        return;
    }
    let (code, len) = (CODE.load(Ordering::Relaxed), CODE_LEN.load(Ordering::Relaxed));
    let in_code = |pc: usize| pc.wrapping_sub(code) < len;
    let on_stack = |at: usize| at >= rsp && at < stack - 16 && at.is_multiple_of(8);
    // SAFETY: `on_stack` addresses are in the part of this thread's stack that is in use.
    let word = |at: usize| unsafe { (at as *const usize).read_volatile() };
    let place = match (in_code(rip), c.interpreting) {
        (true, _) => raw::WHERE_CODE,
        (_, true) => raw::WHERE_INTERPRETER,
        _ => raw::WHERE_HOST,
    };
    const HEAD: usize = 5;
    let mut words = [0u64; HEAD + raw::MAX_FRAMES];
    let mut n = HEAD;
    let mut below = rsp;
    let mut fp = 0;
    if in_code(rip) {
        words[n] = (rip - code) as u64;
        n += 1;
        fp = rbp;
    }
    // Translated code keeps frame pointers; host code between its frames does not, and is searched for the next.
    while n < words.len() {
        while n < words.len() && on_stack(fp) && fp >= below && in_code(word(fp + 8)) {
            // The call, not what comes after it.
            words[n] = (word(fp + 8) - 1 - code) as u64;
            n += 1;
            below = fp + 16;
            fp = word(fp);
        }
        let frame_at = |at: &usize| in_code(word(at + 8)) && word(*at) > at + 8 && on_stack(word(*at));
        let end = (below + 8 * SEARCHED).min(stack.saturating_sub(24));
        let Some(at) = (below.next_multiple_of(8)..end).step_by(8).find(frame_at) else { break };
        fp = at;
        below = at;
    }
    words[0] = raw::SAMPLE | ((n - 1) as u64) << 8;
    words[1] = u64::from(PROGRAM.load(Ordering::Relaxed));
    words[2] = place;
    words[3] = u64::from(overrun) + 1;
    // SAFETY: the thread's state outlives its record.
    words[4] = unsafe { (*c.state).rip };
    // SAFETY: a live buffer of `n` words, little-endian as this CPU is.
    unsafe { libc::write(FD.load(Ordering::Relaxed), words.as_ptr().cast(), 8 * n) };
    if SAMPLES.fetch_add(1, Ordering::Relaxed) % 256 == 255 {
        DUE.store(true, Ordering::Relaxed);
    }
}
