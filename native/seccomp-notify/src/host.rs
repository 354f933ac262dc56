//! Terminals, locks, and the other single calls that containers need of the host.

use crate::result;
use napi_derive::napi;

/// The master of a new pseudo-terminal.
#[napi]
pub fn open_pty(flags: i32) -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | flags) }))
}

/// Number of the pseudo-terminal whose master is `fd` (TIOCGPTN).
#[napi]
pub fn pty_number(fd: i32) -> i32 {
    let mut n = 0i32;
    // SAFETY: the kernel writes an int.
    let r = unsafe { libc::ioctl(fd, libc::TIOCGPTN, &mut n) };
    if r < 0 { result(-1) } else { n }
}

/// An exclusive lock for as long as `fd` is open; −EWOULDBLOCK when another process has it.
#[napi]
pub fn lock_file(fd: i32) -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) }))
}

/// Maps `fd` where a buffer of `map_shared` is whose memory was given back. −errno on failure.
#[napi]
pub fn remap_shared(buffer: &[u8], fd: i32) -> i32 {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let at = buffer.as_ptr().cast_mut().cast();
    // SAFETY: replaces a mapping that `map_shared` made, over its whole length.
    let p = unsafe { libc::mmap(at, buffer.len(), prot, libc::MAP_SHARED | libc::MAP_FIXED, fd, 0) };
    if p == libc::MAP_FAILED { result(-1) } else { 0 }
}

/// Gives the memory behind a buffer of `map_shared` back at once: the buffer stays and reads zeroes.
#[napi]
pub fn forget_shared(buffer: &[u8]) -> i32 {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: replaces a mapping that `map_shared` made, over its whole length.
    let p = unsafe { libc::mmap(buffer.as_ptr().cast_mut().cast(), buffer.len(), prot, flags, -1, 0) };
    if p == libc::MAP_FAILED { result(-1) } else { 0 }
}

#[napi]
pub fn pidfd_signal(pidfd: i32, signo: i32) -> i32 {
    // SAFETY: integers only.
    result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signo, 0, 0) })
}
