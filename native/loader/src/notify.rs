//! Calls on a descriptor of inotify_init1(2): the host's is a pipe that is readable while events wait, the
//! events are the daemon's (src/fs/inotify.ts).

use crate::cpu::Thread;
use crate::errno::{EAGAIN, EBADF, EINVAL, Errno, SysResult};
use crate::{direct, guest, host, mediated, process, ring};

/// `None`: the pipe answers as inotify would.
pub fn dispatch(t: &mut Thread, nr: u32, fd: i32, a: [u64; 6]) -> Option<SysResult> {
    Some(match i64::from(nr) {
        libc::SYS_read => read(t, fd, a[1], a[2]),
        libc::SYS_readv => direct::iov_pairs(a[1], a[2]).and_then(|list| readv(t, fd, &list)),
        libc::SYS_pread64 | libc::SYS_preadv => Err(crate::errno::ESPIPE),
        libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_pwritev => Err(EBADF),
        libc::SYS_lseek => Ok(0),
        libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_tee | libc::SYS_vmsplice => Err(EINVAL),
        _ => return None,
    })
}

/// Every bit that inotify_add_watch(2) knows (ALL_INOTIFY_BITS of include/linux/inotify.h).
const ALL_BITS: u32 = 0xf700_efff;

/// What inotify_add_watch and inotify_rm_watch look at before the path, in Linux's order. Errors: EINVAL,
/// EBADF.
pub fn check(nr: u32, a: [u64; 6]) -> Result<(), Errno> {
    let (fd, mask) = (a[0] as i32, a[2] as u32);
    let adds = i64::from(nr) == libc::SYS_inotify_add_watch;
    if adds && (mask & !ALL_BITS != 0 || mask == 0) {
        return Err(EINVAL);
    }
    mediated::check_open(fd)?;
    let both = libc::IN_MASK_ADD | libc::IN_MASK_CREATE;
    if adds && mask & both == both || !process::files().kind(fd).notify { Err(EINVAL) } else { Ok(()) }
}

/// One read a buffer, as for every file without read_iter (fs/read_write.c do_loop_readv_writev).
fn readv(t: &mut Thread, fd: i32, list: &[(u64, u64)]) -> SysResult {
    let mut done = 0;
    for (addr, len) in list {
        match read(t, fd, *addr, *len) {
            Ok(n) if n as u64 == *len => done += n,
            Ok(n) => return Ok(done + n),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Whole events into the buffer; waits for one unless the descriptor is O_NONBLOCK.
fn read(t: &mut Thread, fd: i32, addr: u64, total: u64) -> SysResult {
    let node = u64::from(process::files().kind(fd).node);
    loop {
        let mut w = ring::window(t)?;
        let len = total.min(w.left() as u64 / 2) as usize;
        let room = w.room(len).ok_or(EINVAL)?;
        let reply = ring::call(t, libc::SYS_read as u32, [node, room, 0, 0, 0, 0], w)?;
        match reply.ret {
            Ok(n) => {
                let bytes = reply.window.get((room & 0xffff_ffff) as usize, n as usize);
                guest::write_bytes(addr, &bytes)?;
                return Ok(n);
            }
            Err(EAGAIN) => {}
            Err(e) => return Err(e),
        }
        // SAFETY: plain fcntl.
        if unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK != 0 {
            return Err(EAGAIN);
        }
        let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: a live pollfd.
        unsafe { host::blocking(t.poll(), libc::SYS_poll, [(&raw mut p) as u64, 1, u64::MAX, 0, 0, 0]) }?;
    }
}
