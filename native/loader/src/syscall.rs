//! The only door: a guest's system call goes by number to the one place that answers it.

use crate::cpu::{Leave, Thread};
use crate::errno::{EACCES, ENOSYS, EPERM, SysResult};
use crate::{
    aio, clone, direct, exec, fdcalls, futexcalls, image, ipc, listing, local, mediated, memcalls, messages, netcalls,
    prctl, process, sigcalls, signal, thread, watch,
};
use std::sync::Mutex;
use vkernel_abi::syscall::{Class, Syscall, find};

pub struct Outcome {
    pub value: SysResult,
    /// Restarted behind a handler with SA_RESTART when it was interrupted.
    pub restartable: bool,
    /// rt_sigreturn: every register is already what it shall be.
    pub restores_state: bool,
}

/// Answers call `nr` with the arguments in the thread's registers.
///
/// Errors: `Leave`, when the thread ends or the program is replaced.
pub fn dispatch(t: &mut Thread, nr: u64) -> wasmtime::Result<Outcome> {
    let args = t.args();
    let row = find(nr & 0xffff_ffff);
    let watched = watch::enter(t, nr as u32, &args, row);
    if nr as i64 == libc::SYS_rt_sigreturn {
        watch::done(t, None, nr as u32, row, Ok(Ok(0)));
        if signal::sigreturn(t).is_err() {
            signal::force(t, libc::SIGSEGV, 0x80, 0, 13);
        }
        return Ok(Outcome { value: Ok(0), restartable: false, restores_state: true });
    }
    let value = answer(t, nr as i64, args, row);
    watch::done(t, watched, nr as u32, row, value.as_ref().copied());
    Ok(Outcome { value: value?, restartable: row.is_some_and(|r| r.restart), restores_state: false })
}

fn name(row: Option<&Syscall>) -> &'static str {
    row.map_or("?", |r| r.name)
}

