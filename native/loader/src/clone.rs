//! clone(2) and clone3(2): which of their many flags are a thread, a fork or a vfork here.

use crate::cpu::Thread;
use crate::errno::{EFAULT, EINVAL, ENOSYS, EPERM, SysResult};
use crate::thread::{fork, new_thread};
use crate::{guest, process};

const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWCGROUP) as u64;

pub fn clone(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let pidfd = libc::CLONE_PIDFD as u64;
    if a[0] & pidfd != 0 && a[0] & (libc::CLONE_PARENT_SETTID | libc::CLONE_DETACHED) as u64 != 0 {
        return Err(EINVAL);
    }
    let mut v = a;
    v[0] &= 0xffff_ffff;
    clone_with(t, v, a[2])
}

/// `pidfd`: where CLONE_PIDFD's descriptor goes.
fn clone_with(t: &mut Thread, a: [u64; 6], pidfd: u64) -> SysResult {
    let flags = a[0];
    let has = |f: i32| flags & f as u64 != 0;
    if flags & CLONE_NEW != 0 {
        return Err(EPERM);
    }
    if has(libc::CLONE_SIGHAND) && !has(libc::CLONE_VM) || has(libc::CLONE_THREAD) && !has(libc::CLONE_SIGHAND) {
        return Err(EINVAL);
    }
    let new_pidfd = has(libc::CLONE_PIDFD);
    if new_pidfd && (has(libc::CLONE_THREAD) || guest::read::<u32>(pidfd).is_err()) {
        return Err(if has(libc::CLONE_THREAD) { EINVAL } else { EFAULT });
    }
    if has(libc::CLONE_THREAD) {
        if !has(libc::CLONE_FILES) || !has(libc::CLONE_FS) {
            return Err(ENOSYS);
        }
        return new_thread(t, a);
    }
    // Processes that share memory, descriptors or handlers: a vfork's child alone, for its short life.
    let shared = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_SIGHAND | libc::CLONE_PARENT;
    if has(shared) && !has(libc::CLONE_VFORK) {
        return Err(ENOSYS);
    }
    let pid = fork(t, flags, a)?;
    if new_pidfd && pid > 0 {
        // SAFETY: integers only.
        let fd = unsafe { crate::host::call(libc::SYS_pidfd_open, [pid as u64, 0, 0, 0, 0, 0]) }?;
        process::files().set_host(fd as i32, 0);
        guest::write(pidfd, &(fd as u32))?;
    }
    Ok(pid)
}

/// Answers to clone3(2) that clone(2) cannot be asked for (linux/sched.h).
pub const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;
const CLONE_ARGS_SIZE_VER0: u64 = 64;
const CLONE_ARGS: usize = 11;

/// clone3(2), as clone(2) of the same flags. Errors, in the order of kernel/fork.c: E2BIG and EINVAL of
/// the size, EFAULT, then EINVAL of the arguments.
pub fn clone3(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let bytes = guest::read_struct(a[0], a[1], CLONE_ARGS_SIZE_VER0, 8 * CLONE_ARGS)?;
    let field = |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().expect("8 bytes"));
    let (flags, pidfd, child_tid, parent_tid) = (field(0), field(1), field(2), field(3));
    let (signal, stack, stack_size, tls) = (field(4), field(5), field(6), field(7));
    if (field(8) == 0) != (field(9) == 0) || field(9) > 32 || signal & !0xff != 0 {
        return Err(EINVAL);
    }
    let thread = flags & (libc::CLONE_THREAD | libc::CLONE_PARENT) as u64 != 0;
    let odd = (0xff | libc::CLONE_DETACHED) as u64;
    if flags & !(0x3_ffff_ffff) != 0 || flags & odd != 0 || thread && signal != 0 || (stack == 0) != (stack_size == 0) {
        return Err(EINVAL);
    }
    if flags & CLONE_CLEAR_SIGHAND != 0 && flags & libc::CLONE_SIGHAND as u64 != 0 {
        return Err(EINVAL);
    }
    // Numbers of one's own choice and other cgroups need a privilege over the namespace.
    if field(9) != 0 || flags & CLONE_INTO_CGROUP != 0 {
        return Err(EPERM);
    }
    let top = if stack == 0 { 0 } else { stack.wrapping_add(stack_size) };
    clone_with(t, [flags | signal, top, parent_tid, child_tid, tls, 0], pidfd)
}
