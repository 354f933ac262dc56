//! sendmmsg(2) and recvmmsg(2): one message after the other.

use crate::cpu::Thread;
use crate::errno::{EINVAL, SysResult};
use crate::{guest, netcalls};

const UIO_MAXIOV: u64 = 1024;
/// struct mmsghdr.
const SIZE: u64 = 64;

pub fn dispatch(t: &mut Thread, nr: i64, a: [u64; 6]) -> SysResult {
    if a[2] as u32 == 0 {
        // No message, and yet the descriptor is looked at: as getsockname without an address would.
        return match netcalls::dispatch(t, libc::SYS_getsockname, [a[0], 0, 0, 0, 0, 0]) {
            Err(crate::errno::EFAULT) => Ok(0),
            r => r,
        };
    }
    if nr == libc::SYS_sendmmsg { send(t, a) } else { receive(t, a) }
}

/// A message's result is told when at least one has been sent; an error otherwise.
fn send(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let mut done = 0;
    while done < (a[2] & 0xffff_ffff).min(UIO_MAXIOV) {
        let at = a[1] + SIZE * done;
        let sent = netcalls::dispatch(t, libc::SYS_sendmsg, [a[0], at, a[3], 0, 0, 0])
            .and_then(|n| guest::write(at + 56, &(n as u32)));
        match sent {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done as i64)
}

const MSG_WAITFORONE: u64 = 0x10000;
const MSG_OOB: u32 = 1;

/// recvmmsg(2): the timeout is looked at after each message (its "BUGS").
fn receive(t: &mut Thread, a: [u64; 6]) -> SysResult {
    let deadline = if a[4] == 0 {
        None
    } else {
        let [sec, nsec]: [u64; 2] = [guest::read(a[4])?, guest::read(a[4] + 8)?];
        if sec as i64 >= 0 && nsec < 1_000_000_000 {
            std::time::Instant::now().checked_add(std::time::Duration::new(sec, nsec as u32))
        } else {
            return Err(EINVAL);
        }
    };
    let (mut done, mut flags) = (0, a[3]);
    while done < (a[2] & 0xffff_ffff) {
        let at = a[1] + SIZE * done;
        let got = netcalls::dispatch(t, libc::SYS_recvmsg, [a[0], at, flags & !MSG_WAITFORONE, 0, 0, 0])
            .and_then(|n| guest::write(at + 56, &(n as u32)));
        match got {
            Ok(()) => done += 1,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT as u64;
        }
        if let Some(end) = deadline {
            let left = end.saturating_duration_since(std::time::Instant::now());
            guest::write(a[4], &left.as_secs())?;
            guest::write(a[4] + 8, &u64::from(left.subsec_nanos()))?;
            if left.is_zero() {
                break;
            }
        }
        if guest::read::<u32>(at + 48).unwrap_or(0) & MSG_OOB != 0 {
            break;
        }
    }
    Ok(done as i64)
}
