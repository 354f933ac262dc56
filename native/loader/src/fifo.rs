//! Opening a FIFO waits for the other end (fifo(7)). The daemon opens without waiting; this waits, so
//! that signals end the wait and nothing is kept at the daemon.

use crate::cpu::Thread;
use crate::errno::{EMFILE, Errno};
use crate::ring::Reply;
use crate::{host, process};
use vkernel_abi::generated::ring as abi;

/// Whether an open that was granted is a FIFO's that may have to wait.
pub fn blocks(reply: &Reply, flags: i32) -> bool {
    let g = reply.window.get(0, abi::GRANT_SIZE);
    let mode = u32::from_le_bytes(g[24..28].try_into().expect("4 bytes"));
    mode & libc::S_IFMT == libc::S_IFIFO && flags & (libc::O_NONBLOCK | libc::O_PATH) == 0
}

/// Waits a millisecond. Errors: EINTR when a signal is pending.
pub fn moment(t: &Thread) -> Result<(), Errno> {
    // SAFETY: no descriptors.
    host::ended(unsafe { host::blocking(t.poll(), libc::SYS_poll, [0, 0, 1, 0, 0, 0]) }).map(|_| ())
}

/// Completes a blocking open: a reader waits until there is, or has been, a writer.
pub fn opened(t: &Thread, fd: i32, flags: i32) -> Result<(), Errno> {
    if flags & libc::O_ACCMODE == libc::O_RDONLY
        && let Err(e) = wait_for_writer(t, fd)
    {
        process::files().closed(fd);
        // SAFETY: the descriptor that was granted, which the guest has not seen.
        unsafe { libc::close(fd) };
        return Err(e);
    }
    // SAFETY: a descriptor we were just granted.
    unsafe {
        let now = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, now & !libc::O_NONBLOCK);
    }
    Ok(())
}

fn wait_for_writer(t: &Thread, fd: i32) -> Result<(), Errno> {
    let mut probe = [0i32; 2];
    // SAFETY: the kernel writes two ints.
    if unsafe { libc::pipe2(probe.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(EMFILE);
    }
    let r = loop {
        let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: polls one descriptor; tee copies without taking: EAGAIN says that there is a writer
        // and no data, 0 that there is no writer.
        let there = unsafe { libc::poll(&mut p, 1, 0) > 0 || libc::tee(fd, probe[1], 1, libc::SPLICE_F_NONBLOCK) != 0 };
        if there {
            break Ok(());
        }
        if let Err(e) = moment(t) {
            break Err(e);
        }
    };
    for fd in probe {
        // SAFETY: our own descriptors.
        unsafe { libc::close(fd) };
    }
    r
}
