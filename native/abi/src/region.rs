//! The guest address space: one 4 GiB region, wasm memory 0 of every instance of a process.
//! Guest address = offset in the region. Only bits 0–31 of a guest address reach memory
//! (docs/quirks.md).
//!
//! ```text
//! 0000_0000  unmapped (mmap_min_addr)
//! 0040_0000  ET_EXEC programs at their own addresses
//! 1000_0000  PIE programs (EXE_BASE), brk heap behind the program's bss
//! ....       mmap area, allocated downwards from LIB_BASE
//! a000_0000  shared objects, each at the address fixed when it was translated (LIB_BASE…LIB_END)
//! f000_0000  vdso/vvar-free gap; main stack grows down from STACK_TOP
//! ```
pub const REGION_SIZE: u64 = 1 << 32;
pub const MMAP_MIN_ADDR: u64 = 0x1_0000;
pub const EXE_BASE: u64 = 0x1000_0000;
pub const EXE_END: u64 = 0x3000_0000;
pub const LIB_BASE: u64 = 0xa000_0000;
pub const LIB_END: u64 = 0xf000_0000;
/// Granule of library placement, bytes.
pub const LIB_GRANULE: u64 = 0x1_0000;
pub const STACK_TOP: u64 = 0xfffe_0000;
pub const STACK_SIZE_DEFAULT: u64 = 8 << 20;
