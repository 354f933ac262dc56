//! Calls that are one host call: pointers are checked against the region and passed on, the host
//! kernel does the rest, EFAULT included. Image files and directories answer here from the mapped
//! image instead.

use crate::cpu::Thread;
use crate::errno::{EBADF, EFAULT, EINVAL, EISDIR, EOPNOTSUPP, ESPIPE, Errno, SysResult};
use crate::files::{Description, Files, What, is_host};
use crate::mm::PAGE;
use crate::{erofs, guest, host, image, mediated, process, ring};
use std::sync::atomic::Ordering;
use vkernel_abi::generated::table::TABLE;
use vkernel_abi::region::REGION_SIZE;
use vkernel_abi::syscall::{Arg, Class, Len, Syscall};

const IOV_MAX: u64 = 1024;

/// A pointer argument of a plain call: its place, and how many bytes it points to: `scale` times argument `by`,
/// or `scale` alone.
#[derive(Clone, Copy)]
struct Pointer {
    at: u8,
    by: Option<u8>,
    scale: u32,
}

/// What `at_once` has to know of a call, made from the table.
#[derive(Clone, Copy)]
struct Plain {
    /// Arguments that are descriptors, one bit each.
    fds: u8,
    /// Arguments that must be 0, one bit each: with an address a socket's call is another one.
    zero: u8,
    pointers: [Option<Pointer>; 2],
    restart: bool,
}

static PLAIN: [Option<Plain>; 512] = {
    let mut all = [None; 512];
    let mut n = 0;
    while n < TABLE.len() {
        let row = &TABLE[n];
        let zero = match row.nr as i64 {
            libc::SYS_sendto | libc::SYS_recvfrom => 1 << 4,
            _ => 0,
        };
        if (matches!(row.class, Class::Direct) || zero != 0) && !row.new_fd && (row.nr as usize) < all.len() {
            all[row.nr as usize] = plain(row, zero);
        }
        n += 1;
    }
    all
};

const fn plain(row: &Syscall, zero: u8) -> Option<Plain> {
    let mut p = Plain { fds: 0, zero, pointers: [None; 2], restart: row.restart };
    let (mut n, mut pointers) = (0, 0);
    while n < row.args.len() {
        match row.args[n] {
            _ if zero >> n & 1 != 0 => {}
            Arg::Int => {}
            Arg::Fd => p.fds |= 1 << n,
            Arg::Ptr { len, .. } => {
                if pointers == p.pointers.len() {
                    return None;
                }
                p.pointers[pointers] = Some(match len {
                    Len::Fixed(scale) => Pointer { at: n as u8, by: None, scale },
                    Len::Arg { index, scale } => Pointer { at: n as u8, by: Some(index), scale },
                });
                pointers += 1;
            }
            _ => return None,
        }
        n += 1;
    }
    Some(p)
}

/// Makes the thread's call here and now, if it is one host call on the host's own descriptors with pointers into the
/// region: (result, restartable). None: it is for `syscall::dispatch`. Inlined where translated code comes out.
#[inline(always)]
pub fn at_once(t: &Thread, nr: u64) -> Option<(i64, bool)> {
    let p = PLAIN.get(nr as usize)?.as_ref()?;
    let mut a = t.args();
    for (n, v) in a.into_iter().enumerate() {
        if p.fds >> n & 1 != 0 && !is_host(v as i32) || p.zero >> n & 1 != 0 && v != 0 {
            return None;
        }
    }
    let given = a;
    for pointer in p.pointers.iter().flatten() {
        let len = match pointer.by {
            None => u64::from(pointer.scale),
            Some(index) if pointer.scale == 1 => given[usize::from(index)],
            Some(index) => (given[usize::from(index)] & 0xffff_ffff) * u64::from(pointer.scale),
        };
        let at = given[usize::from(pointer.at)];
        if at >= REGION_SIZE || len > REGION_SIZE - at {
            return None;
        }
        a[usize::from(pointer.at)] = if at == 0 { 0 } else { guest::at(at) as u64 };
    }
    if !ring::doing_unwatched(t, nr as u32, &given) {
        return None;
    }
    // SAFETY: every pointer is null or a range of the region; what must be 0 makes the others of its kind unused.
    let r = unsafe { host::blocking_raw(t.poll(), nr as i64, a) };
    ring::idle(t);
    Some((r, p.restart))
}

pub fn dispatch(t: &mut Thread, row: &Syscall, a: [u64; 6]) -> SysResult {
    for (n, arg) in row.args.iter().enumerate() {
        if *arg == Arg::Fd {
            let fd = Files::check(a[n] as i32)?;
            let kind = process::files().kind(fd);
            if kind.notify
                && let Some(r) = crate::notify::dispatch(t, row.nr, fd, a)
            {
                return r;
            }
            if kind.what != What::Host {
                return on_image(t, row.nr, fd, kind.what, a);
            }
        }
    }
    host_call(t, row, a)
}

