//! Processes and threads: fork is the host's fork inside the host call, a guest thread is a host
//! thread with its own store over the one region.

use crate::cpu::{Thread, run_thread};
use crate::errno::{EAGAIN, EINVAL, Errno, SysResult};
use crate::signal::{self, LEAVE_SIGNAL, LEAVE_VALUE};
use crate::{guest, image, packet, process, profile, ring};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use vkernel_abi::generated::ring::HIDDEN_FD_BASE;
use vkernel_abi::state::{CpuState, RAX, RSP};

/// Host stack of a guest thread: what translated code may use, and room for host calls.
const STACK: usize = vkernel_engine::WASM_STACK + (44 << 20);

/// Threads of this process other than its first.
static OTHERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static MAIN_ALIVE: AtomicU32 = AtomicU32::new(1);

/// A page for a CpuState, kept apart from everything else; whole wasm page, as memory 1 is.
pub fn state_page() -> *mut CpuState {
    // SAFETY: a fresh mapping, leaked with the thread's record; zeroed memory is then overwritten.
    unsafe {
        let p = libc::mmap(
            std::ptr::null_mut(),
            65536,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        assert!(p != libc::MAP_FAILED, "a thread's state cannot be mapped");
        p.cast::<CpuState>().write(CpuState::new());
        p.cast()
    }
}

fn copy_state(from: &CpuState, to: &mut CpuState) {
    to.gpr = from.gpr;
    to.rip = from.rip;
    to.flags = from.flags;
    to.fs_base = from.fs_base;
    to.gs_base = from.gs_base;
    to.mxcsr = from.mxcsr;
    to.xmm = from.xmm;
    to.fx = from.fx;
}

pub fn new_thread(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let [flags, stack, parent_tid, child_tid, tls, _] = a;
    let has = |f: i32| flags & f as u64 != 0;
    let page = state_page();
    let mut child = Thread::new(page);
    {
        let s = child.state();
        copy_state(t.state(), s);
        s.gpr[RAX] = 0;
        if stack != 0 {
            s.gpr[RSP] = stack;
        }
        if has(libc::CLONE_SETTLS) {
            s.fs_base = tls;
        }
    }
    child.sigmask = t.sigmask;
    if has(libc::CLONE_CHILD_CLEARTID) {
        child.clear_child_tid = child_tid;
    }
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let page = page as usize;
    let spawned = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        // SAFETY: gettid cannot fail.
        let tid = unsafe { libc::gettid() };
        child.tid = tid;
        // Before anyone knows the thread's number: a signal sent to it at once must not be lost.
        crate::captured::attach(&raw mut *child.captured);
        OTHERS.lock().expect("not poisoned").insert(tid);
        let _ = tell.send(tid);
        if wait.recv().is_ok() {
            run_thread(image::get(), child);
        }
        OTHERS.lock().expect("not poisoned").remove(&tid);
        // SAFETY: the thread's own state page, no longer used.
        unsafe { libc::munmap(page as *mut libc::c_void, 65536) };
    });
    if spawned.is_err() {
        return Err(EAGAIN);
    }
    let tid = told.recv().map_err(|_| EAGAIN)?;
    if has(libc::CLONE_PARENT_SETTID) {
        guest::write(parent_tid, &(tid as u32))?;
    }
    if has(libc::CLONE_CHILD_SETTID) {
        guest::write(child_tid, &(tid as u32))?;
    }
    let _ = go.send(());
    Ok(i64::from(tid))
}

/// fork(2) and vfork(2). The child registers with the daemon before it runs on.
pub fn fork(t: &mut Thread, flags: u64, a: [u64; 6]) -> SysResult {
    let vfork = flags & libc::CLONE_VFORK as u64 != 0;
    let registration = register_child(t)?;
    let wait_pipe = if vfork { Some(pipe()?) } else { None };
    let held = t.captured.held();
    // SAFETY: every lock of ours is held, so the child finds all parts whole; libc's own are
    // handled by fork itself.
    let pid = process::with_everything_locked(|| unsafe { libc::fork() });
    if pid < 0 {
        let e = Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN));
        close_all(registration.map(|r| r.0).into_iter().chain(wait_pipe.into_iter().flatten()));
        return Err(e);
    }
    if pid == 0 {
        in_child(t, held, registration, wait_pipe.map(|p| p[1]));
        close_all(wait_pipe.map(|p| p[0]));
        if flags & libc::CLONE_CHILD_SETTID as u64 != 0 {
            let _ = guest::write(a[3], &(t.tid as u32));
        }
        t.clear_child_tid = if flags & libc::CLONE_CHILD_CLEARTID as u64 != 0 { a[3] } else { 0 };
        if flags & libc::CLONE_SETTLS as u64 != 0 {
            t.state().fs_base = a[4];
        }
        if a[1] != 0 && flags != 0 {
            t.state().gpr[RSP] = a[1];
        }
        if flags & crate::clone::CLONE_CLEAR_SIGHAND != 0 {
            signal::reset_for_exec();
        }
        return Ok(0);
    }
    close_all(registration.map(|r| r.0));
    if flags & libc::CLONE_PARENT_SETTID as u64 != 0 {
        let _ = guest::write(a[2], &(pid as u32));
    }
    if let Some([read, write]) = wait_pipe {
        close_all([write]);
        let mut b = [0u8; 1];
        // SAFETY: waits for end of file on our own pipe; signals do not end a vfork wait.
        while unsafe { libc::read(read, b.as_mut_ptr().cast(), 1) } < 0
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
        {}
        close_all([read]);
    }
    Ok(i64::from(pid))
}

