//! The forms of one call: legacy path calls become their *at form, openat2 becomes openat.

use crate::errno::{EINVAL, Errno};
use crate::guest;

const CWD: u64 = libc::AT_FDCWD as u64;

/// Turns a legacy call into its *at form (docs/abi.md).
pub fn canonical(nr: u32, a: [u64; 6]) -> Result<(u32, [u64; 6]), Errno> {
    let n = |x: i64| x as u32;
    let no_follow = libc::AT_SYMLINK_NOFOLLOW as u64;
    Ok(match i64::from(nr) {
        libc::SYS_open => (n(libc::SYS_openat), [CWD, a[0], a[1], a[2], 0, 0]),
        libc::SYS_creat => {
            let flags = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64;
            (n(libc::SYS_openat), [CWD, a[0], flags, a[1], 0, 0])
        }
        libc::SYS_openat2 => {
            let [flags, mode, resolve] = open_how(a[2], a[3])?;
            (n(libc::SYS_openat), [a[0], a[1], flags, mode, resolve, 0])
        }
        libc::SYS_stat => (n(libc::SYS_newfstatat), [CWD, a[0], a[1], 0, 0, 0]),
        libc::SYS_lstat => (n(libc::SYS_newfstatat), [CWD, a[0], a[1], no_follow, 0, 0]),
        libc::SYS_access => (n(libc::SYS_faccessat2), [CWD, a[0], a[1], 0, 0, 0]),
        libc::SYS_faccessat => (n(libc::SYS_faccessat2), [a[0], a[1], a[2], 0, 0, 0]),
        libc::SYS_rename => (n(libc::SYS_renameat2), [CWD, a[0], CWD, a[1], 0, 0]),
        libc::SYS_renameat => (n(libc::SYS_renameat2), [a[0], a[1], a[2], a[3], 0, 0]),
        libc::SYS_mkdir => (n(libc::SYS_mkdirat), [CWD, a[0], a[1], 0, 0, 0]),
        libc::SYS_rmdir => (n(libc::SYS_unlinkat), [CWD, a[0], libc::AT_REMOVEDIR as u64, 0, 0, 0]),
        libc::SYS_unlink => (n(libc::SYS_unlinkat), [CWD, a[0], 0, 0, 0, 0]),
        libc::SYS_link => (n(libc::SYS_linkat), [CWD, a[0], CWD, a[1], 0, 0]),
        libc::SYS_symlink => (n(libc::SYS_symlinkat), [a[0], CWD, a[1], 0, 0, 0]),
        libc::SYS_readlink => (n(libc::SYS_readlinkat), [CWD, a[0], a[1], a[2], 0, 0]),
        libc::SYS_chmod => (n(libc::SYS_fchmodat), [CWD, a[0], a[1], 0, 0, 0]),
        libc::SYS_chown => (n(libc::SYS_fchownat), [CWD, a[0], a[1], a[2], 0, 0]),
        libc::SYS_lchown => (n(libc::SYS_fchownat), [CWD, a[0], a[1], a[2], no_follow, 0]),
        libc::SYS_mknod => (n(libc::SYS_mknodat), [CWD, a[0], a[1], a[2], 0, 0]),
        _ => (nr, a),
    })
}

const RESOLVE_BENEATH: u64 = 8;
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// Flags and RESOLVE_ bits that openat2(2) knows.
const OPEN_FLAGS: u64 = 0x7f_ffc3;
const RESOLVE: u64 = 0x3f;

/// struct open_how. Errors, in the order of fs/open.c: EINVAL and E2BIG of the size, EFAULT, then
/// build_open_flags'.
fn open_how(at: u64, size: u64) -> Result<[u64; 3], Errno> {
    let bytes = guest::read_struct(at, size, 24, 24)?;
    let how = [0, 8, 16].map(|n| u64::from_le_bytes(bytes[n..n + 8].try_into().expect("8 bytes")));
    let [flags, mode, resolve] = how;
    let scoped = RESOLVE_BENEATH | RESOLVE_IN_ROOT;
    let path = libc::O_PATH as u64;
    let with_path = path | (libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
    let makes = flags & libc::O_CREAT as u64 != 0 || flags as i32 & libc::O_TMPFILE == libc::O_TMPFILE;
    if flags & !OPEN_FLAGS != 0
        || resolve & !RESOLVE != 0
        || resolve & scoped == scoped
        || mode & !if makes { 0o7777 } else { 0 } != 0
        || flags & path != 0 && flags & !with_path != 0
    {
        return Err(EINVAL);
    }
    Ok(how)
}