/// Passes the call on, after checking its pointers.
pub fn host_call(t: &mut Thread, row: &Syscall, a: [u64; 6]) -> SysResult {
    let mut v = a;
    let mut vectors = Vec::new();
    for (n, arg) in row.args.iter().enumerate() {
        match arg {
            Arg::Ptr { len, .. } => {
                let len = match len {
                    Len::Fixed(n) => u64::from(*n),
                    // Counts are 32-bit where they are scaled (nfds, maxevents).
                    Len::Arg { index, scale: 1 } => a[usize::from(*index)],
                    Len::Arg { index, scale } => (a[usize::from(*index)] & 0xffff_ffff) * u64::from(*scale),
                };
                v[n] = guest::range(a[n], len);
                // A count beyond the region is one that never comes to its end.
                if let Arg::Ptr { len: Len::Arg { index, scale: 1 }, .. } = arg
                    && v[n] == guest::BAD
                    && a[n] < REGION_SIZE
                    && len as i64 > 0
                {
                    v[usize::from(*index)] = REGION_SIZE - a[n] + PAGE;
                    v[n] = guest::at(a[n]) as u64;
                }
            }
            // What cannot be read, or is too long, the kernel refuses in its own order.
            Arg::Iov { count } => match iovecs(a[n], a[usize::from(*count)]) {
                Ok(list) => {
                    v[n] = list.as_ptr() as u64;
                    vectors.push(list);
                }
                Err(_) => v[n] = guest::BAD,
            },
            _ => {}
        }
    }
    // SAFETY: every pointer is null or a range of the region, or a live vector of such.
    let r = unsafe { host::blocking(t.poll(), i64::from(row.nr), v) };
    if row.new_fd
        && let Ok(fd) = r
    {
        process::files().set_host(fd as i32, 0);
    }
    r
}

/// The guest's iovec array with host addresses.
pub fn iovecs(addr: u64, count: u64) -> Result<Vec<libc::iovec>, Errno> {
    if count > IOV_MAX {
        return Err(EINVAL);
    }
    (0..count)
        .map(|n| {
            let base: u64 = guest::read(addr + 16 * n)?;
            let len: u64 = guest::read(addr + 16 * n + 8)?;
            Ok(libc::iovec { iov_base: guest::range(base, len) as *mut _, iov_len: len as usize })
        })
        .collect()
}

/// Reads of image files; everything else on them, and data calls on directories, is an error.
fn on_image(t: &mut Thread, nr: u32, fd: i32, what: What, a: [u64; 6]) -> SysResult {
    if what == What::Path {
        return Err(EBADF);
    }
    let d = process::files().description(fd).ok_or(EBADF)?;
    match i64::from(nr) {
        libc::SYS_lseek => seek(d, what, a[1] as i64, a[2] as i32),
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_readv | libc::SYS_preadv | libc::SYS_preadv2 => {
            if what == What::Directory {
                return Err(EISDIR);
            }
            let at = match i64::from(nr) {
                libc::SYS_pread64 => Some(a[3]),
                libc::SYS_preadv => Some(a[3]),
                // RWF_HIPRI, DSYNC, SYNC, NOWAIT, APPEND mean nothing here.
                libc::SYS_preadv2 if a[5] & !0x1f != 0 => return Err(EOPNOTSUPP),
                libc::SYS_preadv2 if a[3] as i64 != -1 => Some(a[3]),
                _ => None,
            };
            if at.is_some_and(|v| (v as i64) < 0) {
                return Err(EINVAL);
            }
            let list = if matches!(i64::from(nr), libc::SYS_read | libc::SYS_pread64) {
                vec![(a[1], a[2])]
            } else {
                iov_pairs(a[1], a[2])?
            };
            read(d, &list, at)
        }
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => Err(EBADF),
        libc::SYS_ftruncate => Err(EINVAL),
        libc::SYS_fallocate => Err(EBADF),
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_sync_file_range => Ok(0),
        libc::SYS_flock => flock(t, fd, a[1] as i32),
        libc::SYS_pidfd_send_signal => signal_by_directory(t, fd, what, a),
        libc::SYS_tee | libc::SYS_vmsplice => Err(EINVAL),
        libc::SYS_epoll_ctl => Err(crate::errno::EPERM),
        libc::SYS_shutdown | libc::SYS_listen | libc::SYS_setsockopt => Err(Errno(libc::ENOTSOCK)),
        libc::SYS_mq_timedsend | libc::SYS_mq_timedreceive | libc::SYS_mq_notify | libc::SYS_mq_getsetattr => {
            Err(EBADF)
        }
        libc::SYS_timerfd_settime | libc::SYS_timerfd_gettime | libc::SYS_epoll_wait => Err(EINVAL),
        _ => Err(mediated::data_call_on(what)),
    }
}

