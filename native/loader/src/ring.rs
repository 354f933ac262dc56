//! Requests to the daemon: the container's shared-memory ring, and the process's own socket for
//! descriptors (docs/abi.md).

use crate::cpu::Thread;
use crate::errno::{EIO, EMFILE, Errno, SysResult, from_raw};
use crate::packet;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use vkernel_abi::generated::ring as abi;

static RING: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static CONN: AtomicI32 = AtomicI32::new(-1);
static DOORBELL: AtomicI32 = AtomicI32::new(-1);
static TASK: AtomicU32 = AtomicU32::new(0);
/// Descriptors that arrived for other threads' slots.
static ARRIVED: Mutex<Option<HashMap<u32, Vec<i32>>>> = Mutex::new(None);

pub const NULL: u64 = u64::MAX;

/// Maps the ring and takes over its descriptors (all at or above HIDDEN_FD_BASE).
pub fn attach(ring_fd: i32, conn: i32, doorbell: i32, task: u32) -> Result<(), String> {
    // SAFETY: a fresh mapping of the sealed ring memfd.
    let p = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            abi::RING_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            ring_fd,
            0,
        )
    };
    if p == libc::MAP_FAILED {
        return Err(format!("ring: {}", std::io::Error::last_os_error()));
    }
    RING.store(p.cast(), Ordering::Relaxed);
    DOORBELL.store(doorbell, Ordering::Relaxed);
    become_task(conn, task);
    if word(abi::HDR_MAGIC).load(Ordering::Relaxed) != abi::RING_MAGIC
        || word(abi::HDR_VERSION).load(Ordering::Relaxed) != abi::RING_VERSION
    {
        return Err("ring: the daemon speaks another version: restart it".into());
    }
    Ok(())
}

/// Which connection and task number this process has (new after fork).
pub fn become_task(conn: i32, task: u32) {
    CONN.store(conn, Ordering::Relaxed);
    TASK.store(task, Ordering::Relaxed);
    *ARRIVED.lock().expect("not poisoned") = None;
}

pub fn conn() -> i32 {
    CONN.load(Ordering::Relaxed)
}

#[inline(always)]
fn word(off: usize) -> &'static AtomicU32 {
    // SAFETY: offsets are within the ring, which is never unmapped, and aligned to 4.
    unsafe { &*RING.load(Ordering::Relaxed).add(off).cast::<AtomicU32>() }
}

fn slot_off(slot: u32) -> usize {
    abi::SLOTS_OFF + slot as usize * abi::SLOT_SIZE
}

/// Sets the first clear bit of `count` from byte `at` of the header on; None: all are set.
fn claim(at: usize, count: usize) -> Option<u32> {
    for n in 0..count / 32 {
        let w = word(at + 4 * n);
        let mut bits = w.load(Ordering::Relaxed);
        while bits != u32::MAX {
            let bit = (!bits).trailing_zeros();
            match w.compare_exchange(bits, bits | 1 << bit, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(n as u32 * 32 + bit),
                Err(seen) => bits = seen,
            }
        }
    }
    None
}

fn unclaim(at: usize, bit: u32) {
    word(at + 4 * (bit as usize / 32)).fetch_and(!(1 << (bit % 32)), Ordering::AcqRel);
}

/// The thread's slot, claimed when first needed.
fn slot(t: &mut Thread) -> Result<u32, Errno> {
    if t.slot.is_none() {
        t.slot = claim(abi::HDR_CLAIMED, abi::RING_SLOTS);
    }
    t.slot.ok_or(crate::errno::EAGAIN)
}

/// Gives the thread's slot and entry back.
pub fn release(t: &mut Thread) {
    if let Some(slot) = t.slot.take() {
        unclaim(abi::HDR_CLAIMED, slot);
    }
    if let ThreadEntry::At(n) = std::mem::replace(&mut t.entry, ThreadEntry::Unclaimed) {
        unclaim(abi::HDR_THREADS, n);
    }
}

