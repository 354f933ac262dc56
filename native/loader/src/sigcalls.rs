//! Signal calls, and the waiting calls that take a signal mask.

use crate::cpu::Thread;
use crate::direct;
use crate::errno::{EINVAL, ENOMEM, EPERM, SysResult};
use crate::signal::{self, Action};
use crate::{guest, host};

const UNBLOCKABLE: u64 = signal::bit(libc::SIGKILL) | signal::bit(libc::SIGSTOP);

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_rt_sigaction => {
            if a[3] != 8 {
                return Err(EINVAL);
            }
            let new = if a[1] == 0 { None } else { Some(guest::read::<Action>(a[1])?) };
            let old = signal::set_action(a[0] as i32, new)?;
            if a[2] != 0 {
                guest::write(a[2], &old)?;
            }
            Ok(0)
        }
        libc::SYS_rt_sigprocmask => {
            if a[3] != 8 {
                return Err(EINVAL);
            }
            let old = t.sigmask;
            if a[1] != 0 {
                let set: u64 = guest::read(a[1])?;
                let new = match a[0] as i32 {
                    libc::SIG_BLOCK => old | set,
                    libc::SIG_UNBLOCK => old & !set,
                    libc::SIG_SETMASK => set,
                    _ => return Err(EINVAL),
                };
                t.sigmask = new & !UNBLOCKABLE;
                signal::follow(t);
            }
            if a[2] != 0 {
                guest::write(a[2], &old)?;
            }
            Ok(0)
        }
        libc::SYS_sigaltstack => altstack(t, a),
        libc::SYS_rt_sigpending => {
            let r = direct::host_call(t, vkernel_abi::syscall::find(nr as u64).ok_or(EINVAL)?, a)?;
            let held = t.captured.held() & t.sigmask;
            if held != 0 && a[1] == 8 {
                guest::write(a[0], &(guest::read::<u64>(a[0])? | held))?;
            }
            Ok(r)
        }
        libc::SYS_rt_sigsuspend => {
            if a[1] != 8 {
                return Err(EINVAL);
            }
            let mask: u64 = guest::read(a[0])?;
            with_mask(t, mask, |t, m| {
                // SAFETY: the mask is a live u64.
                unsafe { host::blocking(t.poll(), libc::SYS_rt_sigsuspend, [m as *const u64 as u64, 8, 0, 0, 0, 0]) }
            })
        }
        libc::SYS_rt_sigtimedwait => {
            let info = guest::range(a[1], 128);
            let args = [guest::range(a[0], 8), info, guest::range(a[2], 16), a[3], 0, 0];
            // SAFETY: checked buffers.
            unsafe { host::blocking(t.poll(), nr, args) }
        }
        libc::SYS_rt_sigqueueinfo | libc::SYS_rt_tgsigqueueinfo => {
            let at = if nr == libc::SYS_rt_sigqueueinfo { 2 } else { 3 };
            let mut v = a;
            v[at] = guest::range(a[at], 128);
            // SAFETY: a checked siginfo.
            unsafe { host::call(nr, v) }
        }
        _ => masked_wait(t, nr, a),
    }
}

fn altstack(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let rsp = t.state().gpr[vkernel_abi::state::RSP];
    let on = signal::on_altstack(t, rsp);
    let old = t.altstack;
    if a[0] != 0 {
        let [sp, flags, size]: [u64; 3] = guest::read(a[0])?;
        let flags = flags as i32;
        let (mode, disarm) = (flags & !signal::SS_AUTODISARM, flags & signal::SS_AUTODISARM);
        if on {
            return Err(EPERM);
        }
        if !matches!(mode, libc::SS_DISABLE | libc::SS_ONSTACK | 0) {
            return Err(EINVAL);
        }
        let known = old.ss_flags & libc::SS_DISABLE == 0 || old.ss_size == 0;
        if known && old.ss_sp as u64 == sp && old.ss_size as u64 == size && old.ss_flags & !libc::SS_DISABLE == flags {
            // Nothing changes, so nothing is checked (kernel/signal.c do_sigaltstack).
        } else if mode == libc::SS_DISABLE {
            t.altstack = signal::NO_ALTSTACK;
        } else {
            if size < 2048 {
                return Err(ENOMEM);
            }
            t.altstack = libc::stack_t { ss_sp: sp as *mut _, ss_flags: disarm, ss_size: size as usize };
        }
    }
    if a[1] != 0 {
        let flags = if on { libc::SS_ONSTACK } else { old.ss_flags };
        guest::write(a[1], &(old.ss_sp as u64))?;
        guest::write(a[1] + 8, &(flags as u32 as u64))?;
        guest::write(a[1] + 16, &(old.ss_size as u64))?;
    }
    Ok(0)
}

/// Runs a waiting host call under another guest mask. A signal that was captured is delivered after
/// the call, and its frame restores the mask that was set before.
fn with_mask(t: &mut Thread, mask: u64, f: impl FnOnce(&mut Thread, &u64) -> SysResult) -> SysResult {
    let m = mask & !UNBLOCKABLE;
    let r = host::ended(f(t, &m));
    if t.captured.next(m) != 0 {
        t.saved_mask = Some(t.sigmask);
        t.sigmask = m;
    }
    r
}

fn masked_wait(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    let at = match nr {
        libc::SYS_ppoll => 3,
        libc::SYS_pselect6 => 5,
        _ => 4,
    };
    let row = vkernel_abi::syscall::find(nr as u64).ok_or(EINVAL)?;
    let mut mask_at = a[at];
    if nr == libc::SYS_pselect6 && a[at] != 0 {
        // A pair: pointer to the mask, and its size.
        mask_at = guest::read(a[at])?;
        if mask_at != 0 && guest::read::<u64>(a[at] + 8)? != 8 {
            return Err(EINVAL);
        }
    }
    let mut v = a;
    if mask_at == 0 {
        v[at] = 0;
        return direct::host_call(t, row, v);
    }
    let mask: u64 = guest::read(mask_at)?;
    if nr == libc::SYS_epoll_pwait || nr == libc::SYS_epoll_pwait2 {
        crate::files::Files::check(a[0] as i32)?;
    }
    with_mask(t, mask, |t, m| {
        let pair = [m as *const u64 as u64, 8];
        v[at] = if nr == libc::SYS_pselect6 { pair.as_ptr() as u64 } else { pair[0] };
        direct::host_call(t, row, v)
    })
}