/// pidfd_send_signal(2) takes a directory of /proc for its process.
fn signal_by_directory(t: &mut Thread, fd: i32, what: What, a: [u64; 6]) -> SysResult {
    if a[3] as u32 != 0 {
        return Err(EINVAL);
    }
    if what != What::Directory {
        return Err(EBADF);
    }
    let name = mediated::name_of(t, fd, 64)?;
    let pid = std::str::from_utf8(&name).ok().and_then(|n| n.strip_prefix("/proc/")?.parse::<i32>().ok());
    let pid = pid.ok_or(EBADF)? as u64;
    // SAFETY: a process of the container's own namespace, a checked siginfo, and our own descriptor.
    unsafe {
        let pidfd = host::call(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0])?;
        let r = host::call(libc::SYS_pidfd_send_signal, [pidfd as u64, a[1], guest::range(a[2], 128), 0, 0, 0]);
        libc::close(pidfd as i32);
        r
    }
}

/// flock(2) among the descriptions of one image file; waits by asking again.
fn flock(t: &Thread, fd: i32, operation: i32) -> SysResult {
    let kind = match operation & !libc::LOCK_NB {
        libc::LOCK_SH => 1,
        libc::LOCK_EX => 2,
        libc::LOCK_UN => 0,
        _ => return Err(EINVAL),
    };
    while !process::files().lock(fd, kind) {
        if operation & libc::LOCK_NB != 0 {
            return Err(crate::errno::EAGAIN);
        }
        crate::fifo::moment(t)?;
    }
    Ok(0)
}

pub fn iov_pairs(addr: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
    if count > IOV_MAX {
        return Err(EINVAL);
    }
    (0..count).map(|n| Ok((guest::read(addr + 16 * n)?, guest::read(addr + 16 * n + 8)?))).collect()
}

/// Copies from the mapped image.
fn read(d: &Description, list: &[(u64, u64)], at: Option<u64>) -> SysResult {
    let img = image::get();
    let extent = erofs::extent(img.erofs, d.nid.load(Ordering::Relaxed))?;
    let start = at.unwrap_or_else(|| d.off.load(Ordering::Relaxed));
    let (mut pos, mut total) = (start, 0u64);
    for &(buf, len) in list {
        let n = len.min(extent.size.saturating_sub(pos)).min(0x7fff_f000);
        if n == 0 {
            continue;
        }
        let from = (extent.off + pos) as usize;
        let copied = guest::write_bytes(buf, &img.erofs[from..from + n as usize]);
        if copied.is_err() {
            if total > 0 {
                break;
            }
            return Err(EFAULT);
        }
        pos += n;
        total += n;
    }
    if at.is_none() {
        d.off.store(pos, Ordering::Relaxed);
    }
    Ok(total as i64)
}

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

fn seek(d: &Description, what: What, off: i64, whence: i32) -> SysResult {
    let size = d.size.load(Ordering::Relaxed) as i64;
    let current = d.off.load(Ordering::Relaxed) as i64;
    let to = match whence {
        libc::SEEK_SET => Some(off),
        libc::SEEK_CUR => current.checked_add(off),
        libc::SEEK_END if what == What::Image => size.checked_add(off),
        SEEK_DATA | SEEK_HOLE if what == What::Image => {
            if off < 0 || off >= size {
                return Err(crate::errno::ENXIO);
            }
            Some(if whence == SEEK_DATA { off } else { size })
        }
        _ => None,
    };
    match to {
        Some(v) if v >= 0 => {
            d.off.store(v as u64, Ordering::Relaxed);
            Ok(v)
        }
        _ if what == What::Directory && whence == libc::SEEK_END => Err(ESPIPE),
        _ => Err(EINVAL),
    }
}

/// The bytes of an open image file from `off` on, for sendfile; `None` for other descriptors.
pub fn image_bytes(fd: i32, off: Option<u64>) -> Option<(&'static [u8], &'static Description, u64)> {
    let files = process::files();
    if files.kind(fd).what != What::Image {
        return None;
    }
    let d = files.description(fd)?;
    let img = image::get();
    let extent = erofs::extent(img.erofs, d.nid.load(Ordering::Relaxed)).ok()?;
    let at = off.unwrap_or_else(|| d.off.load(Ordering::Relaxed)).min(extent.size);
    let from = (extent.off + at) as usize;
    Some((&img.erofs[from..(extent.off + extent.size) as usize], d, at))
}
