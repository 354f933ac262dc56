//! prctl(2), personality(2) and the guest's capabilities. A guest's capabilities are its own
//! bookkeeping, as a container gives them: the process has none on the host.

use crate::cpu::Thread;
use crate::errno::{EACCES, EFAULT, EINVAL, EPERM, SysResult};
use crate::{guest, host, process};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// The default capability set of a container (OCI runtimes' list), all the guest's root ever has.
const DEFAULT_CAPS: u64 = 0x0000_0000_a804_25fb;
const CAP_LAST_CAP: u64 = 40;
const CAP_SETPCAP: u64 = 8;

/// What prctl and capset have changed. Inherited by fork, reset in part by execve.
#[derive(Clone, Copy)]
struct Attributes {
    permitted: u64,
    effective: u64,
    inheritable: u64,
    bounding: u64,
    /// Sets above are those of user 0 until capset is called.
    set: bool,
    securebits: u64,
    keep_caps: bool,
    no_new_privs: bool,
    dumpable: bool,
    personality: u64,
}

static ATTRIBUTES: Mutex<Attributes> = Mutex::new(Attributes {
    permitted: DEFAULT_CAPS,
    effective: DEFAULT_CAPS,
    inheritable: 0,
    bounding: DEFAULT_CAPS,
    set: false,
    securebits: 0,
    keep_caps: false,
    no_new_privs: false,
    dumpable: true,
    personality: 0,
});
static IO_PRIORITY: AtomicU32 = AtomicU32::new(0);

fn attributes() -> std::sync::MutexGuard<'static, Attributes> {
    ATTRIBUTES.lock().expect("not poisoned")
}

/// execve(2): root has its full set again, keep-capabilities is off.
pub fn reset_for_exec() {
    let mut a = attributes();
    a.keep_caps = false;
    a.dumpable = true;
    a.set = false;
    IO_PRIORITY.store(0, Ordering::Relaxed);
}

/// (permitted, effective, inheritable) as they are now.
fn sets(a: &Attributes) -> [u64; 3] {
    match (a.set, process::creds().uid) {
        (true, _) => [a.permitted, a.effective, a.inheritable],
        (false, [_, 0, _]) => [DEFAULT_CAPS & a.bounding, DEFAULT_CAPS & a.bounding, 0],
        (false, ids) if ids.contains(&0) => [DEFAULT_CAPS & a.bounding, 0, 0],
        _ => [0; 3],
    }
}

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// capget(2), capset(2). Errors, in the order checked (kernel/capability.c): EFAULT of the header,
/// EINVAL of its version, EPERM or ESRCH of its process, EFAULT of the data, EPERM of the sets.
pub fn capabilities(nr: i64, a: [u64; 6]) -> SysResult {
    let version: u32 = guest::read(a[0])?;
    let words = match version {
        VERSION_1 => 1,
        VERSION_2 | VERSION_3 => 2,
        _ => {
            guest::write(a[0], &VERSION_3)?;
            return if nr == libc::SYS_capget && a[1] == 0 { Ok(0) } else { Err(EINVAL) };
        }
    };
    let pid: u32 = guest::read(a[0] + 4)?;
    if (pid as i32) < 0 {
        return Err(if nr == libc::SYS_capget { EINVAL } else { EPERM });
    }
    let other = pid != 0 && pid as i32 != process::pid();
    if nr == libc::SYS_capget {
        if other {
            // SAFETY: asks whether the process exists.
            unsafe { host::call(libc::SYS_kill, [u64::from(pid), 0, 0, 0, 0, 0]) }?;
        }
        if a[1] == 0 {
            return Ok(0);
        }
        let [permitted, effective, inheritable] = sets(&attributes());
        for n in 0..words {
            let half = |v: u64| (v >> (32 * n)) as u32;
            let at = a[1] + 12 * n;
            for (field, v) in [half(effective), half(permitted), half(inheritable)].iter().enumerate() {
                guest::write(at + 4 * field as u64, v)?;
            }
        }
        return Ok(0);
    }
    if other {
        return Err(EPERM);
    }
    let mut new = [0u64; 3];
    for n in 0..words {
        for (field, v) in new.iter_mut().enumerate() {
            *v |= u64::from(guest::read::<u32>(a[1] + 12 * n + 4 * field as u64)?) << (32 * n);
        }
    }
    let [effective, permitted, inheritable] = new.map(|v| v & ((1 << (CAP_LAST_CAP + 1)) - 1));
    let mut at = attributes();
    let old = sets(&at);
    let may_add = old[1] & 1 << CAP_SETPCAP != 0;
    if !may_add && inheritable & !(old[2] | old[0]) != 0
        || inheritable & !(old[2] | at.bounding) != 0
        || permitted & !old[0] != 0
        || effective & !permitted != 0
    {
        return Err(EPERM);
    }
    (at.permitted, at.effective, at.inheritable, at.set) = (permitted, effective, inheritable, true);
    Ok(0)
}

const PR_GET_THP_DISABLE: i32 = 42;
const PR_GET_MDWE: i32 = 66;
const PR_GET_TSC: i32 = 25;

