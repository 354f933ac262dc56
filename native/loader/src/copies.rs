//! sendfile, copy_file_range and splice: the kernel's between host descriptors; out of an image file
//! the mapped bytes are written.

use crate::cpu::Thread;
use crate::errno::{EAGAIN, EBADF, EINVAL, EISDIR, ESPIPE, Errno, SysResult};
use crate::files::{Files, What};
use crate::{direct, guest, host, process};
use std::sync::atomic::Ordering;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_sendfile => sendfile(t, a),
        libc::SYS_splice => splice(t, a),
        _ => copy_file_range(t, a),
    }
}

fn host_call(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    let row = vkernel_abi::syscall::find(nr as u64).ok_or(EINVAL)?;
    direct::host_call(t, row, a)
}

fn what(fd: i32) -> Result<What, Errno> {
    crate::mediated::check_open(fd)?;
    let what = process::files().kind(Files::check(fd)?).what;
    if what == What::Path { Err(EBADF) } else { Ok(what) }
}

/// F_GETFL.
pub fn flags_of(fd: i32) -> Result<i32, Errno> {
    // SAFETY: integers only.
    Ok(unsafe { host::call(libc::SYS_fcntl, [fd as u64, libc::F_GETFL as u64, 0, 0, 0, 0]) }? as i32)
}

fn mode_of(fd: i32) -> Result<u32, Errno> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the struct.
    unsafe {
        host::call(libc::SYS_fstat, [fd as u64, st.as_mut_ptr() as u64, 0, 0, 0, 0])?;
        Ok(st.assume_init().st_mode & libc::S_IFMT)
    }
}

/// Writes up to `len` bytes of image file `input` to `out`, at `out_at` if given. `in_at`: where the
/// guest keeps the offset; 0: the description's own moves.
fn from_image(t: &mut Thread, input: i32, in_at: u64, len: u64, out: i32, out_at: Option<u64>) -> SysResult {
    let off = if in_at == 0 { None } else { Some(guest::read::<u64>(in_at)?) };
    if off.is_some_and(|o| (o as i64) < 0) {
        return Err(EINVAL);
    }
    let (bytes, d, at) = direct::image_bytes(input, off).ok_or(EBADF)?;
    let n = (bytes.len() as u64).min(len).min(0x7fff_f000);
    let (nr, args) = match out_at {
        None => (libc::SYS_write, [out as u64, bytes.as_ptr() as u64, n, 0, 0, 0]),
        Some(to) => (libc::SYS_pwrite64, [out as u64, bytes.as_ptr() as u64, n, to, 0, 0]),
    };
    // SAFETY: writes mapped image bytes.
    let done = unsafe { host::blocking(t.poll(), nr, args) }?;
    match in_at {
        0 => d.off.store(at + done as u64, Ordering::Relaxed),
        _ => guest::write(in_at, &(at + done as u64))?,
    }
    Ok(done)
}

/// sendfile(2). Errors: EBADF of either, EFAULT, EINVAL of the offset or an appending target.
fn sendfile(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let (out, input) = (a[0] as i32, a[1] as i32);
    let from = what(input)?;
    if from == What::Host && process::files().kind(Files::check(out)?).what == What::Host {
        return host_call(t, libc::SYS_sendfile, a);
    }
    match (from, what(out)?) {
        (What::Directory, _) => Err(EINVAL),
        (What::Host, _) | (_, What::Image | What::Directory | What::Path) => Err(EBADF),
        (_, What::Host) => {
            if flags_of(out)? & libc::O_APPEND != 0 {
                return Err(EINVAL);
            }
            from_image(t, input, a[2], a[3], out, None)
        }
    }
}

/// copy_file_range(2). Errors in the order of fs/read_write.c: EBADF, EFAULT, EINVAL of the flags,
/// EISDIR, EINVAL of what is no regular file, EBADF of the modes.
fn copy_file_range(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let (input, out) = (a[0] as i32, a[2] as i32);
    let (from, to) = (what(input)?, what(out)?);
    if (from, to) == (What::Host, What::Host) {
        return host_call(t, libc::SYS_copy_file_range, a);
    }
    if a[5] as u32 != 0 {
        return Err(EINVAL);
    }
    if from == What::Directory || to == What::Directory {
        return Err(EISDIR);
    }
    if to != What::Host {
        return Err(EBADF);
    }
    if mode_of(out)? != libc::S_IFREG {
        return Err(EINVAL);
    }
    let flags = flags_of(out)?;
    if flags & libc::O_APPEND != 0 || flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(EBADF);
    }
    let out_at = if a[3] == 0 { None } else { Some(guest::read::<u64>(a[3])?) };
    let done = from_image(t, input, a[1], a[4], out, out_at)?;
    if let Some(at) = out_at {
        guest::write(a[3], &(at + done as u64))?;
    }
    Ok(done)
}

const SPLICE_FLAGS: u64 = 0xf;

/// splice(2) out of an image file; everything else is the kernel's.
fn splice(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let (input, out) = (a[0] as i32, a[2] as i32);
    if a[4] == 0 || a[5] & !SPLICE_FLAGS & 0xffff_ffff != 0 {
        return host_call(t, libc::SYS_splice, a);
    }
    match (what(input)?, what(out)?) {
        (What::Host, What::Host) => host_call(t, libc::SYS_splice, a),
        (What::Image, What::Host) => {
            if mode_of(out)? != libc::S_IFIFO {
                return Err(EINVAL);
            }
            if a[3] != 0 {
                return Err(ESPIPE);
            }
            if a[5] & u64::from(libc::SPLICE_F_NONBLOCK) != 0 {
                let mut p = libc::pollfd { fd: out, events: libc::POLLOUT, revents: 0 };
                // SAFETY: polls one descriptor.
                if unsafe { libc::poll(&mut p, 1, 0) } == 0 {
                    return Err(EAGAIN);
                }
            }
            from_image(t, input, a[1], a[4], out, None)
        }
        (_, What::Image) => Err(EBADF),
        _ => Err(EINVAL),
    }
}
