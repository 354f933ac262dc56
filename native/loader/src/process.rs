//! What the threads of a guest process share, each part behind its own lock. fork takes all locks,
//! so that the child finds every part whole.
//!
//! Lock order: ENGINE, FILES, MM, FS, CREDS, then signal::ACTIONS, then those that are held alone.

use crate::files::Files;
use crate::mm::Mm;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, RwLock, RwLockReadGuard};

/// Working directory (a node of the daemon's) and umask.
pub struct Fs {
    pub cwd: u32,
    /// Its nid, when it is a directory of the image; 0: it is not.
    pub cwd_nid: u64,
    /// "/" is another directory than the container's root (chroot(2)): paths are the daemon's to walk.
    pub chrooted: bool,
    pub umask: u32,
    /// Path of the program, for AT_EXECFN and /proc/self/exe.
    pub exe: Vec<u8>,
}

#[derive(Clone, Default)]
pub struct Creds {
    pub uid: [u32; 3],
    pub gid: [u32; 3],
    pub groups: Vec<u32>,
    /// File-system user and group, where they are not the effective ones (setfsuid(2)).
    pub fs: [Option<u32>; 2],
}

static FILES: LazyLock<Mutex<Files>> = LazyLock::new(|| Mutex::new(Files::new()));
static MM: LazyLock<Mutex<Mm>> = LazyLock::new(|| Mutex::new(Mm::new()));
static FS: Mutex<Fs> = Mutex::new(Fs { cwd: 1, cwd_nid: 0, chrooted: false, umask: 0o22, exe: Vec::new() });
static CREDS: Mutex<Creds> = Mutex::new(Creds { uid: [0; 3], gid: [0; 3], groups: Vec::new(), fs: [None; 2] });
/// ELFs whose text is mapped at its address.
static ELFS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static TEXT: AtomicU64 = AtomicU64::new(1);
static PID: AtomicI32 = AtomicI32::new(0);

fn lock<T>(m: &'static Mutex<T>) -> MutexGuard<'static, T> {
    m.lock().expect("no code panics while holding it")
}

pub fn files() -> MutexGuard<'static, Files> {
    lock(&FILES)
}
pub fn mm() -> MutexGuard<'static, Mm> {
    lock(&MM)
}
pub fn fs() -> MutexGuard<'static, Fs> {
    lock(&FS)
}
pub fn creds() -> MutexGuard<'static, Creds> {
    lock(&CREDS)
}
pub fn elfs() -> MutexGuard<'static, Vec<u32>> {
    lock(&ELFS)
}

/// Changes whenever text appears or goes.
pub fn text_generation() -> u64 {
    TEXT.load(Ordering::Acquire)
}
pub fn publish_text(generation: u64) {
    TEXT.store(generation, Ordering::Release);
}

/// The process id as the guest sees it: the host's, inside the container's PID namespace.
pub fn pid() -> i32 {
    PID.load(Ordering::Relaxed)
}
pub fn refresh_pid() {
    // SAFETY: getpid cannot fail; the raw call avoids any cache.
    PID.store(unsafe { libc::syscall(libc::SYS_getpid) } as i32, Ordering::Relaxed);
}

/// The engine has locks of its own, which a fork in another thread must not find held: whoever makes,
/// looks up or drops what the engine keeps holds this for reading, fork holds it for writing.
static ENGINE: RwLock<()> = RwLock::new(());

pub fn engine() -> RwLockReadGuard<'static, ()> {
    ENGINE.read().expect("no code panics while holding it")
}

/// Runs `f` (a fork) with every lock held.
pub fn with_everything_locked<R>(f: impl FnOnce() -> R) -> R {
    let _engine = ENGINE.write().expect("no code panics while holding it");
    let _files = files();
    let _mm = mm();
    let _fs = fs();
    let _creds = creds();
    let _elfs = elfs();
    let _actions = lock(&crate::signal::ACTIONS);
    let _rest = (
        crate::thread::locked(),
        crate::ring::locked(),
        crate::aio::locked(),
        crate::listing::locked(),
        crate::syscall::locked(),
        crate::local::locked(),
        crate::prctl::locked(),
        crate::profile::locked(),
    );
    f()
}
