//! execve: the daemon decides what may run; the loader replaces the program in place. No host
//! execve ever happens.

use crate::cpu::{Leave, Thread};
use crate::errno::{E2BIG, EFAULT, EIO, ENOEXEC, Errno, SysResult};
use crate::mm::{Backing, HostFile, PROT_EXEC, page_up};
use crate::{erofs, guest, image, local, memcalls, process, profile, ring, signal, stack, thread};
use serde::Deserialize;
use vkernel_abi::generated::ring::ROOT_NODE;
use vkernel_abi::region::{EXE_BASE, STACK_SIZE_DEFAULT, STACK_TOP};
use vkernel_abi::state::{CpuState, RSP};

/// Bytes that msgpack sends as str or bin.
#[derive(Default, Clone)]
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl serde::de::Visitor<'_> for V {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(v.to_vec()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Bytes, E> {
                Ok(Bytes(v.as_bytes().to_vec()))
            }
        }
        d.deserialize_any(V)
    }
}

/// A program or interpreter as the daemon grants it (docs/abi.md, execve).
#[derive(Deserialize)]
struct Program {
    kind: u32,
    nid: u64,
    /// Index in the megabinary; -1: none.
    elf: i64,
    path: Bytes,
    size: u64,
}

#[derive(Deserialize)]
struct Granted {
    exe: Program,
    interp: Option<Program>,
    argv: Option<Vec<Bytes>>,
}

/// An ELF file to map.
pub struct Object {
    pub path: Vec<u8>,
    pub elf: Option<u32>,
    pub size: u64,
    pub ino: u64,
    /// Host descriptor and offset of the file's first byte.
    fd: i32,
    off: u64,
    /// The descriptor is ours to close.
    owned: bool,
}

impl Object {
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), Errno> {
        if at.checked_add(to.len() as u64).is_none_or(|end| end > self.size) {
            return Err(ENOEXEC);
        }
        if !self.owned {
            let from = (self.off + at) as usize;
            to.copy_from_slice(image::get().erofs.get(from..from + to.len()).ok_or(EIO)?);
            return Ok(());
        }
        // SAFETY: reads into a live buffer.
        let n = unsafe { libc::pread(self.fd, to.as_mut_ptr().cast(), to.len(), (self.off + at) as i64) };
        if n == to.len() as isize { Ok(()) } else { Err(ENOEXEC) }
    }

    fn host_file(&self, off: u64) -> HostFile {
        HostFile { fd: self.fd, off: self.off + off, len: self.size.saturating_sub(off) }
    }

    #[cfg(feature = "bare")]
    pub fn open_bare(path: &[u8]) -> Result<Self, Errno> {
        let c = std::ffi::CString::new(path).map_err(|_| crate::errno::ENOENT)?;
        // SAFETY: opens a host path, in development builds only.
        let fd = unsafe { libc::open(c.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOENT)));
        }
        let size = image::file_size(fd).map_err(|_| EIO)?;
        Ok(Self { path: path.to_vec(), elf: memcalls::bare_elf(fd), size, ino: 0, fd, off: 0, owned: true })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: our own descriptor; mappings keep their memory.
            unsafe { libc::close(self.fd) };
        }
    }
}

struct Plan {
    exe: Object,
    interp: Option<Object>,
    path: Vec<u8>,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
}

/// execve(2) and execveat(2). Errors leave the program as it was.
pub fn execve(t: &mut Thread, dirfd: i32, path: u64, argv: u64, envp: u64, flags: i32) -> Result<SysResult, Leave> {
    let plan = read_arguments(path, argv, envp).and_then(|(p, a, e)| plan(t, dirfd, p, a, e, flags));
    match plan {
        Err(e) => Ok(Err(e)),
        Ok(plan) => {
            commit(t, plan);
            Err(Leave::Exec)
        }
    }
}

/// The first program of a guest process: as execve, but every error is final.
pub fn first(t: &mut Thread, path: &[u8], argv: Vec<Vec<u8>>, envp: Vec<Vec<u8>>) -> Result<(), Errno> {
    let plan = plan(t, libc::AT_FDCWD, path.to_vec(), argv, envp, 0)?;
    commit(t, plan);
    Ok(())
}

