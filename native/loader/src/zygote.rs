//! The zygote: maps an image once, then makes a container's first process, or another process in a
//! running container, for each request of the daemon (docs/abi.md). Single-threaded.

use crate::exec::Bytes;
use crate::{
    alloc, cpu, egress, exec, image, lockdown, packet, process, profile, ring, signal, sockets, thread, trace, watch,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicI32, Ordering};
use vkernel_abi::generated::ring::HIDDEN_FD_BASE;

const CONTROL: i32 = 3;
const MEGABINARY: i32 = 4;
const EROFS: i32 = 5;

#[derive(Deserialize)]
struct Request {
    r#type: String,
    id: u32,
    path: Bytes,
    argv: Vec<Bytes>,
    env: Vec<Bytes>,
    /// Node id of the working directory.
    cwd: u32,
    /// Its nid, when it is a directory of the image; 0: it is not.
    #[serde(rename = "cwdNid")]
    cwd_nid: u64,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: u32,
    hostname: String,
    nofile: u64,
    tty: bool,
    /// Node id of the terminal behind the standard streams; 0: none.
    #[serde(default)]
    terminal: u32,
    /// Task number of the new process.
    task: u32,
    /// Who carries what leaves the container.
    network: egress::Network,
    /// The last descriptor takes a profile.
    #[serde(default)]
    profile: bool,
}

/// What every request has.
#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Serialize, Default)]
struct Event<'a> {
    r#type: &'a str,
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elfs: Option<usize>,
}

/// Where events go: the control socket, or a hidden copy of it in a child being set up.
static CONTROL_FD: AtomicI32 = AtomicI32::new(CONTROL);

fn send(event: &Event) {
    let bytes = rmp_serde::to_vec_named(event).expect("events are plain");
    packet::send(CONTROL_FD.load(Ordering::Relaxed), &bytes, &[], false);
}

/// Moves a descriptor above the guest's numbers.
fn hide(fd: i32) -> Result<i32, String> {
    // SAFETY: duplicates and closes a descriptor of ours.
    let hidden = unsafe {
        let n = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, HIDDEN_FD_BASE);
        libc::close(fd);
        n
    };
    if hidden < 0 {
        return Err(format!(
            "descriptor {fd} cannot be moved above {HIDDEN_FD_BASE}: raise the limit of open files (ulimit -Hn) to 8192"
        ));
    }
    Ok(hidden)
}

fn raise_nofile() {
    // SAFETY: plain rlimit calls.
    unsafe {
        let mut r: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        r.rlim_cur = r.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &r);
    }
}

