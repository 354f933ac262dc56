//! Internet sockets: the host's, and those of a container's network namespace, which its socket
//! maker (native/loader/src/sockets.rs) hands over. Failures are −errno.

use crate::result;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

/// A struct sockaddr_in or sockaddr_in6, whole.
pub type Address = Vec<u8>;

/// # Safety
/// `fd` must be a socket of ours.
unsafe fn switch_on(fd: i32, level: i32, name: i32) {
    let on = 1i32;
    // SAFETY: a live int.
    unsafe { libc::setsockopt(fd, level, name, (&raw const on).cast(), 4) };
}

fn family(address: &[u8]) -> i32 {
    if address.len() < 16 || address.len() > size_of::<libc::sockaddr_in6>() {
        return -1;
    }
    i32::from(u16::from_ne_bytes([address[0], address[1]]))
}

pub fn connect(fd: i32, address: &[u8]) -> i32 {
    // SAFETY: a live address of the length given.
    result(i64::from(unsafe { libc::connect(fd, address.as_ptr().cast(), address.len() as u32) }))
}

/// A new socket of this process's network for an address of `address`' family.
pub fn socket_for(address: &[u8], kind: i32) -> i32 {
    // SAFETY: integers only.
    result(i64::from(unsafe { libc::socket(family(address), kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) }))
}

/// SO_ERROR, which it clears.
pub fn take_error(fd: i32) -> i32 {
    let mut e = 0i32;
    let mut len = 4u32;
    // SAFETY: the kernel writes an int and its length.
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut e).cast(), &mut len) };
    e
}

pub fn has_peer(fd: i32) -> bool {
    // SAFETY: the kernel writes at most the given length.
    unsafe {
        let mut a: libc::sockaddr_in6 = std::mem::zeroed();
        let mut len = size_of_val(&a) as u32;
        libc::getpeername(fd, (&raw mut a).cast(), &mut len) == 0
    }
}

/// A socket of the host's network that is connected, or connecting, to `address` (a struct
/// sockaddr); it does not block. A refusal that is known at once is the result.
#[napi]
pub fn connect_out(kind: i32, address: Buffer) -> i32 {
    let fd = socket_for(&address, kind);
    if fd < 0 {
        return fd;
    }
    let mut e = -connect(fd, &address);
    if e == libc::EINPROGRESS {
        let mut p = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: polls one descriptor.
        e = if unsafe { libc::poll(&mut p, 1, 0) } > 0 { take_error(fd) } else { 0 };
    }
    if e != 0 {
        // SAFETY: a descriptor of ours.
        unsafe { libc::close(fd) };
        return -e;
    }
    fd
}

/// A socket of the host's network that listens (streams) or is bound (datagrams) at `address`.
#[napi]
pub fn listen_inet(kind: i32, address: Buffer) -> i32 {
    let fd = socket_for(&address, kind);
    if fd < 0 {
        return fd;
    }
    // SAFETY: a fresh socket and a live address.
    unsafe {
        if kind == libc::SOCK_STREAM {
            switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR);
        }
        if family(&address) == libc::AF_INET6 {
            switch_on(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        }
        let r = libc::bind(fd, address.as_ptr().cast(), address.len() as u32);
        if r != 0 || kind == libc::SOCK_STREAM && libc::listen(fd, 128) != 0 {
            let e = result(-1);
            libc::close(fd);
            return e;
        }
    }
    fd
}

/// Binds a socket that may share its address with others of the same maker. `hold`: it listens and
/// drops every segment that opens a connection, so that a connecting peer waits for an answer.
/// 1: done, though a guest listens on the port at all addresses. For a stream that is no obstacle:
/// the two differ by address, and in repair mode (CAP_NET_ADMIN in the container's namespace) the
/// kernel leaves it to us to know that.
#[napi]
pub fn bind_inside(fd: i32, address: Buffer, hold: bool) -> i32 {
    let nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: (&raw const nothing).cast_mut() };
    // SAFETY: live options and a live address.
    unsafe {
        switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR);
        switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT);
        let bind = || result(i64::from(libc::bind(fd, address.as_ptr().cast(), address.len() as u32)));
        let mut r = bind();
        let crowded = r == -libc::EADDRINUSE && repair(fd, 1) == 0;
        if crowded {
            r = bind();
        }
        if r < 0 || !hold {
            if crowded {
                repair(fd, -1);
            }
            return if r < 0 { r } else { i32::from(crowded) };
        }
        let at = (&raw const filter).cast();
        let len = size_of_val(&filter) as u32;
        if libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, at, len) != 0 {
            return result(-1);
        }
        if libc::listen(fd, 1) == 0 { i32::from(crowded) } else { result(-1) }
    }
}

