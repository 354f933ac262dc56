//! What the host's descriptor table does not know about the guest's descriptors. A guest fd number
//! is the host fd number; image files and directories hold theirs with a duplicate of a host fd,
//! and have an open file description here.
//!
//! Descriptions live in a shared arena, because a forked child shares its parent's offsets.

use crate::errno::{EBADF, ENFILE, Errno};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vkernel_abi::generated::ring::HIDDEN_FD_BASE;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum What {
    /// A host descriptor: pipes, sockets, upper files, terminals.
    Host,
    /// A regular file of the image.
    Image,
    Directory,
    /// O_PATH: names a file, gives no access to it.
    Path,
}

#[derive(Clone, Copy, PartialEq)]
pub struct Kind {
    pub what: What,
    /// Node id of the daemon's, 0: none.
    pub node: u32,
    /// Index of the description in the arena; 0: none.
    desc: u32,
    /// A host descriptor that stands for an inotify instance (notify.rs).
    pub notify: bool,
}

const HOST: Kind = Kind { what: What::Host, node: 0, desc: 0, notify: false };

/// Descriptors that are not the host's own, one bit each: what a call that only wants to know this reads without
/// the table's lock. Written under it.
static OURS: [AtomicU64; HIDDEN_FD_BASE as usize / 64 + 1] =
    [const { AtomicU64::new(0) }; HIDDEN_FD_BASE as usize / 64 + 1];

/// Whether `fd` may be a guest's and is the host's own, as far as the loader knows.
#[inline(always)]
pub fn is_host(fd: i32) -> bool {
    (0..HIDDEN_FD_BASE).contains(&fd) && OURS[fd as usize / 64].load(Ordering::Acquire) >> (fd % 64) & 1 == 0
}

/// An open file description of an image file or a directory.
#[repr(C)]
pub struct Description {
    refs: AtomicU32,
    pub flags: AtomicU32,
    /// File offset, or the number of directory entries already read.
    pub off: AtomicU64,
    pub nid: AtomicU64,
    pub size: AtomicU64,
    /// flock(2): 0 none, 1 shared, 2 exclusive. All image files are one open file to the host.
    lock: AtomicU32,
    /// What the loader opened itself: nid of the directory and place of the name (offset in the image
    /// × 256 + length) that led to it, for the daemon when it is asked for a node.
    pub dir: AtomicU64,
    name: AtomicU64,
    /// A directory that is being read from the image itself.
    pub local: AtomicU32,
}

impl Description {
    /// (offset in the image, length) of the name.
    pub fn name(&self) -> (u64, u8) {
        let v = self.name.load(Ordering::Relaxed);
        (v >> 8, v as u8)
    }
}

/// What a new description is of.
pub struct Opened {
    pub what: What,
    /// Node id of the daemon's; 0: it has not been asked.
    pub node: u32,
    pub nid: u64,
    pub size: u64,
    pub dir: u64,
    pub name: (u64, u8),
}

const DESCRIPTIONS: usize = 32768;

/// The arena's first description; index 0 is never used.
struct Arena(*mut Description);
// SAFETY: only atomics are behind it.
unsafe impl Send for Arena {}

pub struct Files {
    kinds: Vec<Kind>,
    /// No descriptor at or above this has been seen.
    high: i32,
    /// Where the search for a free description starts.
    next: u32,
    arena: Arena,
}

impl Files {
    pub fn new() -> Self {
        // SAFETY: a fresh shared mapping of zeroes, which is a valid empty arena.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                DESCRIPTIONS * size_of::<Description>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(p != libc::MAP_FAILED, "the description arena cannot be mapped");
        Self { kinds: vec![HOST; HIDDEN_FD_BASE as usize], high: 3, next: 1, arena: Arena(p.cast()) }
    }

    pub fn kind(&self, fd: i32) -> Kind {
        usize::try_from(fd).ok().and_then(|n| self.kinds.get(n)).copied().unwrap_or(HOST)
    }

