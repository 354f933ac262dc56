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
        libc::SYS_geteuid => Ok(i64::from(c.uid[1])),
        libc::SYS_getgid => Ok(i64::from(c.gid[0])),
        libc::SYS_getegid => Ok(i64::from(c.gid[1])),
        libc::SYS_setfsuid => set_fs(t, 0, a[0] as u32, c),
        libc::SYS_setfsgid => set_fs(t, 1, a[0] as u32, c),
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
    if matches!(nr, libc::SYS_setuid | libc::SYS_setgid) && a[0] & KEEP == KEEP {
        return Err(EINVAL);
    }
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
            let real = a[0] & KEEP;
            if !root && real != KEEP && !before[..2].contains(&(real as u32)) {
                return Err(EPERM);
            }
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
    if old.fs != [None; 2] {
        // Back to the effective ids, which the daemon judges the change by.
        tell_daemon(t, &Creds { fs: [None; 2], ..old })?;
    }
    new.fs = [None; 2];
    tell_daemon(t, &new)?;
    *process::creds() = new;
    Ok(0)
}

/// setfsuid(2), setfsgid(2): the old id, whether it changes or not.
fn set_fs(t: &mut Thread, which: usize, to: u32, old: Creds) -> SysResult {
    let ids = if which == 0 { old.uid } else { old.gid };
    let now = old.fs[which].unwrap_or(ids[1]);
    if to != u32::MAX && to != now && (old.uid[1] == 0 || ids.contains(&to)) {
        let mut new = old.clone();
        new.fs = [None; 2];
        tell_daemon(t, &new)?;
        new.fs = old.fs;
        new.fs[which] = (to != ids[1]).then_some(to);
        tell_daemon(t, &new)?;
        *process::creds() = new;
    }
    Ok(i64::from(now))
}

/// One request carries all ids: uid×3, gid×3, groups.
fn tell_daemon(t: &mut Thread, c: &Creds) -> SysResult {
    if ring::conn() < 0 {
        return Ok(0);
    }
    // The effective ids are the daemon's for files alone.
    let (mut uid, mut gid) = (c.uid, c.gid);
    (uid[1], gid[1]) = (c.fs[0].unwrap_or(uid[1]), c.fs[1].unwrap_or(gid[1]));
    let bytes: Vec<u8> = uid.iter().chain(&gid).chain(&c.groups).flat_map(|v| v.to_le_bytes()).collect();
    let mut w = ring::window(t)?;
    let p = w.put(&bytes).ok_or(EINVAL)?;
    ring::call(t, libc::SYS_setresuid as u32, [p, 0, 0, 0, 0, 0], w)?.ret
}