/// TCP_REPAIR: 1 on, −1 off without a probe.
fn repair(fd: i32, mode: i32) -> i32 {
    // SAFETY: a live int.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, (&raw const mode).cast(), 4) }
}

/// connect(2) of a socket that does not block: 0, −EINPROGRESS, or what went wrong.
#[napi]
pub fn connect_inside(fd: i32, address: Buffer) -> i32 {
    connect(fd, &address)
}

/// The local address of a socket; empty on failure.
#[napi]
pub fn socket_address(fd: i32) -> Buffer {
    local_address(fd).into()
}

pub fn local_address(fd: i32) -> Address {
    let mut a = [0u8; size_of::<libc::sockaddr_in6>()];
    let mut len = a.len() as u32;
    // SAFETY: the kernel writes at most the given length.
    let r = unsafe { libc::getsockname(fd, a.as_mut_ptr().cast(), &mut len) };
    a[..if r == 0 { (len as usize).min(a.len()) } else { 0 }].to_vec()
}

#[napi(object)]
pub struct Peer {
    /// −errno on failure.
    pub fd: i32,
    pub address: Buffer,
}

/// Accepts a connection, which does not block, with its peer's address.
#[napi]
pub fn accept_inet(listener: i32) -> Peer {
    let mut a = [0u8; size_of::<libc::sockaddr_in6>()];
    let mut len = a.len() as u32;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most the given length.
    let fd = result(i64::from(unsafe { libc::accept4(listener, a.as_mut_ptr().cast(), &mut len, flags) }));
    Peer { fd, address: a[..(len as usize).min(a.len())].to_vec().into() }
}

#[napi(object)]
pub struct Datagram {
    pub data: Buffer,
    pub address: Buffer,
    /// 0, or −errno.
    pub error: i32,
}

/// Takes one datagram of at most `max` bytes, without waiting.
#[napi]
pub fn receive_from(fd: i32, max: u32) -> Datagram {
    let mut data = vec![0u8; max as usize];
    match take_datagram(fd, &mut data) {
        Ok((n, address)) => {
            data.truncate(n);
            Datagram { data: data.into(), address: address.into(), error: 0 }
        }
        Err(e) => Datagram { data: Vec::new().into(), address: Vec::new().into(), error: -e },
    }
}

/// One datagram and where it is from; errno when there is none.
pub fn take_datagram(fd: i32, to: &mut [u8]) -> Result<(usize, Address), i32> {
    let mut a = [0u8; size_of::<libc::sockaddr_in6>()];
    let mut len = a.len() as u32;
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: live buffers of the lengths given.
    let n = unsafe { libc::recvfrom(fd, to.as_mut_ptr().cast(), to.len(), flags, a.as_mut_ptr().cast(), &mut len) };
    if n < 0 { Err(-result(-1)) } else { Ok((n as usize, a[..(len as usize).min(a.len())].to_vec())) }
}

/// Sends one datagram without waiting.
#[napi]
pub fn send_to(fd: i32, data: &[u8], address: &[u8]) -> i32 {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (at, len) = if address.is_empty() { (std::ptr::null(), 0) } else { (address.as_ptr(), address.len() as u32) };
    // SAFETY: live buffers of the lengths given.
    result(unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), flags, at.cast(), len) } as i64)
}

/// Waits until `fd` has something to read; 0 when it has not within `timeout_ms`.
#[napi]
pub fn wait_readable(fd: i32, timeout_ms: i32) -> i32 {
    let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: polls one descriptor.
    result(i64::from(unsafe { libc::poll(&mut p, 1, timeout_ms) }))
}
