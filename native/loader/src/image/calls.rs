//! Calls of class `image`: answered from the mapped image.erofs where the container overrides nothing
//! that matters (docs/adr/0010); `None` is left to the daemon. An answer counts only when nothing was
//! overridden meanwhile, so it is the daemon's own at one point in time.

use super::overridden::{self, CHANGED, COVERED, LISTING};
use super::walk::{Found, No, may, walk};
use crate::cpu::Thread;
use crate::erofs::{self, Inode};
use crate::errno::{EACCES, EINVAL, ELOOP, ENOTDIR, Errno, SysResult};
use crate::files::{Opened, What};
use crate::{guest, mediated, process, ring};
use std::sync::atomic::Ordering;
use vkernel_abi::generated::ring as abi;

pub fn dispatch(t: &mut Thread, nr: u32, a: [u64; 6]) -> SysResult {
    match answer(nr, a) {
        Some(r) => r,
        None => mediated::dispatch(t, nr, a),
    }
}

const CWD: i32 = libc::AT_FDCWD;
const NOFOLLOW: i32 = libc::AT_SYMLINK_NOFOLLOW;

/// What the image alone says.
fn answer(nr: u32, a: [u64; 6]) -> Option<SysResult> {
    let generation = overridden::generation()?;
    let still = || overridden::generation() == Some(generation);
    let at = a[0] as i32;
    match i64::from(nr) {
        libc::SYS_stat => stat(&still, CWD, a[0], a[1], 0),
        libc::SYS_lstat => stat(&still, CWD, a[0], a[1], NOFOLLOW),
        libc::SYS_newfstatat => stat(&still, at, a[1], a[2], a[3] as i32),
        libc::SYS_fstat => open_inode(at).map(|i| write_stat(&i, a[1])),
        libc::SYS_statx => statx(&still, a),
        libc::SYS_open => open(&still, CWD, a[0], a[1] as i32),
        libc::SYS_openat => open(&still, at, a[1], a[2] as i32),
        libc::SYS_access => access(&still, CWD, a[0], a[1] as i32, 0),
        libc::SYS_faccessat => access(&still, at, a[1], a[2] as i32, 0),
        libc::SYS_faccessat2 => access(&still, at, a[1], a[2] as i32, a[3] as i32),
        libc::SYS_readlink => readlink(&still, CWD, a[0], a[1], a[2] as i32),
        libc::SYS_readlinkat => readlink(&still, at, a[1], a[2], a[3] as i32),
        libc::SYS_getdents64 => getdents(at, a[1], a[2] as u32 as usize),
        _ => None,
    }
}

/// The inode at (dirfd, path), or why there is none. `None`: an empty path, or one that only the daemon can walk.
fn find(at: i32, path: u64, follow: bool) -> Option<Result<Found, Errno>> {
    let mut text = [0u8; 4096];
    let path = match guest::read_cstr_into(path, &mut text) {
        Ok(n) => &text[..n],
        Err(e) => return Some(Err(e)),
    };
    if process::fs().chrooted {
        return None;
    }
    let start = match path.first() {
        None => return None,
        Some(b'/') => 0,
        Some(_) if at == CWD => process::fs().cwd_nid,
        Some(_) => directory(at)?,
    };
    match walk(start, path, follow, &process::creds()) {
        Ok(found) => Some(Ok(found)),
        Err(No::Error(e)) => Some(Err(e)),
        Err(No::Ask) => None,
    }
}

/// Nid of an open directory of the image.
fn directory(fd: i32) -> Option<u64> {
    let files = process::files();
    (files.kind(fd).what == What::Directory).then_some(())?;
    files.description(fd).map(|d| d.nid.load(Ordering::Relaxed)).filter(|nid| *nid != 0)
}

/// Regular files, directories and links: what else there is has another file system's rules.
fn plain(i: &Inode) -> Option<()> {
    matches!(i.kind(), libc::S_IFREG | libc::S_IFDIR | libc::S_IFLNK).then_some(())
}

/// Those whose metadata are the image's.
fn untouched(i: &Inode) -> Option<()> {
    plain(i)?;
    (!overridden::is(i.nid, CHANGED | COVERED)).then_some(())
}

/// (size, blocks) as stat(2) shows them.
fn sizes(i: &Inode) -> (u64, u64) {
    match i.kind() {
        libc::S_IFDIR => (4096, 8),
        libc::S_IFLNK => (i.size, 0),
        _ => (i.size, i.size.div_ceil(4096) * 8),
    }
}

fn write_stat(i: &Inode, buf: u64) -> SysResult {
    let (size, blocks) = sizes(i);
    let words: [u64; 18] = [
        u64::from(overridden::dev()),
        i.nid,
        u64::from(i.nlink),
        u64::from(i.mode) | u64::from(i.uid) << 32,
        u64::from(i.gid),
        0,
        size,
        4096,
        blocks,
        i.mtime,
        0,
        i.mtime,
        0,
        i.mtime,
        0,
        0,
        0,
        0,
    ];
    guest::write(buf, &words)?;
    Ok(0)
}

