//! `recompiler probe`: facts about this host that only system calls can tell, as one JSON object for
//! `recompiler doctor`. Each is asked in the way the loader will need it.

const SYS_LANDLOCK_CREATE_RULESET: i64 = 444;
const SYS_MSEAL: i64 = 462;
const PR_GET_MDWE: i32 = 66;
const SECCOMP_GET_ACTION_AVAIL: i64 = 2;

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Makes the namespaces of a container in a child and maps an id there; the reason when it fails.
fn namespaces() -> Option<String> {
    let mut pipe = [0i32; 2];
    // SAFETY: the child makes plain calls and ends by _exit; this program has one thread.
    unsafe {
        let (uid, gid) = (libc::getuid(), libc::getgid());
        if libc::pipe(pipe.as_mut_ptr()) != 0 {
            return Some("no pipe".into());
        }
        let child = libc::fork();
        if child == 0 {
            let tried = if libc::unshare(NAMESPACES) != 0 {
                Some(format!("unshare: {}", std::io::Error::last_os_error()))
            } else {
                let write = |file: &str, text: String| std::fs::write(file, text).map_err(|e| format!("{file}: {e}"));
                let _ = write("/proc/self/setgroups", "deny".into());
                write("/proc/self/uid_map", format!("0 {uid} 1"))
                    .and_then(|()| write("/proc/self/gid_map", format!("0 {gid} 1")))
                    .err()
            };
            let text = tried.unwrap_or_default();
            libc::write(pipe[1], text.as_ptr().cast(), text.len());
            libc::_exit(0);
        }
        libc::close(pipe[1]);
        let mut buf = [0u8; 256];
        let n = libc::read(pipe[0], buf.as_mut_ptr().cast(), buf.len());
        libc::close(pipe[0]);
        libc::waitpid(child, std::ptr::null_mut(), 0);
        (n != 0).then(|| String::from_utf8_lossy(&buf[..n.max(0) as usize]).into_owned())
    }
}

fn action_available(action: u32) -> bool {
    // SAFETY: a live u32.
    unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

fn memfd() -> bool {
    // SAFETY: a live name; the descriptor is ours and closed.
    unsafe {
        let fd = libc::memfd_create(c"probe".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        let sealed = fd >= 0 && libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_WRITE) == 0;
        libc::close(fd);
        sealed
    }
}

pub fn probe() -> String {
    let namespaces = namespaces().map_or("null".into(), |why| format!("{why:?}"));
    let ptmx = std::fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx").is_ok();
    // SAFETY: queries; mseal of no bytes changes nothing.
    let (landlock, mseal, mdwe, pidfd, nofile) = unsafe {
        let mut r: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        let pidfd = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as i32;
        libc::close(pidfd);
        (
            libc::syscall(SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1).max(0),
            libc::syscall(SYS_MSEAL, 0, 0, 0) == 0,
            libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) >= 0,
            pidfd >= 0,
            r.rlim_max.min(1 << 52),
        )
    };
    let seccomp = action_available(libc::SECCOMP_RET_ERRNO);
    let notification = action_available(libc::SECCOMP_RET_USER_NOTIF);
    let memfd = memfd();
    format!(
        "{{\"namespaces\":{namespaces},\"landlock\":{landlock},\"seccomp\":{seccomp},\"userNotification\":{notification},\"mdwe\":{mdwe},\
         \"mseal\":{mseal},\"memfd\":{memfd},\"ptmx\":{ptmx},\"nofileHard\":{nofile},\"pidfd\":{pidfd}}}"
    )
}
