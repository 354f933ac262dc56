//! Connecting beyond the container's loopback: the daemon decides. *Proxied*: the guest's socket stays
//! in the container's network and the daemon takes the part of the far end there. *Native*: the daemon
//! connects on the host's side and hands the socket over; it takes the place of the guest's.

use crate::cpu::Thread;
use crate::errno::{EACCES, EINVAL, EIO, Errno, SysResult};
use crate::{host, ring};
use serde::Deserialize;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Who carries what leaves the container; one for a container, from its start.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    None = 0,
    Proxied = 1,
    Native = 2,
}

static NETWORK: AtomicU8 = AtomicU8::new(0);
/// The cookie of the container's network namespace: sockets of another are the host's.
static OWN: AtomicU64 = AtomicU64::new(0);

pub fn set(network: Network) {
    NETWORK.store(network as u8, Ordering::Relaxed);
    if network == Network::Native {
        // SAFETY: a socket of our own, closed again.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            OWN.store(cookie(fd), Ordering::Relaxed);
            libc::close(fd);
        }
    }
}

/// There is a network beyond the loopback, and every address is bindable to the kernel.
pub fn any_address() -> bool {
    NETWORK.load(Ordering::Relaxed) != 0
}

fn native() -> bool {
    NETWORK.load(Ordering::Relaxed) == Network::Native as u8
}

/// SO_NETNS_COOKIE (Linux 5.14); all ones where there is none, so that nothing compares as our own.
fn cookie(fd: i32) -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    let mut v = 0u64;
    let mut len = 8u32;
    let args = [fd as u64, libc::SOL_SOCKET as u64, SO_NETNS_COOKIE as u64, &raw mut v as u64, &raw mut len as u64, 0];
    // SAFETY: the kernel writes eight bytes and their length.
    if unsafe { host::call(libc::SYS_getsockopt, args) }.is_ok() { v } else { u64::MAX }
}

/// A socket of the host's network. It may do with its peer what it likes and have no other.
pub fn of_host(fd: i32) -> bool {
    if !native() {
        return false;
    }
    let c = cookie(fd);
    c != OWN.load(Ordering::Relaxed) || c == u64::MAX
}

/// Asks whether a socket of type `kind` at `own` (a struct sockaddr, or empty) may talk to `address`;
/// with `socket` for one of the host's that does.
fn ask(t: &mut Thread, kind: i32, address: &[u8], own: &[u8], socket: bool) -> Result<ring::Reply, Errno> {
    let mut w = ring::window(t)?;
    let place = w.put(address).ok_or(EINVAL)?;
    let own = w.put(own).ok_or(EINVAL)?;
    ring::call(t, libc::SYS_connect as u32, [1, place, kind as u64, own, u64::from(socket), 0], w)
}

/// Before a datagram of an unconnected socket goes to `address`. Errors: EACCES where the policy does
/// not allow it; native containers have no such datagrams.
pub fn datagram(t: &mut Thread, fd: i32, address: &[u8]) -> SysResult {
    let kind = option(fd, libc::SO_TYPE)?;
    if native() {
        ask(t, 0, address, &[], false)?.ret?;
        return Err(EACCES);
    }
    // A stream's destination is not looked at (tcp(7)).
    if kind != libc::SOCK_DGRAM { Ok(0) } else { ask(t, kind, address, &[], false)?.ret }
}

