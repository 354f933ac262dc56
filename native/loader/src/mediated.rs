//! Calls that the daemon answers: the arguments are marshalled as the table says, paths and
//! structures through the slot's window, descriptors as node ids (docs/abi.md).

use crate::cpu::Thread;
use crate::errno::{EBADF, EFAULT, EINVAL, EISDIR, ENAMETOOLONG, ENOTDIR, Errno, SysResult};
use crate::files::{Files, Opened, What};
use crate::forms::{RESOLVE_IN_ROOT, canonical};
use crate::ring::{self, NULL, Reply};
use crate::{fdpath, fifo, guest, host, image, process};
use vkernel_abi::generated::ring as abi;
use vkernel_abi::syscall::{Arg, Dir, Len};

const AT_FDCWD: i32 = libc::AT_FDCWD;
/// What F_GETFL shows of every file a 64-bit program opens.
const O_LARGEFILE: u32 = 0x8000;

pub fn nr(n: i64) -> u32 {
    n as u32
}

/// Answers a mediated call of the guest.
pub fn dispatch(t: &mut Thread, nr0: u32, args: [u64; 6]) -> SysResult {
    let (nr, a) = canonical(nr0, args)?;
    let (nr, mut a) = fdpath::rewrite(t, nr, a)?.unwrap_or((nr, a));
    match i64::from(nr) {
        libc::SYS_openat if nr0 == nr => return openat(t, [a[0], a[1], a[2], a[3], 0, 0]),
        libc::SYS_openat => return openat(t, a),
        libc::SYS_fstat => {
            if let Some(r) = stat_of_host(a[0] as i32, a[1]) {
                return r;
            }
            request(t, nr, a)?.ret?;
            return contents_of_unnamed(a[0] as i32, a[1]);
        }
        libc::SYS_newfstatat
            if a[3] & libc::AT_EMPTY_PATH as u64 != 0 && is_empty(a[1])? && a[0] as i32 != AT_FDCWD =>
        {
            if let Some(r) = stat_of_host(a[0] as i32, a[2]) {
                return r;
            }
            request(t, nr, a)?.ret?;
            return contents_of_unnamed(a[0] as i32, a[2]);
        }
        libc::SYS_faccessat2 if a[2] & 0xffff_fff8 != 0 => return Err(EINVAL),
        libc::SYS_utimensat if a[1] == 0 && a[0] as i32 == AT_FDCWD => return Err(EFAULT),
        libc::SYS_readlink | libc::SYS_readlinkat => return readlinkat(t, a),
        libc::SYS_statx if a[2] & libc::AT_EMPTY_PATH as u64 != 0 && is_empty(a[1])? => {
            let fd = a[0] as i32;
            if fd != AT_FDCWD && is_plain_host(fd) {
                let args = [a[0], c"".as_ptr() as u64, a[2], a[3], guest::range(a[4], 256), 0];
                // SAFETY: an empty path and a checked buffer.
                return unsafe { host::call(libc::SYS_statx, args) };
            }
        }
        libc::SYS_getdents64 => return crate::listing::getdents(t, a),
        libc::SYS_mkdirat => a[2] &= !u64::from(process::fs().umask),
        libc::SYS_mknodat => a[2] &= !u64::from(process::fs().umask),
        libc::SYS_chdir => {
            let r = request(t, nr, a)?;
            let node = r.ret? as u32;
            return enter(node, &r);
        }
        libc::SYS_chroot => {
            let root = request(t, nr, a)?.ret?;
            process::fs().chrooted = root != i64::from(abi::ROOT_NODE);
            return Ok(0);
        }
        libc::SYS_fchdir => {
            let fd = a[0] as i32;
            let node = image::calls::node(t, fd)?;
            if node == 0 {
                check_open(fd)?;
                return Err(ENOTDIR);
            }
            let r = request(t, nr, a)?;
            r.ret?;
            return enter(node, &r);
        }
        libc::SYS_utime | libc::SYS_utimes | libc::SYS_futimesat => return times(t, nr, a),
        libc::SYS_fgetxattr
        | libc::SYS_fsetxattr
        | libc::SYS_flistxattr
        | libc::SYS_fremovexattr
        | libc::SYS_fchmod
        | libc::SYS_fchown
        | libc::SYS_fstatfs => {
            check_open(a[0] as i32)?;
            if i64::from(nr) != libc::SYS_fstatfs && nr == nr0 && process::files().kind(a[0] as i32).what == What::Path
            {
                return Err(EBADF);
            }
            if is_plain_host(a[0] as i32) {
                return on_plain_host(nr, a);
            }
        }
        libc::SYS_memfd_create => return memfd_create(t, a),
        libc::SYS_inotify_add_watch | libc::SYS_inotify_rm_watch => crate::notify::check(nr, a)?,
        libc::SYS_inotify_init | libc::SYS_inotify_init1 => {
            let flags = if i64::from(nr) == libc::SYS_inotify_init { 0 } else { a[0] };
            let w = ring::window(t)?;
            let reply = ring::call(t, self::nr(libc::SYS_inotify_init1), [flags, 0, 0, 0, 0, 0], w)?;
            reply.ret?;
            return install(&reply, flags as i32);
        }
        _ => {}
    }
    request(t, nr, a)?.ret
}