/// The outer result is about the thread, the inner one the guest's.
fn answer(t: &mut Thread, nr: i64, a: [u64; 6], row: Option<&'static Syscall>) -> Result<SysResult, Leave> {
    Ok(match nr {
        // Processes and threads
        libc::SYS_getpid => Ok(i64::from(process::pid())),
        libc::SYS_gettid => Ok(i64::from(t.tid)),
        libc::SYS_fork => thread::fork(t, 0, [0; 6]),
        libc::SYS_vfork => thread::fork(t, libc::CLONE_VFORK as u64, [0; 6]),
        libc::SYS_clone => clone::clone(t, a),
        libc::SYS_clone3 => clone::clone3(t, a),
        // C libraries ask for it at every start and do without: no record each time.
        libc::SYS_rseq => Err(ENOSYS),
        libc::SYS_execve => return exec::execve(t, libc::AT_FDCWD, a[0], a[1], a[2], 0),
        libc::SYS_execveat => return exec::execve(t, a[0] as i32, a[1], a[2], a[3], a[4] as i32),
        libc::SYS_exit => {
            thread::exit(t, a[0] as i32);
            return Err(Leave::Exit);
        }
        libc::SYS_exit_group => {
            thread::release_robust();
            thread::exit_group(a[0] as i32)
        }
        libc::SYS_futex => futexcalls::futex(t, a),
        libc::SYS_futex_waitv => futexcalls::waitv(t, a),
        libc::SYS_set_tid_address => {
            t.clear_child_tid = a[0];
            Ok(i64::from(t.tid))
        }
        libc::SYS_set_robust_list => thread::set_robust_list(t, a),
        libc::SYS_get_robust_list => local::get_robust_list(t, a),
        libc::SYS_arch_prctl => local::arch_prctl(t, a),
        libc::SYS_prctl => prctl::prctl(t, a),
        libc::SYS_personality => prctl::personality(a),
        libc::SYS_uname => local::uname(a),
        libc::SYS_prlimit64 => local::prlimit(a[0], a[1], a[2], a[3]),
        libc::SYS_getrlimit => local::prlimit(0, a[0], 0, if a[1] == 0 { crate::guest::BAD } else { a[1] }),
        libc::SYS_setrlimit => local::prlimit(0, a[0], a[1], 0),
        libc::SYS_umask => {
            let mut fs = process::fs();
            Ok(i64::from(std::mem::replace(&mut fs.umask, a[0] as u32 & 0o777)))
        }
        libc::SYS_capget | libc::SYS_capset => prctl::capabilities(nr, a),
        libc::SYS_pkey_alloc | libc::SYS_pkey_free | libc::SYS_pkey_mprotect => local::pkeys(nr, a),
        libc::SYS_clock_gettime | libc::SYS_gettimeofday | libc::SYS_time => local::clock(nr, a),
        libc::SYS_sync => Ok(0),
        libc::SYS_syncfs | libc::SYS_readahead | libc::SYS_fadvise64 => fdcalls::hint(nr, a),
        libc::SYS_sethostname | libc::SYS_setdomainname => Err(EPERM),
        libc::SYS_getuid
        | libc::SYS_geteuid
        | libc::SYS_getgid
        | libc::SYS_getegid
        | libc::SYS_getresuid
        | libc::SYS_getresgid
        | libc::SYS_getgroups
        | libc::SYS_setuid
        | libc::SYS_setgid
        | libc::SYS_setreuid
        | libc::SYS_setregid
        | libc::SYS_setresuid
        | libc::SYS_setresgid
        | libc::SYS_setgroups
        | libc::SYS_setfsuid
        | libc::SYS_setfsgid => crate::credcalls::dispatch(t, nr, a),
        // Memory
        libc::SYS_mmap => memcalls::mmap(t, a),
        libc::SYS_mprotect => {
            let r = memcalls::dispatch(nr, a);
            if r == Err(EACCES) && a[2] as i32 & libc::PROT_EXEC != 0 {
                mediated::report(t, "exec mprotect of memory that is no approved text refused");
            }
            r
        }
        libc::SYS_munmap
        | libc::SYS_brk
        | libc::SYS_mremap
        | libc::SYS_madvise
        | libc::SYS_msync
        | libc::SYS_mincore
        | libc::SYS_mlock
        | libc::SYS_mlock2
        | libc::SYS_munlock
        | libc::SYS_mlockall
        | libc::SYS_munlockall => memcalls::dispatch(nr, a),
        // Signals
        libc::SYS_rt_sigaction
        | libc::SYS_rt_sigprocmask
        | libc::SYS_sigaltstack
        | libc::SYS_rt_sigpending
        | libc::SYS_rt_sigsuspend
        | libc::SYS_rt_sigtimedwait
        | libc::SYS_rt_sigqueueinfo
        | libc::SYS_rt_tgsigqueueinfo
        | libc::SYS_ppoll
        | libc::SYS_pselect6
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2 => sigcalls::dispatch(t, nr, a),
        // Descriptors
        libc::SYS_close
        | libc::SYS_close_range
        | libc::SYS_dup
        | libc::SYS_dup2
        | libc::SYS_dup3
        | libc::SYS_fcntl
        | libc::SYS_pipe
        | libc::SYS_pipe2
        | libc::SYS_ioctl
        | libc::SYS_sendfile
        | libc::SYS_splice
        | libc::SYS_copy_file_range => fdcalls::dispatch(t, nr, a),
        libc::SYS_shmat | libc::SYS_shmdt | libc::SYS_shmctl | libc::SYS_semctl | libc::SYS_mq_open => {
            ipc::dispatch(t, nr, a)
        }
        libc::SYS_sendmmsg | libc::SYS_recvmmsg => messages::dispatch(t, nr, a),
        libc::SYS_io_setup
        | libc::SYS_io_destroy
        | libc::SYS_io_submit
        | libc::SYS_io_cancel
        | libc::SYS_io_getevents => aio::dispatch(t, nr, a),
        libc::SYS_getdents => listing::getdents_old(t, a),
        // Sockets
        libc::SYS_socket
        | libc::SYS_connect
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_sendto
        | libc::SYS_recvfrom
        | libc::SYS_sendmsg
        | libc::SYS_recvmsg
        | libc::SYS_bind
        | libc::SYS_getsockname
        | libc::SYS_getpeername
        | libc::SYS_socketpair
        | libc::SYS_getsockopt => netcalls::dispatch(t, nr, a),
        // A socket of the host's that has lost its peer has no other use there.
        libc::SYS_listen if crate::egress::of_host(a[0] as i32) => Err(crate::errno::EINVAL),
        _ => match row.map(|r| (r.class, r)) {
            Some((Class::Direct, r)) => direct::dispatch(t, r, a),
            Some((Class::Image, r)) => image::calls::dispatch(t, r.nr, a),
            Some((Class::Mediated, r)) => mediated::dispatch(t, r.nr, a),
            Some((Class::Refused, _)) => {
                report_once(t, nr, "refused", name(row));
                Err(EPERM)
            }
            _ => {
                report_once(t, nr, "not implemented", name(row));
                Err(ENOSYS)
            }
        },
    })
}

/// Calls of this program that are on record already.
static REPORTED: Mutex<Vec<i64>> = Mutex::new(Vec::new());

/// Another program runs from here on.
pub fn forget_reports() {
    REPORTED.lock().expect("not poisoned").clear();
}

/// One audit record a program and call.
fn report_once(t: &mut Thread, nr: i64, what: &str, name: &str) {
    {
        let mut seen = REPORTED.lock().expect("not poisoned");
        if seen.contains(&nr) || seen.len() > 1000 {
            return;
        }
        seen.push(nr);
    }
    mediated::report(t, &format!("syscall {nr} {name} {what}"));
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    REPORTED.lock().expect("not poisoned")
}
