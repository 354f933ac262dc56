//! One line a call, in strace's shape, from the record that the loader made (docs/abi.md) and the table of
//! system calls. A record is the guest's word: every string is escaped, every length checked.

use super::symbols::{self, Symbols};
use crate::message::Bytes;
use serde::Deserialize;
use std::fmt::Write;
use vkernel_abi::syscall::{Arg, Syscall, find};

#[derive(Deserialize, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    Bytes,
    Vector,
    Strings,
}

#[derive(Deserialize)]
pub struct Capture {
    arg: u8,
    after: bool,
    kind: Kind,
    len: u64,
    parts: Vec<(u64, Bytes)>,
}

#[derive(Deserialize)]
pub struct Record {
    pub tid: i32,
    pub nr: u32,
    pub args: [u64; 6],
    pub ret: Option<i64>,
    pub took_ns: u64,
    pub captures: Vec<Capture>,
}

/// A C string literal of at most `max` bytes.
pub fn quoted(b: &[u8], max: usize, whole: u64) -> String {
    let mut out = String::from("\"");
    for c in b.iter().take(max) {
        match c {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x20..=0x7e => out.push(*c as char),
            _ => {
                let _ = write!(out, "\\x{c:02x}");
            }
        }
    }
    out.push('"');
    if whole > b.len().min(max) as u64 {
        out.push_str("...");
    }
    out
}

fn u16_at(b: &[u8], n: usize) -> u16 {
    b.get(n..n + 2).map_or(0, |v| u16::from_le_bytes([v[0], v[1]]))
}

fn u32_at(b: &[u8], n: usize) -> u32 {
    b.get(n..n + 4).map_or(0, |v| u32::from_le_bytes(v.try_into().expect("4 bytes")))
}

fn u64_at(b: &[u8], n: usize) -> u64 {
    b.get(n..n + 8).map_or(0, |v| u64::from_le_bytes(v.try_into().expect("8 bytes")))
}

fn sockaddr(b: &[u8], len: u64) -> String {
    let port = || u16::from_be_bytes([b.get(2).copied().unwrap_or(0), b.get(3).copied().unwrap_or(0)]);
    match i32::from(u16_at(b, 0)) {
        libc::AF_UNIX if len > 2 => {
            let path = &b[2.min(b.len())..(len as usize).min(b.len())];
            let (at, path) = match path.first() {
                Some(0) => ("@", &path[1..]),
                _ => ("", path.split(|c| *c == 0).next().unwrap_or(&[])),
            };
            format!("{{sa_family=AF_UNIX, sun_path={at}{}}}", quoted(path, 108, path.len() as u64))
        }
        libc::AF_UNIX => "{sa_family=AF_UNIX}".into(),
        libc::AF_INET if b.len() >= 8 => format!(
            "{{sa_family=AF_INET, sin_port=htons({}), sin_addr=inet_addr(\"{}.{}.{}.{}\")}}",
            port(),
            b[4],
            b[5],
            b[6],
            b[7]
        ),
        libc::AF_INET6 if b.len() >= 24 => {
            let a: [u8; 16] = b[8..24].try_into().expect("16 bytes");
            format!(
                "{{sa_family=AF_INET6, sin6_port=htons({}), sin6_addr=\"{}\"}}",
                port(),
                std::net::Ipv6Addr::from(a)
            )
        }
        f => format!("{{sa_family={}, …}}", symbols::one(f as u64, symbols::FAMILIES)),
    }
}

fn file_type(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFREG => "S_IFREG",
        libc::S_IFDIR => "S_IFDIR",
        libc::S_IFLNK => "S_IFLNK",
        libc::S_IFCHR => "S_IFCHR",
        libc::S_IFBLK => "S_IFBLK",
        libc::S_IFIFO => "S_IFIFO",
        libc::S_IFSOCK => "S_IFSOCK",
        _ => "0",
    }
}

fn signal_set(b: &[u8]) -> String {
    let set = u64_at(b, 0);
    let of = |set: u64| {
        (1..=64).filter(|n| set >> (n - 1) & 1 == 1).map(|n| symbols::signal(n).replace("SIG", "")).collect::<Vec<_>>()
    };
    // Nearly full sets as what they lack.
    if set.count_ones() > 32 { format!("~[{}]", of(!set).join(" ")) } else { format!("[{}]", of(set).join(" ")) }
}

