//! close, dup, fcntl, pipe, ioctl, sendfile: the host's table changes, and ours follows.

use crate::cpu::Thread;
use crate::errno::{EBADF, EINVAL, ENOTDIR, ENOTTY, SysResult};
use crate::files::{Files, What};
use crate::{copies, guest, host, process};
use std::sync::atomic::Ordering;
use vkernel_abi::generated::ring::HIDDEN_FD_BASE;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_close => close(a[0] as i32),
        libc::SYS_close_range => close_range(a[0] as u32, a[1] as u32, a[2] as u32),
        libc::SYS_dup => {
            let from = Files::check(a[0] as i32)?;
            // SAFETY: integers only.
            let to = unsafe { host::call(libc::SYS_dup, a) }?;
            process::files().duplicated(from, to as i32);
            Ok(to)
        }
        libc::SYS_dup2 | libc::SYS_dup3 => dup_to(nr, a),
        libc::SYS_fcntl => fcntl(t, a),
        libc::SYS_pipe | libc::SYS_pipe2 => {
            let flags = if nr == libc::SYS_pipe { 0 } else { a[1] };
            let mut pair = [0i32; 2];
            // SAFETY: the kernel writes two ints.
            unsafe { host::call(libc::SYS_pipe2, [pair.as_mut_ptr() as u64, flags, 0, 0, 0, 0]) }?;
            pair_to_guest(a[0], pair)
        }
        libc::SYS_ioctl => ioctl(t, a),
        _ => copies::dispatch(t, nr, a),
    }
}

/// readahead, posix_fadvise, syncfs: checked, and then of no consequence.
pub fn hint(nr: i64, a: [u64; 6]) -> SysResult {
    let fd = a[0] as i32;
    crate::mediated::check_open(fd)?;
    let kind = process::files().kind(fd);
    if kind.what == What::Path && nr != libc::SYS_syncfs {
        return Err(EBADF);
    }
    let node = kind.what == What::Image || kind.node != 0;
    match nr {
        libc::SYS_fadvise64 if kind.what == What::Host => {
            // SAFETY: integers only; the kernel knows pipes and bad advice.
            unsafe { host::call(nr, a) }
        }
        libc::SYS_fadvise64 if a[2] as i64 >= 0 && a[3] <= 5 => Ok(0),
        libc::SYS_fadvise64 => Err(EINVAL),
        libc::SYS_readahead if kind.what == What::Directory || !node => Err(EINVAL),
        libc::SYS_readahead if copies::flags_of(fd)? & libc::O_ACCMODE == libc::O_WRONLY => Err(EBADF),
        _ => Ok(0),
    }
}

/// Hands a new pair of descriptors to the guest, or closes it when the guest's memory faults.
pub fn pair_to_guest(addr: u64, pair: [i32; 2]) -> SysResult {
    let bytes: Vec<u8> = pair.iter().flat_map(|fd| fd.to_le_bytes()).collect();
    if let Err(e) = guest::write_bytes(addr, &bytes) {
        // SAFETY: descriptors we just made.
        unsafe {
            libc::close(pair[0]);
            libc::close(pair[1]);
        }
        return Err(e);
    }
    let mut files = process::files();
    pair.iter().for_each(|fd| files.set_host(*fd, 0));
    Ok(0)
}

fn close(fd: i32) -> SysResult {
    Files::check(fd)?;
    process::files().closed(fd);
    // SAFETY: a guest descriptor.
    unsafe { host::call(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]) }
}

const DN_MULTISHOT: u32 = 0x8000_0000;
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

fn close_range(first: u32, last: u32, flags: u32) -> SysResult {
    if first > last || flags & !(CLOSE_RANGE_CLOEXEC | 2) != 0 {
        return Err(EINVAL);
    }
    let end = last.min(HIDDEN_FD_BASE as u32 - 1);
    if first > end {
        return Ok(0);
    }
    let high = process::files().high() as u32;
    // SAFETY: the range ends below the hidden descriptors.
    unsafe { host::call(libc::SYS_close_range, [u64::from(first), u64::from(end), u64::from(flags & 4), 0, 0, 0]) }?;
    if flags & CLOSE_RANGE_CLOEXEC == 0 {
        let mut files = process::files();
        (first..=end.min(high)).for_each(|fd| files.closed(fd as i32));
    }
    Ok(0)
}

fn dup_to(nr: i64, a: [u64; 6]) -> SysResult {
    let (from, to) = (Files::check(a[0] as i32)?, a[1] as i32);
    if nr == libc::SYS_dup3 && (a[2] as i32 & !libc::O_CLOEXEC != 0 || from == to) {
        return Err(EINVAL);
    }
    Files::check(to)?;
    // SAFETY: guest descriptors.
    let r = unsafe { host::call(nr, a) }?;
    process::files().duplicated(from, to);
    Ok(r)
}

