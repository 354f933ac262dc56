//! Sockets. The container's network namespace has only a loopback interface, so most calls are the
//! host kernel's own; connecting beyond it is the daemon's decision.

use crate::cpu::Thread;
use crate::errno::{EACCES, EADDRNOTAVAIL, EBADF, EINVAL, EPERM, Errno, SysResult};
use crate::fdcalls::pair_to_guest;
use crate::files::{Files, What};
use crate::sockets::{OWN4, OWN6};
use crate::{direct, egress, guest, host, process, rights, ring};
use vkernel_abi::generated::ring::ROOT_NODE;

const AF_NETLINK_ROUTE: i32 = 0;
/// The last of the types (linux/net.h).
const SOCK_PACKET: i32 = 10;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    if !matches!(nr, libc::SYS_socket | libc::SYS_socketpair) {
        let fd = Files::check(a[0] as i32)?;
        match process::files().kind(fd).what {
            What::Host => {}
            What::Path => return Err(EBADF),
            _ => return Err(Errno(libc::ENOTSOCK)),
        }
    }
    match nr {
        libc::SYS_socket => {
            let kind = a[1] as i32 & 0xf;
            let flags = a[1] as i32 & !0xf & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
            if kind > SOCK_PACKET || flags != 0 {
                return Err(EINVAL);
            }
            const RAW: [i32; 2] = [libc::SOCK_RAW, SOCK_PACKET];
            let allowed = match a[0] as i32 {
                libc::AF_UNIX => true,
                libc::AF_INET | libc::AF_INET6 if RAW.contains(&kind) => false,
                libc::AF_INET | libc::AF_INET6 => match kind {
                    libc::SOCK_STREAM | libc::SOCK_DGRAM => true,
                    // Other protocols would be modules that the host loads.
                    _ => return Err(Errno(libc::ESOCKTNOSUPPORT)),
                },
                libc::AF_NETLINK if a[2] as i32 == AF_NETLINK_ROUTE => true,
                // As of a kernel that is built without them, which programs go on without: libaudit's
                // callers (su, sshd, cron) take every other error for a failure.
                libc::AF_NETLINK => return Err(Errno(libc::EPROTONOSUPPORT)),
                _ => return Err(Errno(libc::EAFNOSUPPORT)),
            };
            if !allowed {
                return Err(EPERM);
            }
            // SAFETY: integers only.
            let fd = unsafe { host::call(nr, a) }?;
            process::files().set_host(fd as i32, 0);
            Ok(fd)
        }
        libc::SYS_socketpair => {
            let mut pair = [0i32; 2];
            // SAFETY: the kernel writes two ints.
            unsafe { host::call(nr, [a[0], a[1], a[2], pair.as_mut_ptr() as u64, 0, 0]) }?;
            pair_to_guest(a[3], pair)
        }
        // What the policy has let out stays with the peer it was let out to.
        libc::SYS_connect | libc::SYS_bind if egress::of_host(a[0] as i32) => Err(Errno(libc::EISCONN)),
        libc::SYS_connect | libc::SYS_bind => match destination(t, nr, a[1], a[2])? {
            Destination::AsGiven => passed(t, nr, a),
            Destination::Socket(name) => {
                // SAFETY: a live address.
                unsafe { host::blocking(t.poll(), nr, [a[0], name.as_ptr() as u64, name.len() as u64, 0, 0, 0]) }
            }
            Destination::Outside(address) => match egress::connect(t, a[0] as i32, &address)? {
                Some(r) => Ok(r),
                None => {
                    let args = [a[0], address.as_ptr() as u64, address.len() as u64, 0, 0, 0];
                    // SAFETY: a live address: the one that was decided about.
                    unsafe { host::blocking(t.poll(), nr, args) }
                }
            },
        },
        libc::SYS_sendto if a[4] != 0 && egress::of_host(a[0] as i32) => Err(Errno(libc::EISCONN)),
        libc::SYS_sendto if a[4] != 0 => match destination(t, nr, a[4], a[5])? {
            Destination::AsGiven => passed(t, nr, a),
            Destination::Socket(name) => {
                let args = [a[0], guest::range(a[1], a[2]), a[2], a[3], name.as_ptr() as u64, name.len() as u64];
                // SAFETY: a checked buffer and a live address.
                unsafe { host::blocking(t.poll(), nr, args) }
            }
            Destination::Outside(address) => {
                egress::datagram(t, a[0] as i32, &address)?;
                let (at, len) = (address.as_ptr() as u64, address.len() as u64);
                // SAFETY: a checked buffer and a live address: the one that was decided about.
                unsafe { host::blocking(t.poll(), nr, [a[0], guest::range(a[1], a[2]), a[2], a[3], at, len]) }
            }
        },
        libc::SYS_sendto => passed(t, nr, a),
        libc::SYS_recvfrom => {
            let mut v = a;
            v[1] = guest::range(a[1], a[2]);
            (v[4], v[5]) = address_buffer(a[4], a[5]);
            let capacity = capacity(a[4], a[5]);
            // SAFETY: checked buffers.
            let n = unsafe { host::blocking(t.poll(), nr, v) }?;
            show_name(t, a[4], a[5], capacity)?;
            Ok(n)
        }
        libc::SYS_accept | libc::SYS_accept4 | libc::SYS_getsockname | libc::SYS_getpeername => {
            let mut v = a;
            (v[1], v[2]) = address_buffer(a[1], a[2]);
            let capacity = capacity(a[1], a[2]);
            // SAFETY: checked buffers.
            let r = unsafe { host::blocking(t.poll(), nr, v) };
            if matches!(nr, libc::SYS_accept | libc::SYS_accept4)
                && let Ok(fd) = r
            {
                process::files().set_host(fd as i32, 0);
            }
            if r.is_ok() {
                show_name(t, a[1], a[2], capacity)?;
            }
            r
        }
        libc::SYS_getsockopt => {
            let len: u32 = guest::read(a[4]).unwrap_or(0);
            let args = [a[0], a[1], a[2], guest::range(a[3], u64::from(len)), guest::range(a[4], 4), 0];
            // SAFETY: checked buffers.
            unsafe { host::call(nr, args) }
        }
        _ => message(t, nr, a),
    }
}