/// Makes descriptors where the guest's limit leaves none: fork(2) needs none of the guest's.
fn beyond_limit<T>(make: impl FnOnce() -> T) -> T {
    // SAFETY: plain calls with live structs.
    unsafe {
        let mut old: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut old);
        let wide = libc::rlimit { rlim_cur: old.rlim_max, rlim_max: old.rlim_max };
        libc::setrlimit(libc::RLIMIT_NOFILE, &wide);
        let made = make();
        libc::setrlimit(libc::RLIMIT_NOFILE, &old);
        made
    }
}

/// Above the guest's numbers, close-on-exec (there is no host exec, but nothing leaks by habit).
fn hide(fd: i32) -> Result<i32, Errno> {
    // SAFETY: moves our own descriptor.
    let hidden = beyond_limit(|| unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, HIDDEN_FD_BASE) });
    close_all([fd]);
    if hidden < 0 { Err(EAGAIN) } else { Ok(hidden) }
}

fn pipe() -> Result<[i32; 2], Errno> {
    let mut p = [0i32; 2];
    // SAFETY: the kernel writes two ints.
    if beyond_limit(|| unsafe { libc::pipe2(p.as_mut_ptr(), libc::O_CLOEXEC) }) != 0 {
        return Err(EAGAIN);
    }
    Ok([hide(p[0])?, hide(p[1])?])
}

fn close_all(fds: impl IntoIterator<Item = i32>) {
    for fd in fds {
        // SAFETY: descriptors of our own.
        unsafe { libc::close(fd) };
    }
}

/// Makes the child's connection and gives the daemon its end: (child's end, task number).
fn register_child(t: &mut Thread) -> Result<Option<(i32, u32)>, Errno> {
    if ring::conn() < 0 {
        return Ok(None);
    }
    let mut pair = [0i32; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two ints.
    if beyond_limit(|| unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) }) != 0 {
        return Err(EAGAIN);
    }
    let sent = packet::send(ring::conn(), b"f", &[pair[1]], false);
    close_all([pair[1]]);
    let task = if sent {
        let w = ring::window(t)?;
        ring::call(t, libc::SYS_fork as u32, [0; 6], w).and_then(|r| r.ret)
    } else {
        Err(EAGAIN)
    };
    match task {
        Ok(task) => Ok(Some((hide(pair[0])?, task as u32))),
        Err(e) => {
            close_all([pair[0]]);
            Err(e)
        }
    }
}

/// Descriptor whose closing lets the vforking parent go on; -1: none.
static VFORK_PIPE: Mutex<i32> = Mutex::new(-1);

/// Lets a vforking parent go on (execve succeeded).
pub fn release_vfork() {
    let mut fd = VFORK_PIPE.lock().expect("not poisoned");
    if *fd >= 0 {
        close_all([*fd]);
        *fd = -1;
    }
}

fn in_child(t: &mut Thread, held: u64, registration: Option<(i32, u32)>, vfork: Option<i32>) {
    process::refresh_pid();
    // SAFETY: gettid cannot fail.
    t.tid = unsafe { libc::gettid() };
    t.slot = None;
    t.captured.forget(held);
    t.entry = ring::ThreadEntry::Unclaimed;
    t.robust_list = 0;
    ROBUST.lock().expect("not poisoned").clear();
    OTHERS.lock().expect("not poisoned").clear();
    MAIN_ALIVE.store(1, Ordering::Relaxed);
    *VFORK_PIPE.lock().expect("not poisoned") = vfork.unwrap_or(-1);
    process::files().forked();
    crate::aio::forget();
    profile::forked(t.state());
    if let Some((conn, task)) = registration {
        close_all([ring::conn()]);
        ring::become_task(conn, task);
        if !packet::send(conn, b"c", &[], true) {
            signal::die(libc::SIGKILL);
        }
    }
}