fn strings(mut at: u64, total: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    const MAX_ARG_STRLEN: usize = 131_072;
    let mut out = Vec::new();
    if at == 0 {
        return Ok(out);
    }
    loop {
        let p: u64 = guest::read(at)?;
        if p == 0 {
            return Ok(out);
        }
        let s = guest::read_cstr(p, MAX_ARG_STRLEN - 1).map_err(|e| if e == EFAULT { e } else { E2BIG })?;
        *total += s.len() + 9;
        // A quarter of the stack limit (fs/exec.c, bprm_stack_limits).
        if *total > (local::stack_limit().min(STACK_SIZE_DEFAULT) / 4) as usize {
            return Err(E2BIG);
        }
        out.push(s);
        at += 8;
    }
}

type Arguments = (Vec<u8>, Vec<Vec<u8>>, Vec<Vec<u8>>);

fn read_arguments(path: u64, argv: u64, envp: u64) -> Result<Arguments, Errno> {
    let path = guest::read_path(path)?;
    let mut total = 0;
    let mut argv = strings(argv, &mut total)?;
    if argv.is_empty() {
        // Linux 5.18: an empty argv gets one empty string.
        argv.push(Vec::new());
    }
    Ok((path, argv, strings(envp, &mut total)?))
}

fn object(p: Program, fds: &mut std::vec::IntoIter<i32>) -> Result<Object, Errno> {
    let elf = u32::try_from(p.elf).ok().filter(|e| (*e as usize) < image::get().elfs.len());
    if p.kind == vkernel_abi::generated::ring::GRANT_HOST {
        let fd = fds.next().ok_or(EIO)?;
        return Ok(Object { path: p.path.0, elf, size: p.size, ino: p.nid, fd, off: 0, owned: true });
    }
    let img = image::get();
    let extent = erofs::extent(img.erofs, p.nid)?;
    Ok(Object { path: p.path.0, elf, size: extent.size, ino: p.nid, fd: img.erofs_fd, off: extent.off, owned: false })
}

/// Strings for the daemon's view of the process, NUL-terminated and cut to `limit` bytes.
fn flattened(list: &[Vec<u8>], limit: usize) -> Vec<u8> {
    let mut out: Vec<u8> = list.iter().flat_map(|s| s.iter().copied().chain([0])).take(limit).collect();
    if out.len() == limit {
        out[limit - 1] = 0;
    }
    out
}

/// The request for (node of a directory or file, its descriptor), path and flags.
fn ask(
    t: &mut Thread,
    (node, fd): (u32, i32),
    path: &[u8],
    flags: i32,
    (argv, envp): (&[Vec<u8>], &[Vec<u8>]),
) -> Result<ring::Reply, Errno> {
    let mut w = ring::window(t)?;
    let p = w.put(path).ok_or(crate::errno::ENAMETOOLONG)?;
    let shown = w.put(&flattened(argv, 32 << 10)).ok_or(E2BIG)?;
    let env = w.put(&flattened(envp, 16 << 10)).ok_or(E2BIG)?;
    ring::call(t, libc::SYS_execve as u32, [u64::from(node), p, flags as u64, fd as u64, shown, env], w)
}

fn plan(
    t: &mut Thread,
    dirfd: i32,
    path: Vec<u8>,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
    flags: i32,
) -> Result<Plan, Errno> {
    #[cfg(feature = "bare")]
    if ring::conn() < 0 {
        return plan_bare(path, argv, envp);
    }
    let empty = path.is_empty() && flags & libc::AT_EMPTY_PATH != 0;
    let node = if path.first() == Some(&b'/') {
        ROOT_NODE
    } else if dirfd == libc::AT_FDCWD {
        process::fs().cwd
    } else {
        crate::mediated::check_open(dirfd)?;
        image::calls::node(t, dirfd)?
    };
    if node == 0 && !empty {
        return Err(crate::errno::ENOTDIR);
    }
    let mut reply = ask(t, (node, dirfd), &path, flags, (&argv, &envp))?;
    if reply.ret == Err(Errno(vkernel_abi::generated::ring::ASK_WITH_FD)) {
        // The path is /proc/self/fd/N: what N is only we know.
        let bytes = reply.window.get(0, 4);
        let fd = i32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        crate::mediated::check_open(fd).map_err(|_| crate::errno::ENOENT)?;
        let node = image::calls::node(t, fd)?;
        reply = ask(t, (node, fd), b"", flags | libc::AT_EMPTY_PATH, (&argv, &envp))?;
    }
    let len = reply.ret?;
    let granted: Granted = rmp_serde::from_slice(&reply.window.get(0, len as usize)).map_err(|_| EIO)?;
    let mut fds = reply.fds.into_iter();
    let exe = object(granted.exe, &mut fds)?;
    let interp = granted.interp.map(|p| object(p, &mut fds)).transpose()?;
    let argv = match granted.argv {
        None => argv,
        Some(first) => first.into_iter().map(|b| b.0).chain(argv.into_iter().skip(1)).collect(),
    };
    Ok(Plan { exe, interp, path, argv, envp })
}

