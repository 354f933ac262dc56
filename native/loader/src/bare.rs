//! Development only (`--features bare`): path calls go straight to the host kernel, so that a host
//! program runs without image and daemon. Nothing is enforced here; it is not in shipped binaries.

use crate::errno::{EFAULT, Errno};
use crate::ring::Reply;
use crate::{guest, host};
use vkernel_abi::syscall::{Arg, Len, Syscall};

pub fn request(row: &Syscall, args: [u64; 6]) -> Result<Reply, Errno> {
    let mut a = args;
    let mut keep = Vec::new();
    for (n, arg) in row.args.iter().enumerate() {
        match arg {
            Arg::Path | Arg::Str => {
                if args[n] == 0 {
                    return Err(EFAULT);
                }
                let mut s = guest::read_path(args[n])?;
                s.push(0);
                let s = s.into_boxed_slice();
                a[n] = s.as_ptr() as u64;
                keep.push(s);
            }
            Arg::Ptr { len, .. } => {
                let len = match len {
                    Len::Fixed(n) => u64::from(*n),
                    Len::Arg { index, scale } => args[usize::from(*index)] * u64::from(*scale),
                };
                a[n] = guest::range(args[n], len);
            }
            _ => {}
        }
    }
    // SAFETY: pointers are checked ranges or live strings.
    let ret = unsafe { host::call(i64::from(row.nr), a) };
    Ok(Reply { ret, window: crate::ring::Window::empty(), fds: Vec::new() })
}
