//! Programs as an ELF file for the recompiler: text at `area::TEXT`, and behind it the addresses of
//! the programs and their jump tables as read-only data, from which discovery finds the entries; a symbol
//! for each function says where it ends.

use crate::area::TEXT;

const PAGE: usize = 4096;

/// The file. `text` and `data` are whole pages and follow each other in memory; `functions`: address, size.
pub fn file(text: &[u8], data: &[u8], functions: &[(u64, u64)]) -> Vec<u8> {
    assert!(text.len().is_multiple_of(PAGE));
    let mut f = Vec::with_capacity(PAGE + text.len() + data.len());
    f.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    f.extend(2u16.to_le_bytes()); // ET_EXEC
    f.extend(62u16.to_le_bytes()); // EM_X86_64
    f.extend(1u32.to_le_bytes());
    f.extend(TEXT.to_le_bytes()); // entry
    f.extend(64u64.to_le_bytes()); // program headers
    let sections = (PAGE + text.len() + data.len()) as u64;
    f.extend(sections.to_le_bytes());
    f.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 3, 2] {
        f.extend(half.to_le_bytes());
    }
    let mut segment = |flags: u32, off: usize, len: usize| {
        f.extend(1u32.to_le_bytes()); // PT_LOAD
        f.extend(flags.to_le_bytes());
        let at = TEXT + (off - PAGE) as u64;
        for word in [off as u64, at, at, len as u64, len as u64, PAGE as u64] {
            f.extend(word.to_le_bytes());
        }
    };
    segment(5, PAGE, text.len());
    segment(4, PAGE + text.len(), data.len());
    f.resize(PAGE, 0);
    f.extend(text);
    f.extend(data);
    // Section headers: none, .symtab, .strtab (which is empty, and the sections' names too).
    let symbols = sections + 3 * 64;
    let size = 24 * (functions.len() as u64 + 1);
    f.extend([0; 64]);
    for (kind, at, size, link, info, entry) in
        [(2u32, symbols, size, 2u32, 1u32, 24u64), (3, symbols + size, 1, 0, 0, 0)]
    {
        f.extend(0u32.to_le_bytes());
        f.extend(kind.to_le_bytes());
        for word in [0, 0, at, size] {
            f.extend(word.to_le_bytes());
        }
        f.extend(link.to_le_bytes());
        f.extend(info.to_le_bytes());
        f.extend(8u64.to_le_bytes());
        f.extend(entry.to_le_bytes());
    }
    f.extend([0; 24]);
    for (at, size) in functions {
        // No name; STB_GLOBAL and STT_FUNC; SHN_ABS.
        f.extend([0, 0, 0, 0, 0x12, 0, 0xf1, 0xff]);
        f.extend(at.to_le_bytes());
        f.extend(size.to_le_bytes());
    }
    f.push(0);
    f
}
