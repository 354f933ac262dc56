//! Host directories that a mount names: every call starts at a directory's descriptor and takes one
//! name, or a path that no link can lead out of. Failures are −errno.

use crate::{cstr, result};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

/// Opens `path` below `dir` without following any link (openat2(2) RESOLVE_BENEATH); `path` "" is `dir` itself.
#[napi]
pub fn open_beneath(dir: i32, path: Buffer, flags: i32, mode: u32) -> i32 {
    let path = if path.is_empty() { c".".into() } else { cstr(&path) };
    // SAFETY: a live string and a live struct open_how.
    unsafe {
        let mut how: libc::open_how = std::mem::zeroed();
        how.flags = (flags | libc::O_CLOEXEC) as u32 as u64;
        how.mode = if flags & (libc::O_CREAT | libc::O_TMPFILE) != 0 { u64::from(mode) } else { 0 };
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
        result(libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), &how, size_of_val(&how)))
    }
}

/// Another open file description of what `fd` (O_PATH, or of our own) refers to.
#[napi]
pub fn reopen(fd: i32, flags: i32) -> i32 {
    let path = cstr(format!("/proc/self/fd/{fd}").as_bytes());
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOCTTY) }))
}

#[napi]
pub fn mkdir_at(dir: i32, name: Buffer, mode: u32) -> i32 {
    let name = cstr(&name);
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::mkdirat(dir, name.as_ptr(), mode) }))
}

#[napi]
pub fn fifo_at(dir: i32, name: Buffer, mode: u32) -> i32 {
    let name = cstr(&name);
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::mkfifoat(dir, name.as_ptr(), mode) }))
}

#[napi]
pub fn unlink_at(dir: i32, name: Buffer, flags: i32) -> i32 {
    let name = cstr(&name);
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::unlinkat(dir, name.as_ptr(), flags) }))
}

#[napi]
pub fn symlink_at(target: Buffer, dir: i32, name: Buffer) -> i32 {
    let (target, name) = (cstr(&target), cstr(&name));
    // SAFETY: live strings.
    result(i64::from(unsafe { libc::symlinkat(target.as_ptr(), dir, name.as_ptr()) }))
}

/// linkat(2); a symbolic link itself is linked, never what it names.
#[napi]
pub fn link_at(from: i32, name: Buffer, to: i32, new_name: Buffer) -> i32 {
    let (name, new_name) = (cstr(&name), cstr(&new_name));
    // SAFETY: live strings.
    result(i64::from(unsafe { libc::linkat(from, name.as_ptr(), to, new_name.as_ptr(), 0) }))
}

#[napi]
pub fn rename_at(from: i32, name: Buffer, to: i32, new_name: Buffer, flags: u32) -> i32 {
    let (name, new_name) = (cstr(&name), cstr(&new_name));
    // SAFETY: live strings.
    result(unsafe { libc::syscall(libc::SYS_renameat2, from, name.as_ptr(), to, new_name.as_ptr(), flags) })
}

/// Text of the symbolic link that `fd` (O_PATH) is; empty on failure.
#[napi]
pub fn readlink_fd(fd: i32) -> Buffer {
    let mut b = vec![0u8; 4096];
    // SAFETY: a live buffer of the length given.
    let n = unsafe { libc::readlinkat(fd, c"".as_ptr(), b.as_mut_ptr().cast(), b.len()) };
    b.truncate(n.max(0) as usize);
    b.into()
}

/// Owner of what `fd` (O_PATH) refers to; −1 leaves an id.
#[napi]
pub fn chown_fd(fd: i32, uid: i32, gid: i32) -> i32 {
    // SAFETY: an empty path.
    result(i64::from(unsafe { libc::fchownat(fd, c"".as_ptr(), uid as u32, gid as u32, libc::AT_EMPTY_PATH) }))
}

/// Times of what `fd` (O_PATH) refers to: atime s, ns, mtime s, ns.
#[napi]
pub fn times_fd(fd: i32, times: Vec<i64>) -> i32 {
    let at = |n: usize| times.get(n).copied().unwrap_or(0);
    let ts = [libc::timespec { tv_sec: at(0), tv_nsec: at(1) }, libc::timespec { tv_sec: at(2), tv_nsec: at(3) }];
    // SAFETY: an empty path and two timespecs.
    result(i64::from(unsafe { libc::utimensat(fd, c"".as_ptr(), ts.as_ptr(), libc::AT_EMPTY_PATH) }))
}
