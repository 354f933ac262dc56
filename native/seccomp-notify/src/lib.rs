//! The daemon's native half: what Node cannot do itself. Shared rings, epoll over rings, guests and
//! Node's own loop, descriptors over sockets, sealed copies. Every function is one or two system
//! calls; failures are −errno, never exceptions. Policy lives in TypeScript.

#[cfg_attr(test, allow(dead_code, reason = "JavaScript calls it"))]
mod beneath;
#[cfg_attr(test, allow(dead_code, reason = "JavaScript calls it"))]
mod host;
#[cfg_attr(test, allow(dead_code, reason = "JavaScript calls it"))]
mod notify;
#[cfg_attr(test, allow(dead_code, reason = "JavaScript calls it"))]
mod relay;
#[cfg_attr(test, allow(dead_code, reason = "JavaScript calls it"))]
mod sockets;
#[cfg_attr(test, allow(dead_code, reason = "JavaScript calls it"))]
mod unix;

use napi::Env;
use napi::bindgen_prelude::{Buffer, BufferSlice, Int32Array};
use napi_derive::napi;
use std::ffi::CString;

fn result(r: i64) -> i32 {
    if r < 0 { -std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { r as i32 }
}

fn cstr(s: &[u8]) -> CString {
    CString::new(s.split(|b| *b == 0).next().unwrap_or_default()).unwrap_or_default()
}

/// A zeroed memfd of `size` bytes with `seals`; −errno on failure.
fn sized_memfd(name: &std::ffi::CStr, size: u32, seals: i32) -> i32 {
    // SAFETY: a fresh memfd.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 || libc::ftruncate(fd, i64::from(size)) != 0 {
            return result(-1);
        }
        libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | seals);
        fd
    }
}

/// A sealed, zeroed memfd of `size` bytes; −errno on failure.
#[napi]
pub fn create_ring(size: u32) -> i32 {
    sized_memfd(c"ring", size, libc::F_SEAL_SEAL)
}

/// As `create_ring`, still to be sealed by `seal_read_only`.
#[napi]
pub fn create_pages(size: u32) -> i32 {
    sized_memfd(c"pages", size, 0)
}

/// No more writes to `fd` and no new writable mappings; those that are there stay. −errno on failure.
#[napi]
pub fn seal_read_only(fd: i32) -> i32 {
    // SAFETY: plain fcntl.
    result(i64::from(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL) }))
}

/// Maps `size` bytes of `fd` shared; unmapped when the buffer is collected.
#[napi]
pub fn map_shared<'a>(env: &'a Env, fd: i32, size: u32) -> napi::Result<BufferSlice<'a>> {
    let len = size as usize;
    // SAFETY: a fresh mapping of `len` bytes, released by the finaliser only.
    unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let p = libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0);
        if p == libc::MAP_FAILED {
            return Err(napi::Error::from_reason(format!("mmap: {}", std::io::Error::last_os_error())));
        }
        BufferSlice::from_external(env, p.cast(), len, p as usize, move |_, at: usize| {
            libc::munmap(at as *mut libc::c_void, len);
        })
    }
}

/// Wakes the sleeper on the u32 at `off`.
#[napi]
pub fn futex_wake(buffer: &[u8], off: u32) -> i32 {
    let Some(word) = buffer.get(off as usize..off as usize + 4) else { return -libc::EINVAL };
    // SAFETY: wakes only; the address is inside the buffer.
    result(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1, 0, 0, 0) })
}

#[napi]
pub fn eventfd() -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }))
}

#[napi]
pub fn epoll_create() -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }))
}

/// Watches `fd` for input; `id` comes back from `epoll_wait`.
#[napi]
pub fn epoll_add(ep: i32, fd: i32, id: u32) -> i32 {
    let mut e = libc::epoll_event { events: libc::EPOLLIN as u32, u64: u64::from(id) };
    // SAFETY: a live event.
    result(i64::from(unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fd, &mut e) }))
}

#[napi]
pub fn epoll_del(ep: i32, fd: i32) -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) }))
}

