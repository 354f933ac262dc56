//! User and group ids: the guest's are the container's own; the daemon is told of every change and
//! checks it, the loader keeps a copy for reading.

use crate::cpu::Thread;
use crate::errno::{EINVAL, EPERM, SysResult};
use crate::process::{self, Creds};
use crate::{guest, ring};

const KEEP: u64 = u32::MAX as u64;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    let c = process::creds().clone();
    let ids = |v: [u32; 3]| -> SysResult {
        for (n, id) in v.iter().enumerate() {
            guest::write(a[n], id)?;
        }
        Ok(0)
    };
    match nr {
        libc::SYS_getuid => Ok(i64::from(c.uid[0])),
        libc::SYS_geteuid | libc::SYS_setfsuid => Ok(i64::from(c.uid[1])),
        libc::SYS_getgid => Ok(i64::from(c.gid[0])),
        libc::SYS_getegid | libc::SYS_setfsgid => Ok(i64::from(c.gid[1])),
        libc::SYS_getresuid => ids(c.uid),
        libc::SYS_getresgid => ids(c.gid),
        libc::SYS_getgroups => {
            let n = c.groups.len();
            if a[0] as i32 == 0 {
                return Ok(n as i64);
            }
            if (a[0] as i32) < n as i32 {
                return Err(EINVAL);
            }
            let bytes: Vec<u8> = c.groups.iter().flat_map(|g| g.to_le_bytes()).collect();
            guest::write_bytes(a[1], &bytes)?;
            Ok(n as i64)
        }
        _ => set(t, nr, a, c),
    }
}

/// setuid(2) and its kin as new (real, effective, saved) triples, with Linux's permission rules.
fn set(t: &mut Thread, nr: i64, a: [u64; 6], old: Creds) -> SysResult {
    let root = old.uid[1] == 0;
    let mut new = old.clone();
    let change = |ids: &mut [u32; 3], to: [u64; 3]| -> SysResult {
        let before = *ids;
        for n in 0..3 {
            let v = to[n] & KEEP;
            if v == KEEP {
                continue;
            }
            if !root && !before.contains(&(v as u32)) {
                return Err(EPERM);
            }
            ids[n] = v as u32;
        }
        Ok(0)
    };
    match nr {
        libc::SYS_setuid if root => new.uid = [a[0] as u32; 3],
        libc::SYS_setgid if root => new.gid = [a[0] as u32; 3],
        libc::SYS_setuid => {
            change(&mut new.uid, [KEEP, a[0], KEEP])?;
        }
        libc::SYS_setgid => {
            change(&mut new.gid, [KEEP, a[0], KEEP])?;
        }
        libc::SYS_setresuid => {
            change(&mut new.uid, [a[0], a[1], a[2]])?;
        }
        libc::SYS_setresgid => {
            change(&mut new.gid, [a[0], a[1], a[2]])?;
        }
        libc::SYS_setreuid | libc::SYS_setregid => {
            let ids = if nr == libc::SYS_setreuid { &mut new.uid } else { &mut new.gid };
            let before = *ids;
            change(ids, [a[0], a[1], KEEP])?;
            // The saved id follows when the real one is set or the effective one leaves it.
            if a[0] & KEEP != KEEP || a[1] & KEEP != KEEP && ids[1] != before[0] {
                ids[2] = ids[1];
            }
        }
        _ => {
            if !root {
                return Err(EPERM);
            }
            if a[0] > 65536 {
                return Err(EINVAL);
            }
            let mut bytes = vec![0u8; a[0] as usize * 4];
            guest::read_bytes(a[1], &mut bytes)?;
            new.groups = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("4"))).collect();
        }
    }
    tell_daemon(t, &new)?;
    *process::creds() = new;
    Ok(0)
}

/// One request carries all ids: uid×3, gid×3, groups.
fn tell_daemon(t: &mut Thread, c: &Creds) -> SysResult {
    if ring::conn() < 0 {
        return Ok(0);
    }
    let bytes: Vec<u8> = c.uid.iter().chain(&c.gid).chain(&c.groups).flat_map(|v| v.to_le_bytes()).collect();
    let mut w = ring::window(t)?;
    let p = w.put(&bytes).ok_or(EINVAL)?;
    ring::call(t, libc::SYS_setresuid as u32, [p, 0, 0, 0, 0, 0], w)?.ret
}
