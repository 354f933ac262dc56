//! What a guest process gives up before its first instruction. The order matters: each step needs
//! something that the next takes away. map code → seal it → namespaces, empty root → no_new_privs,
//! capabilities, dumpable → Landlock → MDWE → seccomp.

use crate::seccomp;
use vkernel_abi::generated::ring::HIDDEN_FD_BASE;

fn error(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

fn check(r: impl Into<i64>, what: &str) -> Result<(), String> {
    if r.into() < 0 { Err(error(what)) } else { Ok(()) }
}

/// Makes every mapping that is executable now immutable (mseal(2), Linux 6.10; earlier kernels keep
/// seccomp's and MDWE's rules only).
pub fn seal_code() {
    const SYS_MSEAL: i64 = 462;
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(prot)) = (words.next(), words.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        if prot.contains('x')
            && !line.contains("[vsyscall]")
            && let (Ok(a), Ok(b)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            // SAFETY: sealing our own code mappings.
            unsafe { libc::syscall(SYS_MSEAL, a, b - a, 0) };
        }
    }
}

/// In the new namespaces: ids, loopback, host name, and an empty read-only root.
pub fn namespaces(hostname: &str) -> Result<(), String> {
    let write = |file: &str, text: String| std::fs::write(file, text).map_err(|e| format!("{file}: {e}"));
    // One id: the guest's own users are the daemon's business.
    let (uid, gid) = *OUTER_IDS.get().ok_or("the outer ids are not known")?;
    let _ = write("/proc/self/setgroups", "deny".into());
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    loopback_up()?;
    // Guests have no capabilities, and root in a container binds port 80 (as other container engines set it).
    let _ = write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0".into());
    // SAFETY: plain calls with live strings, in namespaces of our own.
    unsafe {
        libc::sethostname(hostname.as_ptr().cast(), hostname.len());
        let none = std::ptr::null::<libc::c_char>();
        check(
            libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()),
            "private mounts",
        )?;
        let at = c"/proc".as_ptr();
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
        check(
            libc::mount(c"none".as_ptr(), at, c"tmpfs".as_ptr(), flags, c"size=4k,nr_inodes=2".as_ptr().cast()),
            "empty root",
        )?;
        check(libc::chdir(at), "chdir")?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), "pivot_root")?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), "umount")?;
        check(libc::chdir(c"/".as_ptr()), "chdir")?;
    }
    Ok(())
}

/// (uid, gid) of the zygote, taken before any namespace is entered.
pub static OUTER_IDS: std::sync::OnceLock<(u32, u32)> = std::sync::OnceLock::new();

fn loopback_up() -> Result<(), String> {
    // SAFETY: a socket and one ioctl with a live ifreq.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd, "socket")?;
        let mut r: libc::ifreq = std::mem::zeroed();
        r.ifr_name[0] = b'l' as libc::c_char;
        r.ifr_name[1] = b'o' as libc::c_char;
        r.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        let up = libc::ioctl(fd, libc::SIOCSIFFLAGS, &r);
        libc::close(fd);
        check(up, "loopback")
    }
}

/// The guest's descriptors end below the hidden ones.
pub fn limit_files(asked: u64) {
    // SAFETY: plain rlimit calls.
    unsafe {
        let mut r: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        r.rlim_cur = asked.clamp(16, HIDDEN_FD_BASE as u64);
        libc::setrlimit(libc::RLIMIT_NOFILE, &r);
    }
}

/// The last steps, in order. After this the process can make no new code, open nothing, gain
/// nothing.
pub fn seal_process() -> Result<(), String> {
    let queues = message_queues();
    // SAFETY: plain prctl and capability calls on this process.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")?;
        for cap in 0..=63 {
            if libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) > 0 {
                libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0);
            }
        }
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()), "capabilities")?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")?;
    }
    landlock(queues)?;
    const PR_SET_MDWE: i32 = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;
    // SAFETY: plain prctl. Kernels before 6.3 have no MDWE: seccomp's rules remain.
    unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
    seccomp::install()
}

/// The root of the IPC namespace's POSIX message queues, as a mount that is nowhere: mq_open(2) is an
/// access to their file system, and Landlock shall allow it. None: mq_open is EACCES.
fn message_queues() -> Option<i32> {
    const FSCONFIG_CMD_CREATE: u64 = 6;
    /// FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC.
    const CLOEXEC: u64 = 1;
    let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: live strings and descriptors of our own.
    unsafe {
        let fs = libc::syscall(libc::SYS_fsopen, c"mqueue".as_ptr(), CLOEXEC) as i32;
        if fs < 0 {
            return None;
        }
        let made = libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0) == 0;
        let mount = if made { libc::syscall(libc::SYS_fsmount, fs, CLOEXEC, flags) as i32 } else { -1 };
        libc::close(fs);
        (mount >= 0).then_some(mount)
    }
}

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Denies every file-system access by path (landlock(7)) but to the container's own message queues;
/// kernels without it have the empty root.
fn landlock(queues: Option<i32>) -> Result<(), String> {
    const CREATE: i64 = 444;
    const ADD_RULE: i64 = 445;
    const RESTRICT: i64 = 446;
    // SAFETY: the version query takes no attributes.
    let abi = unsafe { libc::syscall(CREATE, 0, 0, 1) };
    if abi < 1 {
        if let Some(fd) = queues {
            // SAFETY: a descriptor of our own.
            unsafe { libc::close(fd) };
        }
        return Ok(());
    }
    let bits = match abi {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let attr: u64 = (1 << bits) - 1;
    // SAFETY: live attributes of the kernel's layout; descriptors of our own.
    unsafe {
        let fd = libc::syscall(CREATE, &raw const attr, 8, 0) as i32;
        check(fd, "landlock ruleset")?;
        if let Some(parent) = queues {
            let rule = PathBeneath { allowed: attr, parent };
            libc::syscall(ADD_RULE, fd, 1, &raw const rule, 0);
            libc::close(parent);
        }
        let r = libc::syscall(RESTRICT, fd, 0);
        libc::close(fd);
        check(r, "landlock")
    }
}