#[cfg(feature = "bare")]
fn plan_bare(path: Vec<u8>, mut argv: Vec<Vec<u8>>, envp: Vec<Vec<u8>>) -> Result<Plan, Errno> {
    let mut at = path.clone();
    for _ in 0..4 {
        let exe = Object::open_bare(&at)?;
        let mut head = vec![0u8; exe.size.min(256) as usize];
        exe.read(0, &mut head)?;
        if !head.starts_with(b"#!") {
            let interp = interpreter_path(&exe)?.map(|p| Object::open_bare(&p)).transpose()?;
            return Ok(Plan { exe, interp, path, argv, envp });
        }
        let line = head[2..].split(|b| *b == b'\n').next().unwrap_or_default();
        let text: Vec<&[u8]> = line.splitn(2, |b| *b == b' ').filter(|w| !w.is_empty()).collect();
        let mut new: Vec<Vec<u8>> = text.iter().map(|w| w.to_vec()).collect();
        new.push(at);
        new.extend(argv.into_iter().skip(1));
        argv = new;
        at = argv[0].clone();
    }
    Err(Errno(libc::ELOOP))
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    off: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
}

struct Headers {
    dynamic: bool,
    entry: u64,
    phoff: u64,
    phnum: u64,
    segments: Vec<Segment>,
}

const PT_LOAD: u32 = 1;
#[cfg(feature = "bare")]
const PT_INTERP: u32 = 3;
const PHENT: u64 = 56;

fn headers(o: &Object) -> Result<Headers, Errno> {
    let mut h = [0u8; 64];
    o.read(0, &mut h)?;
    let u16_at = |n: usize| u16::from_le_bytes([h[n], h[n + 1]]);
    let u64_at = |n: usize| u64::from_le_bytes(h[n..n + 8].try_into().expect("8 bytes"));
    if h[..6] != [0x7f, b'E', b'L', b'F', 2, 1] || u16_at(18) != 62 || u64::from(u16_at(54)) != PHENT {
        return Err(ENOEXEC);
    }
    let dynamic = match u16_at(16) {
        2 => false,
        3 => true,
        _ => return Err(ENOEXEC),
    };
    let (phoff, phnum) = (u64_at(32), u64::from(u16_at(56)));
    let mut table = vec![0u8; (PHENT * phnum) as usize];
    o.read(phoff, &mut table)?;
    let segments = table
        .chunks_exact(PHENT as usize)
        .map(|p| {
            let u32_at = |n: usize| u32::from_le_bytes(p[n..n + 4].try_into().expect("4 bytes"));
            let u64_at = |n: usize| u64::from_le_bytes(p[n..n + 8].try_into().expect("8 bytes"));
            Segment {
                kind: u32_at(0),
                flags: u32_at(4),
                off: u64_at(8),
                vaddr: u64_at(16),
                filesz: u64_at(32),
                memsz: u64_at(40),
            }
        })
        .collect();
    Ok(Headers { dynamic, entry: u64_at(24), phoff, phnum, segments })
}

#[cfg(feature = "bare")]
fn interpreter_path(o: &Object) -> Result<Option<Vec<u8>>, Errno> {
    let h = headers(o)?;
    let Some(s) = h.segments.iter().find(|s| s.kind == PT_INTERP) else { return Ok(None) };
    let mut path = vec![0u8; s.filesz as usize];
    o.read(s.off, &mut path)?;
    path.retain(|b| *b != 0);
    Ok(Some(path))
}

struct Loaded {
    base: u64,
    entry: u64,
    phdr: u64,
    phnum: u64,
    end: u64,
}

