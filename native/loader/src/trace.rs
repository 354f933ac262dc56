//! What the loader says about a guest, off by default: the guest's stderr belongs to the guest.
//! `VKERNEL_TRACE` in the zygote's environment turns it on: `fault` for what goes wrong, `profile` for
//! what ran in the interpreter, at exit. Calls are told otherwise (watch.rs).

use crate::cpu::Thread;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

static LEVEL: AtomicU8 = AtomicU8::new(0);
static FD: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(2);

/// Reads the environment; lines go to a copy of stderr above the guest's descriptors.
pub fn init() {
    let level = match std::env::var("VKERNEL_TRACE").as_deref() {
        Ok("fault") => 1,
        Ok("profile") => 2,
        _ => 0,
    };
    LEVEL.store(level, Ordering::Relaxed);
    if level > 0 {
        // SAFETY: duplicates stderr to a high number.
        let fd = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 4090) };
        if fd >= 0 {
            FD.store(fd, Ordering::Relaxed);
        }
    }
}

pub fn on() -> bool {
    LEVEL.load(Ordering::Relaxed) > 0
}

/// What ran in the interpreter: (from translated code, address it began at) → (times, instructions).
static INTERPRETED: Mutex<BTreeMap<(bool, u32), (u64, u64)>> = Mutex::new(BTreeMap::new());

/// Counts a stretch of interpretation that began at `pc`; `single`: an instruction that translated
/// code leaves to the interpreter.
pub fn interpreted(single: bool, pc: u32, instructions: u64) {
    if LEVEL.load(Ordering::Relaxed) == 2 {
        let mut all = INTERPRETED.lock().expect("not poisoned");
        let e = all.entry((single, pc)).or_default();
        e.0 += 1;
        e.1 += instructions;
    }
}

/// Tells the profile: at most 100 addresses, the most expensive first.
pub fn exit() {
    if LEVEL.load(Ordering::Relaxed) == 2 {
        let all = INTERPRETED.lock().expect("not poisoned");
        let mut list: Vec<_> = all.iter().collect();
        list.sort_by_key(|(_, (_, n))| std::cmp::Reverse(*n));
        line(&format!("interpreted {} instructions", all.values().map(|v| v.1).sum::<u64>()));
        for ((single, pc), (times, n)) in list.into_iter().take(100) {
            line(&format!("{} {pc:#x} {times} times, {n} instructions", if *single { "step" } else { "from" }));
        }
    }
}

pub fn line(text: &str) {
    if on() {
        let text = format!("[{}] {text}\n", std::process::id());
        // SAFETY: writes a buffer.
        unsafe { libc::write(FD.load(Ordering::Relaxed), text.as_ptr().cast(), text.len()) };
    }
}

/// A failure of our own, which ends the guest process.
pub fn bug(text: &str) {
    line(&format!("bug: {text}"));
}

pub fn fatal(t: &Thread, signal: i32, code: i32, addr: u64) {
    if on() {
        let s = t.state();
        line(&format!("killed by signal {signal} code {code} address {addr:#x} at rip {:#x}", s.rip));
        line(&format!("gpr {:x?}", s.gpr));
    }
}

pub fn engine_trap(e: &wasmtime::Error) {
    if on() {
        line(&format!("memory fault in translated code: {e:?}"));
    }
}