/// The daemon has changed the working directory to `node`; its reply has the nid.
fn enter(node: u32, reply: &Reply) -> SysResult {
    let nid = u64::from_le_bytes(reply.window.get(0, 8).try_into().expect("8 bytes"));
    let mut fs = process::fs();
    (fs.cwd, fs.cwd_nid) = (node, nid);
    Ok(0)
}

fn is_empty(path: u64) -> Result<bool, Errno> {
    Ok(path == 0 || guest::read::<u8>(path)? == 0)
}

/// EBADF unless the guest has `fd` open.
pub fn check_open(fd: i32) -> Result<(), Errno> {
    Files::check(fd)?;
    if process::files().kind(fd).what != What::Host {
        return Ok(());
    }
    // SAFETY: plain fcntl.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 { Err(EBADF) } else { Ok(()) }
}

/// True for descriptors the daemon knows nothing about: pipes, sockets, standard streams.
fn is_plain_host(fd: i32) -> bool {
    let k = process::files().kind(fd);
    k.what == What::Host && k.node == 0
}

fn stat_of_host(fd: i32, buf: u64) -> Option<SysResult> {
    if let Err(e) = Files::check(fd) {
        return Some(Err(e));
    }
    is_plain_host(fd).then(|| {
        let args = [fd as u64, guest::range(buf, 144), 0, 0, 0, 0];
        // SAFETY: a checked buffer of struct stat's size.
        unsafe { host::call(libc::SYS_fstat, args) }
    })
}

