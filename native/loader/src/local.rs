//! Calls answered from the loader's own state, and small ones around a single host call.

use crate::cpu::Thread;
use crate::errno::{EFAULT, EINVAL, ENOSYS, EPERM, SysResult};
use crate::{guest, host, process};

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

pub fn arch_prctl(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let s = t.state();
    match a[0] {
        ARCH_SET_FS => s.fs_base = a[1],
        ARCH_SET_GS => s.gs_base = a[1],
        ARCH_GET_FS => guest::write(a[1], &s.fs_base)?,
        ARCH_GET_GS => guest::write(a[1], &s.gs_base)?,
        _ => return Err(EINVAL),
    }
    Ok(0)
}

pub fn prctl(t: &mut Thread, a: [u64; 6]) -> SysResult {
    // SAFETY: integers, or checked 16-byte buffers.
    let plain = |a: [u64; 6]| unsafe { host::call(libc::SYS_prctl, a) };
    match a[0] as i32 {
        libc::PR_SET_NAME => {
            let mut name = [0u8; 16];
            let given = guest::read_cstr(a[1], 4096)?;
            let n = given.len().min(15);
            name[..n].copy_from_slice(&given[..n]);
            plain([a[0], name.as_ptr() as u64, 0, 0, 0, 0])
        }
        libc::PR_GET_NAME => plain([a[0], guest::range(a[1], 16)?, 0, 0, 0, 0]),
        libc::PR_SET_PDEATHSIG | libc::PR_SET_CHILD_SUBREAPER => plain(a),
        libc::PR_GET_PDEATHSIG | libc::PR_GET_CHILD_SUBREAPER => plain([a[0], guest::range(a[1], 4)?, 0, 0, 0, 0]),
        // The process stays undumpable on the host whatever the guest says.
        libc::PR_GET_DUMPABLE => Ok(1),
        libc::PR_SET_DUMPABLE => {
            if a[1] > 1 {
                Err(EINVAL)
            } else {
                Ok(0)
            }
        }
        libc::PR_SET_NO_NEW_PRIVS => {
            if a[1] == 1 {
                Ok(0)
            } else {
                Err(EINVAL)
            }
        }
        libc::PR_GET_NO_NEW_PRIVS => Ok(0),
        libc::PR_GET_KEEPCAPS => Ok(0),
        libc::PR_SET_KEEPCAPS => Ok(0),
        libc::PR_CAPBSET_READ => {
            if a[1] <= 40 {
                Ok(1)
            } else {
                Err(EINVAL)
            }
        }
        libc::PR_GET_SECCOMP => Ok(0),
        libc::PR_SET_TIMERSLACK | libc::PR_GET_TIMERSLACK => plain(a),
        libc::PR_GET_TID_ADDRESS => guest::write(a[1], &t.clear_child_tid).map(|()| 0),
        _ => Err(EINVAL),
    }
}

pub fn uname(a: [u64; 6]) -> SysResult {
    // SAFETY: uname fills the struct.
    let mut u = unsafe {
        let mut u: libc::utsname = std::mem::zeroed();
        libc::uname(&mut u);
        u
    };
    let set = |field: &mut [libc::c_char; 65], text: &str| {
        field.fill(0);
        for (to, from) in field.iter_mut().zip(text.bytes()) {
            *to = from as libc::c_char;
        }
    };
    set(&mut u.sysname, "Linux");
    set(&mut u.machine, "x86_64");
    guest::write(a[0], &u)?;
    Ok(0)
}

/// RLIMIT_STACK and RLIMIT_AS would hit the loader itself: the guest's stack limit is remembered
/// here, and the address space is what it is.
static STACK_LIMIT: std::sync::Mutex<[u64; 2]> = std::sync::Mutex::new([8 << 20, u64::MAX]);

pub fn stack_limit() -> u64 {
    STACK_LIMIT.lock().expect("not poisoned")[0]
}