fn stat(still: &dyn Fn() -> bool, at: i32, path: u64, buf: u64, flags: i32) -> Option<SysResult> {
    if flags & !(NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH) != 0 {
        return None;
    }
    metadata(still, at, path, buf, flags, write_stat)
}

type Write = fn(&Inode, u64) -> SysResult;

/// What `write` tells of an untouched inode.
fn metadata(still: &dyn Fn() -> bool, at: i32, path: u64, buf: u64, flags: i32, write: Write) -> Option<SysResult> {
    if flags & libc::AT_EMPTY_PATH != 0 && at >= 0 && guest::read::<u8>(path) == Ok(0) {
        return open_inode(at).map(|i| write(&i, buf));
    }
    let found = find(at, path, flags & NOFOLLOW == 0)?;
    if let Ok(found) = &found {
        untouched(&found.inode)?;
    }
    still().then(|| write(&found?.inode, buf))
}

/// The inode behind a descriptor of an image file or directory, untouched.
fn open_inode(fd: i32) -> Option<Inode<'static>> {
    let nid = {
        let files = process::files();
        (files.kind(fd).what != What::Host).then_some(())?;
        files.description(fd)?.nid.load(Ordering::Relaxed)
    };
    (nid != 0).then_some(())?;
    let i = erofs::inode(super::get().erofs, nid)?;
    untouched(&i)?;
    Some(i)
}

/// struct statx up to stx_dev_minor, as 32-bit words.
fn write_statx(i: &Inode, buf: u64) -> SysResult {
    const BASIC: u32 = 0x7ff;
    let (size, blocks) = sizes(i);
    let mut w = [0u32; 64];
    w[0] = BASIC;
    w[1] = 4096;
    w[4] = i.nlink;
    w[5] = i.uid;
    w[6] = i.gid;
    w[7] = i.mode;
    let mut put = |at: usize, v: u64| {
        w[at] = v as u32;
        w[at + 1] = (v >> 32) as u32;
    };
    put(8, i.nid);
    put(10, size);
    put(12, blocks);
    put(16, i.mtime);
    put(24, i.mtime);
    put(28, i.mtime);
    w[35] = overridden::dev();
    guest::write(buf, &w)?;
    Ok(0)
}

fn statx(still: &dyn Fn() -> bool, a: [u64; 6]) -> Option<SysResult> {
    const SYNC_TYPE: i32 = 0x6000;
    let (at, path, flags, buf) = (a[0] as i32, a[1], a[2] as i32, a[4]);
    if flags & !(NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH | SYNC_TYPE) != 0
        || flags & SYNC_TYPE == SYNC_TYPE
        || a[3] >> 31 & 1 != 0
    {
        return None;
    }
    metadata(still, at, path, buf, flags, write_statx)
}

/// Flags that an open for reading only may have; with any other it is the daemon's.
const READING: i32 =
    libc::O_CLOEXEC | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | 0x8000;

fn open(still: &dyn Fn() -> bool, at: i32, path: u64, flags: i32) -> Option<SysResult> {
    if flags & !READING != 0 {
        return None;
    }
    let found = match find(at, path, flags & libc::O_NOFOLLOW == 0)? {
        Ok(found) => found,
        Err(e) => return still().then_some(Err(e)),
    };
    let i = found.inode;
    let wrong = match i.kind() {
        libc::S_IFLNK => Some(ELOOP),
        libc::S_IFREG if flags & libc::O_DIRECTORY != 0 => Some(ENOTDIR),
        libc::S_IFREG | libc::S_IFDIR => {
            if i.kind() == libc::S_IFREG {
                untouched(&i)?;
            }
            (!may(&i, libc::R_OK as u32, &process::creds(), false)).then_some(EACCES)
        }
        _ => return None,
    };
    if !still() {
        return None;
    }
    Some(match wrong {
        Some(e) => Err(e),
        None => install(&found, flags),
    })
}

fn install(found: &Found, flags: i32) -> SysResult {
    let img = super::get();
    let i = found.inode;
    let opened = Opened {
        what: if i.is_dir() { What::Directory } else { What::Image },
        node: 0,
        nid: i.nid,
        size: if i.is_dir() { 0 } else { i.size },
        dir: found.dir,
        name: if found.name.is_empty() {
            (0, 0)
        } else {
            ((found.name.as_ptr() as usize - img.erofs.as_ptr() as usize) as u64, found.name.len() as u8)
        },
    };
    mediated::install_image(opened, flags)
}

fn access(still: &dyn Fn() -> bool, at: i32, path: u64, mode: i32, flags: i32) -> Option<SysResult> {
    if mode & !7 != 0 || flags & !(libc::AT_EACCESS | NOFOLLOW) != 0 {
        return None;
    }
    let found = find(at, path, flags & NOFOLLOW == 0)?;
    if let Ok(found) = &found {
        plain(&found.inode)?;
    }
    still().then(|| {
        let i = found?.inode;
        let ok = mode == 0 || may(&i, mode as u32, &process::creds(), flags & libc::AT_EACCESS == 0);
        if ok { Ok(0) } else { Err(EACCES) }
    })
}