/// exit(2) of one thread; the caller leaves its store.
pub fn exit(t: &mut Thread, status: i32) {
    ended(t);
    let last = OTHERS.lock().expect("not poisoned").len() == usize::from(t.tid != process::pid());
    let main = t.tid == process::pid();
    if main {
        if OTHERS.lock().expect("not poisoned").is_empty() {
            exit_group(status);
        }
        MAIN_ALIVE.store(0, Ordering::Relaxed);
        // The leader stays as a zombie until the others end, as on Linux.
        // SAFETY: ends this thread only.
        unsafe { libc::syscall(libc::SYS_exit, status) };
    } else if last && MAIN_ALIVE.load(Ordering::Relaxed) == 0 {
        process::files().release_all();
    }
}

/// What the kernel does when a thread ends: robust futexes, the tid word, the ring slot.
pub fn ended(t: &mut Thread) {
    profile::thread_ended(t.state());
    ROBUST.lock().expect("not poisoned").remove(&t.tid);
    walk_robust(t.tid, std::mem::take(&mut t.robust_list));
    if t.clear_child_tid != 0 && guest::write(t.clear_child_tid, &0u32).is_ok() {
        // SAFETY: wakes one waiter on a word of the region.
        unsafe { libc::syscall(libc::SYS_futex, guest::at(t.clear_child_tid), libc::FUTEX_WAKE, 1, 0, 0, 0) };
    }
    if ring::conn() >= 0 {
        ring::release(t);
    }
}

/// Heads of the robust lists of this process's threads, by thread: the host's kernel cannot follow
/// them, their addresses being the guest's.
static ROBUST: Mutex<BTreeMap<i32, u64>> = Mutex::new(BTreeMap::new());

/// set_robust_list(2).
pub fn set_robust_list(t: &mut Thread, a: [u64; 6]) -> SysResult {
    if a[1] != 24 {
        return Err(EINVAL);
    }
    t.robust_list = a[0];
    ROBUST.lock().expect("not poisoned").insert(t.tid, a[0]);
    Ok(0)
}

/// The process ends with all its threads.
pub fn release_robust() {
    let lists = std::mem::take(&mut *ROBUST.lock().expect("not poisoned"));
    for (tid, head) in lists {
        walk_robust(tid, head);
    }
}

/// Walks a robust list (Documentation/locking/robust-futexes.rst), bounded as the kernel's walk.
fn walk_robust(tid: i32, head: u64) {
    if head == 0 {
        return;
    }
    let read = |a: u64| guest::read::<u64>(a).unwrap_or(0);
    let (offset, pending) = (read(head + 8), read(head + 16));
    let release = |entry: u64| {
        let at = (entry & !1).wrapping_add(offset) & 0xffff_ffff;
        let Ok(word) = guest::read::<u32>(at) else { return };
        if word & 0x3fff_ffff == tid as u32 {
            let died = word & 0x8000_0000 | 0x4000_0000;
            let _ = guest::write(at, &died);
            if word & 0x8000_0000 != 0 {
                // SAFETY: wakes one waiter on a word of the region.
                unsafe { libc::syscall(libc::SYS_futex, guest::at(at), libc::FUTEX_WAKE, 1, 0, 0, 0) };
            }
        }
    };
    let mut entry = read(head);
    for _ in 0..2048 {
        if entry == 0 || entry & !1 == head {
            break;
        }
        let next = read(entry & !1);
        if entry != pending {
            release(entry);
        }
        entry = next;
    }
    if pending != 0 {
        release(pending);
    }
}

pub fn exit_group(status: i32) -> ! {
    process::files().release_all();
    profile::flush();
    // SAFETY: ends the process.
    unsafe {
        libc::syscall(libc::SYS_exit_group, status);
        libc::_exit(status)
    }
}

/// execve(2): makes every other thread leave, and waits until it has.
pub fn only_one(t: &Thread) {
    for _ in 0..10_000 {
        let others: Vec<i32> =
            OTHERS.lock().expect("not poisoned").iter().copied().filter(|tid| *tid != t.tid).collect();
        if others.is_empty() {
            return;
        }
        for tid in others {
            // SAFETY: the info is a live siginfo of SI_QUEUE's shape.
            unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                info.si_signo = LEAVE_SIGNAL;
                info.si_code = libc::SI_QUEUE;
                (&raw mut info).cast::<usize>().add(3).write(LEAVE_VALUE);
                libc::syscall(libc::SYS_rt_tgsigqueueinfo, process::pid(), tid, LEAVE_SIGNAL, &info);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    signal::die(libc::SIGKILL);
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    let not_poisoned = "not poisoned";
    (OTHERS.lock().expect(not_poisoned), VFORK_PIPE.lock().expect(not_poisoned), ROBUST.lock().expect(not_poisoned))
}
