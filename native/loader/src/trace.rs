//! What the loader says about a guest, off by default: the guest's stderr belongs to the guest.
//! `VKERNEL_TRACE=fault` in the zygote's environment turns it on, for what goes wrong. Calls are told otherwise
//! (watch.rs), and so is what runs in the interpreter (profile.rs).

use crate::cpu::Thread;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static FD: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(2);

/// Reads the environment; lines go to a copy of stderr above the guest's descriptors.
pub fn init() {
    let on = std::env::var("VKERNEL_TRACE").as_deref() == Ok("fault");
    ON.store(on, Ordering::Relaxed);
    if on {
        // SAFETY: duplicates stderr to a high number.
        let fd = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 4090) };
        if fd >= 0 {
            FD.store(fd, Ordering::Relaxed);
        }
    }
}

pub fn on() -> bool {
    ON.load(Ordering::Relaxed)
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
