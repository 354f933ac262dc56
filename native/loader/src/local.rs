//! Calls answered from the loader's own state, and small ones around a single host call.

use crate::cpu::Thread;
use crate::errno::{EINVAL, EPERM, Errno, SysResult};
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
        // SAFETY: asks whether the thread exists.
        unsafe { host::call(libc::SYS_tkill, [a[0], 0, 0, 0, 0, 0]) }?;
        return Err(EPERM);
    }
    guest::write(a[1], &t.robust_list)?;
    guest::write(a[2], &24u64)?;
    Ok(0)
}

/// Protection keys on a processor that has none (pkeys(7)).
pub fn pkeys(nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_pkey_alloc if a[0] != 0 || a[1] & !3 != 0 => Err(EINVAL),
        libc::SYS_pkey_alloc => Err(Errno(libc::ENOSPC)),
        libc::SYS_pkey_mprotect if a[3] as i32 == -1 => crate::memcalls::dispatch(libc::SYS_mprotect, a),
        _ => Err(EINVAL),
    }
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    STACK_LIMIT.lock().expect("not poisoned")
}