/// A file whose last name is gone: size and times are the open file's, which only we can ask.
fn contents_of_unnamed(fd: i32, buf: u64) -> SysResult {
    if guest::read::<u64>(buf + 16)? != 0 || process::files().kind(fd).what != What::Host {
        return Ok(0);
    }
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the struct.
    let st = unsafe {
        host::call(libc::SYS_fstat, [fd as u64, st.as_mut_ptr() as u64, 0, 0, 0, 0])?;
        st.assume_init()
    };
    guest::write(buf + 48, &(st.st_size as u64))?;
    guest::write(buf + 64, &(st.st_blocks as u64))?;
    let times = [st.st_atime, st.st_atime_nsec, st.st_mtime, st.st_mtime_nsec, st.st_ctime, st.st_ctime_nsec];
    guest::write_bytes(buf + 72, &times.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
    Ok(0)
}

/// readlinkat(2); /proc/self/fd/N is a link to what only we know: a node, or a plain host descriptor.
fn readlinkat(t: &mut Thread, a: [u64; 6]) -> SysResult {
    if a[3] as i32 <= 0 {
        return Err(EINVAL);
    }
    let n = request(t, nr(libc::SYS_readlinkat), [a[0], a[1], a[2], a[3], 0, 0])?.ret?;
    let capacity = (a[3] as usize).min(abi::RING_WINDOW / 2);
    if n < abi::FD_LINK {
        return Ok(n);
    }
    let fd = (n - abi::FD_LINK) as i32;
    check_open(fd).map_err(|_| crate::errno::ENOENT)?;
    let name = name_of(t, fd, capacity)?;
    guest::write_bytes(a[2], &name)?;
    Ok(name.len() as i64)
}

/// What /proc/self/fd shows of an open descriptor, cut to `capacity` bytes.
pub fn name_of(t: &mut Thread, fd: i32, capacity: usize) -> Result<Vec<u8>, Errno> {
    let node = image::calls::node(t, fd)?;
    let mut w = ring::window(t)?;
    let place = w.room(capacity).ok_or(EINVAL)?;
    let args = if node != 0 { [u64::from(node), NULL, place, 0, 1, 0] } else { [fd as u64, NULL, place, 0, 2, 0] };
    let reply = ring::call(t, nr(libc::SYS_readlinkat), args, w)?;
    let len = (reply.ret? as usize).min(capacity);
    Ok(reply.window.get((place & 0xffff_ffff) as usize, len))
}

/// Metadata calls on a descriptor without a node: the kernel's answer where it cannot change the
/// host, success without effect where it could.
fn on_plain_host(nr: u32, a: [u64; 6]) -> SysResult {
    match i64::from(nr) {
        libc::SYS_fchmod | libc::SYS_fchown => Ok(0),
        libc::SYS_fstatfs => {
            let args = [a[0], guest::range(a[1], 120), 0, 0, 0, 0];
            // SAFETY: a checked buffer of struct statfs's size.
            unsafe { host::call(libc::SYS_fstatfs, args) }
        }
        libc::SYS_flistxattr => Ok(0),
        libc::SYS_fsetxattr | libc::SYS_fgetxattr | libc::SYS_fremovexattr => {
            guest::read_cstr(a[1], 255).map_err(|e| if e == ENAMETOOLONG { Errno(libc::ERANGE) } else { e })?;
            if i64::from(nr) == libc::SYS_fsetxattr {
                if a[4] & !3 != 0 {
                    return Err(EINVAL);
                }
                guest::read_bytes(a[2], &mut vec![0; a[3].min(65536) as usize])?;
            }
            Err(crate::errno::EOPNOTSUPP)
        }
        _ => Err(crate::errno::EOPNOTSUPP),
    }
}

/// The node id that stands for a descriptor argument; what the loader opened itself has been identified.
fn node_of(fd: i32, dir: bool) -> Result<u64, Errno> {
    if fd == AT_FDCWD && dir {
        return Ok(u64::from(process::fs().cwd));
    }
    let k = process::files().kind(fd);
    if k.node == 0 {
        check_open(fd)?;
        return Err(if dir { ENOTDIR } else { EBADF });
    }
    Ok(u64::from(k.node))
}

/// Whether an empty path may stand for the descriptor itself.
fn takes_empty(nr: u32, a: &[u64; 6]) -> bool {
    let flags = match i64::from(nr) {
        libc::SYS_newfstatat | libc::SYS_utimensat | libc::SYS_faccessat2 => a[3],
        libc::SYS_statx => a[2],
        libc::SYS_fchownat | libc::SYS_linkat => a[4],
        // The loader's own use of them, and readlinkat's rule (readlink(2)).
        libc::SYS_execve | libc::SYS_readlinkat => return true,
        _ => 0,
    };
    flags & libc::AT_EMPTY_PATH as u64 != 0 || i64::from(nr) == libc::SYS_utimensat && a[1] == 0
}

struct Out {
    guest: u64,
    at: usize,
    len: usize,
}

/// Marshals `args` as the table says, asks the daemon, and copies results out.
pub fn request(t: &mut Thread, nr: u32, args: [u64; 6]) -> Result<Reply, Errno> {
    let row = vkernel_abi::syscall::find(u64::from(nr)).ok_or(EINVAL)?;
    #[cfg(feature = "bare")]
    if ring::conn() < 0 {
        return crate::bare::request(row, args);
    }
    for (n, arg) in row.args.iter().enumerate() {
        if matches!(arg, Arg::Fd | Arg::DirFd) {
            image::calls::node(t, args[n] as i32)?;
        }
    }
    let mut w = ring::window(t)?;
    let mut sent = args;
    let mut outs = Vec::new();
    // A dirfd is looked at only when its path is relative (openat(2)).
    let mut pending_dir: Option<usize> = None;
    for (n, arg) in row.args.iter().enumerate() {
        let v = args[n];
        match arg {
            Arg::Int | Arg::Iov { .. } => {}
            Arg::Fd => sent[n] = node_of(v as i32, false)?,
            Arg::DirFd => pending_dir = Some(n),
            Arg::Path | Arg::Str => {
                if v == 0 && pending_dir.is_none() {
                    return Err(EFAULT);
                }
                let bytes = if v == 0 { Vec::new() } else { guest::read_path(v)? };
                if let Some(d) = pending_dir.take() {
                    let in_root = i64::from(nr) == libc::SYS_openat && args[4] & RESOLVE_IN_ROOT != 0;
                    sent[d] = if bytes.first() == Some(&b'/') && !in_root {
                        u64::from(abi::ROOT_NODE)
                    } else if bytes.is_empty() && !takes_empty(nr, &args) {
                        return Err(crate::errno::ENOENT);
                    } else {
                        node_of(args[d] as i32, !bytes.is_empty() || args[d] as i32 == AT_FDCWD)?
                    };
                } else if *arg == Arg::Path && n == 0 && bytes.first() != Some(&b'/') {
                    // Calls without a dirfd (chdir, truncate, statfs, setxattr, …): args[5] carries it.
                    sent[5] = u64::from(process::fs().cwd);
                }
                sent[n] = w.put(&bytes).ok_or(ENAMETOOLONG)?;
            }
            Arg::Ptr { dir, len } => {
                let len = match len {
                    Len::Fixed(n) => *n as usize,
                    Len::Arg { index, scale } => (args[usize::from(*index)] as usize).saturating_mul(*scale as usize),
                };
                if v == 0 {
                    sent[n] = NULL;
                    continue;
                }
                let len = len.min(w.left().saturating_sub(8));
                if *dir == Dir::In {
                    let mut bytes = vec![0; len];
                    guest::read_bytes(v, &mut bytes)?;
                    sent[n] = w.put(&bytes).ok_or(EINVAL)?;
                } else {
                    let at = w.room(len).ok_or(EINVAL)?;
                    sent[n] = at;
                    outs.push(Out { guest: v, at: (at & 0xffff_ffff) as usize, len });
                }
            }
        }
    }
    // A call whose only path argument comes without dirfd still needs the working directory.
    if row.args.first() == Some(&Arg::Path) || i64::from(nr) == libc::SYS_inotify_add_watch {
        sent[5] = u64::from(process::fs().cwd);
    }
    let reply = ring::call(t, nr, sent, w)?;
    if let Ok(ret) = reply.ret {
        for out in outs {
            // Byte counts bound what was written; other results mean the whole structure.
            let by_count = matches!(
                i64::from(nr),
                libc::SYS_readlinkat
                    | libc::SYS_getcwd
                    | libc::SYS_getxattr
                    | libc::SYS_lgetxattr
                    | libc::SYS_fgetxattr
                    | libc::SYS_listxattr
                    | libc::SYS_llistxattr
                    | libc::SYS_flistxattr
            );
            let len = if by_count { (ret as usize).min(out.len) } else { out.len };
            guest::write_bytes(out.guest, &reply.window.get(out.at, len))?;
        }
    }
    Ok(reply)
}

/// utime, utimes, futimesat as utimensat.
fn times(t: &mut Thread, old: u32, a: [u64; 6]) -> SysResult {
    let (dir, path, at) =
        if i64::from(old) == libc::SYS_futimesat { (a[0], a[1], a[2]) } else { (AT_FDCWD as u64, a[0], a[1]) };
    let mut spec = Vec::new();
    if at != 0 {
        let times: [u64; 4] = if i64::from(old) == libc::SYS_utime {
            [guest::read::<u64>(at)?, 0, guest::read::<u64>(at + 8)?, 0]
        } else {
            let v: [u64; 4] = guest::read(at)?;
            [v[0], v[1].wrapping_mul(1000), v[2], v[3].wrapping_mul(1000)]
        };
        spec.extend(times.iter().flat_map(|v| v.to_le_bytes()));
    }
    let bytes = guest::read_path(path)?;
    image::calls::node(t, dir as i32)?;
    let node = if bytes.first() == Some(&b'/') { u64::from(abi::ROOT_NODE) } else { node_of(dir as i32, true)? };
    let mut w = ring::window(t)?;
    let p = w.put(&bytes).ok_or(ENAMETOOLONG)?;
    let s = if at == 0 { NULL } else { w.put(&spec).ok_or(EINVAL)? };
    ring::call(t, nr(libc::SYS_utimensat), [node, p, s, 0, 0, 0], w)?.ret
}

fn openat(t: &mut Thread, mut a: [u64; 6]) -> SysResult {
    let flags = a[2] as i32;
    if flags & (libc::O_CREAT | libc::O_TMPFILE) != 0 {
        a[3] &= !u64::from(process::fs().umask) & 0o7777;
    }
    let reply = loop {
        let reply = request(t, nr(libc::SYS_openat), a)?;
        if reply.ret != Err(Errno(abi::FIFO_NO_READER)) {
            break reply;
        }
        fifo::moment(t)?;
    };
    let ret = reply.ret?;
    #[cfg(feature = "bare")]
    if ring::conn() < 0 {
        process::files().seen(ret as i32);
        return Ok(ret);
    }
    let _ = ret;
    let fd = install(&reply, flags)?;
    if fifo::blocks(&reply, flags) {
        fifo::opened(t, fd as i32, flags)?;
    }
    Ok(fd)
}

/// Gives the guest the descriptor that a Grant describes.
pub fn install(reply: &Reply, flags: i32) -> SysResult {
    let g = reply.window.get(0, abi::GRANT_SIZE);
    let u32_at = |n: usize| u32::from_le_bytes(g[n..n + 4].try_into().expect("4 bytes"));
    let u64_at = |n: usize| u64::from_le_bytes(g[n..n + 8].try_into().expect("8 bytes"));
    let (kind, node) = (u32_at(0), u32_at(4));
    let cloexec = flags & libc::O_CLOEXEC != 0;
    match kind {
        abi::GRANT_HOST => {
            let fd = *reply.fds.first().ok_or(crate::errno::EIO)?;
            if !cloexec {
                // SAFETY: a descriptor we just received.
                unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
            }
            if u32_at(28) == abi::GRANT_NOTIFY {
                process::files().set_notify(fd, node);
                return Ok(i64::from(fd));
            }
            process::files().set_host(fd, node);
            if u32_at(24) & libc::S_IFMT == libc::S_IFCHR && flags & libc::O_NOCTTY == 0 {
                // A session leader without a terminal takes the first it opens, but for a master
                // (tty_ioctl(4)); anybody else, and everything that is no terminal, gets an error
                // that nothing depends on.
                let mut number = 0;
                // SAFETY: a descriptor we just received; the kernel writes an int.
                unsafe {
                    if libc::ioctl(fd, libc::TIOCGPTN, &mut number) != 0 {
                        libc::ioctl(fd, libc::TIOCSCTTY, 0);
                    }
                }
            }
            Ok(i64::from(fd))
        }
        // Another number for one of the guest's own descriptors (/proc/self/fd/N).
        abi::GRANT_LOADER if u32_at(28) == 3 => {
            let from = Files::check(u64_at(8) as i32)?;
            let how = if cloexec { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD };
            // SAFETY: duplicates a guest descriptor.
            let fd = unsafe { libc::fcntl(from, how, 0) };
            if fd < 0 {
                return Err(crate::errno::ENXIO);
            }
            process::files().duplicated(from, fd);
            Ok(i64::from(fd))
        }
        abi::GRANT_LOADER => {
            let text = process::mm().maps();
            let fd = memory_file(c"maps", &text, 0)?;
            process::files().set_host(fd, node);
            if cloexec {
                // SAFETY: our own new descriptor.
                unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
            Ok(i64::from(fd))
        }
        _ => {
            let what = match kind {
                _ if flags & libc::O_PATH != 0 => What::Path,
                abi::GRANT_DIR => What::Directory,
                _ => What::Image,
            };
            install_image(Opened { what, node, nid: u64_at(8), size: u64_at(16), dir: 0, name: (0, 0) }, flags)
        }
    }
}

/// Gives the guest a descriptor of an image file or a directory; it holds its number with the image's.
pub fn install_image(o: Opened, flags: i32) -> SysResult {
    let how = if flags & libc::O_CLOEXEC != 0 { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD };
    // SAFETY: duplicates the image's descriptor to the lowest free number.
    let fd = unsafe { libc::fcntl(image::get().erofs_fd, how, 0) };
    if fd < 0 {
        return Err(crate::errno::EMFILE);
    }
    let keep = flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_TRUNC | libc::O_CLOEXEC);
    let keep = keep as u32 | if o.what == What::Path { 0 } else { O_LARGEFILE };
    process::files().insert(fd, &o, keep)?;
    Ok(i64::from(fd))
}

/// A memory file of these bytes, at its beginning. Errors: EMFILE, EIO.
pub fn memory_file(name: &std::ffi::CStr, text: &[u8], flags: u32) -> Result<i32, Errno> {
    // SAFETY: creates, fills and rewinds a memfd of our own.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), flags);
        if fd < 0 {
            return Err(crate::errno::EMFILE);
        }
        let mut done = 0;
        while done < text.len() {
            let n = libc::write(fd, text[done..].as_ptr().cast(), text.len() - done);
            if n <= 0 {
                libc::close(fd);
                return Err(crate::errno::EIO);
            }
            done += n as usize;
        }
        libc::lseek(fd, 0, libc::SEEK_SET);
        Ok(fd)
    }
}

/// memfd_create(2): the daemon makes it, so that the process needs no such call.
fn memfd_create(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let name = guest::read_cstr(a[0], 249).map_err(|e| if e == ENAMETOOLONG { EINVAL } else { e })?;
    let mut w = ring::window(t)?;
    let p = w.put(&name).ok_or(EINVAL)?;
    let reply = ring::call(t, nr(libc::SYS_memfd_create), [p, a[1], 0, 0, 0, 0], w)?;
    reply.ret?;
    install(&reply, if a[1] & 1 != 0 { libc::O_CLOEXEC } else { 0 })
}

/// Tells the daemon about something for the audit log; nothing depends on the answer.
pub fn report(t: &mut Thread, text: &str) {
    if ring::conn() < 0 {
        return;
    }
    if let Ok(mut w) = ring::window(t)
        && let Some(p) = w.put(&text.as_bytes()[..text.len().min(512)])
    {
        let _ = ring::call(t, abi::CALL_REPORT, [p, 0, 0, 0, 0, 0], w);
    }
}

/// Read-only descriptors of directories answer EISDIR to data calls.
pub fn data_call_on(what: What) -> Errno {
    if what == What::Directory { EISDIR } else { EINVAL }
}
