//! The host calls a guest process may make, as one BPF filter. Everything else is ENOSYS.
//! Architecture checked, PROT_EXEC masked (not compared), no open, no execve, no ptrace.

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const NR: u32 = 0;
const ARCH: u32 = 4;

/// Low half of argument `n` in struct seccomp_data.
const fn arg(n: u32) -> u32 {
    16 + 8 * n
}

/// A call, and what its argument must not contain: (argument, mask) of which every bit must be 0.
struct Rule {
    nr: i64,
    zero: Option<(u32, u32)>,
}

const fn plain(nr: i64) -> Rule {
    Rule { nr, zero: None }
}

const SHM_EXEC: u32 = 0o100000;
const NEW_NAMESPACES: u32 = 0x7e02_0080;

/// Each line with its reason where it is not the guest's own call of that name.
fn rules() -> Vec<Rule> {
    let exec = libc::PROT_EXEC as u32;
    let mut rules = vec![
        Rule { nr: libc::SYS_mmap, zero: Some((2, exec)) },
        Rule { nr: libc::SYS_mprotect, zero: Some((2, exec)) },
        Rule { nr: libc::SYS_clone, zero: Some((0, NEW_NAMESPACES)) },
        Rule { nr: libc::SYS_shmat, zero: Some((2, SHM_EXEC)) },
        // Only within this thread group or the container: the PID namespace sees to it.
        plain(libc::SYS_kill),
        plain(libc::SYS_tkill),
        plain(libc::SYS_tgkill),
        plain(libc::SYS_rt_sigqueueinfo),
        plain(libc::SYS_rt_tgsigqueueinfo),
        // The loader's own: exit, memory, threads, signals, waiting, its sockets.
        plain(libc::SYS_exit),
        plain(libc::SYS_exit_group),
        plain(libc::SYS_brk),
        plain(libc::SYS_munmap),
        plain(libc::SYS_mremap),
        plain(libc::SYS_madvise),
        plain(libc::SYS_msync),
        plain(libc::SYS_mincore),
        plain(libc::SYS_mlock),
        plain(libc::SYS_mlock2),
        plain(libc::SYS_munlock),
        plain(libc::SYS_rt_sigaction),
        plain(libc::SYS_rt_sigprocmask),
        plain(libc::SYS_rt_sigreturn),
        plain(libc::SYS_sigaltstack),
        plain(libc::SYS_set_robust_list),
        plain(libc::SYS_rseq),
        plain(libc::SYS_restart_syscall),
        plain(libc::SYS_gettid),
        plain(libc::SYS_getpid),
        plain(libc::SYS_getuid),
        plain(libc::SYS_getgid),
        plain(libc::SYS_prlimit64),
        plain(libc::SYS_prctl),
        plain(libc::SYS_fstat),
        plain(libc::SYS_newfstatat),
        plain(libc::SYS_statx),
        plain(libc::SYS_fstatfs),
        plain(libc::SYS_uname),
        plain(libc::SYS_membarrier),
        // Generated files (/proc/self/maps) are memfds; nothing in one can be executed.
        plain(libc::SYS_memfd_create),
    ];
    for row in vkernel_abi::generated::table::TABLE {
        use vkernel_abi::syscall::Class;
        let own_rule = rules.iter().any(|r| r.nr == i64::from(row.nr));
        if row.class == Class::Direct && !own_rule {
            rules.push(plain(i64::from(row.nr)));
        }
    }
    // Local calls that end in a host call of the same number.
    for nr in [
        libc::SYS_close,
        libc::SYS_close_range,
        libc::SYS_dup,
        libc::SYS_dup2,
        libc::SYS_dup3,
        libc::SYS_fcntl,
        libc::SYS_pipe2,
        libc::SYS_ioctl,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_copy_file_range,
        libc::SYS_futex,
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_rt_sigpending,
        libc::SYS_rt_sigsuspend,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_clock_gettime,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_getsockopt,
        libc::SYS_fadvise64,
        libc::SYS_futex_waitv,
        libc::SYS_shmctl,
        libc::SYS_semctl,
        libc::SYS_mq_open,
    ] {
        rules.push(plain(nr));
    }
    rules.sort_by_key(|r| r.nr);
    rules.dedup_by_key(|r| r.nr);
    rules
}

fn stmt(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt, jf, k }
}

fn program() -> Vec<sock_filter> {
    let load = BPF_LD | BPF_W | BPF_ABS;
    let deny = ERRNO | libc::ENOSYS as u32;
    let refuse = ERRNO | libc::EACCES as u32;
    let mut p = vec![stmt(load, ARCH), jump(AUDIT_ARCH_X86_64, 1, 0), stmt(BPF_RET | BPF_K, deny), stmt(load, NR)];
    for r in rules() {
        match r.zero {
            None => {
                p.push(jump(r.nr as u32, 0, 1));
                p.push(stmt(BPF_RET | BPF_K, ALLOW));
            }
            Some((n, mask)) => {
                p.push(jump(r.nr as u32, 0, 5));
                p.push(stmt(load, arg(n)));
                p.push(stmt(BPF_ALU | BPF_AND | BPF_K, mask));
                p.push(jump(0, 0, 1));
                p.push(stmt(BPF_RET | BPF_K, ALLOW));
                p.push(stmt(BPF_RET | BPF_K, refuse));
            }
        }
    }
    p.push(stmt(BPF_RET | BPF_K, deny));
    p
}

/// Installs the filter on this process; children and threads inherit it.
pub fn install() -> Result<(), String> {
    let mut p = program();
    let f = libc::sock_fprog { len: p.len() as u16, filter: p.as_mut_ptr() };
    // SAFETY: a live filter program; no_new_privs is set.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &f) };
    if r != 0 { Err(format!("seccomp: {}", std::io::Error::last_os_error())) } else { Ok(()) }
}
