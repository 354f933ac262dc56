//! Host system calls. A signal that arrives before the host call makes it return ERESTARTNOINTR
//! (signal.rs moves the interrupted PC), so no wake-up is lost: the handler runs, and the call is made
//! behind it, as if the signal had come before the guest's SYSCALL.

use crate::errno::{ERESTARTNOINTR, Errno, SysResult, from_raw};
use std::arch::global_asm;

global_asm!(
    ".pushsection .text.vk_host,\"ax\",@progbits",
    ".globl vk_host_call, vk_host_check, vk_host_syscall, vk_host_interrupted",
    // (nr, args, poll flag) -> raw result
    ".p2align 4",
    "vk_host_call:",
    "push rbx",
    "mov rbx, rdx",
    "mov r11, rsi",
    "mov rax, rdi",
    "mov rdi, [r11]",
    "mov rsi, [r11 + 8]",
    "mov rdx, [r11 + 16]",
    "mov r10, [r11 + 24]",
    "mov r8, [r11 + 32]",
    "mov r9, [r11 + 40]",
    "vk_host_check:",
    "cmp dword ptr [rbx], 0",
    "jne vk_host_interrupted",
    "vk_host_syscall:",
    "syscall",
    "pop rbx",
    "ret",
    "vk_host_interrupted:",
    "mov rax, -513",
    "pop rbx",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn vk_host_call(nr: i64, args: *const [u64; 6], poll: *const u32) -> i64;
    fn vk_host_check();
    fn vk_host_syscall();
    fn vk_host_interrupted();
}

/// Where to continue when a signal interrupted at `pc` inside the window between the check and the
/// host call. Async-signal-safe.
pub fn interrupted(pc: usize) -> Option<usize> {
    let at = |f: unsafe extern "C" fn()| f as *const () as usize;
    (at(vk_host_check)..=at(vk_host_syscall)).contains(&pc).then(|| at(vk_host_interrupted))
}

/// ERESTARTNOINTR as the EINTR of a wait that cannot be begun anew.
pub fn ended(r: SysResult) -> SysResult {
    r.map_err(|e| if e == ERESTARTNOINTR { Errno(libc::EINTR) } else { e })
}

/// A host call that may block: ERESTARTNOINTR at once when a signal is pending for the guest.
///
/// # Safety
/// The arguments must be valid for the call; pointers must have been checked against the region.
pub unsafe fn blocking(poll: *const u32, nr: i64, args: [u64; 6]) -> SysResult {
    // SAFETY: the caller's.
    from_raw(unsafe { vk_host_call(nr, &args, poll) })
}

/// A host call that does not block.
///
/// # Safety
/// As `blocking`.
pub unsafe fn call(nr: i64, args: [u64; 6]) -> SysResult {
    static NEVER: u32 = 0;
    // SAFETY: the caller's.
    from_raw(unsafe { vk_host_call(nr, &args, &NEVER) })
}