fn readlink(still: &dyn Fn() -> bool, at: i32, path: u64, buf: u64, size: i32) -> Option<SysResult> {
    if size <= 0 {
        return None;
    }
    let found = find(at, path, false)?;
    let target = match &found {
        Ok(f) if f.inode.kind() == libc::S_IFLNK => f.inode.target()?,
        _ => &[],
    };
    still().then(|| {
        if found?.inode.kind() != libc::S_IFLNK {
            return Err(EINVAL);
        }
        let n = target.len().min(size as usize);
        guest::write_bytes(buf, &target[..n])?;
        Ok(n as i64)
    })
}

/// getdents64(2) of an untouched directory. One that was begun here goes on here: the offset counts
/// the image's entries, and what changes meanwhile need not show (POSIX readdir).
fn getdents(fd: i32, buf: u64, capacity: usize) -> Option<SysResult> {
    let d = {
        let files = process::files();
        (files.kind(fd).what == What::Directory).then_some(())?;
        files.description(fd)?
    };
    let nid = d.nid.load(Ordering::Relaxed);
    let start = d.off.load(Ordering::Relaxed);
    (nid != 0 && d.flags.load(Ordering::Relaxed) as i32 & libc::O_PATH == 0).then_some(())?;
    if start == 0 {
        d.local.store(u32::from(!overridden::is(nid, LISTING | COVERED)), Ordering::Relaxed);
    }
    (d.local.load(Ordering::Relaxed) != 0).then_some(())?;
    let dir = erofs::inode(super::get().erofs, nid)?;
    let parent = dir.lookup(b"..").flatten()?.nid;
    let mut out = Records { bytes: Vec::with_capacity(capacity.min(1 << 15)), capacity, index: 0, start };
    let mut full = !out.add(b".", nid, libc::DT_DIR) || !out.add(b"..", parent, libc::DT_DIR);
    if !full {
        dir.entries(|e| {
            full = e.name != b"." && e.name != b".." && !out.add(e.name, e.nid, kind(e.kind));
            !full
        })?;
    }
    if out.bytes.is_empty() && full {
        return Some(Err(EINVAL));
    }
    Some(guest::write_bytes(buf, &out.bytes).map(|()| {
        d.off.store(out.index.max(start), Ordering::Relaxed);
        out.bytes.len() as i64
    }))
}

/// d_type of an erofs file type.
fn kind(erofs: u8) -> u8 {
    const TYPES: [u8; 8] = [
        libc::DT_UNKNOWN,
        libc::DT_REG,
        libc::DT_DIR,
        libc::DT_CHR,
        libc::DT_BLK,
        libc::DT_FIFO,
        libc::DT_SOCK,
        libc::DT_LNK,
    ];
    TYPES.get(usize::from(erofs)).copied().unwrap_or(libc::DT_UNKNOWN)
}

/// linux_dirent64 records from entry number `start` on, as many as fit.
struct Records {
    bytes: Vec<u8>,
    capacity: usize,
    index: u64,
    start: u64,
}

impl Records {
    /// False: it does not fit any more.
    fn add(&mut self, name: &[u8], nid: u64, kind: u8) -> bool {
        if self.index >= self.start {
            let len = (19 + name.len() + 1).next_multiple_of(8);
            if self.bytes.len() + len > self.capacity {
                return false;
            }
            let end = self.bytes.len() + len;
            self.bytes.extend_from_slice(&nid.to_le_bytes());
            self.bytes.extend_from_slice(&(self.index + 1).to_le_bytes());
            self.bytes.extend_from_slice(&(len as u16).to_le_bytes());
            self.bytes.push(kind);
            self.bytes.extend_from_slice(name);
            self.bytes.resize(end, 0);
        }
        self.index += 1;
        true
    }
}

/// The node id of a descriptor; what was opened here gets one from the daemon when it is first needed.
/// 0: there is none. Errors: ESTALE, when the daemon does not know it.
pub fn node(t: &mut Thread, fd: i32) -> Result<u32, Errno> {
    let (kind, dir, name) = {
        let files = process::files();
        let kind = files.kind(fd);
        let Some(d) = files.description(fd).filter(|_| kind.what != What::Host && kind.node == 0) else {
            return Ok(kind.node);
        };
        let nid = d.nid.load(Ordering::Relaxed);
        if kind.what == What::Directory { (kind, nid, (0, 0)) } else { (kind, d.dir.load(Ordering::Relaxed), d.name()) }
    };
    let erofs = super::get().erofs;
    let name = erofs.get(name.0 as usize..name.0 as usize + usize::from(name.1)).unwrap_or_default();
    let mut w = ring::window(t)?;
    let place = w.put(name).ok_or(EINVAL)?;
    let node = ring::call(t, abi::CALL_NODE, [dir, place, 0, 0, 0, 0], w)?.ret? as u32;
    process::files().identify(fd, kind, node);
    Ok(node)
}