fn fcntl(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let fd = Files::check(a[0] as i32)?;
    let kind = process::files().kind(fd);
    // SAFETY: integers only.
    let plain = |a: [u64; 6]| unsafe { host::call(libc::SYS_fcntl, a) };
    match a[1] as i32 {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            if a[2] as i64 >= i64::from(HIDDEN_FD_BASE) || (a[2] as i32) < 0 {
                return Err(EINVAL);
            }
            let to = plain(a)?;
            process::files().duplicated(fd, to as i32);
            Ok(to)
        }
        cmd if kind.what == What::Path && !matches!(cmd, libc::F_GETFD | libc::F_SETFD | libc::F_GETFL) => Err(EBADF),
        libc::F_GETFL | libc::F_SETFL if kind.what != What::Host => {
            let d = process::files().description(fd).ok_or(EBADF)?;
            let flags = d.flags.load(Ordering::Relaxed);
            if a[1] as i32 == libc::F_GETFL {
                return Ok(i64::from(flags));
            }
            let settable = (libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOATIME) as u32;
            d.flags.store(flags & !settable | a[2] as u32 & settable, Ordering::Relaxed);
            Ok(0)
        }
        // The daemon opens files of the container with O_NOFOLLOW, which is not the guest's.
        libc::F_GETFL if kind.node != 0 => plain(a).map(|flags| flags & !i64::from(libc::O_NOFOLLOW)),
        libc::F_GETFD
        | libc::F_SETFD
        | libc::F_GETFL
        | libc::F_SETFL
        | libc::F_GETPIPE_SZ
        | libc::F_SETPIPE_SZ
        | libc::F_GETOWN
        | libc::F_SETOWN
        | F_SETSIG
        | F_GETSIG
        | libc::F_GETLEASE
        | libc::F_ADD_SEALS
        | libc::F_GET_SEALS => plain(a),
        F_SETOWN_EX | F_GETOWN_EX => plain([a[0], a[1], guest::range(a[2], 8), 0, 0, 0]),
        libc::F_NOTIFY if kind.what != What::Directory => Err(ENOTDIR),
        // Nothing to tell of: what a directory's changes were told by is taken back.
        libc::F_NOTIFY if a[2] as u32 & !DN_MULTISHOT == 0 => Ok(0),
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            let args = [a[0], a[1], guest::range(a[2], 32), 0, 0, 0];
            // SAFETY: a checked struct flock.
            unsafe { host::blocking(t.poll(), libc::SYS_fcntl, args) }
        }
        _ => Err(EINVAL),
    }
}

/// Requests with the size of what their argument points to; 0: an integer.
fn ioctl_size(request: u32) -> Option<u64> {
    Some(match request as u64 {
        libc::TCGETS | libc::TCSETS | libc::TCSETSW | libc::TCSETSF => 60,
        libc::TIOCGWINSZ | libc::TIOCSWINSZ => 8,
        libc::TIOCGPGRP
        | libc::TIOCSPGRP
        | libc::TIOCGSID
        | libc::TIOCOUTQ
        | libc::FIONREAD
        | libc::FIONBIO
        | libc::FIOASYNC
        | libc::TIOCGPTN
        | libc::TIOCSPTLCK => 4,
        libc::TIOCSCTTY
        | libc::TIOCNOTTY
        | libc::TCFLSH
        | libc::TCSBRK
        | libc::TCXONC
        | libc::FIOCLEX
        | libc::FIONCLEX
        | libc::TCSBRKP => 0,
        // SIOCGIFNAME and other queries of interfaces; SIOCGIFCONF is left out: it holds a pointer.
        0x8910 | 0x8913 | 0x8915 | 0x8919 | 0x891b | 0x8921 | 0x8927 | 0x8933 => 40,
        _ => return None,
    })
}

/// What the kernel itself answers for files whose file system has no requests (fs/ioctl.c, do_vfs_ioctl).
fn ioctl_of_image(fd: i32, request: u64, arg: u64) -> SysResult {
    let (what, d) = {
        let files = process::files();
        (files.kind(fd).what, files.description(fd).ok_or(EBADF)?)
    };
    match request {
        libc::FIONBIO => {
            let on = guest::read::<i32>(arg)? != 0;
            let flag = libc::O_NONBLOCK as u32;
            if on {
                d.flags.fetch_or(flag, Ordering::Relaxed)
            } else {
                d.flags.fetch_and(!flag, Ordering::Relaxed)
            };
            Ok(0)
        }
        libc::FIONREAD if what == What::Image => {
            let left = d.size.load(Ordering::Relaxed).wrapping_sub(d.off.load(Ordering::Relaxed));
            guest::write(arg, &(left as i32))?;
            Ok(0)
        }
        _ => Err(ENOTTY),
    }
}

fn ioctl(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let fd = Files::check(a[0] as i32)?;
    crate::mediated::check_open(fd)?;
    if process::files().kind(fd).what == What::Path {
        return Err(EBADF);
    }
    let request = u64::from(a[1] as u32);
    let size = ioctl_size(request as u32).ok_or(ENOTTY)?;
    if process::files().kind(fd).what != What::Host && !matches!(request, libc::FIOCLEX | libc::FIONCLEX) {
        return ioctl_of_image(fd, request, a[2]);
    }
    let kind = process::files().kind(fd);
    let node = kind.node;
    if (request == libc::TIOCGPTN || kind.notify && request == libc::FIONREAD) && node != 0 && crate::ring::conn() >= 0
    {
        // A terminal's number is the container's, not the host's; inotify's events are the daemon's.
        let w = crate::ring::window(t)?;
        let n = crate::ring::call(t, libc::SYS_ioctl as u32, [u64::from(node), request, 0, 0, 0, 0], w)?.ret?;
        guest::write(a[2], &(n as u32))?;
        return Ok(0);
    }
    let arg = if size == 0 { a[2] } else { guest::range(a[2], size) };
    // SAFETY: the argument is an integer or a checked buffer of the request's size.
    unsafe { host::blocking(t.poll(), libc::SYS_ioctl, [a[0], request, arg, 0, 0, 0]) }
}
