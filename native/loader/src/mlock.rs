//! mlock(2) and its kin, mincore(2): the host's, on the guest's own mappings. RLIMIT_MEMLOCK is the
//! host kernel's too.

use crate::errno::{EFAULT, EINVAL, ENOMEM, SysResult};
use crate::mm::{Mm, PAGE, page_up};
use crate::{guest, host};
use vkernel_abi::region::REGION_SIZE;

const MLOCK_ONFAULT: u64 = 1;

/// Whether every page of the range is mapped.
pub fn is_mapped(mm: &Mm, addr: u64, len: u64) -> bool {
    let mut at = addr;
    while at < addr + len {
        let Some((_, vma)) = mm.find(at) else { return false };
        at = vma.end;
    }
    true
}

pub fn dispatch(mm: &mut Mm, nr: i64, a: [u64; 6]) -> SysResult {
    match nr {
        libc::SYS_mlockall => all(mm, a[0] as i32),
        libc::SYS_munlockall => {
            mm.lock_future = None;
            each(mm, libc::SYS_munlock, 0)
        }
        libc::SYS_mincore => resident(mm, a),
        _ => {
            if nr == libc::SYS_mlock2 && a[2] & !MLOCK_ONFAULT & 0xffff_ffff != 0 {
                return Err(EINVAL);
            }
            let start = a[0] & !(PAGE - 1);
            let len = page_up((a[1]).wrapping_add(a[0] - start));
            if start.checked_add(len).is_none() || len < a[1] {
                return Err(EINVAL);
            }
            if start + len > REGION_SIZE {
                return Err(ENOMEM);
            }
            let whole = is_mapped(mm, start, len);
            if !whole && nr == libc::SYS_munlock {
                return Err(ENOMEM);
            }
            // The limit is checked first (mm/mlock.c do_mlock), so the host is asked in any case.
            // SAFETY: a range of the region.
            let r = unsafe { host::call(nr, [guest::at(start) as u64, len, a[2], 0, 0, 0]) };
            if whole || r == Err(crate::errno::EPERM) { r } else { Err(ENOMEM) }
        }
    }
}

const MCL_ALL: i32 = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;

fn all(mm: &mut Mm, flags: i32) -> SysResult {
    if flags == 0 || flags & !MCL_ALL != 0 || flags == libc::MCL_ONFAULT {
        return Err(EINVAL);
    }
    let onfault = i32::from(flags & libc::MCL_ONFAULT != 0);
    mm.lock_future = (flags & libc::MCL_FUTURE != 0).then_some(onfault);
    if flags & libc::MCL_CURRENT != 0 {
        let mut limit = [0u64; 2];
        let resource = u64::from(libc::RLIMIT_MEMLOCK);
        // SAFETY: a live pair of u64.
        unsafe { host::call(libc::SYS_prlimit64, [0, resource, 0, limit.as_mut_ptr() as u64, 0, 0]) }?;
        if mm.vmas.iter().map(|(start, vma)| vma.end - start).sum::<u64>() > limit[0] {
            return Err(ENOMEM);
        }
        each(mm, libc::SYS_mlock2, onfault as u64)?;
    }
    Ok(0)
}

/// What cannot be touched is not locked, and no error (mm/mlock.c apply_mlockall_flags).
fn each(mm: &Mm, nr: i64, flags: u64) -> SysResult {
    for (start, vma) in &mm.vmas {
        // SAFETY: the guest's own mappings.
        let _ = unsafe { host::call(nr, [guest::at(*start) as u64, vma.end - start, flags, 0, 0, 0]) };
    }
    Ok(0)
}

fn resident(mm: &Mm, a: [u64; 6]) -> SysResult {
    let len = page_up(a[1]);
    if !a[0].is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    if len < a[1] || a[0] >= REGION_SIZE || len > REGION_SIZE - a[0] {
        return Err(ENOMEM);
    }
    if a[2] >= REGION_SIZE {
        return Err(EFAULT);
    }
    if !is_mapped(mm, a[0], len) {
        return Err(ENOMEM);
    }
    let mut pages = vec![0u8; (len / PAGE) as usize];
    // SAFETY: a range of the region, and a buffer of a byte a page.
    unsafe { host::call(libc::SYS_mincore, [guest::at(a[0]) as u64, len, pages.as_mut_ptr() as u64, 0, 0, 0]) }?;
    guest::write_bytes(a[2], &pages)?;
    Ok(0)
}
