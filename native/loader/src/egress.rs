//! Connecting beyond the container's loopback: the daemon decides, connects on the host's side, and
//! hands the socket over; it takes the place of the guest's. The waiting is done here.

use crate::cpu::Thread;
use crate::errno::{EACCES, EINVAL, EIO, Errno, SysResult};
use crate::{host, ring};

/// Asks for a socket of type `kind` that connects to `address` (a struct sockaddr).
fn ask(t: &mut Thread, kind: i32, address: &[u8]) -> Result<ring::Reply, Errno> {
    let mut w = ring::window(t)?;
    let place = w.put(address).ok_or(EINVAL)?;
    ring::call(t, libc::SYS_connect as u32, [1, place, kind as u64, 0, 0, 0], w)
}

/// Datagrams of unconnected sockets go nowhere; the refusal is on record.
pub fn refuse(t: &mut Thread, address: &[u8]) -> SysResult {
    ask(t, 0, address)?.ret?;
    Err(EACCES)
}

fn option(fd: i32, name: i32) -> Result<i32, Errno> {
    let mut v = 0i32;
    let mut len = 4u32;
    let args = [fd as u64, libc::SOL_SOCKET as u64, name as u64, &raw mut v as u64, &raw mut len as u64, 0];
    // SAFETY: the kernel writes an int and its length.
    unsafe { host::call(libc::SYS_getsockopt, args) }?;
    Ok(v)
}

/// connect(2) to `address`. Errors: EACCES where the policy does not allow it, and connect's own.
pub fn connect(t: &mut Thread, fd: i32, address: &[u8]) -> SysResult {
    let kind = option(fd, libc::SO_TYPE)?;
    let reply = ask(t, kind, address)?;
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
