//! Names for numbers in system call arguments, as the headers have them.

pub type Names = &'static [(u64, &'static str)];

pub enum Symbols {
    /// One of these.
    One(Names),
    /// Bits of these; the text of zero.
    Bits(Names, &'static str),
    /// open(2): an access mode and bits.
    Open,
    Octal,
    Hex,
    Signal,
    /// futex(2): an operation and bits.
    Futex,
    /// socket(2): a type and bits.
    SocketType,
    /// clone(2): bits and a signal.
    Clone,
}
use Symbols::{Bits, Clone, Futex, Hex, Octal, One, Open, Signal, SocketType};

macro_rules! names { ($($n:ident)*) => { &[$((libc::$n as u64, stringify!($n))),*] } }

pub const ACCESS_MODES: Names = names!(O_RDONLY O_WRONLY O_RDWR);
pub const OPEN: Names = &[
    (libc::O_PATH as u64, "O_PATH"),
    (libc::O_TMPFILE as u64, "O_TMPFILE"),
    (libc::O_CREAT as u64, "O_CREAT"),
    (libc::O_EXCL as u64, "O_EXCL"),
    (libc::O_NOCTTY as u64, "O_NOCTTY"),
    (libc::O_TRUNC as u64, "O_TRUNC"),
    (libc::O_APPEND as u64, "O_APPEND"),
    (libc::O_NONBLOCK as u64, "O_NONBLOCK"),
    (libc::O_SYNC as u64, "O_SYNC"),
    (libc::O_DSYNC as u64, "O_DSYNC"),
    (libc::O_ASYNC as u64, "O_ASYNC"),
    (libc::O_DIRECT as u64, "O_DIRECT"),
    (0o100000, "O_LARGEFILE"),
    (libc::O_DIRECTORY as u64, "O_DIRECTORY"),
    (libc::O_NOFOLLOW as u64, "O_NOFOLLOW"),
    (libc::O_NOATIME as u64, "O_NOATIME"),
    (libc::O_CLOEXEC as u64, "O_CLOEXEC"),
];
const PROT: Names = names!(PROT_READ PROT_WRITE PROT_EXEC PROT_GROWSDOWN PROT_GROWSUP);
const MAP: Names = names!(MAP_SHARED MAP_PRIVATE MAP_FIXED MAP_ANONYMOUS MAP_32BIT MAP_GROWSDOWN MAP_DENYWRITE
    MAP_LOCKED MAP_NORESERVE MAP_POPULATE MAP_NONBLOCK MAP_STACK MAP_HUGETLB MAP_FIXED_NOREPLACE);
const ADVICE: Names = names!(MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED MADV_DONTNEED MADV_FREE
    MADV_REMOVE MADV_DONTFORK MADV_DOFORK MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_DONTDUMP MADV_DODUMP);
const AT: Names = names!(AT_SYMLINK_NOFOLLOW AT_EACCESS AT_SYMLINK_FOLLOW AT_NO_AUTOMOUNT AT_EMPTY_PATH AT_STATX_FORCE_SYNC AT_STATX_DONT_SYNC);
const UNLINKAT: Names = names!(AT_REMOVEDIR);
const OK: Names = names!(R_OK W_OK X_OK);
const FCNTL: Names = names!(F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_SETOWN F_GETOWN
    F_DUPFD_CLOEXEC F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS F_SETLEASE F_GETLEASE F_NOTIFY F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW);
const WHENCE: Names = names!(SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE);
pub const FUTEX_OPS: Names = names!(FUTEX_WAIT FUTEX_WAKE FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI FUTEX_CMP_REQUEUE_PI FUTEX_LOCK_PI2);
pub const FUTEX_BITS: Names = names!(FUTEX_PRIVATE_FLAG FUTEX_CLOCK_REALTIME);
pub const FAMILIES: Names = names!(AF_UNSPEC AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET);
pub const SOCKET_TYPES: Names = names!(SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_SEQPACKET);
pub const SOCKET_BITS: Names = names!(SOCK_CLOEXEC SOCK_NONBLOCK);
const MSG: Names = names!(MSG_OOB MSG_PEEK MSG_DONTROUTE MSG_CTRUNC MSG_TRUNC MSG_DONTWAIT MSG_EOR MSG_WAITALL MSG_NOSIGNAL MSG_MORE MSG_CMSG_CLOEXEC MSG_ERRQUEUE);
const SHUT: Names = names!(SHUT_RD SHUT_WR SHUT_RDWR);
const LEVELS: Names = names!(SOL_SOCKET SOL_IP SOL_TCP SOL_IPV6 SOL_UDP);
const HOW: Names = names!(SIG_BLOCK SIG_UNBLOCK SIG_SETMASK);
const WAIT: Names = names!(WNOHANG WUNTRACED WCONTINUED WEXITED WNOWAIT);
pub const CLONE: Names = names!(CLONE_VM CLONE_FS CLONE_FILES CLONE_SIGHAND CLONE_PIDFD CLONE_PTRACE CLONE_VFORK CLONE_PARENT
    CLONE_THREAD CLONE_NEWNS CLONE_SYSVSEM CLONE_SETTLS CLONE_PARENT_SETTID CLONE_CHILD_CLEARTID CLONE_DETACHED CLONE_UNTRACED
    CLONE_CHILD_SETTID CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET CLONE_IO);
const RENAME: Names = names!(RENAME_NOREPLACE RENAME_EXCHANGE RENAME_WHITEOUT);
const DESCRIPTOR: Names = names!(O_CLOEXEC O_NONBLOCK O_DIRECT);
const EPOLL_OPS: Names = names!(EPOLL_CTL_ADD EPOLL_CTL_MOD EPOLL_CTL_DEL);
const CLOCKS: Names = names!(CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID
    CLOCK_MONOTONIC_RAW CLOCK_REALTIME_COARSE CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME CLOCK_TAI);
pub const POLL: Names = names!(POLLIN POLLPRI POLLOUT POLLERR POLLHUP POLLNVAL);
const FLOCK: Names = names!(LOCK_SH LOCK_EX LOCK_NB LOCK_UN);
const LIMITS: Names = names!(RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC
    RLIMIT_NOFILE RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME);
const IOCTL: Names = names!(TCGETS TCSETS TCSETSW TCSETSF TIOCGWINSZ TIOCSWINSZ TIOCGPGRP TIOCSPGRP TIOCSCTTY TIOCNOTTY
    TIOCGPTN TIOCSPTLCK TIOCGSID TIOCOUTQ FIONREAD FIONBIO FIOCLEX FIONCLEX FIOASYNC TCFLSH TCSBRK);
const ARCH_PRCTL: Names =
    &[(0x1001, "ARCH_SET_GS"), (0x1002, "ARCH_SET_FS"), (0x1003, "ARCH_GET_FS"), (0x1004, "ARCH_GET_GS")];
const PRCTL: Names = names!(PR_SET_PDEATHSIG PR_GET_PDEATHSIG PR_GET_DUMPABLE PR_SET_DUMPABLE PR_SET_NAME PR_GET_NAME PR_CAPBSET_READ
    PR_CAPBSET_DROP PR_SET_NO_NEW_PRIVS PR_GET_NO_NEW_PRIVS PR_SET_CHILD_SUBREAPER PR_GET_SECCOMP PR_SET_SECCOMP PR_SET_KEEPCAPS
    PR_SET_TIMERSLACK PR_SET_VMA);
const RANDOM: Names = names!(GRND_NONBLOCK GRND_RANDOM);
const MREMAP: Names = names!(MREMAP_MAYMOVE MREMAP_FIXED MREMAP_DONTUNMAP);

/// What argument `n` of a call is; None: a plain number.
pub fn of(call: &str, n: usize) -> Option<Symbols> {
    Some(match (call, n) {
        ("open", 1) | ("openat", 2) => Open,
        ("open" | "mkdir" | "chmod" | "creat" | "mknod" | "fchmod", 1 | 2) => Octal,
        ("openat", 3) | ("mkdirat" | "fchmodat" | "mknodat", 2) | ("umask", 0) => Octal,
        ("mmap" | "mprotect" | "pkey_mprotect", 2) => Bits(PROT, "PROT_NONE"),
        ("mmap", 3) => Bits(MAP, "0"),
        ("mmap" | "munmap" | "mprotect" | "madvise" | "brk" | "mremap" | "msync", 0) => Hex,
        ("mremap", 3) => Bits(MREMAP, "0"),
        ("madvise", 2) => One(ADVICE),
        ("access", 1) | ("faccessat" | "faccessat2", 2) => Bits(OK, "F_OK"),
        ("unlinkat", 2) => Bits(UNLINKAT, "0"),
        ("newfstatat" | "faccessat2" | "utimensat", 3) | ("statx", 2) | ("fchownat" | "linkat" | "execveat", 4) => {
            Bits(AT, "0")
        }
        ("renameat2", 4) => Bits(RENAME, "0"),
        ("fcntl", 1) => One(FCNTL),
        ("lseek", 2) => One(WHENCE),
        ("flock", 1) => Bits(FLOCK, "0"),
        ("ioctl", 1) => One(IOCTL),
        ("ioctl", 2) => Hex,
        ("pipe2", 1) | ("dup3", 2) | ("eventfd2", 1) | ("epoll_create1", 0) | ("timerfd_create", 1) => {
            Bits(DESCRIPTOR, "0")
        }
        ("epoll_ctl", 1) => One(EPOLL_OPS),
        ("futex", 1) => Futex,
        ("socket" | "socketpair", 0) => One(FAMILIES),
        ("socket" | "socketpair", 1) => SocketType,
        ("accept4", 3) => Bits(SOCKET_BITS, "0"),
        ("sendto" | "recvfrom", 3) | ("sendmsg" | "recvmsg", 2) | ("sendmmsg" | "recvmmsg", 3) => Bits(MSG, "0"),
        ("shutdown", 1) => One(SHUT),
        ("setsockopt" | "getsockopt", 1) => One(LEVELS),
        ("kill" | "tkill", 1) | ("rt_sigaction", 0) | ("tgkill", 2) | ("pidfd_send_signal", 1) => Signal,
        ("rt_sigqueueinfo", 1) | ("rt_tgsigqueueinfo", 2) => Signal,
        ("rt_sigprocmask", 0) => One(HOW),
        ("wait4", 2) | ("waitid", 3) => Bits(WAIT, "0"),
        ("clone", 0) => Clone,
        ("clone", 1..=4) | ("set_tid_address" | "set_robust_list" | "rseq", 0) | ("arch_prctl", 1) => Hex,
        ("clock_gettime" | "clock_getres" | "clock_nanosleep" | "timerfd_create" | "timer_create", 0) => One(CLOCKS),
        ("prlimit64", 1) | ("getrlimit" | "setrlimit", 0) => One(LIMITS),
        ("arch_prctl", 0) => One(ARCH_PRCTL),
        ("prctl", 0) => One(PRCTL),
        ("getrandom", 2) => Bits(RANDOM, "0"),
        _ => return None,
    })
}

const SIGNALS: Names = names!(SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2
    SIGPIPE SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM
    SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS);

pub fn signal(n: u64) -> String {
    match SIGNALS.iter().find(|s| s.0 == n) {
        Some((_, name)) => (*name).to_string(),
        None if (32..=64).contains(&n) => format!("SIGRT_{}", n - 32),
        None => n.to_string(),
    }
}

/// Bits by name, what is left over in hex.
pub fn bits(mut v: u64, names: Names, zero: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for (bit, name) in names {
        if *bit != 0 && v & bit == *bit {
            out.push((*name).into());
            v &= !bit;
        }
    }
    if v != 0 {
        out.push(format!("{v:#x}"));
    }
    if out.is_empty() { zero.into() } else { out.join("|") }
}

pub fn one(v: u64, names: Names) -> String {
    names.iter().find(|n| n.0 == v).map_or_else(|| format!("{v:#x}"), |n| n.1.into())
}

const ERRNO: Names = names!(EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ETIME EPROTO EBADMSG EOVERFLOW EILSEQ
    EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED EOWNERDEAD
    ENOTRECOVERABLE);

/// The name of a positive errno.
pub fn errno(n: u64) -> String {
    ERRNO.iter().find(|e| e.0 == n).map_or_else(|| format!("errno {n}"), |e| e.1.into())
}

/// The number of a name.
pub fn errno_of(name: &str) -> Option<u64> {
    ERRNO.iter().find(|e| e.1 == name).map(|e| e.0)
}