fn passed(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    let row = vkernel_abi::syscall::find(nr as u64).ok_or(EINVAL)?;
    direct::host_call(t, row, a)
}

/// Host pointers of an address buffer and its length; the kernel says what is wrong with them.
fn address_buffer(addr: u64, len_at: u64) -> (u64, u64) {
    let len: u32 = guest::read(len_at).unwrap_or(0);
    (guest::range(addr, u64::from(len)), guest::range(len_at, 4))
}

/// What an address argument of the guest means to the host.
enum Destination {
    /// Within the container: the kernel may see it.
    AsGiven,
    /// A socket of the container's tree, as the abstract name it is bound to.
    Socket(Vec<u8>),
    /// Beyond the container's loopback.
    Outside(Vec<u8>),
}

/// Abstract names of sockets that have a path: this, and the inode number in eight hex digits. They
/// live in the container's own network namespace; guests may not use the prefix themselves.
const NAMED: &[u8] = b"\0vkernel/";
const NAMED_LEN: usize = 2 + NAMED.len() + 8;

fn abstract_name(ino: i64) -> Vec<u8> {
    let mut v = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
    v.extend(NAMED);
    v.extend(format!("{ino:08x}").bytes());
    v
}

/// Decides on a destination or local address before the host kernel sees it.
fn destination(t: &mut Thread, nr: i64, addr: u64, len: u64) -> Result<Destination, Errno> {
    let mut b = [0u8; 128];
    let n = (len as usize).min(b.len());
    if guest::read_bytes(addr, &mut b[..n]).is_err() || n < 2 || ring::conn() < 0 {
        return Ok(Destination::AsGiven);
    }
    let outside = match i32::from(u16::from_le_bytes([b[0], b[1]])) {
        libc::AF_INET if n >= 16 && nr == libc::SYS_bind && !local4(&b[4..8]) => return Err(EADDRNOTAVAIL),
        libc::AF_INET6 if n >= 24 && nr == libc::SYS_bind && !local6(&b[8..24]) => return Err(EADDRNOTAVAIL),
        libc::AF_UNIX if n > 2 && b[2] != 0 => return named(t, nr, &b[..n.min(110)]),
        libc::AF_UNIX if b[2..n].starts_with(NAMED) => {
            return Err(if nr == libc::SYS_bind { EACCES } else { Errno(libc::ECONNREFUSED) });
        }
        libc::AF_INET if nr != libc::SYS_bind && n >= 16 => !local4(&b[4..8]),
        libc::AF_INET6 if nr != libc::SYS_bind && n >= 24 => !local6(&b[8..24]),
        _ => false,
    };
    Ok(if outside { Destination::Outside(b[..n.min(28)].to_vec()) } else { Destination::AsGiven })
}

/// The socket at a path: bind makes its inode, everything else looks it up.
fn named(t: &mut Thread, nr: i64, address: &[u8]) -> Result<Destination, Errno> {
    let path = address[2..].split(|c| *c == 0).next().unwrap_or_default();
    let (cwd, umask) = {
        let fs = process::fs();
        (u64::from(fs.cwd), u64::from(fs.umask))
    };
    let node = if path.first() == Some(&b'/') { u64::from(ROOT_NODE) } else { cwd };
    let mut w = ring::window(t)?;
    let p = w.put(path).ok_or(EINVAL)?;
    let reply = if nr == libc::SYS_bind {
        let whole: Vec<u8> = address[..2 + path.len()].iter().copied().chain([0]).collect();
        let whole = w.put(&whole).ok_or(EINVAL)?;
        ring::call(t, nr as u32, [node, p, 0o777 & !umask, whole, 0, 0], w)?
    } else {
        ring::call(t, libc::SYS_connect as u32, [0, node, p, 0, 0, 0], w)?
    };
    Ok(Destination::Socket(abstract_name(reply.ret?)))
}