/// Where a thread says what it is doing.
#[derive(Clone, Copy, PartialEq)]
pub enum ThreadEntry {
    Unclaimed,
    At(u32),
    /// There was none left: nobody sees what it does.
    None,
}

#[inline(always)]
fn wide(off: usize) -> &'static AtomicU64 {
    // SAFETY: as `word`, aligned to 8.
    unsafe { &*RING.load(Ordering::Relaxed).add(off).cast::<AtomicU64>() }
}

/// Says that the thread is in call `nr`; returns what is watched (abi::WATCH_*).
pub fn doing(t: &mut Thread, nr: u32, args: &[u64; 6]) -> u32 {
    if RING.load(Ordering::Relaxed).is_null() {
        return 0;
    }
    if t.entry == ThreadEntry::Unclaimed {
        t.entry = claim(abi::HDR_THREADS, abi::RING_THREADS).map_or(ThreadEntry::None, ThreadEntry::At);
        if let ThreadEntry::At(n) = t.entry {
            let at = abi::THREADS_OFF + n as usize * abi::THREAD_SIZE;
            word(at).store(TASK.load(Ordering::Relaxed), Ordering::Relaxed);
            word(at + 4).store(t.tid as u32, Ordering::Relaxed);
        }
    }
    if let ThreadEntry::At(n) = t.entry {
        if i64::from(nr) == libc::SYS_futex {
            // The word, and where a pthread_mutex_t has its owner's number.
            let at = abi::THREADS_OFF + n as usize * abi::THREAD_SIZE;
            let word = crate::guest::read::<u32>(args[0]).unwrap_or(0);
            let owner = crate::guest::read::<u32>(args[0] + 8).unwrap_or(0);
            wide(at + abi::THREAD_WORDS).store(u64::from(word) | u64::from(owner) << 32, Ordering::Relaxed);
        }
        note(n, nr, args);
    }
    word(abi::HDR_WATCH).load(Ordering::Relaxed)
}

/// As `doing`; false: the thread has no entry yet, or somebody watches, so `doing` has to be asked.
#[inline(always)]
pub fn doing_unwatched(t: &Thread, nr: u32, args: &[u64; 6]) -> bool {
    if RING.load(Ordering::Relaxed).is_null() {
        return true;
    }
    match t.entry {
        ThreadEntry::Unclaimed => return false,
        ThreadEntry::At(n) => note(n, nr, args),
        ThreadEntry::None => {}
    }
    word(abi::HDR_WATCH).load(Ordering::Relaxed) == 0
}

/// Writes a thread's entry.
#[inline(always)]
fn note(n: u32, nr: u32, args: &[u64; 6]) {
    let at = abi::THREADS_OFF + n as usize * abi::THREAD_SIZE;
    for (k, v) in args[..4].iter().enumerate() {
        wide(at + abi::THREAD_ARGS + 8 * k).store(*v, Ordering::Relaxed);
    }
    word(at + abi::THREAD_CALL).store(nr.wrapping_add(1), Ordering::Release);
}

/// The call has ended.
#[inline(always)]
pub fn idle(t: &Thread) {
    if let ThreadEntry::At(n) = t.entry {
        word(abi::THREADS_OFF + n as usize * abi::THREAD_SIZE + abi::THREAD_CALL).store(0, Ordering::Relaxed);
    }
}

/// Whether records of this call are wanted.
pub fn recorded(nr: u32) -> bool {
    let nr = nr as usize;
    nr < abi::STATS_CALLS && word(abi::HDR_WATCH_CALLS + 4 * (nr / 32)).load(Ordering::Relaxed) & 1 << (nr % 32) != 0
}

/// Bytes of a string or buffer that a record takes along.
pub fn record_bytes() -> usize {
    word(abi::HDR_WATCH_BYTES).load(Ordering::Relaxed) as usize
}

