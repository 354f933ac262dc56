//! Sockets. The container's network namespace has only a loopback interface, so most calls are the
//! host kernel's own; connecting beyond it is the daemon's decision.

use crate::cpu::Thread;
use crate::errno::{EACCES, EFAULT, EINVAL, EPERM, Errno, SysResult};
use crate::fdcalls::pair_to_guest;
use crate::files::{Files, What};
use crate::{direct, guest, host, mediated, process, ring};

const AF_NETLINK_ROUTE: i32 = 0;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    if !matches!(nr, libc::SYS_socket | libc::SYS_socketpair) {
        let fd = Files::check(a[0] as i32)?;
        if process::files().kind(fd).what != What::Host {
            return Err(Errno(libc::ENOTSOCK));
        }
    }
    match nr {
        libc::SYS_socket => {
            let kind = a[1] as i32 & 0xf;
            let allowed = match a[0] as i32 {
                libc::AF_UNIX => matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET),
                libc::AF_INET | libc::AF_INET6 => matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM),
                libc::AF_NETLINK => a[2] as i32 == AF_NETLINK_ROUTE,
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
        libc::SYS_connect | libc::SYS_bind => {
            check_address(t, nr, a[1], a[2])?;
            passed(t, nr, a)
        }
        libc::SYS_sendto => {
            if a[4] != 0 {
                check_address(t, nr, a[4], a[5])?;
            }
            passed(t, nr, a)
        }
        libc::SYS_recvfrom => {
            let mut v = a;
            v[1] = guest::range(a[1], a[2])?;
            (v[4], v[5]) = address_buffer(a[4], a[5])?;
            // SAFETY: checked buffers.
            unsafe { host::blocking(t.poll(), nr, v) }
        }
        libc::SYS_accept | libc::SYS_accept4 | libc::SYS_getsockname | libc::SYS_getpeername => {
            let mut v = a;
            (v[1], v[2]) = address_buffer(a[1], a[2])?;
            // SAFETY: checked buffers.
            let r = unsafe { host::blocking(t.poll(), nr, v) };
            if matches!(nr, libc::SYS_accept | libc::SYS_accept4) && let Ok(fd) = r {
                process::files().set_host(fd as i32, 0);
            }
            r
        }
        libc::SYS_getsockopt => {
            let len: u32 = guest::read(a[4])?;
            let args = [a[0], a[1], a[2], guest::range(a[3], u64::from(len))?, guest::range(a[4], 4)?, 0];
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

fn address_buffer(addr: u64, len_at: u64) -> Result<(u64, u64), Errno> {
    if addr == 0 {
        return Ok((0, 0));
    }
    if len_at == 0 {
        return Err(EFAULT);
    }
    let len: u32 = guest::read(len_at)?;
    Ok((guest::range(addr, u64::from(len))?, guest::range(len_at, 4)?))
}

/// Decides on a destination or local address before the host kernel sees it.
fn check_address(t: &mut Thread, nr: i64, addr: u64, len: u64) -> Result<(), Errno> {
    let mut b = [0u8; 128];
    let n = (len as usize).min(b.len());
    guest::read_bytes(addr, &mut b[..n])?;
    if n < 2 {
        return Ok(());
    }
    let family = i32::from(u16::from_le_bytes([b[0], b[1]]));
    let denied = match family {
        libc::AF_UNIX => n > 2 && b[2] != 0,
        libc::AF_INET if nr != libc::SYS_bind => !(b[4] == 127 || b[4..8] == [0; 4]),
        libc::AF_INET6 if nr != libc::SYS_bind => !loopback6(&b[8..24]),
        _ => false,
    };
    if !denied {
        return Ok(());
    }
    if family == libc::AF_UNIX {
        // No path of the container leads to a host socket; a missing one is ENOENT to connect.
        return Err(if nr == libc::SYS_bind { EACCES } else { crate::errno::ENOENT });
    }
    if ring::conn() < 0 {
        return Ok(());
    }
    let shown: Vec<String> = b[..n].iter().map(|v| format!("{v:02x}")).collect();
    mediated::report(t, &format!("egress denied {} {}", nr, shown.join("")));
    Err(EACCES)
}

/// ::1, ::, and their IPv4-mapped forms.
fn loopback6(a: &[u8]) -> bool {
    let mapped = a[..10] == [0; 10] && a[10..12] == [0xff, 0xff];
    a[..15] == [0; 15] && a[15] <= 1 || mapped && (a[12] == 127 || a[12..16] == [0; 4])
}

/// sendmsg and recvmsg: the header, vectors and control data are rebuilt with host addresses.
fn message(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    let field = |n: u64| guest::read::<u64>(a[1] + 8 * n);
    let (name, name_len) = (field(0)?, field(1)? & 0xffff_ffff);
    let (iov, iov_len) = (field(2)?, field(3)?);
    let (control, control_len, flags) = (field(4)?, field(5)?, field(6)?);
    if nr == libc::SYS_sendmsg && name != 0 {
        check_address(t, nr, name, name_len)?;
    }
    if control != 0 && control_len > 1 << 20 {
        return Err(EINVAL);
    }
    let list = direct::iovecs(iov, iov_len)?;
    if nr == libc::SYS_sendmsg && control != 0 {
        check_rights(control, control_len)?;
    }
    let mut m = [
        guest::range(name, name_len)?,
        name_len,
        list.as_ptr() as u64,
        iov_len,
        guest::range(control, control_len)?,
        control_len,
        flags,
    ];
    // SAFETY: a struct msghdr of checked ranges.
    let r = unsafe { host::blocking(t.poll(), nr, [a[0], m.as_mut_ptr() as u64, a[2], 0, 0, 0]) }?;
    if nr == libc::SYS_recvmsg {
        guest::write(a[1] + 8, &(m[1] as u32))?;
        guest::write(a[1] + 40, &m[5])?;
        guest::write(a[1] + 48, &(m[6] as u32))?;
        if control != 0 && m[5] > 0 {
            // Descriptors may have arrived: their numbers are somewhere below this.
            process::files().seen(1023);
        }
    }
    Ok(r)
}

/// Hidden descriptors must not be passed on: every number in SCM_RIGHTS must be a guest's.
fn check_rights(control: u64, len: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at + 16 <= len {
        let (n, level): (u64, u32) = (guest::read(control + at)?, guest::read(control + at + 8)?);
        let kind: u32 = guest::read(control + at + 12)?;
        if n < 16 || n > len - at {
            return Err(EINVAL);
        }
        if level as i32 == libc::SOL_SOCKET && kind as i32 == libc::SCM_RIGHTS {
            for k in 0..(n - 16) / 4 {
                Files::check(guest::read::<u32>(control + at + 16 + 4 * k)? as i32)?;
            }
        }
        at += n.next_multiple_of(8);
    }
    Ok(())
}
