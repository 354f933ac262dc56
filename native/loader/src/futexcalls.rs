//! futex(2) and futex_waitv(2) on the host, on the region's addresses: waiting, waking, requeueing and
//! priority inheritance are the kernel's.

use crate::cpu::Thread;
use crate::errno::{EFAULT, EINVAL, SysResult};
use crate::{guest, host};

const CMD: u64 = 0x7f;
const FUTEX_WAIT_REQUEUE_PI: i32 = 11;
const FUTEX_CMP_REQUEUE_PI: i32 = 12;
const FUTEX_LOCK_PI2: i32 = 13;

pub fn futex(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let mut v = a;
    v[0] = if a[0] == 0 { guest::BAD } else { guest::range(a[0], 4) };
    match (a[1] & CMD) as i32 {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET | libc::FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => {
            v[3] = guest::range(a[3], 16);
        }
        FUTEX_WAIT_REQUEUE_PI => (v[3], v[4]) = (guest::range(a[3], 16), guest::range(a[4], 4)),
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_WAKE_OP | FUTEX_CMP_REQUEUE_PI => {
            v[4] = guest::range(a[4], 4);
        }
        // The rest takes no other address; what is no operation the kernel refuses.
        _ => {}
    }
    // SAFETY: addresses of the region.
    unsafe { host::blocking(t.poll(), libc::SYS_futex, v) }
}

const FUTEX_WAITV_MAX: u64 = 128;

/// futex_waitv(2): the list with host addresses.
pub fn waitv(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let mut list = Vec::new();
    if a[2] == 0 && (1..=FUTEX_WAITV_MAX).contains(&(a[1] & 0xffff_ffff)) {
        for n in 0..a[1] & 0xffff_ffff {
            let mut entry: [u64; 3] = guest::read(a[0] + 24 * n)?;
            if entry[1] >> 32 != 0 {
                return Err(EFAULT);
            }
            if !entry[1].is_multiple_of(4) {
                return Err(EINVAL);
            }
            entry[1] = if entry[1] == 0 { guest::BAD } else { guest::range(entry[1], 4) };
            list.push(entry);
        }
    }
    let at = if list.is_empty() { 0 } else { list.as_ptr() as u64 };
    // SAFETY: a live list of addresses of the region.
    unsafe { host::blocking(t.poll(), libc::SYS_futex_waitv, [at, a[1], a[2], guest::range(a[3], 16), a[4], 0]) }
}