fn poll_set(b: &[u8], after: bool) -> String {
    let items: Vec<String> = b
        .chunks_exact(8)
        .filter(|p| !after || u16_at(p, 6) != 0)
        .map(|p| {
            let (name, at) = if after { ("revents", 6) } else { ("events", 4) };
            format!(
                "{{fd={}, {name}={}}}",
                u32_at(p, 0) as i32,
                symbols::bits(u16_at(p, at).into(), symbols::POLL, "0")
            )
        })
        .collect();
    format!("[{}]", items.join(", "))
}

/// Structures that have a shape of their own here; None: bytes as a string, or the address.
fn structure(call: &str, n: usize, b: &[u8], len: u64, after: bool) -> Option<String> {
    Some(match (call, n) {
        ("stat" | "lstat" | "fstat", 1) | ("newfstatat", 2) if b.len() >= 144 => {
            let mode = u32_at(b, 24);
            let size = u64_at(b, 48);
            format!("{{st_mode={}|0{:o}, st_size={size}, ...}}", file_type(mode), mode & 0o7777)
        }
        ("statx", 4) if b.len() >= 48 => {
            let mode = u32::from(u16_at(b, 28));
            format!("{{stx_mode={}|0{:o}, stx_size={}, ...}}", file_type(mode), mode & 0o7777, u64_at(b, 40))
        }
        ("connect" | "bind" | "accept" | "accept4" | "getsockname" | "getpeername", 1) | ("sendto" | "recvfrom", 4) => {
            sockaddr(b, len)
        }
        ("rt_sigprocmask", 1 | 2) | ("rt_sigsuspend" | "rt_sigtimedwait" | "rt_sigpending", 0) => signal_set(b),
        ("rt_sigaction", 1 | 2) => {
            let handler = match u64_at(b, 0) {
                0 => "SIG_DFL".into(),
                1 => "SIG_IGN".into(),
                v => format!("{v:#x}"),
            };
            format!(
                "{{sa_handler={handler}, sa_mask={}, sa_flags={:#x}}}",
                signal_set(&b[24.min(b.len())..]),
                u64_at(b, 8)
            )
        }
        ("poll" | "ppoll", 0) => poll_set(b, after),
        ("pipe" | "pipe2", 0) | ("socketpair", 3) => format!("[{}, {}]", u32_at(b, 0), u32_at(b, 4)),
        ("wait4", 1) => {
            let s = u32_at(b, 0) as i32;
            if libc::WIFEXITED(s) {
                format!("[{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}]", libc::WEXITSTATUS(s))
            } else if libc::WIFSIGNALED(s) {
                format!("[{{WIFSIGNALED(s) && WTERMSIG(s) == {}}}]", symbols::signal(libc::WTERMSIG(s) as u64))
            } else {
                format!("[{s:#x}]")
            }
        }
        ("nanosleep", 0 | 1) | ("clock_gettime" | "clock_getres", 1) | ("clock_nanosleep", 2 | 3) | ("ppoll", 2) => {
            format!("{{tv_sec={}, tv_nsec={}}}", u64_at(b, 0) as i64, u64_at(b, 8) as i64)
        }
        ("prlimit64", 2 | 3) | ("getrlimit" | "setrlimit", 1) => {
            let v = |n| match u64_at(b, n) {
                u64::MAX => "RLIM64_INFINITY".to_string(),
                v => v.to_string(),
            };
            format!("{{rlim_cur={}, rlim_max={}}}", v(0), v(8))
        }
        // Bytes of a file, a message, a string: shown as such.
        ("read" | "write" | "pread64" | "pwrite64" | "recvfrom" | "sendto" | "readlink", 1)
        | ("getcwd" | "getrandom", 0)
        | ("readlinkat" | "getxattr" | "setxattr" | "fgetxattr" | "fsetxattr", 2) => return None,
        _ if len <= 8 && b.len() as u64 == len && matches!(len, 4 | 8) => {
            let v = if len == 4 { i64::from(u32_at(b, 0) as i32) } else { u64_at(b, 0) as i64 };
            format!("[{v}]")
        }
        _ => return Some(String::new()),
    })
}