/// connect(2) to `address`: Some with its result, or None: the kernel may go on with the guest's own
/// socket. Errors: EACCES where the policy does not allow it, and connect's own.
pub fn connect(t: &mut Thread, fd: i32, address: &[u8]) -> Result<Option<i64>, Errno> {
    let kind = option(fd, libc::SO_TYPE)?;
    if native() {
        return replace(t, fd, kind, address).map(Some);
    }
    if !any_address() {
        ask(t, kind, address, &[], false)?.ret?;
        return Err(EACCES);
    }
    // What is wrong with the socket is for the kernel to say.
    let domain = option(fd, libc::SO_DOMAIN)?;
    let stream = kind == libc::SOCK_STREAM;
    let fits = domain == i32::from(u16::from_ne_bytes([address[0], address[1]]));
    if !matches!(domain, libc::AF_INET | libc::AF_INET6) || stream && (!fits || state(fd)? != TCP_CLOSE) {
        return Ok(None);
    }
    let mut own = name(fd)?;
    if stream && own[2..4] == [0, 0] {
        // The daemon must know where the connection will be from.
        let args = [fd as u64, own.as_ptr() as u64, own.len() as u64, 0, 0, 0];
        // SAFETY: a live address: the socket's own, which leaves the port to the kernel.
        unsafe { host::call(libc::SYS_bind, args) }?;
        own = name(fd)?;
    }
    ask(t, kind, address, &own, false)?.ret?;
    Ok(None)
}

const TCP_CLOSE: u8 = 7;

/// The first byte of struct tcp_info: the connection's state.
fn state(fd: i32) -> Result<u8, Errno> {
    let mut v = 0u8;
    let mut len = 1u32;
    let level = libc::IPPROTO_TCP as u64;
    let args = [fd as u64, level, libc::TCP_INFO as u64, &raw mut v as u64, &raw mut len as u64, 0];
    // SAFETY: the kernel writes one byte and its length.
    unsafe { host::call(libc::SYS_getsockopt, args) }?;
    Ok(v)
}

/// The local address of an Internet socket.
fn name(fd: i32) -> Result<Vec<u8>, Errno> {
    let mut b = vec![0u8; size_of::<libc::sockaddr_in6>()];
    let mut len = b.len() as u32;
    let args = [fd as u64, b.as_mut_ptr() as u64, &raw mut len as u64, 0, 0, 0];
    // SAFETY: the kernel writes at most the given length.
    unsafe { host::call(libc::SYS_getsockname, args) }?;
    b.truncate(len as usize);
    if b.len() < 16 { Err(EINVAL) } else { Ok(b) }
}

fn option(fd: i32, name: i32) -> Result<i32, Errno> {
    let mut v = 0i32;
    let mut len = 4u32;
    let args = [fd as u64, libc::SOL_SOCKET as u64, name as u64, &raw mut v as u64, &raw mut len as u64, 0];
    // SAFETY: the kernel writes an int and its length.
    unsafe { host::call(libc::SYS_getsockopt, args) }?;
    Ok(v)
}

/// connect(2) with a socket of the host's in place of the guest's.
fn replace(t: &mut Thread, fd: i32, kind: i32, address: &[u8]) -> SysResult {
    if of_host(fd) {
        return Err(Errno(libc::EISCONN));
    }
    let reply = ask(t, kind, address, &[], true)?;
    reply.ret?;
    let new = *reply.fds.first().ok_or(EIO)?;
    // SAFETY: descriptors of the guest's and one we just received; flags are integers.
    let blocking = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let cloexec = if libc::fcntl(fd, libc::F_GETFD) & libc::FD_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
        let moved = libc::dup3(new, fd, cloexec);
        libc::close(new);
        if moved < 0 {
            return Err(EIO);
        }
        flags & libc::O_NONBLOCK == 0
    };
    if !blocking {
        let mut p = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: polls one descriptor.
        if unsafe { libc::poll(&mut p, 1, 0) } == 0 {
            return Err(Errno(libc::EINPROGRESS));
        }
        return outcome(fd);
    }
    let mut p = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: polls one descriptor; then a flag of our own socket.
    unsafe {
        let waited = host::blocking(t.poll(), libc::SYS_poll, [&raw mut p as u64, 1, u64::MAX, 0, 0, 0]);
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK);
        host::ended(waited)?;
    }
    outcome(fd)
}

fn outcome(fd: i32) -> SysResult {
    match option(fd, libc::SO_ERROR)? {
        0 => Ok(0),
        e => Err(Errno(e)),
    }
}
