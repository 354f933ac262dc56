//! Guest failures as values: a syscall returns `Result<i64, Errno>`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

pub type SysResult = Result<i64, Errno>;

macro_rules! names {
    ($($name:ident)*) => { $(pub const $name: Errno = Errno(libc::$name);)* };
}

names! { EPERM ENOENT EIO ENOEXEC EBADF EAGAIN ENOMEM EACCES EADDRNOTAVAIL EFAULT EEXIST ENODEV ENOTDIR EISDIR EINVAL ENFILE
EMFILE ENOTTY ESPIPE ENAMETOOLONG ENOSYS EOPNOTSUPP E2BIG ENXIO ELOOP }

/// The call was not made because of a signal, and is to be made behind its handler; no guest sees it
/// (include/linux/errno.h).
pub const ERESTARTNOINTR: Errno = Errno(513);

/// The kernel's raw return value as a result.
pub fn from_raw(r: i64) -> SysResult {
    if (-4095..0).contains(&r) { Err(Errno(-r as i32)) } else { Ok(r) }
}

pub fn to_raw(r: SysResult) -> i64 {
    match r {
        Ok(v) => v,
        Err(e) => -i64::from(e.0),
    }
}