fn number(call: &str, n: usize, v: u64) -> String {
    let low = v & 0xffff_ffff;
    match symbols::of(call, n) {
        Some(Symbols::One(names)) => symbols::one(low, names),
        Some(Symbols::Bits(names, zero)) => symbols::bits(low, names, zero),
        Some(Symbols::Octal) => format!("0{low:o}"),
        Some(Symbols::Hex) => {
            if v == 0 {
                "NULL".into()
            } else {
                format!("{v:#x}")
            }
        }
        Some(Symbols::Signal) => symbols::signal(low),
        Some(Symbols::Open) => {
            let mode = symbols::one(low & 3, symbols::ACCESS_MODES);
            match symbols::bits(low & !3, symbols::OPEN, "") {
                more if more.is_empty() => mode,
                more => format!("{mode}|{more}"),
            }
        }
        Some(Symbols::Futex) => {
            let op = symbols::one(low & 0x7f, symbols::FUTEX_OPS);
            match symbols::bits(low & !0x7f, symbols::FUTEX_BITS, "") {
                more if more.is_empty() => op,
                more => format!("{op}|{more}"),
            }
        }
        Some(Symbols::SocketType) => {
            let kind = symbols::one(low & 15, symbols::SOCKET_TYPES);
            match symbols::bits(low & !15, symbols::SOCKET_BITS, "") {
                more if more.is_empty() => kind,
                more => format!("{kind}|{more}"),
            }
        }
        Some(Symbols::Clone) => {
            let flags = symbols::bits(v & !0xff, symbols::CLONE, "0");
            if v & 0xff == 0 { flags } else { format!("{flags}|{}", symbols::signal(v & 0xff)) }
        }
        None if v > 0xffff_ffff_0000_0000 => (v as i64).to_string(),
        None if low >= 0xffff_f000 && v == low => (low as i32).to_string(),
        None if v >= 1 << 20 => format!("{v:#x}"),
        None => v.to_string(),
    }
}

fn captured(row: Option<&Syscall>, c: &Capture, max: usize) -> Option<String> {
    let call = row.map_or("", |r| r.name);
    let n = usize::from(c.arg);
    let first = c.parts.first();
    Some(match c.kind {
        Kind::Text => {
            let (len, b) = first?;
            quoted(&b.0, 4096, *len)
        }
        Kind::Strings if n == 1 || call == "execveat" && n == 2 => {
            let items: Vec<String> = c.parts.iter().map(|(len, b)| quoted(&b.0, max, *len)).collect();
            let more = if c.len > items.len() as u64 { ", ..." } else { "" };
            format!("[{}{more}]", items.join(", "))
        }
        Kind::Strings => format!("{:#x} /* {} vars */", 0, c.len).replace("0x0 ", ""),
        Kind::Vector => {
            let items: Vec<String> = c
                .parts
                .iter()
                .map(|(len, b)| format!("{{iov_base={}, iov_len={len}}}", quoted(&b.0, max, *len)))
                .collect();
            let list = format!("[{}]", items.join(", "));
            if call.ends_with("msg") { format!("{{msg_iov={list}, ...}}") } else { list }
        }
        Kind::Bytes => {
            let (_, b) = first?;
            match structure(call, n, &b.0, c.len, c.after) {
                None => quoted(&b.0, max, c.len),
                Some(text) if text.is_empty() => return None,
                Some(text) => text,
            }
        }
    })
}