pub fn prlimit(pid: u64, resource: u64, new: u64, old: u64) -> SysResult {
    if pid != 0 && pid as i32 != process::pid() {
        // SAFETY: asks whether the process exists.
        unsafe { host::call(libc::SYS_kill, [pid, 0, 0, 0, 0, 0]) }?;
        return Err(EPERM);
    }
    let wanted = if new == 0 { None } else { Some([guest::read::<u64>(new)?, guest::read::<u64>(new + 8)?]) };
    if wanted.is_some_and(|w| w[0] > w[1]) {
        return Err(EINVAL);
    }
    let kept = matches!(resource as u32, libc::RLIMIT_STACK | libc::RLIMIT_AS | libc::RLIMIT_DATA);
    let current = if kept {
        let mut limit = STACK_LIMIT.lock().expect("not poisoned");
        let current = if resource as u32 == libc::RLIMIT_STACK { *limit } else { [u64::MAX, u64::MAX] };
        if let (Some(w), libc::RLIMIT_STACK) = (wanted, resource as u32) {
            *limit = w;
        }
        current
    } else {
        let mut current = [0u64; 2];
        // The hidden descriptors need the host's own hard limit, so only the soft one moves.
        let files = resource as u32 == libc::RLIMIT_NOFILE;
        let most = vkernel_abi::generated::ring::HIDDEN_FD_BASE as u64;
        let wanted = match wanted {
            Some(w) if files && w[0] > most => return Err(EPERM),
            Some(w) if files => {
                let mut host = [0u64; 2];
                // SAFETY: a live pair of u64.
                unsafe { host::call(libc::SYS_prlimit64, [0, resource, 0, host.as_mut_ptr() as u64, 0, 0]) }?;
                Some([w[0], host[1]])
            }
            w => w,
        };
        let to = wanted.as_ref().map_or(0, |w| w.as_ptr() as u64);
        // SAFETY: live pairs of u64.
        unsafe { host::call(libc::SYS_prlimit64, [0, resource, to, current.as_mut_ptr() as u64, 0, 0]) }?;
        if files {
            current[1] = most;
        }
        current
    };
    if old != 0 {
        guest::write(old, &current[0])?;
        guest::write(old + 8, &current[1])?;
    }
    Ok(0)
}

/// The default capability set of a container (OCI runtimes' list), all the guest's root ever has.
const DEFAULT_CAPS: u64 = 0x0000_0000_a804_25fb;

pub fn capabilities(nr: i64, a: [u64; 6]) -> SysResult {
    const VERSION_3: u32 = 0x2008_0522;
    let version: u32 = guest::read(a[0])?;
    if version != VERSION_3 {
        guest::write(a[0], &VERSION_3)?;
        return if a[1] == 0 { Ok(0) } else { Err(EINVAL) };
    }
    if nr == libc::SYS_capget && a[1] != 0 {
        let all = if process::creds().uid[1] == 0 { DEFAULT_CAPS } else { 0 };
        for (n, half) in [all as u32, (all >> 32) as u32].into_iter().enumerate() {
            for (field, v) in [half, half, 0].into_iter().enumerate() {
                guest::write(a[1] + 12 * n as u64 + 4 * field as u64, &v)?;
            }
        }
    }
    Ok(0)
}

pub fn membarrier(a: [u64; 6]) -> SysResult {
    match a[0] as i32 {
        0 => Ok(1),
        1 => {
            // SAFETY: integers only.
            unsafe { host::call(libc::SYS_membarrier, [1, 0, 0, 0, 0, 0]) }
        }
        _ => Err(EINVAL),
    }
}

/// Clocks through the loader's own vDSO.
pub fn clock(nr: i64, a: [u64; 6]) -> SysResult {
    let now = |clock: i32| {
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fills the struct.
        let r = unsafe { libc::clock_gettime(clock, &mut ts) };
        if r == 0 { Ok(ts) } else { Err(EINVAL) }
    };
    match nr {
        libc::SYS_clock_gettime => {
            let ts = now(a[0] as i32)?;
            guest::write(a[1], &ts)?;
            Ok(0)
        }
        libc::SYS_gettimeofday => {
            let ts = now(libc::CLOCK_REALTIME)?;
            if a[0] != 0 {
                guest::write(a[0], &libc::timeval { tv_sec: ts.tv_sec, tv_usec: ts.tv_nsec / 1000 })?;
            }
            if a[1] != 0 {
                guest::write(a[1], &0u64)?;
            }
            Ok(0)
        }
        _ => {
            let ts = now(libc::CLOCK_REALTIME_COARSE)?;
            if a[0] != 0 {
                guest::write(a[0], &(ts.tv_sec as u64))?;
            }
            Ok(ts.tv_sec)
        }
    }
}

pub fn get_robust_list(t: &mut Thread, a: [u64; 6]) -> SysResult {
    if a[0] != 0 && a[0] as i32 != t.tid {
        return Err(EPERM);
    }
    guest::write(a[1], &t.robust_list)?;
    guest::write(a[2], &24u64)?;
    Ok(0)
}

/// futex(2) on the host, on the region's address. Waiting, waking and requeueing are the kernel's.
pub fn futex(t: &mut Thread, a: [u64; 6]) -> SysResult {
    const CMD: u64 = 0x7f;
    let cmd = (a[1] & CMD) as i32;
    if !a[0].is_multiple_of(4) {
        return Err(EINVAL);
    }
    let mut v = a;
    v[0] = guest::range(a[0], 4)?;
    if v[0] == 0 {
        return Err(EFAULT);
    }
    match cmd {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET | libc::FUTEX_LOCK_PI => v[3] = guest::range(a[3], 16)?,
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET | libc::FUTEX_UNLOCK_PI | libc::FUTEX_TRYLOCK_PI => {}
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP => v[4] = guest::range(a[4], 4)?,
        _ => return Err(ENOSYS),
    }
    // SAFETY: addresses of the region.
    unsafe { host::blocking(t.poll(), libc::SYS_futex, v) }
}
