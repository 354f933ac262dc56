//! System V IPC and POSIX message queues: the container has an IPC namespace of its own, so the
//! objects are the host kernel's. Shared memory is attached inside the region, never executable.

use crate::cpu::Thread;
use crate::errno::{EACCES, EINVAL, ENOMEM, Errno, SysResult};
use crate::mm::{Backing, PAGE, page_up};
use crate::{guest, host, process};

const SHM_RDONLY: i32 = 0o10000;
const SHM_RND: i32 = 0o20000;
const SHM_REMAP: i32 = 0o40000;
const SHM_EXEC: i32 = 0o100000;
const SHMID_DS: u64 = 112;
const SEMID_DS: u64 = 104;
const SEM_UN_ARRAY: u64 = 2 * 32000;
const IPC_INFO: i32 = 3;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_shmat => attach(a),
        libc::SYS_shmdt => detach(a[0]),
        libc::SYS_shmctl => {
            // SAFETY: the command's structure, in a checked range.
            unsafe { host::call(nr, [a[0], a[1], guest::range(a[2], SHMID_DS), 0, 0, 0]) }
        }
        libc::SYS_semctl => {
            let arg = match a[2] as i32 & 0xff {
                libc::IPC_STAT | libc::IPC_SET | IPC_INFO | 18 | 19 | 20 => guest::range(a[3], SEMID_DS),
                libc::GETALL | libc::SETALL => guest::range(a[3], SEM_UN_ARRAY),
                _ => a[3] & 0xffff_ffff,
            };
            // SAFETY: an integer, or a checked range for the command.
            unsafe { host::call(nr, [a[0], a[1], a[2], arg, 0, 0]) }
        }
        _ => {
            let name = match guest::read_cstr(a[0], 4096) {
                Ok(mut s) => {
                    s.push(0);
                    s
                }
                Err(_) => vec![],
            };
            let at = if name.is_empty() { guest::BAD } else { name.as_ptr() as u64 };
            let mode = a[2] & !u64::from(process::fs().umask);
            // SAFETY: a live string, an integer mode and a checked structure.
            let fd = unsafe { host::blocking(t.poll(), nr, [at, a[1], mode, guest::range(a[3], 64), 0, 0]) }?;
            process::files().set_host(fd as i32, 0);
            Ok(fd)
        }
    }
}

/// The size of a segment, rounded to pages.
fn size_of_segment(id: u64) -> Result<u64, Errno> {
    let mut ds = [0u64; 14];
    // SAFETY: a live struct shmid_ds.
    unsafe { host::call(libc::SYS_shmctl, [id, libc::IPC_STAT as u64, ds.as_mut_ptr() as u64, 0, 0, 0]) }?;
    Ok(page_up(ds[6]))
}

/// shmat(2) at an address of the region, over its reservation.
fn attach(a: [u64; 6]) -> SysResult {
    let flags = a[2] as i32;
    if flags & SHM_EXEC != 0 {
        return Err(EACCES);
    }
    if (a[0] as i32) < 0 {
        return Err(EINVAL);
    }
    let wanted = if flags & SHM_RND != 0 { a[1] & !(PAGE - 1) } else { a[1] };
    if !wanted.is_multiple_of(PAGE) || a[1] != 0 && wanted == 0 && flags & SHM_REMAP != 0 {
        return Err(EINVAL);
    }
    let len = size_of_segment(a[0])?;
    let prot = if flags & SHM_RDONLY != 0 { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
    let mut mm = process::mm();
    let place = match (wanted, flags & SHM_REMAP != 0) {
        (0, true) => return Err(EINVAL),
        (0, false) => 0,
        (_, true) => libc::MAP_FIXED,
        (_, false) => libc::MAP_FIXED_NOREPLACE,
    };
    let at = mm.place(wanted, len, place).map_err(|e| if e == ENOMEM { e } else { EINVAL })?;
    let args = [a[0], guest::at(at) as u64, (flags & SHM_RDONLY | SHM_REMAP) as u64, 0, 0, 0];
    // SAFETY: replaces `len` bytes of the region, which `place` has found for it.
    unsafe { host::call(libc::SYS_shmat, args) }?;
    mm.attached(at, len, prot, a[0] as i32);
    process::publish_text(mm.text_generation);
    Ok(at as i64)
}

/// shmdt(2): what is still there of the attachment that begins at `addr`.
fn detach(addr: u64) -> SysResult {
    let mut mm = process::mm();
    let Some((start, vma)) = mm.find(addr) else { return Err(EINVAL) };
    let Backing::Segment { id, .. } = vma.backing else { return Err(EINVAL) };
    if start != addr {
        return Err(EINVAL);
    }
    let mut end = vma.end;
    while let Some((_, next)) = mm.find(end)
        && next.backing == (Backing::Segment { id, start: addr })
    {
        end = next.end;
    }
    mm.unmap(addr, end - addr)?;
    Ok(0)
}
