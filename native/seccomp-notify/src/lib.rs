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

/// Two connected SEQPACKET sockets with credentials passing on the first; empty on failure.
#[napi]
pub fn seqpacket_pair() -> Vec<i32> {
    let mut pair = [0i32; 2];
    let on = 1i32;
    // SAFETY: the kernel writes two ints; the option is a live int.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) != 0 {
            return Vec::new();
        }
        pass_credentials(pair[0], on);
    }
    pair.to_vec()
}

/// # Safety
/// `fd` must be a socket of ours.
unsafe fn pass_credentials(fd: i32, on: i32) {
    // SAFETY: a live int.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), 4) };
}

/// Turns on credentials for a socket that a guest has sent.
#[napi]
pub fn receive_credentials(fd: i32) {
    // SAFETY: a descriptor of ours; a wrong kind is an error that nothing depends on.
    unsafe { pass_credentials(fd, 1) };
}

#[napi]
pub fn listen_unix(path: String) -> i32 {
    // SAFETY: a live sockaddr_un.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        let mut a: libc::sockaddr_un = std::mem::zeroed();
        a.sun_family = libc::AF_UNIX as u16;
        if path.len() >= a.sun_path.len() {
            libc::close(fd);
            return -libc::ENAMETOOLONG;
        }
        for (to, from) in a.sun_path.iter_mut().zip(path.bytes()) {
            *to = from as libc::c_char;
        }
        let old = libc::umask(0o077);
        let bound = libc::bind(fd, (&raw const a).cast(), size_of_val(&a) as u32);
        let e = result(i64::from(bound));
        libc::umask(old);
        if e < 0 || libc::listen(fd, 64) != 0 {
            let e = if e < 0 { e } else { result(-1) };
            libc::close(fd);
            return e;
        }
        fd
    }
}

#[napi(object)]
pub struct Accepted {
    pub fd: i32,
    pub pid: i32,
    pub uid: u32,
}

/// Accepts a connection with its peer's credentials (SO_PEERCRED); `fd` is −errno on failure.
#[napi]
pub fn accept_unix(listener: i32) -> Accepted {
    // SAFETY: a live ucred.
    unsafe {
        let fd = libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC);
        let mut c: libc::ucred = std::mem::zeroed();
        let mut len = size_of_val(&c) as u32;
        if fd < 0 {
            return Accepted { fd: result(-1), pid: 0, uid: 0 };
        }
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut c).cast(), &mut len);
        Accepted { fd, pid: c.pid, uid: c.uid }
    }
}

#[napi(object)]
pub struct Packet {
    pub data: Buffer,
    pub fds: Vec<i32>,
    /// Sender's pid when it sent credentials, else 0.
    pub pid: i32,
    /// 0, or −errno.
    pub error: i32,
}

/// Receives without blocking; an empty `data` without error is the end of the connection.
#[napi]
pub fn receive(fd: i32, max: u32) -> Packet {
    let mut data = Vec::<u8>::with_capacity(max as usize);
    let mut control = [0u64; 64];
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: max as usize };
    // SAFETY: the message points to live buffers; control data is walked with libc's macros.
    unsafe {
        let mut m: libc::msghdr = std::mem::zeroed();
        m.msg_iov = &mut iov;
        m.msg_iovlen = 1;
        m.msg_control = control.as_mut_ptr().cast();
        m.msg_controllen = size_of_val(&control);
        let n = libc::recvmsg(fd, &mut m, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT);
        if n < 0 {
            return Packet { data: Vec::new().into(), fds: Vec::new(), pid: 0, error: result(-1) };
        }
        let (mut fds, mut pid) = (Vec::new(), 0);
        let mut c = libc::CMSG_FIRSTHDR(&m);
        while !c.is_null() {
            let payload = libc::CMSG_DATA(c);
            match ((*c).cmsg_level, (*c).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let count = ((*c).cmsg_len - libc::CMSG_LEN(0) as usize) / 4;
                    fds.extend((0..count).map(|k| payload.cast::<i32>().add(k).read_unaligned()));
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    pid = payload.cast::<libc::ucred>().read_unaligned().pid;
                }
                _ => {}
            }
            c = libc::CMSG_NXTHDR(&m, c);
        }
        data.set_len(n as usize);
        // A copy of its size: the buffer lives until JavaScript's garbage is collected.
        Packet { data: data.as_slice().into(), fds, pid, error: 0 }
    }
}

/// Sends bytes and descriptors; bytes sent, or −errno.
#[napi]
pub fn send(fd: i32, data: &[u8], fds: Vec<i32>) -> i32 {
    let mut control = [0u64; 64];
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: as `receive`.
    unsafe {
        let mut m: libc::msghdr = std::mem::zeroed();
        m.msg_iov = &mut iov;
        m.msg_iovlen = 1;
        if !fds.is_empty() && fds.len() <= 64 {
            let bytes = (fds.len() * 4) as u32;
            m.msg_control = control.as_mut_ptr().cast();
            m.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
            let c = libc::CMSG_FIRSTHDR(&m);
            (*c).cmsg_level = libc::SOL_SOCKET;
            (*c).cmsg_type = libc::SCM_RIGHTS;
            (*c).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            for (k, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(c).cast::<i32>().add(k).write_unaligned(*fd);
            }
        }
        result(libc::sendmsg(fd, &m, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as i64)
    }
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