/// Counts a call that took `ns`.
pub fn count(nr: u32, ns: u64, failed: bool) {
    if nr as usize >= abi::STATS_CALLS {
        return;
    }
    let at = abi::STATS_OFF + nr as usize * abi::STATS_SIZE;
    wide(at).fetch_add(1, Ordering::Relaxed);
    wide(at + 8).fetch_add(u64::from(failed), Ordering::Relaxed);
    wide(at + 16).fetch_add(ns, Ordering::Relaxed);
    wide(at + 24).fetch_max(ns, Ordering::Relaxed);
    let bucket = (64 - (ns >> 6).leading_zeros() as usize).min(abi::STATS_BUCKETS - 1);
    word(at + 32 + 4 * bucket).fetch_add(1, Ordering::Relaxed);
}

/// The window of a slot.
pub struct Window {
    base: *mut u8,
    used: usize,
}

impl Window {
    #[cfg(feature = "bare")]
    pub fn empty() -> Self {
        Self { base: std::ptr::null_mut(), used: abi::RING_WINDOW }
    }

    /// Copies `bytes` in and returns the argument that names them; `None` when they do not fit.
    pub fn put(&mut self, bytes: &[u8]) -> Option<u64> {
        let at = self.reserve(bytes.len())?;
        // SAFETY: `reserve` checked the bounds.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) };
        Some(at as u64 | (bytes.len() as u64) << 32)
    }

    /// Room for `len` bytes of reply.
    pub fn room(&mut self, len: usize) -> Option<u64> {
        let at = self.reserve(len)?;
        Some(at as u64 | (len as u64) << 32)
    }

    fn reserve(&mut self, len: usize) -> Option<usize> {
        let at = self.used;
        let end = at.checked_add(len)?.next_multiple_of(8);
        if end > abi::RING_WINDOW {
            return None;
        }
        self.used = end;
        Some(at)
    }

    /// Bytes left for replies.
    pub fn left(&self) -> usize {
        abi::RING_WINDOW - self.used
    }

    pub fn get(&self, off: usize, len: usize) -> Vec<u8> {
        let off = off.min(abi::RING_WINDOW);
        let len = len.min(abi::RING_WINDOW - off);
        let mut v = vec![0; len];
        // SAFETY: clamped to the window.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(off), v.as_mut_ptr(), len) };
        v
    }
}

pub struct Reply {
    pub ret: SysResult,
    pub window: Window,
    pub fds: Vec<i32>,
}

/// The window of the thread's slot, empty.
pub fn window(t: &mut Thread) -> Result<Window, Errno> {
    let slot = slot(t)?;
    let at = abi::WINDOWS_OFF + slot as usize * abi::RING_WINDOW;
    // SAFETY: within the ring.
    Ok(Window { base: unsafe { RING.load(Ordering::Relaxed).add(at) }, used: 0 })
}

/// Time-stamp counter ticks, some 2 and 50 µs, between which a thread looks for an answer before it sleeps.
const LEAST_SPIN: u64 = 4_000;
const MOST_SPIN: u64 = 120_000;

/// Waits in vain after which the longest is tried again: where both sides sleep, neither finds out that it need not.
const RETRY: u32 = 16;

/// How long to look for an answer: it pays where the daemon has a processor to itself, so a wait that was in vain
/// halves it and another doubles it; apart for a daemon that has to wake up first.
pub struct Patience {
    ticks: [u64; 2],
    in_vain: u32,
}

impl Patience {
    pub const fn new() -> Self {
        Self { ticks: [MOST_SPIN; 2], in_vain: 0 }
    }

    fn learn(&mut self, asleep: bool, in_vain: bool) {
        self.in_vain = self.in_vain.wrapping_add(u32::from(in_vain));
        let ticks = &mut self.ticks[usize::from(asleep)];
        let next = match in_vain {
            false => *ticks * 2,
            true if self.in_vain.is_multiple_of(RETRY) => MOST_SPIN,
            true => *ticks / 2,
        };
        *ticks = next.clamp(LEAST_SPIN, MOST_SPIN);
    }
}

fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Sends a request whose data is in `window` and waits for the answer. Signals do not end the wait.
/// A daemon that is gone ends the process: it fails closed.
pub fn call(t: &mut Thread, nr: u32, args: [u64; 6], window: Window) -> Result<Reply, Errno> {
    let slot = slot(t)?;
    let at = slot_off(slot);
    word(at + abi::SLOT_TASK).store(TASK.load(Ordering::Relaxed), Ordering::Relaxed);
    for (n, v) in args.into_iter().enumerate() {
        word(at + abi::SLOT_ARGS + 8 * n).store(v as u32, Ordering::Relaxed);
        word(at + abi::SLOT_ARGS + 8 * n + 4).store((v >> 32) as u32, Ordering::Relaxed);
    }
    let w = word(at + abi::SLOT_WORD);
    w.store(abi::WORD_REQUEST | nr, Ordering::Release);
    word(abi::HDR_POSTED + 4 * (slot as usize / 32)).fetch_or(1 << (slot % 32), Ordering::SeqCst);
    let asleep = word(abi::HDR_ASLEEP).swap(0, Ordering::SeqCst) == 1;
    if asleep {
        let one = 1u64;
        // SAFETY: writes 8 bytes to the eventfd.
        unsafe { libc::write(DOORBELL.load(Ordering::Relaxed), (&raw const one).cast(), 8) };
    }
    let patience = t.patience.ticks[usize::from(asleep)];
    let (from, mut slept) = (ticks(), false);
    let done = loop {
        let v = w.load(Ordering::Acquire);
        if v & abi::WORD_DONE != 0 {
            break v;
        }
        if !slept && ticks().wrapping_sub(from) < patience {
            std::hint::spin_loop();
        } else if v & abi::WORD_WAITING != 0
            || w.compare_exchange(v, v | abi::WORD_WAITING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            slept = true;
            let timeout = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            // SAFETY: waits on the slot's word (shared futex).
            let r = unsafe {
                libc::syscall(libc::SYS_futex, w.as_ptr(), libc::FUTEX_WAIT, v | abi::WORD_WAITING, &timeout, 0, 0)
            };
            if r < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT) {
                die_without_daemon();
            }
        }
    };
    t.patience.learn(asleep, slept);
    let lo = u64::from(word(at + abi::SLOT_RET).load(Ordering::Relaxed));
    let hi = u64::from(word(at + abi::SLOT_RET + 4).load(Ordering::Relaxed));
    w.store(0, Ordering::Release);
    let fds = if done & abi::WORD_FDS != 0 { receive(slot)? } else { Vec::new() };
    Ok(Reply { ret: from_raw((lo | hi << 32) as i64), window, fds })
}

/// Ends the process when the daemon's end of the connection is closed.
fn die_without_daemon() {
    let mut p = libc::pollfd { fd: conn(), events: 0, revents: 0 };
    // SAFETY: polls one descriptor.
    let n = unsafe { libc::poll(&mut p, 1, 0) };
    if n > 0 && p.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        crate::signal::die(libc::SIGKILL);
    }
}

/// Descriptors that the daemon sent for `slot`. They get the lowest free numbers.
fn receive(slot: u32) -> Result<Vec<i32>, Errno> {
    let mut arrived = ARRIVED.lock().expect("not poisoned");
    let map = arrived.get_or_insert_with(HashMap::new);
    loop {
        if let Some(fds) = map.remove(&slot) {
            // The kernel drops what would go beyond RLIMIT_NOFILE.
            return if fds.is_empty() { Err(EMFILE) } else { Ok(fds) };
        }
        let mut to = [0u8; 4];
        let (n, fds) = packet::receive(conn(), &mut to).ok_or(EIO)?;
        if n < 4 {
            crate::signal::die(libc::SIGKILL);
        }
        map.insert(u32::from_le_bytes(to), fds);
    }
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    ARRIVED.lock().expect("not poisoned")
}
