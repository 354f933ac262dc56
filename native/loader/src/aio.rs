//! Linux AIO: io_setup, io_submit, io_getevents, io_cancel, io_destroy (io_setup(2) and kin). A request is carried
//! out when it is submitted, as the kernel does where a file offers nothing better (aio(7)); what waits is
//! IOCB_CMD_POLL alone, which io_getevents looks at.
//!
//! A context's number is the address of a page of the guest's, as on Linux: libaio looks there for a ring,
//! finds none, and calls.

use crate::cpu::Thread;
use crate::errno::{EAGAIN, EBADF, EFAULT, EINVAL, EOPNOTSUPP, ESPIPE, Errno, SysResult, to_raw};
use crate::files::{Files, What};
use crate::{direct, guest, host, mediated, memcalls, process};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use vkernel_abi::syscall::find;

/// struct io_event: data, obj, res, res2.
type Event = [u64; 4];

struct Poll {
    fd: i32,
    events: u16,
    data: u64,
    obj: u64,
    resfd: Option<i32>,
}

struct Context {
    room: usize,
    done: VecDeque<Event>,
    waiting: Vec<Poll>,
}

static CONTEXTS: Mutex<BTreeMap<u64, Context>> = Mutex::new(BTreeMap::new());

/// /proc/sys/fs/aio-max-nr.
const MAX_EVENTS: u64 = 65536;
/// How long io_getevents sleeps before it looks again at what waits.
const SLICE_NS: u64 = 2_000_000;

const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;
const IOCB_CMD_FSYNC: u16 = 2;
const IOCB_CMD_FDSYNC: u16 = 3;
const IOCB_CMD_POLL: u16 = 5;
const IOCB_CMD_PREADV: u16 = 7;
const IOCB_CMD_PWRITEV: u16 = 8;
const IOCB_FLAG_RESFD: u32 = 1;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_io_setup => setup(t, a[0] as u32, a[1]),
        libc::SYS_io_destroy => {
            contexts().remove(&a[0]).ok_or(EINVAL)?;
            let _ = memcalls::dispatch(libc::SYS_munmap, [a[0], 4096, 0, 0, 0, 0]);
            Ok(0)
        }
        libc::SYS_io_submit => submit(t, a),
        libc::SYS_io_cancel => cancel(a),
        _ => getevents(t, a),
    }
}

fn contexts() -> std::sync::MutexGuard<'static, BTreeMap<u64, Context>> {
    CONTEXTS.lock().expect("no code panics while holding it")
}

/// A new program, or the child of a fork, has none.
pub fn forget() {
    contexts().clear();
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    contexts()
}

/// Errors, in the order checked (fs/aio.c): EFAULT, EINVAL, EAGAIN.
fn setup(t: &mut Thread, count: u32, at: u64) -> SysResult {
    if guest::read::<u64>(at)? != 0 || count == 0 || count > 0x1000_0000 / 32 {
        return Err(EINVAL);
    }
    if u64::from(count) > MAX_EVENTS {
        return Err(EAGAIN);
    }
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let page = memcalls::mmap(t, [0, 4096, libc::PROT_READ as u64, flags, u64::MAX, 0])? as u64;
    if let Err(e) = guest::write(at, &page) {
        let _ = memcalls::dispatch(libc::SYS_munmap, [page, 4096, 0, 0, 0, 0]);
        return Err(e);
    }
    contexts().insert(page, Context { room: count as usize, done: VecDeque::new(), waiting: Vec::new() });
    Ok(0)
}

