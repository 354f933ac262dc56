//! What the container overrides of its image: pages that the daemon writes and every process of the
//! container maps read-only (src/fs/overridden.ts). Without them nothing is known to be untouched.

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
use vkernel_abi::generated::ring as abi;
pub use vkernel_abi::generated::ring::{
    OVERRIDDEN_CHANGED as CHANGED, OVERRIDDEN_COVERED as COVERED, OVERRIDDEN_LISTING as LISTING,
    OVERRIDDEN_NAMES as NAMES,
};

static PAGES: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Maps the pages behind `fd`.
pub fn attach(fd: i32) -> Result<(), String> {
    let len = super::file_size(fd)? as usize;
    let p = super::map(0, len, libc::PROT_READ, libc::MAP_SHARED, fd, 0)?;
    // SAFETY: a mapping of `len` bytes, at least a page; the daemon wrote the header before it sent it.
    let count = unsafe { p.add(abi::OVERRIDDEN_COUNT).cast::<u32>().read() };
    if abi::OVERRIDDEN_BYTES + count as usize > len {
        return Err("the pages of what is overridden are too short".into());
    }
    COUNT.store(count, Ordering::Relaxed);
    PAGES.store(p, Ordering::Relaxed);
    Ok(())
}

fn pages() -> Option<*mut u8> {
    let p = PAGES.load(Ordering::Relaxed);
    (!p.is_null()).then_some(p)
}

/// Changes with every bit that is set; `None`: there are no pages.
pub fn generation() -> Option<u32> {
    // SAFETY: an aligned word of the header, which stays mapped.
    pages().map(|p| unsafe { (*p.add(abi::OVERRIDDEN_GENERATION).cast::<AtomicU32>()).load(Ordering::Acquire) })
}

/// st_dev of the container's own file system.
pub fn dev() -> u32 {
    // SAFETY: an aligned word of the header, written before the pages were shared.
    pages().map_or(0, |p| unsafe { p.add(abi::OVERRIDDEN_DEV).cast::<u32>().read() })
}

/// The bits of an inode; what is not covered by the pages counts as overridden.
pub fn bits(nid: u64) -> u8 {
    match pages() {
        Some(p) if nid < u64::from(COUNT.load(Ordering::Relaxed)) => {
            // SAFETY: below the count, which was checked against the mapping's length.
            unsafe { (*p.add(abi::OVERRIDDEN_BYTES + nid as usize).cast::<AtomicU8>()).load(Ordering::Acquire) }
        }
        _ => u8::MAX,
    }
}

pub fn is(nid: u64, what: u8) -> bool {
    bits(nid) & what != 0
}