/// `name(args)` of a call with what was taken along; `max`: bytes of a string.
pub fn call(nr: u32, args: &[u64], captures: &[Capture], max: usize) -> String {
    let row = find(u64::from(nr));
    let name = row.map_or_else(|| format!("syscall_{nr:#x}"), |r| r.name.to_string());
    let count = row.map_or(6, |r| r.args.len()).min(args.len());
    // A mode only where something is made, as strace has it.
    let makes = |flags: u64| flags & (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u64 != 0;
    let count = match name.as_str() {
        "open" if count == 3 && !makes(args[1]) => 2,
        "openat" if count == 4 && !makes(args[2]) => 3,
        _ => count,
    };
    let shown: Vec<String> = (0..count)
        .map(|n| {
            let v = args[n];
            let of = |after| captures.iter().find(|c| usize::from(c.arg) == n && c.after == after);
            let text = |c: Option<&Capture>| c.and_then(|c| captured(row, c, max));
            match (text(of(false)), text(of(true))) {
                (Some(a), Some(b)) if a != b => return format!("{a} => {b}"),
                (Some(a), _) | (None, Some(a)) => return a,
                _ => {}
            }
            match row.and_then(|r| r.args.get(n)) {
                Some(Arg::DirFd) if v as i32 == libc::AT_FDCWD => "AT_FDCWD".into(),
                Some(Arg::Fd | Arg::DirFd) => (v as i32).to_string(),
                Some(Arg::Path | Arg::Str | Arg::Ptr { .. } | Arg::Iov { .. }) => {
                    if v == 0 {
                        "NULL".into()
                    } else {
                        format!("{v:#x}")
                    }
                }
                _ => number(&name, n, v),
            }
        })
        .collect();
    format!("{name}({})", shown.join(", "))
}

fn result(r: &Record) -> String {
    let Some(ret) = r.ret else { return "?".into() };
    if (-4095..0).contains(&ret) {
        let n = ret.unsigned_abs();
        let text = std::io::Error::from_raw_os_error(n as i32).to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_string();
        return format!("-1 {} ({text})", symbols::errno(n));
    }
    let name = find(u64::from(r.nr)).map_or("", |s| s.name);
    if matches!(name, "mmap" | "brk" | "mremap" | "shmat") { format!("{ret:#x}") } else { ret.to_string() }
}

/// The whole line.
pub fn line(r: &Record, max: usize, times: bool) -> String {
    let mut out = format!("[pid {}] {}", r.tid, call(r.nr, &r.args, &r.captures, max));
    // strace's column, for what is short.
    let pad = 48usize.saturating_sub(out.len());
    let _ = write!(out, "{:pad$} = {}", "", result(r));
    if times {
        let class = find(u64::from(r.nr)).map_or("?".into(), |s| format!("{:?}", s.class).to_lowercase());
        let _ = write!(out, " <{}.{:06}> {class}", r.took_ns / 1_000_000_000, r.took_ns % 1_000_000_000 / 1000);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(nr: i64, args: [u64; 6], ret: Option<i64>, captures: Vec<Capture>) -> Record {
        Record { tid: 8, nr: nr as u32, args, ret, took_ns: 1_234_567, captures }
    }

    fn taken(arg: u8, after: bool, kind: Kind, len: u64, b: &[u8]) -> Capture {
        Capture { arg, after, kind, len, parts: vec![(len, Bytes(b.to_vec()))] }
    }

    #[test]
    fn lines_have_straces_shape() {
        let at = libc::AT_FDCWD as u64;
        let flags = (libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC) as u64;
        let path = || vec![taken(1, false, Kind::Text, 4, b"/a\"\x1b")];
        assert_eq!(
            line(&record(libc::SYS_openat, [at, 9, flags, 0o644, 0, 0], Some(-2), path()), 32, false),
            "[pid 8] openat(AT_FDCWD, \"/a\\\"\\x1b\", O_WRONLY|O_CREAT|O_CLOEXEC, 0644) = -1 ENOENT (No such file or directory)"
        );
        let bytes = vec![taken(1, true, Kind::Bytes, 6, b"hello\n")];
        assert_eq!(
            line(&record(libc::SYS_read, [3, 0x1000, 100, 0, 0, 0], Some(6), bytes), 3, true),
            "[pid 8] read(3, \"hel\"..., 100)                   = 6 <0.001234> direct"
        );
        assert_eq!(
            line(&record(libc::SYS_exit_group, [1, 0, 0, 0, 0, 0], None, vec![]), 32, false),
            "[pid 8] exit_group(1)                            = ?"
        );
    }

    #[test]
    fn a_record_of_the_guests_making_does_no_harm() {
        for nr in 0..600 {
            for kind in [Kind::Text, Kind::Bytes, Kind::Vector, Kind::Strings] {
                for arg in [0u8, 1, 2, 5, 200] {
                    for len in [0u64, 1, 200, u64::MAX] {
                        let c = vec![taken(arg, arg & 1 == 1, kind, len, &[0xff; 3]), taken(arg, true, kind, len, &[])];
                        let text = line(&record(nr, [u64::MAX; 6], Some(i64::MIN), c), 32, true);
                        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
                    }
                }
            }
        }
    }
}
