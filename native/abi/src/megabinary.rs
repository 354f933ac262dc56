//! The megabinary: every translated ELF of an image in one file of page-aligned sections, which
//! the zygote maps and never copies.
//!
//! ```text
//! @0            Header, one page
//! index         Entry × count, sorted by sha256
//! nids          Nid × nid_count, sorted by nid: which inode of image.erofs holds which ELF
//! maps          per ELF one dispatch-map section (wasm.rs memory 2): u32 words at byte offset
//!               `pc - text_start`, slots already absolute; page-aligned, same length as the text,
//!               text_start rounded down to a page
//! code          per ELF one cwasm; mapped R-X as a whole
//! debug         optional: per ELF its wasm and its function names
//! ```
//! All integers little-endian.

pub const MAGIC: [u8; 8] = *b"VKMEGA01";
pub const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Header {
    pub magic: [u8; 8],
    /// Changes with every change of this format, of the wasm contract or of CpuState.
    pub abi_version: u32,
    pub count: u32,
    pub index_off: u64,
    pub nids_off: u64,
    pub nid_count: u64,
    pub maps_off: u64,
    pub maps_len: u64,
    pub code_off: u64,
    pub code_len: u64,
    pub debug_off: u64,
    pub debug_len: u64,
    /// Table slots used by the image, slot 0 included.
    pub slots: u64,
}

pub const ABI_VERSION: u32 = 4;

/// How an ELF is placed.
pub const KIND_EXEC: u32 = 1; // ET_EXEC: at its own addresses
pub const KIND_PIE: u32 = 2; // ET_DYN program: at EXE_BASE
pub const KIND_LIB: u32 = 3; // shared object or program interpreter: at `base`

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Entry {
    pub sha256: [u8; 32],
    /// Load bias: guest address = base + p_vaddr. 0 for ET_EXEC.
    pub base: u64,
    pub kind: u32,
    pub slot_base: u32,
    pub slot_count: u32,
    pub reserved: u32,
    /// Guest addresses of the first byte and past the last byte that the dispatch map covers,
    /// page-aligned.
    pub text_start: u64,
    pub text_end: u64,
    pub map_off: u64,
    pub code_off: u64,
    /// 0: nothing was translated, the interpreter runs it all.
    pub code_len: u64,
    pub debug_off: u64,
    pub debug_len: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Nid {
    pub nid: u64,
    pub entry: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<Header>() == 96 && size_of::<Entry>() == 112 && size_of::<Nid>() == 16);
