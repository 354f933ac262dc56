//! Where the zygote's memory is while it loads an image: in one region, which is then frozen, that is mapped
//! privately from a sealed memory file. What an image's modules are, megabytes of them, is thereby
//! in no fork's page tables to copy (each ordinary heap page costs fork and exit a quarter of a
//! microsecond); a process has pages of its own only of what it writes.
//!
//! Invariant: the region has no other mapping once it is frozen, and its file can no longer be written.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// What an image may take; address space only until it is used.
const SIZE: usize = 2 << 30;
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static LOADING: AtomicBool = AtomicBool::new(false);

fn holds(p: *mut u8) -> bool {
    (START.load(Ordering::Relaxed)..END.load(Ordering::Relaxed)).contains(&(p as usize))
}

/// Takes `layout` from the region; None: the heap has to give it.
fn take(layout: Layout) -> Option<*mut u8> {
    if !LOADING.load(Ordering::Relaxed) {
        return None;
    }
    let at = NEXT.load(Ordering::Relaxed).next_multiple_of(layout.align());
    let end = at.checked_add(layout.size()).filter(|end| *end <= END.load(Ordering::Relaxed))?;
    NEXT.store(end, Ordering::Relaxed);
    Some(at as *mut u8)
}

/// Whether `p` was the last that was taken.
fn is_last(p: *mut u8, layout: Layout) -> bool {
    LOADING.load(Ordering::Relaxed) && p as usize + layout.size() == NEXT.load(Ordering::Relaxed)
}

// SAFETY: pieces of the region never overlap, as NEXT only moves back over the last of them; the loading zygote
// has one thread. Everything else is the system's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match take(layout) {
            Some(p) => {
                // SAFETY: a fresh piece of that size.
                unsafe { p.write_bytes(0, layout.size()) };
                p
            }
            // SAFETY: the caller's.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        if !holds(p) {
            // SAFETY: it is not the region's, so the system gave it.
            unsafe { System.dealloc(p, layout) }
        } else if is_last(p, layout) {
            NEXT.store(p as usize, Ordering::Relaxed);
        }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !holds(p) {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(p, layout, size) };
        }
        if is_last(p, layout) && p as usize + size <= END.load(Ordering::Relaxed) {
            NEXT.store(p as usize + size, Ordering::Relaxed);
            return p;
        }
        // SAFETY: the caller's; the pieces do not overlap.
        unsafe {
            let to = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !to.is_null() {
                to.copy_from_nonoverlapping(p, layout.size().min(size));
                self.dealloc(p, layout);
            }
            to
        }
    }
}

/// The region's file until it is frozen.
pub struct Region(i32);

fn last(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

/// From here on all memory is the region's. The caller has one thread.
pub fn begin() -> Result<Region, String> {
    // SAFETY: a fresh memory file and a fresh mapping of it.
    let (fd, at) = unsafe {
        let fd = libc::memfd_create(c"modules".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 || libc::ftruncate(fd, SIZE as i64) != 0 {
            return Err(last("memory for the image's modules"));
        }
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        (fd, libc::mmap(std::ptr::null_mut(), SIZE, rw, libc::MAP_SHARED | libc::MAP_NORESERVE, fd, 0))
    };
    if at == libc::MAP_FAILED {
        return Err(last("memory for the image's modules"));
    }
    START.store(at as usize, Ordering::Relaxed);
    NEXT.store(at as usize, Ordering::Relaxed);
    END.store(at as usize + SIZE, Ordering::Relaxed);
    LOADING.store(true, Ordering::Relaxed);
    Ok(Region(fd))
}

/// Ends the loading: the region stays as it is, and its pages are shared until they are written.
pub fn freeze(region: Region) -> Result<(), String> {
    LOADING.store(false, Ordering::Relaxed);
    let start = START.load(Ordering::Relaxed);
    let len = (NEXT.load(Ordering::Relaxed) - start).next_multiple_of(4096);
    let at = start as *mut libc::c_void;
    END.store(start + len, Ordering::Relaxed);
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: replaces the shared mapping by a private one of the same bytes; nothing is taken from the region
    // any more, so what lies behind `len` is not used.
    unsafe {
        let frozen = libc::munmap(at.byte_add(len), SIZE - len) == 0
            && libc::ftruncate(region.0, len as i64) == 0
            && libc::mmap(
                at,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                region.0,
                0,
            ) == at
            && libc::fcntl(region.0, libc::F_ADD_SEALS, seals) == 0;
        if !frozen {
            return Err(last("the image's modules cannot be frozen"));
        }
        libc::close(region.0);
    }
    Ok(())
}