    fn at(&self, index: u32) -> &'static Description {
        // SAFETY: indices come from `insert`, and the arena is never unmapped.
        unsafe { &*self.arena.0.add(index as usize) }
    }

    pub fn description(&self, fd: i32) -> Option<&'static Description> {
        let k = self.kind(fd);
        (k.desc != 0).then(|| self.at(k.desc))
    }

    /// A guest may name descriptors below the hidden ones only.
    pub fn check(fd: i32) -> Result<i32, Errno> {
        if (0..HIDDEN_FD_BASE).contains(&fd) { Ok(fd) } else { Err(EBADF) }
    }

    /// Remembers that `fd` is in use.
    pub fn seen(&mut self, fd: i32) {
        self.high = self.high.max(fd + 1).min(HIDDEN_FD_BASE);
    }

    pub fn set_host(&mut self, fd: i32, node: u32) {
        self.seen(fd);
        self.replace_kind(fd, Kind { node, ..HOST });
    }

    pub fn set_notify(&mut self, fd: i32, node: u32) {
        self.seen(fd);
        self.replace_kind(fd, Kind { node, notify: true, ..HOST });
    }

    /// Makes `fd` an image file or directory with a fresh description.
    pub fn insert(&mut self, fd: i32, o: &Opened, flags: u32) -> Result<(), Errno> {
        let all = DESCRIPTIONS as u32 - 1;
        for n in 0..all {
            let index = 1 + (self.next - 1 + n) % all;
            let d = self.at(index);
            if d.refs.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                d.off.store(0, Ordering::Relaxed);
                d.nid.store(o.nid, Ordering::Relaxed);
                d.size.store(o.size, Ordering::Relaxed);
                d.flags.store(flags, Ordering::Relaxed);
                d.lock.store(0, Ordering::Relaxed);
                d.dir.store(o.dir, Ordering::Relaxed);
                d.name.store(o.name.0 << 8 | u64::from(o.name.1), Ordering::Relaxed);
                d.local.store(0, Ordering::Relaxed);
                self.next = index;
                self.seen(fd);
                self.replace_kind(fd, Kind { what: o.what, node: o.node, desc: index, notify: false });
                return Ok(());
            }
        }
        Err(ENFILE)
    }

    /// flock(2) of an image file or directory: false when another description's lock conflicts.
    /// Whoever sees a conflict steps back, so two that come at once may both be refused, and ask again.
    pub fn lock(&self, fd: i32, kind: u32) -> bool {
        let Some(d) = self.description(fd) else { return true };
        let old = d.lock.swap(kind, Ordering::SeqCst);
        let nid = d.nid.load(Ordering::Relaxed);
        let conflicts = kind != 0
            && (1..DESCRIPTIONS as u32).map(|n| self.at(n)).any(|o| {
                let held = o.lock.load(Ordering::SeqCst);
                !std::ptr::eq(o, d)
                    && held != 0
                    && (held == 2 || kind == 2)
                    && o.refs.load(Ordering::Relaxed) > 0
                    && o.nid.load(Ordering::Relaxed) == nid
            });
        if conflicts {
            // A conversion that fails has lost the old lock too (flock(2)); here it keeps it.
            d.lock.store(old, Ordering::SeqCst);
        }
        !conflicts
    }

    /// `fd` still is `kind`: its node id is known now.
    pub fn identify(&mut self, fd: i32, kind: Kind, node: u32) {
        if let Some(k) = self.kinds.get_mut(fd as usize)
            && *k == kind
        {
            k.node = node;
        }
    }

    fn replace_kind(&mut self, fd: i32, kind: Kind) {
        let bit = 1 << (fd % 64);
        match kind.what {
            What::Host if !kind.notify => OURS[fd as usize / 64].fetch_and(!bit, Ordering::AcqRel),
            _ => OURS[fd as usize / 64].fetch_or(bit, Ordering::AcqRel),
        };
        let k = std::mem::replace(&mut self.kinds[fd as usize], kind);
        if k.desc != 0 {
            self.at(k.desc).refs.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn drop_kind(&mut self, fd: i32) {
        self.replace_kind(fd, HOST);
    }

    /// `fd` was closed.
    pub fn closed(&mut self, fd: i32) {
        if (0..HIDDEN_FD_BASE).contains(&fd) {
            self.drop_kind(fd);
        }
    }

    /// `to` was made a duplicate of `from`.
    pub fn duplicated(&mut self, from: i32, to: i32) {
        if from == to {
            return;
        }
        let k = self.kind(from);
        if k.desc != 0 {
            self.at(k.desc).refs.fetch_add(1, Ordering::AcqRel);
        }
        self.seen(to);
        self.replace_kind(to, k);
    }

    /// In a forked child: its table holds every description once more.
    pub fn forked(&self) {
        for k in &self.kinds[..self.high as usize] {
            if k.desc != 0 {
                self.at(k.desc).refs.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// execve(2): closes what has FD_CLOEXEC, but for the loader's own `keep`.
    pub fn close_on_exec(&mut self, keep: &[i32]) {
        for fd in (0..self.high).filter(|fd| !keep.contains(fd)) {
            // SAFETY: plain fcntl and close on a guest descriptor.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
            if flags >= 0 && flags & libc::FD_CLOEXEC != 0 {
                // SAFETY: as above.
                unsafe { libc::close(fd) };
                self.drop_kind(fd);
            }
        }
    }

    /// The process ends: gives its descriptions back.
    pub fn release_all(&mut self) {
        for fd in 0..self.high {
            self.drop_kind(fd);
        }
    }

    /// Numbers that are open.
    pub fn open(&self) -> impl Iterator<Item = i32> + use<> {
        // SAFETY: plain fcntl.
        (0..self.high).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0)
    }

    pub fn high(&self) -> i32 {
        self.high
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}
