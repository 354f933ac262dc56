//! What others may see of a process's calls: which one each of its threads is in (always: `recompiler ps
//! --wait`), and, while somebody watches the container, counts and times (`recompiler stats`) and a
//! record of each call (`recompiler trace`). Every call passes here, whoever answers it.
//!
//! A record goes to the daemon as a request of the thread's own, so records are in the order of the
//! calls' ends; the guest's descriptors and memory are not touched.

use crate::cpu::{Leave, Thread};
use crate::errno::{SysResult, to_raw};
use crate::{guest, process, ring};
use serde::{Serialize, Serializer};
use vkernel_abi::generated::ring as abi;
use vkernel_abi::syscall::{Arg, Dir, Len, Syscall};

/// Bytes as msgpack's bin.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

/// What was behind a pointer argument, before or after the call.
#[derive(Serialize)]
struct Capture {
    arg: u8,
    after: bool,
    kind: Kind,
    /// Bytes or items there were; `parts` may have fewer.
    len: u64,
    /// (whole length, its beginning) of each.
    parts: Vec<(u64, Bytes)>,
}

#[derive(Serialize, Clone, Copy)]
enum Kind {
    Text,
    Bytes,
    Vector,
    Strings,
}

/// One call; docs/abi.md has the layout.
#[derive(Serialize)]
struct Record {
    #[serde(skip)]
    pid: i32,
    tid: i32,
    nr: u32,
    args: [u64; 6],
    /// None: the call does not return.
    ret: Option<i64>,
    took_ns: u64,
    captures: Vec<Capture>,
}

/// A call under way.
pub struct Call {
    watch: u32,
    start: u64,
    record: Option<Box<Record>>,
}

/// Strings and buffers of one record together.
const MAX_RECORD: usize = 48 << 10;
const MAX_ITEMS: u64 = 64;

fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A call begins.
pub fn enter(t: &mut Thread, nr: u32, args: &[u64; 6], row: Option<&Syscall>) -> Option<Call> {
    let watch = ring::doing(t, nr, args);
    if watch == 0 {
        return None;
    }
    let mut record = None;
    if watch & abi::WATCH_RECORDS != 0 && ring::recorded(nr) {
        let mut r = Box::new(Record {
            pid: process::pid(),
            tid: t.tid,
            nr,
            args: *args,
            ret: None,
            took_ns: 0,
            captures: Vec::new(),
        });
        capture(&mut r, row, None);
        // What does not come back is told now.
        if matches!(i64::from(nr), libc::SYS_exit | libc::SYS_exit_group | libc::SYS_rt_sigreturn) {
            send(t, &r);
        } else {
            record = Some(r);
        }
    }
    Some(Call { watch, start: now(), record })
}

/// It has ended, with a value, or by leaving what called it: execve that succeeded.
pub fn done(t: &mut Thread, call: Option<Call>, nr: u32, row: Option<&Syscall>, how: Result<SysResult, &Leave>) {
    ring::idle(t);
    let Some(Call { watch, start, record }) = call else { return };
    let value = match how {
        Ok(v) => v,
        Err(Leave::Exec) => Ok(0),
        Err(_) => return,
    };
    let took = now().saturating_sub(start);
    if watch & abi::WATCH_STATS != 0 {
        ring::count(nr, took, value.is_err());
    }
    let Some(mut r) = record else { return };
    // The child of a fork returns too.
    if r.pid != process::pid() {
        return;
    }
    (r.ret, r.took_ns) = (Some(to_raw(value)), took);
    if how.is_ok() {
        capture(&mut r, row, Some(value));
    }
    send(t, &r);
}

/// The first program of a process came without a call of the guest's: its record is made here.
pub fn first(t: &mut Thread, path: &[u8], argv: &[Vec<u8>], envp: usize, value: SysResult) {
    let nr = libc::SYS_execve as u32;
    if ring::doing(t, nr, &[0; 6]) & abi::WATCH_RECORDS != 0 && ring::recorded(nr) {
        let ret = Some(to_raw(value));
        let mut r = Record { pid: process::pid(), tid: t.tid, nr, args: [0; 6], ret, took_ns: 0, captures: Vec::new() };
        let max = room(&r);
        let p = cut(path.to_vec(), 4096);
        push(&mut r, 0, false, Kind::Text, p.0, vec![p]);
        let items = argv.iter().take(MAX_ITEMS as usize).map(|a| cut(a.clone(), max)).collect();
        push(&mut r, 1, false, Kind::Strings, argv.len() as u64, items);
        push(&mut r, 2, false, Kind::Strings, envp as u64, Vec::new());
        send(t, &r);
    }
    ring::idle(t);
}

fn send(t: &mut Thread, r: &Record) {
    let Ok(bytes) = rmp_serde::to_vec(r) else { return };
    if let Ok(mut w) = ring::window(t)
        && let Some(p) = w.put(&bytes)
    {
        let _ = ring::call(t, abi::CALL_RECORD, [p, u64::from(r.nr), 0, 0, 0, 0], w);
    }
}