/// Maps the segments of an ELF file (fs/binfmt_elf.c, elf_map and set_brk).
fn map_elf(o: &Object, is_interp: bool) -> Result<Loaded, Errno> {
    let h = headers(o)?;
    let loads: Vec<Segment> = h.segments.iter().copied().filter(|s| s.kind == PT_LOAD).collect();
    let (Some(first), Some(last)) = (loads.first(), loads.last()) else { return Err(ENOEXEC) };
    let span = page_up(last.vaddr + last.memsz) - (first.vaddr & !4095);
    let base = if !h.dynamic {
        0
    } else if let Some(elf) = o.elf {
        image::get().elfs[elf as usize].entry.base
    } else if is_interp {
        process::mm().place(0, span, 0)?
    } else {
        EXE_BASE
    };
    let mut end = 0;
    for s in &loads {
        let prot = [(4, libc::PROT_READ), (2, libc::PROT_WRITE), (1, PROT_EXEC)]
            .iter()
            .filter(|(f, _)| s.flags & f != 0)
            .fold(0, |p, (_, bit)| p | bit);
        let start = base + s.vaddr;
        let (page, skew) = (start & !4095, start & 4095);
        let file_end = start + s.filesz;
        let mapped_end = page_up(file_end);
        if s.off < skew || s.filesz > s.memsz {
            return Err(ENOEXEC);
        }
        if s.filesz > 0 {
            let off = s.off - skew;
            memcalls::map_file(
                o.elf,
                o.host_file(off),
                (page, mapped_end - page),
                prot,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                off,
                o.path.clone(),
                o.ino,
            )?;
            if s.memsz > s.filesz && prot & libc::PROT_WRITE != 0 {
                guest::write_bytes(file_end, &vec![0; (mapped_end - file_end) as usize])?;
            }
        }
        let mem_end = page_up(start + s.memsz);
        let from = if s.filesz > 0 { mapped_end } else { page };
        if mem_end > from {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            process::mm().map(from, mem_end - from, prot & !PROT_EXEC, flags, None, Backing::Anonymous)?;
        }
        end = end.max(start + s.memsz);
    }
    let phdr = loads
        .iter()
        .find(|s| s.off <= h.phoff && h.phoff < s.off + s.filesz)
        .map_or(0, |s| base + s.vaddr + (h.phoff - s.off));
    Ok(Loaded { base, entry: base + h.entry, phdr, phnum: h.phnum, end })
}

/// The point of no return: from here on an error kills the process, as on Linux.
fn commit(t: &mut Thread, plan: Plan) {
    thread::only_one(t);
    profile::flush();
    profile::program(u32::MAX);
    if replace(t, &plan).is_err() {
        signal::die(libc::SIGKILL);
    }
    drop(plan);
    thread::release_vfork();
}

fn replace(t: &mut Thread, plan: &Plan) -> Result<(), Errno> {
    let keep: Vec<i32> = plan.interp.iter().chain([&plan.exe]).map(|o| o.fd).collect();
    process::files().close_on_exec(&keep);
    signal::reset_for_exec();
    crate::syscall::forget_reports();
    crate::aio::forget();
    {
        let mut mm = process::mm();
        mm.reset()?;
        let mut elfs = process::elfs();
        for elf in elfs.drain(..) {
            let e = &image::get().elfs[elf as usize].entry;
            if e.text_end > e.text_start {
                image::get().clear_map(e.text_start, e.text_end).map_err(|_| EIO)?;
            }
        }
        process::publish_text(mm.text_generation);
    }
    t.altstack = crate::signal::NO_ALTSTACK;
    crate::prctl::reset_for_exec();
    t.clear_child_tid = 0;
    t.robust_list = 0;
    let exe = map_elf(&plan.exe, false)?;
    let interp = plan.interp.as_ref().map(|i| map_elf(i, true)).transpose()?;
    let size = local::stack_limit().clamp(1 << 20, 64 << 20) & !4095;
    {
        let mut mm = process::mm();
        mm.brk_start = page_up(exe.end);
        mm.brk = mm.brk_start;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        mm.map(STACK_TOP - size, size, rw, flags, None, Backing::Stack)?;
    }
    process::fs().exe = plan.exe.path.clone();
    let rsp = stack::build(&stack::Contents {
        argv: &plan.argv,
        envp: &plan.envp,
        execfn: &plan.path,
        phdr: exe.phdr,
        phnum: exe.phnum,
        entry: exe.entry,
        base: interp.as_ref().map_or(0, |i| i.base),
    })?;
    let s = t.state();
    let poll = s.poll;
    *s = CpuState::new();
    s.poll = poll;
    s.gpr[RSP] = rsp;
    s.rip = interp.map_or(exe.entry, |i| i.entry);
    let mut name = plan.path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    name.truncate(15);
    name.push(0);
    // SAFETY: a NUL-terminated name of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    Ok(())
}