/// Room that the guest has for an address.
fn capacity(addr: u64, len_at: u64) -> u32 {
    if addr == 0 { 0 } else { guest::read(len_at).unwrap_or(0) }
}

/// Turns an abstract name of ours that the kernel has written into the path it stands for.
fn show_name(t: &mut Thread, addr: u64, len_at: u64, capacity: u32) -> Result<(), Errno> {
    if addr == 0 {
        return Ok(());
    }
    let len: u32 = guest::read(len_at)?;
    if let Some(path) = path_of_name(t, addr, len, capacity)? {
        guest::write(len_at, &path)?;
    }
    Ok(())
}

/// As `show_name`; the address's new length, if it was one of ours.
fn path_of_name(t: &mut Thread, addr: u64, len: u32, capacity: u32) -> Result<Option<u32>, Errno> {
    if len as usize != NAMED_LEN || (capacity as usize) < NAMED_LEN {
        return Ok(None);
    }
    let mut b = [0u8; NAMED_LEN];
    guest::read_bytes(addr, &mut b)?;
    if !b[2..].starts_with(NAMED) {
        return Ok(None);
    }
    let text = std::str::from_utf8(&b[NAMED_LEN - 8..]).unwrap_or_default();
    let Ok(ino) = u32::from_str_radix(text, 16) else { return Ok(None) };
    let mut w = ring::window(t)?;
    let place = w.room(112).ok_or(EINVAL)?;
    let reply = ring::call(t, libc::SYS_getsockname as u32, [u64::from(ino), place, 0, 0, 0, 0], w)?;
    let Ok(n) = reply.ret else { return Ok(None) };
    let path = reply.window.get((place & 0xffff_ffff) as usize, (n as usize).min(112));
    guest::write_bytes(addr, &path[..path.len().min(capacity as usize)])?;
    Ok(Some(path.len() as u32))
}

/// An IPv4 address of the container: its loopback, "any", and where there is a network its own.
fn local4(a: &[u8]) -> bool {
    a[0] == 127 || *a == [0; 4] || egress::any_address() && *a == OWN4
}

/// As `local4`; IPv4 addresses may be mapped.
fn local6(a: &[u8]) -> bool {
    let mapped = a[..10] == [0; 10] && a[10..12] == [0xff, 0xff];
    a[..15] == [0; 15] && a[15] <= 1 || mapped && local4(&a[12..]) || egress::any_address() && *a == OWN6
}

/// sendmsg and recvmsg: the header, vectors and control data are rebuilt with host addresses.
fn message(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    let Ok([name, name_len, iov, iov_len, control, control_len, flags]) = guest::read::<[u64; 7]>(a[1]) else {
        // SAFETY: the kernel says what is wrong with the descriptor, or that the address is bad.
        return unsafe { host::call(nr, [a[0], guest::BAD, a[2], 0, 0, 0]) };
    };
    let name_len = name_len & 0xffff_ffff;
    if nr == libc::SYS_sendmsg && name != 0 && egress::of_host(a[0] as i32) {
        return Err(Errno(libc::EISCONN));
    }
    let to =
        if nr == libc::SYS_sendmsg && name != 0 { destination(t, nr, name, name_len)? } else { Destination::AsGiven };
    let (name_at, name_size) = match &to {
        Destination::AsGiven => (guest::range(name, name_len), name_len),
        Destination::Socket(v) => (v.as_ptr() as u64, v.len() as u64),
        Destination::Outside(address) => {
            egress::datagram(t, a[0] as i32, address)?;
            (address.as_ptr() as u64, address.len() as u64)
        }
    };
    if control != 0 && control_len > 1 << 20 {
        return Err(EINVAL);
    }
    // Too long a list, or a bad one, is for the kernel to refuse.
    let list = direct::iovecs(iov, iov_len).ok();
    let list_at = list.as_ref().map_or(guest::BAD, |l| l.as_ptr() as u64);
    let passed = if nr == libc::SYS_sendmsg && control != 0 { rights::copy(control, control_len)? } else { None };
    let control_at = match &passed {
        Some(p) => p.control.as_ptr() as u64,
        // What could not be read is not read again: another thread may have put anything there.
        None if nr == libc::SYS_sendmsg && control != 0 => guest::BAD,
        None => guest::range(control, control_len),
    };
    let mut m = [name_at, name_size, list_at, iov_len, control_at, control_len, flags];
    // SAFETY: a struct msghdr of checked ranges.
    let r = unsafe { host::blocking(t.poll(), nr, [a[0], m.as_mut_ptr() as u64, a[2], 0, 0, 0]) }?;
    if nr == libc::SYS_recvmsg {
        let shown = if name == 0 { None } else { path_of_name(t, name, m[1] as u32, name_len as u32)? };
        guest::write(a[1] + 8, &shown.unwrap_or(m[1] as u32))?;
        guest::write(a[1] + 40, &m[5])?;
        guest::write(a[1] + 48, &(m[6] as u32))?;
        if control != 0 && m[5] > 0 {
            // Descriptors may have arrived: their numbers are somewhere below this.
            process::files().seen(1023);
        }
    }
    Ok(r)
}
