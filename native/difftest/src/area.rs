//! Memory that programs run in, at the same guest addresses for all three: natively a guest address
//! is a host address in the low 4 GiB; in the region it is an offset. Both are one memfd.

use std::sync::OnceLock;

/// Memory that operands point into.
pub const SCRATCH: u64 = 0x1000_0000;
pub const SCRATCH_LEN: usize = 4096;
/// Where `dump` leaves the registers; the second half of the page is its stack.
pub const DUMP: u64 = 0x1100_0000;
pub const DUMP_LEN: usize = 4096;
/// Programs; the first is `dump` itself.
pub const TEXT: u64 = 0x3000_0000;
pub const TEXT_LEN: usize = 64 << 20;
/// Behind the guest's last instruction: native code that gives the host its registers back.
pub const EXIT: u64 = 0x2f00_0000;

const PARTS: [(u64, usize); 3] = [(SCRATCH, SCRATCH_LEN), (DUMP, DUMP_LEN), (TEXT, TEXT_LEN)];
const REGION_LEN: usize = (4 << 30) + (2 << 20);

/// Host address of guest address 0, for the interpreter and translated code.
pub fn region() -> *mut u8 {
    static REGION: OnceLock<usize> = OnceLock::new();
    *REGION.get_or_init(make) as *mut u8
}

/// An anonymous mapping; `at` 0: anywhere.
pub fn map(at: u64, len: usize, prot: i32) -> *mut u8 {
    let fixed = if at == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
    place(at as usize, len, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed, -1, 0)
}

fn place(at: usize, len: usize, prot: i32, flags: i32, fd: i32, off: usize) -> *mut u8 {
    // SAFETY: a fresh mapping, or one over our own reservation.
    let p = unsafe { libc::mmap(at as *mut _, len, prot, flags, fd, off as i64) };
    assert!(p != libc::MAP_FAILED && (at == 0 || p as usize == at), "cannot map {len} bytes at {at:#x}");
    p.cast()
}

fn make() -> usize {
    let region = map(0, REGION_LEN, libc::PROT_NONE) as usize;
    // SAFETY: plain calls.
    let fd = unsafe { libc::memfd_create(c"difftest".as_ptr(), 0) };
    let total: usize = PARTS.iter().map(|p| p.1).sum();
    // SAFETY: as above.
    assert!(fd >= 0 && unsafe { libc::ftruncate(fd, total as i64) } == 0, "no memfd");
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let mut off = 0;
    for (at, len) in PARTS {
        let exec = if at == TEXT { libc::PROT_EXEC } else { 0 };
        place(at as usize, len, rw | exec, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE, fd, off);
        place(region + at as usize, len, rw, libc::MAP_SHARED | libc::MAP_FIXED, fd, off);
        off += len;
    }
    region
}

/// Bytes of one of the parts.
pub fn bytes(at: u64, len: usize) -> &'static mut [u8] {
    region();
    assert!(PARTS.iter().any(|p| at >= p.0 && at as usize + len <= p.0 as usize + p.1));
    // SAFETY: mapped for good; the bench's lock lets one thread at it, and nobody keeps the slice.
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
}
