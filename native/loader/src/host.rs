//! Host system calls. A signal that arrives before the host call makes it return ERESTARTNOINTR
//! (signal.rs moves the interrupted PC), so no wake-up is lost: the handler runs, and the call is made
//! behind it, as if the signal had come before the guest's SYSCALL.
//!
//! They are inline: the kernel leaves the processor's return stack useless, so that every return between
//! a host call and the guest's code is mispredicted, some 9 ns each.

use crate::errno::{ERESTARTNOINTR, Errno, SysResult, from_raw};
use std::arch::asm;

/// Where a host call that may block was inlined: the check for signals, the call itself, and where an interrupted
/// one goes on; each relative to its own place.
#[repr(C)]
struct Window {
    check: i32,
    call: i32,
    interrupted: i32,
}

unsafe extern "C" {
    static __start_vk_windows: [Window; 0];
    static __stop_vk_windows: [Window; 0];
}

/// Where to continue when a signal interrupted at `pc` between a check and its host call.
/// Async-signal-safe.
pub fn interrupted(pc: usize) -> Option<usize> {
    // SAFETY: the linker's bounds of the section that holds nothing else.
    let windows = unsafe {
        let (from, to) =
            ((&raw const __start_vk_windows).cast::<Window>(), (&raw const __stop_vk_windows).cast::<Window>());
        std::slice::from_raw_parts(from, to.offset_from_unsigned(from))
    };
    let at = |field: &i32| std::ptr::from_ref(field) as usize;
    let to = |field: &i32| at(field).wrapping_add_signed(*field as isize);
    windows.iter().find(|w| (to(&w.check)..=to(&w.call)).contains(&pc)).map(|w| to(&w.interrupted))
}

/// A host call that may block, its result as it is: −ERESTARTNOINTR at once when a signal is pending.
///
/// # Safety
/// The arguments must be valid for the call; pointers must have been checked against the region.
#[inline(always)]
pub unsafe fn blocking_raw(poll: *const u32, nr: i64, a: [u64; 6]) -> i64 {
    loop {
        let r: i64;
        // SAFETY: the caller's; the window's labels are this copy's own.
        unsafe {
            asm!(
                "2: cmp dword ptr [{poll}], 0",
                "jne 4f",
                "3: syscall",
                "5:",
                ".pushsection .text.vk_interrupted, \"ax\", @progbits",
                "4: mov rax, -513",
                "jmp 5b",
                ".popsection",
                ".pushsection vk_windows, \"aR\", @progbits",
                ".balign 4",
                ".long 2b - ., 3b - ., 4b - .",
                ".popsection",
                poll = in(reg) poll,
                inlateout("rax") nr => r,
                in("rdi") a[0],
                in("rsi") a[1],
                in("rdx") a[2],
                in("r10") a[3],
                in("r8") a[4],
                in("r9") a[5],
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        // What a profile's sample interrupted is begun anew: it is nothing to the guest.
        // SAFETY: the thread's poll flag.
        if r != -i64::from(libc::EINTR) || !crate::profile::on() || unsafe { poll.read_volatile() } != 0 {
            return r;
        }
    }
}

/// ERESTARTNOINTR as the EINTR of a wait that cannot be begun anew.
pub fn ended(r: SysResult) -> SysResult {
    r.map_err(|e| if e == ERESTARTNOINTR { Errno(libc::EINTR) } else { e })
}

/// A host call that may block: ERESTARTNOINTR at once when a signal is pending for the guest.
///
/// # Safety
/// As `blocking_raw`.
pub unsafe fn blocking(poll: *const u32, nr: i64, args: [u64; 6]) -> SysResult {
    // SAFETY: the caller's.
    from_raw(unsafe { blocking_raw(poll, nr, args) })
}

/// A host call that does not block.
///
/// # Safety
/// As `blocking_raw`.
pub unsafe fn call(nr: i64, a: [u64; 6]) -> SysResult {
    let r: i64;
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr => r,
            in("rdi") a[0],
            in("rsi") a[1],
            in("rdx") a[2],
            in("r10") a[3],
            in("r8") a[4],
            in("r9") a[5],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    from_raw(r)
}