/// How many were submitted; the first one's error when it is none.
fn submit(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let (ctx, count) = (a[0], a[1] as i64);
    if !contexts().contains_key(&ctx) || count < 0 {
        return Err(EINVAL);
    }
    let mut done = 0;
    while done < count {
        let r = guest::read::<u64>(a[2].wrapping_add(8 * done as u64)).and_then(|at| one(t, ctx, at));
        match r {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Carries out the request at `obj`. Errors: those that Linux finds before it begins; what comes later is the
/// event's.
fn one(t: &mut Thread, ctx: u64, obj: u64) -> Result<(), Errno> {
    let b: [u64; 7] = guest::read(obj)?;
    let last = guest::read::<u64>(obj + 56)?;
    let (data, rw_flags, opcode, fd) = (b[0], (b[1] >> 32) as u32, b[2] as u16, (b[2] >> 32) as i32);
    let (buf, len, off) = (b[3], b[4], b[5]);
    let (flags, resfd) = (last as u32, (last >> 32) as i32);
    if b[6] != 0 || (len as i64) < 0 {
        return Err(EINVAL);
    }
    {
        let all = contexts();
        let c = all.get(&ctx).ok_or(EINVAL)?;
        // The kernel has room for more than was asked for (aio_setup_ring).
        if c.done.len() + c.waiting.len() >= 2 * c.room.max(64) {
            return Err(EAGAIN);
        }
    }
    mediated::check_open(fd)?;
    if process::files().kind(fd).what == What::Path {
        return Err(EBADF);
    }
    let resfd = (flags & IOCB_FLAG_RESFD != 0).then_some(resfd);
    if let Some(e) = resfd {
        Files::check(e)?;
        mediated::check_open(e)?;
    }
    guest::write(obj + 8, &0u32)?;
    let position = if off as i64 >= 0 || matches!(opcode, IOCB_CMD_POLL | IOCB_CMD_FSYNC | IOCB_CMD_FDSYNC) {
        off
    } else {
        return Err(EINVAL);
    };
    let (at, plain) = match opcode {
        IOCB_CMD_PREAD => (libc::SYS_pread64, libc::SYS_read),
        IOCB_CMD_PWRITE => (libc::SYS_pwrite64, libc::SYS_write),
        IOCB_CMD_PREADV => (libc::SYS_preadv, libc::SYS_readv),
        IOCB_CMD_PWRITEV => (libc::SYS_pwritev, libc::SYS_writev),
        IOCB_CMD_FSYNC | IOCB_CMD_FDSYNC => {
            if buf != 0 || off != 0 || len != 0 || rw_flags != 0 {
                return Err(EINVAL);
            }
            let nr = if opcode == IOCB_CMD_FSYNC { libc::SYS_fsync } else { libc::SYS_fdatasync };
            let r = call(t, nr, [fd as u64, 0, 0, 0, 0, 0]);
            if r == Err(EINVAL) {
                return Err(EINVAL);
            }
            finish(ctx, [data, obj, to_raw(r) as u64, 0], resfd);
            return Ok(());
        }
        IOCB_CMD_POLL => {
            if buf as u16 as u64 != buf || off != 0 || len != 0 || rw_flags != 0 {
                return Err(EINVAL);
            }
            let p = Poll { fd, events: buf as u16, data, obj, resfd };
            contexts().get_mut(&ctx).ok_or(EINVAL)?.waiting.push(p);
            look(ctx);
            return Ok(());
        }
        _ => return Err(EINVAL),
    };
    // Hints, and what a synchronous write does anyway or the file does itself: RWF_HIPRI, DSYNC, SYNC, NOWAIT.
    if rw_flags & !0xf != 0 {
        return Err(EOPNOTSUPP);
    }
    let mut r = call(t, at, [fd as u64, buf, len, position, 0, 0]);
    if r == Err(ESPIPE) {
        r = call(t, plain, [fd as u64, buf, len, 0, 0, 0]);
    }
    match r {
        // The descriptor's mode, and files that cannot be read so, are seen before.
        Err(e @ (EBADF | EINVAL)) => return Err(e),
        Err(crate::errno::EISDIR) => return Err(EINVAL),
        _ => {}
    }
    if rw_flags & 6 != 0 && r.is_ok() {
        let _ = call(t, libc::SYS_fdatasync, [fd as u64, 0, 0, 0, 0, 0]);
    }
    finish(ctx, [data, obj, to_raw(r) as u64, 0], resfd);
    Ok(())
}

/// A call of class direct, on an image file too.
fn call(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    direct::dispatch(t, find(nr as u64).ok_or(EINVAL)?, a)
}

fn finish(ctx: u64, e: Event, resfd: Option<i32>) {
    if let Some(c) = contexts().get_mut(&ctx) {
        c.done.push_back(e);
    }
    if let Some(fd) = resfd {
        let one = 1u64;
        // SAFETY: writes 8 bytes to a guest's descriptor, an eventfd.
        let _ = unsafe { host::call(libc::SYS_write, [fd as u64, (&raw const one) as u64, 8, 0, 0, 0]) };
    }
}

/// Finishes what waited and is ready.
fn look(ctx: u64) {
    let mut ready = Vec::new();
    if let Some(c) = contexts().get_mut(&ctx) {
        c.waiting.retain(|w| {
            let mut p = libc::pollfd { fd: w.fd, events: w.events as i16, revents: 0 };
            // SAFETY: a live pollfd; does not wait.
            if unsafe { libc::poll(&mut p, 1, 0) } <= 0 {
                return true;
            }
            ready.push(([w.data, w.obj, u64::from(p.revents as u16), 0], w.resfd));
            false
        });
    }
    for (e, resfd) in ready {
        finish(ctx, e, resfd);
    }
}

/// Errors: EINVAL, EFAULT, EINTR.
fn getevents(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let (ctx, least, most) = (a[0], a[1] as i64, a[2] as i64);
    let mut left = u64::MAX;
    if a[4] != 0 {
        let spec: libc::timespec = guest::read(a[4])?;
        left = spec.tv_sec.saturating_mul(1_000_000_000).saturating_add(spec.tv_nsec).max(0) as u64;
    }
    if !contexts().contains_key(&ctx) || least < 0 || most < least {
        return Err(EINVAL);
    }
    let mut given = 0;
    loop {
        look(ctx);
        while given < most {
            let e = match contexts().get_mut(&ctx) {
                Some(c) => c.done.pop_front(),
                None => return Err(EINVAL),
            };
            let Some(e) = e else { break };
            if guest::write(a[3] + 32 * given as u64, &e).is_err() {
                return if given > 0 { Ok(given) } else { Err(EFAULT) };
            }
            given += 1;
        }
        if given >= least || left == 0 {
            return Ok(given);
        }
        let slice = left.min(SLICE_NS);
        left = if left == u64::MAX { left } else { left - slice };
        let spec = libc::timespec { tv_sec: 0, tv_nsec: slice as i64 };
        let at = (&raw const spec) as u64;
        // SAFETY: a live timespec.
        let slept = unsafe { host::blocking(t.poll(), libc::SYS_nanosleep, [at, 0, 0, 0, 0, 0]) };
        if let Err(e) = slept {
            return if given > 0 { Ok(given) } else { Err(e) };
        }
    }
}

/// Only what waits can be cancelled; its event comes as any other's. Errors: EFAULT, EINVAL, EINPROGRESS: it
/// is cancelled.
fn cancel(a: [u64; 6]) -> SysResult {
    if guest::read::<u32>(a[1] + 8)? != 0 {
        return Err(EINVAL);
    }
    let found = {
        let mut all = contexts();
        let c = all.get_mut(&a[0]).ok_or(EINVAL)?;
        let n = c.waiting.iter().position(|w| w.obj == a[1]).ok_or(EINVAL)?;
        c.waiting.swap_remove(n)
    };
    finish(a[0], [found.data, found.obj, 0, 0], found.resfd);
    Err(Errno(libc::EINPROGRESS))
}