pub fn prctl(t: &mut Thread, a: [u64; 6]) -> SysResult {
    // SAFETY: integers, or checked 16-byte buffers.
    let plain = |a: [u64; 6]| unsafe { host::call(libc::SYS_prctl, a) };
    let zero = |from: usize| if a[from..5].iter().all(|v| *v == 0) { Ok(()) } else { Err(EINVAL) };
    match a[0] as i32 {
        libc::PR_SET_NAME => {
            let name = name_at(a[1])?;
            plain([a[0], name.as_ptr() as u64, 0, 0, 0, 0])
        }
        libc::PR_GET_NAME => plain([a[0], guest::range(a[1], 16), 0, 0, 0, 0]),
        libc::PR_SET_PDEATHSIG | libc::PR_SET_CHILD_SUBREAPER => plain(a),
        libc::PR_GET_PDEATHSIG | libc::PR_GET_CHILD_SUBREAPER => plain([a[0], guest::range(a[1], 4), 0, 0, 0, 0]),
        // The process stays undumpable on the host whatever the guest says.
        libc::PR_GET_DUMPABLE => Ok(i64::from(attributes().dumpable)),
        libc::PR_SET_DUMPABLE if a[1] > 1 => Err(EINVAL),
        libc::PR_SET_DUMPABLE => {
            attributes().dumpable = a[1] == 1;
            Ok(0)
        }
        // Set on the host from the start; the guest is told what it has asked for.
        libc::PR_SET_NO_NEW_PRIVS => {
            zero(2)?;
            if a[1] != 1 {
                return Err(EINVAL);
            }
            attributes().no_new_privs = true;
            Ok(0)
        }
        libc::PR_GET_NO_NEW_PRIVS => zero(1).map(|()| i64::from(attributes().no_new_privs)),
        libc::PR_GET_KEEPCAPS => Ok(i64::from(attributes().keep_caps)),
        libc::PR_SET_KEEPCAPS if a[1] > 1 => Err(EINVAL),
        libc::PR_SET_KEEPCAPS => {
            attributes().keep_caps = a[1] == 1;
            Ok(0)
        }
        libc::PR_CAPBSET_READ if a[1] > CAP_LAST_CAP => Err(EINVAL),
        libc::PR_CAPBSET_READ => Ok((attributes().bounding >> a[1] & 1) as i64),
        libc::PR_CAPBSET_DROP => {
            let mut at = attributes();
            if sets(&at)[1] & 1 << CAP_SETPCAP == 0 {
                return Err(EPERM);
            }
            if a[1] > CAP_LAST_CAP {
                return Err(EINVAL);
            }
            at.bounding &= !(1 << a[1]);
            Ok(0)
        }
        libc::PR_GET_SECUREBITS => Ok(attributes().securebits as i64),
        libc::PR_SET_SECUREBITS => {
            let mut at = attributes();
            let locked = (at.securebits & 0xaa) >> 1;
            if (at.securebits ^ a[1]) & (locked | at.securebits & 0xaa) != 0
                || a[1] & !0xff != 0
                || sets(&at)[1] & 1 << CAP_SETPCAP == 0
            {
                return Err(EPERM);
            }
            at.securebits = a[1];
            Ok(0)
        }
        libc::PR_CAP_AMBIENT => {
            if a[1] as i32 == libc::PR_CAP_AMBIENT_CLEAR_ALL {
                return zero(2).map(|()| 0);
            }
            zero(3)?;
            if a[2] > CAP_LAST_CAP {
                return Err(EINVAL);
            }
            match a[1] as i32 {
                libc::PR_CAP_AMBIENT_IS_SET | libc::PR_CAP_AMBIENT_LOWER => Ok(0),
                // Nothing executes with more than its manifest gives it.
                libc::PR_CAP_AMBIENT_RAISE => Err(EPERM),
                _ => Err(EINVAL),
            }
        }
        libc::PR_GET_SECCOMP => Ok(0),
        libc::PR_SET_TIMERSLACK | libc::PR_GET_TIMERSLACK => plain(a),
        libc::PR_GET_TID_ADDRESS => guest::write(a[1], &t.clear_child_tid).map(|()| 0),
        libc::PR_GET_TIMING => Ok(0),
        libc::PR_SET_TIMING if a[1] == 0 => Ok(0),
        PR_GET_TSC => guest::write(a[1], &1u32).map(|()| 0),
        PR_GET_THP_DISABLE => zero(1).map(|()| 0),
        libc::PR_MCE_KILL_GET => zero(1).map(|()| 2),
        PR_GET_MDWE => zero(1).map(|()| 0),
        libc::PR_SET_MM => Err(EPERM),
        libc::PR_SET_SECCOMP => Err(EACCES),
        _ => Err(EINVAL),
    }
}

/// A thread's new name: at most 15 bytes are looked at (prctl(2) PR_SET_NAME).
fn name_at(addr: u64) -> Result<[u8; 16], crate::errno::Errno> {
    let mut name = [0; 16];
    for (n, to) in name[..15].iter_mut().enumerate() {
        *to = guest::read(addr.checked_add(n as u64).ok_or(EFAULT)?)?;
        if *to == 0 {
            break;
        }
    }
    Ok(name)
}

/// personality(2): Linux's own and PER_LINUX32, as container engines allow; asked with all ones.
pub fn personality(a: [u64; 6]) -> SysResult {
    let mut at = attributes();
    let (old, new) = (at.personality, a[0] & 0xffff_ffff);
    match new {
        0xffff_ffff => {}
        0 | 8 | 0x2_0000 | 0x2_0008 => at.personality = new,
        _ => return Err(EPERM),
    }
    Ok(old as i64)
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    attributes()
}
