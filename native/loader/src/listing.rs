//! Reading directories: the daemon sends whole listings, the description's offset counts entries.

use crate::cpu::Thread;
use crate::errno::{EINVAL, ENOTDIR, Errno, SysResult};
use crate::files::What;
use crate::mediated::{check_open, nr};
use crate::ring::{self, NULL};
use crate::{guest, process};
use std::collections::HashMap;
use std::sync::Mutex;
use vkernel_abi::generated::ring as abi;

/// Listings that are being read, by (description address).
static LISTINGS: Mutex<Option<HashMap<usize, Vec<u8>>>> = Mutex::new(None);

/// getdents64(2).
pub fn getdents(t: &mut Thread, a: [u64; 6]) -> SysResult {
    entries(t, a, <[u8]>::to_vec)
}

/// Reads over whole listings that the daemon sends; the description's offset counts entries. `shape`
/// makes what the guest gets of a linux_dirent64.
fn entries(t: &mut Thread, a: [u64; 6], shape: impl Fn(&[u8]) -> Vec<u8>) -> SysResult {
    let fd = a[0] as i32;
    check_open(fd)?;
    let kind = process::files().kind(fd);
    if kind.what == What::Path {
        return Err(crate::errno::EBADF);
    }
    #[cfg(feature = "bare")]
    if ring::conn() < 0 {
        let args = [a[0], guest::range(a[1], a[2]), a[2], 0, 0, 0];
        // SAFETY: a checked buffer.
        return unsafe { host::call(libc::SYS_getdents64, args) };
    }
    let description = process::files().description(fd);
    let d = match (kind.what, description) {
        (What::Directory, Some(d)) => d,
        _ => return Err(ENOTDIR),
    };
    let key = std::ptr::from_ref(d) as usize;
    let start = d.off.load(std::sync::atomic::Ordering::Relaxed);
    let cached = {
        let mut listings = LISTINGS.lock().expect("not poisoned");
        let map = listings.get_or_insert_with(HashMap::new);
        if start == 0 { None } else { map.get(&key).cloned() }
    };
    let listing = match cached {
        Some(l) => l,
        None => {
            let node = crate::image::calls::node(t, fd)?;
            fetch_listing(t, node)?
        }
    };
    let (mut out, mut index, mut at) = (Vec::new(), 0u64, 0usize);
    let capacity = a[2] as usize & 0xffff_ffff;
    while at + 19 <= listing.len() {
        let len = usize::from(u16::from_le_bytes([listing[at + 16], listing[at + 17]]));
        if len < 19 || at + len > listing.len() {
            break;
        }
        if index >= start {
            let record = shape(&listing[at..at + len]);
            if out.len() + record.len() > capacity {
                if out.is_empty() {
                    return Err(EINVAL);
                }
                break;
            }
            out.extend_from_slice(&record);
        }
        index += 1;
        at += len;
    }
    guest::write_bytes(a[1], &out)?;
    d.off.store(index.max(start), std::sync::atomic::Ordering::Relaxed);
    let mut listings = LISTINGS.lock().expect("not poisoned");
    let map = listings.get_or_insert_with(HashMap::new);
    if out.is_empty() {
        map.remove(&key);
    } else {
        map.insert(key, listing);
    }
    Ok(out.len() as i64)
}

/// getdents(2): linux_dirent, which has the type behind the name.
pub fn getdents_old(t: &mut Thread, a: [u64; 6]) -> SysResult {
    entries(t, a, |r| {
        let name = &r[19..];
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        let len = (18 + end + 2).next_multiple_of(8);
        let mut out = vec![0u8; len];
        out[..16].copy_from_slice(&r[..16]);
        out[16..18].copy_from_slice(&(len as u16).to_le_bytes());
        out[18..18 + end].copy_from_slice(&name[..end]);
        out[len - 1] = r[18];
        out
    })
}

fn fetch_listing(t: &mut Thread, node: u32) -> Result<Vec<u8>, Errno> {
    let w = ring::window(t)?;
    let mut reply = ring::call(t, nr(libc::SYS_getdents64), [u64::from(node), NULL, 0, 0, 0, 0], w)?;
    if reply.ret == Err(Errno(abi::ASK_WITH_FD)) {
        // /proc/self/fd: the numbers are ours to know.
        let open: Vec<u8> = process::files().open().flat_map(|fd| (fd as u32).to_le_bytes()).collect();
        let mut w = ring::window(t)?;
        let place = w.put(&open).ok_or(crate::errno::EIO)?;
        reply = ring::call(t, nr(libc::SYS_getdents64), [u64::from(node), place, 0, 0, 0, 0], w)?;
    }
    let n = reply.ret?;
    let Some(&fd) = reply.fds.first() else {
        return Ok(reply.window.get(0, n as usize));
    };
    let size = crate::image::file_size(fd).map_err(|_| crate::errno::EIO)? as usize;
    let mut v = vec![0; size];
    // SAFETY: reads our own new descriptor into a buffer of that size, and closes it.
    let got = unsafe { libc::pread(fd, v.as_mut_ptr().cast(), size, 0) };
    // SAFETY: as above.
    unsafe { libc::close(fd) };
    if got as usize != size { Err(crate::errno::EIO) } else { Ok(v) }
}

/// For fork: nothing of this module changes meanwhile.
pub fn locked() -> impl Sized {
    LISTINGS.lock().expect("not poisoned")
}
