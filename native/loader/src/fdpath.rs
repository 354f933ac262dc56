//! Names of the guest's own descriptors, /proc/self/fd/N and /dev/fd/N (proc(5)): only the loader knows
//! what is behind a number, so calls that follow such a name become calls on the descriptor.

use crate::cpu::Thread;
use crate::errno::Errno;
use crate::{guest, image, process};

/// The descriptor that a path names; None: it is another path.
fn descriptor(path: &[u8]) -> Option<i32> {
    let own = format!("/proc/{}/fd/", process::pid());
    let rest = [b"/proc/self/fd/".as_slice(), b"/proc/thread-self/fd/", b"/dev/fd/", own.as_bytes()];
    let number = rest.iter().find_map(|p| path.strip_prefix(*p))?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The call on the descriptor that stands for call `nr` on its name.
pub fn rewrite(t: &mut Thread, nr: u32, a: [u64; 6]) -> Result<Option<(u32, [u64; 6])>, Errno> {
    let nofollow = libc::AT_SYMLINK_NOFOLLOW as u64;
    let (flags, to) = match i64::from(nr) {
        libc::SYS_fchmodat => (0, libc::SYS_fchmod),
        libc::SYS_fchownat => (a[4], libc::SYS_fchown),
        libc::SYS_utimensat => (a[3], libc::SYS_utimensat),
        libc::SYS_newfstatat => (a[3], libc::SYS_newfstatat),
        _ => return Ok(None),
    };
    if a[1] == 0 || flags & nofollow != 0 || process::fs().chrooted {
        return Ok(None);
    }
    let Some(fd) = descriptor(&guest::read_path(a[1])?) else { return Ok(None) };
    if image::calls::node(t, fd)? == 0 {
        return Ok(None);
    }
    let fd = fd as u64;
    let args = match to {
        libc::SYS_fchmod => [fd, a[2], 0, 0, 0, 0],
        libc::SYS_fchown => [fd, a[2], a[3], 0, 0, 0],
        libc::SYS_utimensat => [fd, 0, a[2], 0, 0, 0],
        _ => [fd, 0, a[2], libc::AT_EMPTY_PATH as u64, 0, 0],
    };
    Ok(Some((to as u32, args)))
}