/// Pointers that the table calls plain ones, because their calls read them themselves.
fn further(nr: u32, a: &[u64; 6]) -> Vec<(u8, Option<Dir>, Kind, u64)> {
    use Dir::{In, Out};
    let length = |at: u64| guest::read::<u32>(at).map_or(0, u64::from);
    match i64::from(nr) {
        libc::SYS_execve => vec![(1, Some(In), Kind::Strings, 0), (2, Some(In), Kind::Strings, 0)],
        libc::SYS_execveat => vec![(2, Some(In), Kind::Strings, 0), (3, Some(In), Kind::Strings, 0)],
        libc::SYS_rt_sigaction => vec![(1, Some(In), Kind::Bytes, 32), (2, Some(Out), Kind::Bytes, 32)],
        libc::SYS_rt_sigprocmask => vec![(1, Some(In), Kind::Bytes, 8), (2, Some(Out), Kind::Bytes, 8)],
        libc::SYS_rt_sigsuspend | libc::SYS_rt_sigtimedwait => vec![(0, Some(In), Kind::Bytes, 8)],
        libc::SYS_accept | libc::SYS_accept4 | libc::SYS_getsockname | libc::SYS_getpeername => {
            vec![(1, Some(Out), Kind::Bytes, length(a[2]))]
        }
        libc::SYS_sendmsg => vec![(1, Some(In), Kind::Vector, 0)],
        libc::SYS_recvmsg => vec![(1, Some(Out), Kind::Vector, 0)],
        _ => Vec::new(),
    }
}

/// Takes along what the arguments point to: `value` is None before the call, the result after it.
fn capture(r: &mut Record, row: Option<&Syscall>, value: Option<SysResult>) {
    let after = value.is_some();
    let ret = match value {
        Some(Err(_)) => return,
        Some(Ok(v)) => Some(v as u64),
        None => None,
    };
    let args = r.args;
    let nr = i64::from(r.nr);
    let reads = matches!(nr, libc::SYS_readv | libc::SYS_preadv | libc::SYS_preadv2 | libc::SYS_recvmsg);
    let wanted = |dir: Dir| if after { dir != Dir::In } else { dir != Dir::Out };
    for (n, arg) in row.map_or(&[][..], |row| row.args).iter().enumerate() {
        let v = args[n];
        match arg {
            Arg::Path | Arg::Str if !after && v != 0 => text(r, n, v),
            Arg::Ptr { dir, len } if wanted(*dir) && v != 0 => {
                let len = match len {
                    Len::Fixed(n) => u64::from(*n),
                    Len::Arg { index, scale } => {
                        let count = args[usize::from(*index)];
                        // What a call fills, it counts in its result; poll's set is filled in place.
                        let count = if *dir == Dir::Out { ret.map_or(count, |r| r.min(count)) } else { count };
                        count.saturating_mul(u64::from(*scale))
                    }
                };
                bytes(r, n, v, len, after);
            }
            Arg::Iov { count } if after == reads => vector(r, n, v, args[usize::from(*count)], ret),
            _ => {}
        }
    }
    for (n, dir, kind, len) in further(r.nr, &args) {
        let (n, v) = (usize::from(n), args[usize::from(n)]);
        if v == 0 || dir.is_some_and(|d| !wanted(d)) {
            continue;
        }
        match kind {
            Kind::Strings => strings(r, n, v),
            Kind::Vector => {
                if let Ok(m) = guest::read::<[u64; 4]>(v) {
                    vector(r, n, m[2], m[3], ret);
                }
            }
            _ => bytes(r, n, v, len, after),
        }
    }
}

fn room(r: &Record) -> usize {
    let used: usize = r.captures.iter().flat_map(|c| &c.parts).map(|p| p.1.0.len() + 16).sum();
    MAX_RECORD.saturating_sub(used).min(ring::record_bytes())
}

fn push(r: &mut Record, n: usize, after: bool, kind: Kind, len: u64, parts: Vec<(u64, Bytes)>) {
    r.captures.push(Capture { arg: n as u8, after, kind, len, parts });
}

/// At most `max` bytes at `addr`; None: they cannot be read.
fn part(addr: u64, len: u64, max: usize) -> Option<(u64, Bytes)> {
    let mut b = vec![0; (len as usize).min(max)];
    guest::read_bytes(addr, &mut b).ok()?;
    Some((len, Bytes(b)))
}

/// Structures are told whole, whatever the limit of strings is.
const STRUCT: usize = 256;

fn bytes(r: &mut Record, n: usize, addr: u64, len: u64, after: bool) {
    if let Some(p) = part(addr, len, room(r).max(STRUCT)) {
        push(r, n, after, Kind::Bytes, len, vec![p]);
    }
}

fn cut(mut s: Vec<u8>, max: usize) -> (u64, Bytes) {
    let len = s.len() as u64;
    s.truncate(max);
    (len, Bytes(s))
}

/// A path or name, whole.
fn text(r: &mut Record, n: usize, addr: u64) {
    if let Ok(s) = guest::read_path(addr) {
        let p = cut(s, 4096);
        push(r, n, false, Kind::Text, p.0, vec![p]);
    }
}

/// argv or the environment.
fn strings(r: &mut Record, n: usize, addr: u64) {
    let max = room(r);
    let mut parts = Vec::new();
    let mut count = 0;
    while let Ok(p) = guest::read::<u64>(addr + 8 * count) {
        if p == 0 || count >= 65536 {
            break;
        }
        if count < MAX_ITEMS
            && let Ok(s) = guest::read_path(p)
        {
            parts.push(cut(s, max));
        }
        count += 1;
    }
    push(r, n, false, Kind::Strings, count, parts);
}

/// Buffers of an iovec array, as far as `ret` bytes were read into them.
fn vector(r: &mut Record, n: usize, addr: u64, count: u64, ret: Option<u64>) {
    let mut left = ret.unwrap_or(u64::MAX);
    let max = room(r);
    let mut parts = Vec::new();
    for k in 0..count.min(MAX_ITEMS) {
        let Ok([base, len]) = guest::read::<u64>(addr + 16 * k).and_then(|b| Ok([b, guest::read(addr + 16 * k + 8)?]))
        else {
            break;
        };
        let len = len.min(left);
        left -= len;
        if len == 0 && ret.is_some() {
            break;
        }
        parts.extend(part(base, len, max / count.clamp(1, MAX_ITEMS) as usize + 1));
    }
    push(r, n, ret.is_some(), Kind::Vector, count, parts);
}
