//! AF_UNIX sockets: listening, peers, and packets with descriptors (unix(7), SCM_RIGHTS).

use crate::result;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

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