/// Waits at most `timeout_ms`; writes the ids of what is ready and returns their number.
#[napi]
pub fn epoll_wait(ep: i32, timeout_ms: i32, mut ids: Int32Array) -> i32 {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    // SAFETY: a live array of events; the typed array is only written within its length.
    unsafe {
        let n = libc::epoll_wait(ep, events.as_mut_ptr(), 64, timeout_ms);
        let out = ids.as_mut();
        for (to, e) in out.iter_mut().zip(&events[..n.max(0) as usize]) {
            *to = e.u64 as i32;
        }
        if n < 0 { result(-1) } else { n.min(out.len() as i32) }
    }
}

unsafe extern "C" {
    fn uv_default_loop() -> *mut libc::c_void;
    fn uv_backend_fd(event_loop: *mut libc::c_void) -> i32;
    fn uv_backend_timeout(event_loop: *mut libc::c_void) -> i32;
}

/// Node's own epoll descriptor: readable when its event loop has something to do.
#[napi]
pub fn loop_fd() -> i32 {
    // SAFETY: exported by node; the default loop exists while addons are loaded.
    unsafe { uv_backend_fd(uv_default_loop()) }
}

/// Milliseconds until Node's next timer; −1: none.
#[napi]
pub fn loop_timeout() -> i32 {
    // SAFETY: as above.
    unsafe { uv_backend_timeout(uv_default_loop()) }
}

/// A memfd with `data`, sealed against every change when `sealed`.
#[napi]
pub fn memory_file(data: &[u8], sealed: bool) -> i32 {
    // SAFETY: a fresh memfd and a live buffer.
    unsafe {
        let fd = libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return result(-1);
        }
        let mut done = 0;
        while done < data.len() {
            let n = libc::write(fd, data[done..].as_ptr().cast(), data.len() - done);
            if n <= 0 {
                let e = result(-1);
                libc::close(fd);
                return e;
            }
            done += n as usize;
        }
        libc::lseek(fd, 0, libc::SEEK_SET);
        if sealed {
            libc::fcntl(fd, libc::F_ADD_SEALS, SEALS);
        }
        fd
    }
}

const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;

/// A sealed copy of a regular file: what is hashed is what is used.
#[napi]
pub fn sealed_copy(from: i32) -> i32 {
    // SAFETY: a fresh memfd; copies between descriptors of ours.
    unsafe {
        let fd = libc::memfd_create(c"exec".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return result(-1);
        }
        let mut off = 0i64;
        loop {
            let n = libc::sendfile(fd, from, &mut off, 1 << 24);
            if n == 0 {
                break;
            }
            if n < 0 {
                let e = result(-1);
                libc::close(fd);
                return e;
            }
        }
        libc::fcntl(fd, libc::F_ADD_SEALS, SEALS);
        fd
    }
}

/// An ordinary memfd for a guest.
#[napi]
pub fn guest_memfd(name: String, flags: u32) -> i32 {
    let name = cstr(name.as_bytes());
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_CLOEXEC) }))
}

#[napi]
pub fn duplicate(fd: i32) -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) }))
}

/// utimensat(2) not following links; `times` is atime s, ns, mtime s, ns.
#[napi]
pub fn set_times(path: Buffer, times: Vec<i64>) -> i32 {
    let path = cstr(&path);
    let at = |n: usize| times.get(n).copied().unwrap_or(0);
    let ts = [libc::timespec { tv_sec: at(0), tv_nsec: at(1) }, libc::timespec { tv_sec: at(2), tv_nsec: at(3) }];
    // SAFETY: a live string and two timespecs.
    result(i64::from(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), ts.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) }))
}

#[napi]
pub fn make_fifo(path: Buffer, mode: u32) -> i32 {
    let path = cstr(&path);
    // SAFETY: a live string.
    result(i64::from(unsafe { libc::mkfifo(path.as_ptr(), mode) }))
}

/// renameat2(2) with flags.
#[napi]
pub fn rename2(from: Buffer, to: Buffer, flags: u32) -> i32 {
    let (from, to) = (cstr(&from), cstr(&to));
    // SAFETY: live strings.
    result(unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags)
    })
}

#[napi]
pub fn pidfd_open(pid: i32) -> i32 {
    // SAFETY: integers only.
    result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}
