//! Guest memory as the loader sees it: fault-safe copies, and ranges turned into host pointers.
//! Guest address = offset in the region; a range that leaves the 4 GiB region is EFAULT here, and faults in the
//! kernel (`range`).

use crate::errno::{E2BIG, EFAULT, EINVAL, ENAMETOOLONG, Errno};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use vkernel_abi::region::REGION_SIZE;
use vkernel_abi::wasm::GUARD_SIZE;
use vkernel_semantics::memory;

static BASE: AtomicUsize = AtomicUsize::new(0);

pub fn set_base(base: *mut u8) {
    BASE.store(base as usize, Ordering::Relaxed);
}

/// Host address of guest address 0.
pub fn base() -> *mut u8 {
    BASE.load(Ordering::Relaxed) as *mut u8
}

/// Whether a host address lies in the region or its guard.
pub fn holds(addr: usize) -> bool {
    addr.wrapping_sub(base() as usize) < REGION_SIZE as usize + GUARD_SIZE as usize
}

/// Host address of a guest address, of which bits 0–31 count.
pub fn at(addr: u64) -> *mut u8 {
    base().wrapping_add((addr & 0xffff_ffff) as usize)
}

/// A host pointer that faults in every kernel call: so the kernel decides what comes before EFAULT.
pub const BAD: u64 = -4096i64 as u64;

/// Host pointer for a kernel call that touches `len` bytes; null stays null. A range that leaves the
/// region faults in its guard, or is `BAD`.
pub fn range(addr: u64, len: u64) -> u64 {
    match addr {
        0 => 0,
        REGION_SIZE.. => BAD,
        _ if len > REGION_SIZE - addr + GUARD_SIZE => BAD,
        _ => at(addr) as u64,
    }
}

pub fn read_bytes(addr: u64, to: &mut [u8]) -> Result<(), Errno> {
    if to.is_empty() {
        return Ok(());
    }
    if addr >= REGION_SIZE || to.len() as u64 > REGION_SIZE - addr {
        return Err(EFAULT);
    }
    // SAFETY: the guest side lies in the region; a fault becomes an error.
    unsafe { memory::copy(to.as_mut_ptr(), at(addr), to.len()) }.map_err(|_| EFAULT)
}

pub fn write_bytes(addr: u64, from: &[u8]) -> Result<(), Errno> {
    if from.is_empty() {
        return Ok(());
    }
    if addr >= REGION_SIZE || from.len() as u64 > REGION_SIZE - addr {
        return Err(EFAULT);
    }
    // SAFETY: as above.
    unsafe { memory::copy(at(addr), from.as_ptr(), from.len()) }.map_err(|_| EFAULT)
}

/// Types whose every bit pattern is valid.
///
/// # Safety
/// Implement only for plain integers and structs of them.
pub unsafe trait Plain: Copy {}
macro_rules! plain { ($($t:ty)*) => { $(
    // SAFETY: integers, or C structs of integers.
    unsafe impl Plain for $t {}
)* } }
plain! { u8 u16 u32 u64 i32 i64 libc::timespec libc::timeval libc::iovec libc::sigset_t libc::rlimit64
libc::utsname libc::sysinfo libc::siginfo_t libc::stat libc::msghdr libc::rusage libc::tms [u64; 18] [u64; 7] [u64; 4] [u64; 3] [u32; 64] [u32; 2] }

pub fn read<T: Plain>(addr: u64) -> Result<T, Errno> {
    let mut v = MaybeUninit::<T>::uninit();
    // SAFETY: the bytes are written by `read_bytes` before they are taken as a T.
    unsafe {
        let bytes = std::slice::from_raw_parts_mut(v.as_mut_ptr().cast::<u8>(), size_of::<T>());
        bytes.fill(0);
        read_bytes(addr, bytes)?;
        Ok(v.assume_init())
    }
}

pub fn write<T: Plain>(addr: u64, v: &T) -> Result<(), Errno> {
    // SAFETY: a plain value's bytes.
    write_bytes(addr, unsafe { std::slice::from_raw_parts((&raw const *v).cast(), size_of::<T>()) })
}

/// A NUL-terminated string of at most `max` bytes, NUL not included.
pub fn read_cstr(addr: u64, max: usize) -> Result<Vec<u8>, Errno> {
    let mut out = vec![0; max + 1];
    let n = read_cstr_into(addr, &mut out)?;
    out.truncate(n);
    Ok(out)
}

/// The same into a buffer that has room for the NUL; returns its length.
pub fn read_cstr_into(addr: u64, to: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < to.len() {
        // Short pieces first, and never across a page, so that a string that ends just before an
        // unmapped page is read.
        let from = addr.wrapping_add(done as u64);
        let n = (4096 - (from & 4095) as usize).min(64.max(done)).min(to.len() - done);
        read_bytes(from, &mut to[done..done + n])?;
        if let Some(end) = to[done..done + n].iter().position(|b| *b == 0) {
            return Ok(done + end);
        }
        done += n;
    }
    Err(ENAMETOOLONG)
}

/// A structure that grows with Linux's versions (copy_struct_from_user): `size` bytes of it, with zeros up
/// to the `known` ones. Errors: EINVAL below `least` bytes, E2BIG beyond a page or when what is not
/// known is not zero, EFAULT.
pub fn read_struct(addr: u64, size: u64, least: u64, known: usize) -> Result<Vec<u8>, Errno> {
    if size < least {
        return Err(EINVAL);
    }
    if size > 4096 {
        return Err(E2BIG);
    }
    let mut bytes = vec![0; known.max(size as usize)];
    read_bytes(addr, &mut bytes[..size as usize])?;
    if bytes[known..].iter().any(|b| *b != 0) { Err(E2BIG) } else { Ok(bytes) }
}

/// A path argument (PATH_MAX counts the NUL).
pub fn read_path(addr: u64) -> Result<Vec<u8>, Errno> {
    read_cstr(addr, 4095)
}