/// Serves until the daemon closes the control socket.
pub fn run() -> Result<(), String> {
    trace::init();
    raise_nofile();
    // The daemon's death must not leave zygotes behind.
    // SAFETY: plain prctl; a parent that is already gone shows as a closed control socket.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: plain getters.
    let ids = unsafe { (libc::getuid(), libc::getgid()) };
    lockdown::OUTER_IDS.get_or_init(|| ids);
    let erofs = hide(EROFS)?;
    let region = alloc::begin()?;
    let img = image::load(Some(MEGABINARY), Some(erofs))?;
    alloc::freeze(region)?;
    // SAFETY: the megabinary's sections stay mapped; its descriptor is not needed any more.
    unsafe { libc::close(MEGABINARY) };
    lockdown::seal_code();
    signal::install();
    let children = watch_children()?;
    send(&Event { r#type: "ready", elfs: Some(img.elfs.len()), ..Event::default() });
    let mut known: Vec<(i32, u32)> = Vec::new();
    loop {
        let mut p = [
            libc::pollfd { fd: CONTROL, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: children, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: polls two descriptors of ours.
        unsafe { libc::poll(p.as_mut_ptr(), 2, -1) };
        if p[1].revents != 0 {
            reap(children, &mut known);
        }
        if p[0].revents & libc::POLLIN != 0 {
            let mut bytes = vec![0u8; 1 << 20];
            let Some((n, fds)) = packet::receive(CONTROL, &mut bytes) else { return Ok(()) };
            if n == 0 {
                return Ok(());
            }
            match rmp_serde::from_slice::<Request>(&bytes[..n]) {
                _ if rmp_serde::from_slice::<Kind>(&bytes[..n]).is_ok_and(|k| k.r#type == "sockets") => {
                    make_sockets(&fds)
                }
                Ok(r) => {
                    let id = r.id;
                    match spawn(r, &fds, children) {
                        Ok(pid) => known.push((pid, id)),
                        Err(what) => send(&Event {
                            r#type: "failed",
                            id,
                            errno: Some(libc::EIO),
                            what: Some(what),
                            ..Event::default()
                        }),
                    }
                }
                Err(e) => trace::bug(&format!("zygote: request: {e}")),
            }
            for fd in fds {
                // SAFETY: descriptors we received for the child.
                unsafe { libc::close(fd) };
            }
        } else if p[0].revents != 0 {
            return Ok(());
        }
    }
}

fn watch_children() -> Result<i32, String> {
    // SAFETY: blocks SIGCHLD and makes a signalfd for it.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 { Err(format!("signalfd: {}", std::io::Error::last_os_error())) } else { hide(fd) }
}

fn reap(fd: i32, known: &mut Vec<(i32, u32)>) {
    let mut b = [0u8; 128];
    // SAFETY: drains our signalfd into a buffer of a record's size; reaps our children.
    unsafe {
        while libc::read(fd, b.as_mut_ptr().cast(), b.len()) > 0 {}
        loop {
            let mut status = 0;
            let pid = libc::waitpid(-1, &mut status, libc::WNOHANG);
            if pid <= 0 {
                return;
            }
            if let Some(n) = known.iter().position(|k| k.0 == pid) {
                let (_, id) = known.swap_remove(n);
                send(&Event { r#type: "exited", id, status: Some(status), ..Event::default() });
            }
        }
    }
}

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Makes the process; returns its pid to the zygote. The child does not return.
fn spawn(r: Request, fds: &[i32], children: i32) -> Result<i32, String> {
    let join = r.r#type == "join";
    if fds.len() != 7 + if join { 6 } else { 0 } + usize::from(r.profile) {
        return Err(format!("{} descriptors came with the request", fds.len()));
    }
    // SAFETY: the zygote is single-threaded, so the child may do anything; glibc's copy of the
    // thread id is refreshed through the address the kernel holds for it.
    let pid = unsafe {
        if join {
            libc::fork()
        } else {
            let mut tid_at: *mut i32 = std::ptr::null_mut();
            let known = libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut tid_at) == 0;
            let set = if known { libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID } else { 0 };
            let flags = NAMESPACES | libc::SIGCHLD | set;
            libc::syscall(libc::SYS_clone, flags as u64, 0, 0, tid_at, 0) as i32
        }
    };
    if pid < 0 {
        return Err(format!("clone: {}", std::io::Error::last_os_error()));
    }
    if pid > 0 {
        if !join {
            send(&Event { r#type: "started", id: r.id, pid: Some(pid), ..Event::default() });
        }
        return Ok(pid);
    }
    let id = r.id;
    if join {
        enter(&fds[7..], id);
    }
    if let Err(what) = become_guest(r, fds, join, children) {
        send(&Event { r#type: "failed", id, errno: Some(libc::EIO), what: Some(what), ..Event::default() });
        // SAFETY: ends the failed child.
        unsafe { libc::_exit(125) };
    }
    // SAFETY: `become_guest` ends only with the process.
    unsafe { libc::_exit(125) }
}

/// Forks a container's socket maker (sockets.rs): user and network namespace, channel to the daemon.
fn make_sockets(fds: &[i32]) {
    let [user, net, channel] = fds[..] else { return };
    // SAFETY: the zygote is single-threaded; the child ends here.
    unsafe {
        if libc::fork() == 0 {
            let served = sockets::serve(user, net, channel);
            if let Err(what) = &served {
                eprintln!("vkernel: {what}");
            }
            libc::_exit(i32::from(served.is_err()));
        }
    }
}

/// Enters a container's namespaces and forks there; the parent of the two relays the exit status. By
/// their descriptors: its processes are not dumpable, so an ordinary user's zygote may not ask them.
fn enter(namespaces: &[i32], id: u32) {
    // SAFETY: plain calls of a single-threaded process.
    unsafe {
        if namespaces.iter().any(|fd| libc::setns(*fd, 0) != 0) {
            let what = format!("cannot enter the container: {}", std::io::Error::last_os_error());
            send(&Event { r#type: "failed", id, errno: Some(libc::ESRCH), what: Some(what), ..Event::default() });
            libc::_exit(125);
        }
        let pid = libc::fork();
        if pid == 0 {
            return;
        }
        send(&Event { r#type: "started", id, pid: Some(pid), ..Event::default() });
        let mut status = 0;
        while libc::waitpid(pid, &mut status, 0) < 0 {}
        if libc::WIFSIGNALED(status) {
            signal::die(libc::WTERMSIG(status));
        }
        libc::_exit(libc::WEXITSTATUS(status));
    }
}

fn become_guest(r: Request, fds: &[i32], join: bool, children: i32) -> Result<(), String> {
    image::overridden::attach(fds[6])?;
    let (conn, ring_fd, doorbell) = (hide(dup(fds[3])?)?, hide(dup(fds[4])?)?, hide(dup(fds[5])?)?);
    if r.profile {
        profile::attach(hide(dup(fds[fds.len() - 1])?)?);
    }
    for (n, fd) in (0..).zip(&fds[..3]) {
        if *fd != n {
            // SAFETY: a received descriptor onto a standard number; dup2 clears close-on-exec.
            unsafe { libc::dup2(*fd, n) };
        }
    }
    // SAFETY: closes everything the guest has no business with, but the hidden ones.
    unsafe {
        libc::close(children);
        libc::prctl(libc::PR_SET_PDEATHSIG, if join { 0 } else { libc::SIGKILL });
        libc::setsid();
        if r.tty {
            libc::ioctl(0, libc::TIOCSCTTY, 0);
        }
        libc::umask(0);
    }
    let mut namespaces = None;
    if !join {
        namespaces = Some(sockets::namespaces()?);
        lockdown::namespaces(&r.hostname)?;
        if r.network != egress::Network::None {
            sockets::any_address()?;
        }
    }
    egress::set(r.network);
    // Before anything of the guest's: the daemon takes namespaces from no other packet.
    if let Some(fds) = namespaces
        && !packet::send(conn, b"n", &fds, false)
    {
        return Err("the daemon closed the connection".into());
    }
    let control = hide(dup(CONTROL)?)?;
    CONTROL_FD.store(control, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, 3, HIDDEN_FD_BASE - 1, 0) };
    ring::attach(ring_fd, conn, doorbell, r.task)?;
    // SAFETY: the ring stays mapped.
    unsafe { libc::close(ring_fd) };
    signal::reset_all();
    signal::set_host_mask(0);
    process::refresh_pid();
    {
        let mut fs = process::fs();
        fs.cwd = r.cwd;
        fs.cwd_nid = r.cwd_nid;
        fs.umask = r.umask;
        let mut c = process::creds();
        c.uid = [r.uid; 3];
        c.gid = [r.gid; 3];
        c.groups = r.groups;
    }
    if r.terminal != 0 {
        let mut files = process::files();
        (0..3).for_each(|fd| files.set_host(fd, r.terminal));
    }
    lockdown::limit_files(r.nofile);
    let mut t = cpu::Thread::new(thread::state_page());
    t.tid = process::pid();
    if !packet::send(conn, b"c", &[], true) {
        return Err("the daemon closed the connection".into());
    }
    lockdown::seal_process()?;
    let argv: Vec<_> = r.argv.into_iter().map(|b| b.0).collect();
    let envp: Vec<_> = r.env.into_iter().map(|b| b.0).collect();
    // SAFETY: the control socket is the zygote's alone from here on.
    unsafe { libc::close(control) };
    let (shown, count) = (argv.clone(), envp.len());
    let started = exec::first(&mut t, &r.path.0, argv, envp);
    watch::first(&mut t, &r.path.0, &shown, count, started.map(|()| 0));
    if let Err(e) = started {
        let path = String::from_utf8_lossy(&r.path.0);
        eprintln!("vkernel: {path}: {}", describe(e.0));
        let missing = e.0 == libc::ENOENT || e.0 == libc::ENOTDIR;
        thread::exit_group(if missing { 127 } else { 126 });
    }
    cpu::run_thread(image::get(), t);
    Ok(())
}

fn describe(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

fn dup(fd: i32) -> Result<i32, String> {
    // SAFETY: duplicates a descriptor of ours.
    let n = unsafe { libc::dup(fd) };
    if n < 0 { Err(format!("dup: {}", std::io::Error::last_os_error())) } else { Ok(n) }
}
