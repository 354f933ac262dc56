//! inotify(7), and the pipes that say that events wait.

use crate::{cstr, result};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

#[napi]
pub fn inotify_init() -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }))
}

#[napi]
pub fn inotify_add(fd: i32, path: Buffer, mask: u32) -> i32 {
    let path = cstr(&path);
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::inotify_add_watch(fd, path.as_ptr(), mask) }))
}

#[napi]
pub fn inotify_remove(fd: i32, wd: i32) -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::inotify_rm_watch(fd, wd) }))
}

/// (read end, write end); the write end does not block, the read end as asked. Empty: there are none.
#[napi]
pub fn pipe(nonblock: bool) -> Vec<i32> {
    let mut p = [0i32; 2];
    // SAFETY: the kernel writes two ints; flags of our own new descriptors.
    unsafe {
        if libc::pipe2(p.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
            return Vec::new();
        }
        if !nonblock {
            libc::fcntl(p[0], libc::F_SETFL, 0);
        }
    }
    p.to_vec()
}

/// Takes what a pipe holds away, through another read end of it.
#[napi]
pub fn drain_pipe(write: i32) {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{write}")).expect("no NUL");
    let mut b = [0u8; 4096];
    // SAFETY: a live string, a descriptor of our own, a live buffer.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC);
        while fd >= 0 && libc::read(fd, b.as_mut_ptr().cast(), b.len()) > 0 {}
        libc::close(fd);
    }
}

/// An empty regular file, without opening it.
#[napi]
pub fn make_file(path: Buffer, mode: u32) -> i32 {
    let path = cstr(&path);
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::mknod(path.as_ptr(), libc::S_IFREG | mode, 0) }))
}
