//! What the recompiler reads of an ELF file: how it is placed, what is executable, where functions
//! may start.

use object::elf::{FileHeader64, PF_W, PF_X, PT_INTERP, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};
use vkernel_abi::megabinary::{KIND_EXEC, KIND_LIB, KIND_PIE};
use vkernel_abi::region::REGION_SIZE;

/// A PT_LOAD segment; addresses are the file's own (without base).
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub vaddr: u64,
    pub off: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub exec: bool,
    pub write: bool,
}

pub struct Elf<'a> {
    pub bytes: &'a [u8],
    pub kind: u32,
    pub entry: u64,
    pub segments: Vec<Segment>,
}

impl<'a> Elf<'a> {
    /// Errors: what is wrong, or why this file cannot be translated.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let header = FileHeader64::<Endianness>::parse(bytes).map_err(|e| e.to_string())?;
        let e = header.endian().map_err(|e| e.to_string())?;
        if header.e_machine(e) != elf::EM_X86_64 {
            return Err(format!("machine {} is not x86-64", header.e_machine(e)));
        }
        let headers = header.program_headers(e, bytes).map_err(|e| e.to_string())?;
        let segments: Vec<Segment> = headers
            .iter()
            .filter(|p| p.p_type(e) == PT_LOAD)
            .map(|p| Segment {
                vaddr: p.p_vaddr(e),
                off: p.p_offset(e),
                filesz: p.p_filesz(e),
                memsz: p.p_memsz(e),
                exec: p.p_flags(e).0 & PF_X.0 != 0,
                write: p.p_flags(e).0 & PF_W.0 != 0,
            })
            .collect();
        if segments.is_empty() {
            return Err("no PT_LOAD segment".into());
        }
        for s in &segments {
            if s.exec && s.write {
                return Err("a segment is writable and executable (self-modifying code)".into());
            }
            if s.off.checked_add(s.filesz).is_none_or(|end| end > bytes.len() as u64) {
                return Err("a segment lies outside the file".into());
            }
            if s.filesz > s.memsz {
                return Err("a segment has more bytes in the file than in memory".into());
            }
            if s.vaddr.checked_add(s.memsz).is_none_or(|end| end > REGION_SIZE) {
                return Err("a segment lies outside the 4 GiB of a guest's memory".into());
            }
        }
        let mut by_address: Vec<&Segment> = segments.iter().filter(|s| s.memsz > 0).collect();
        by_address.sort_by_key(|s| s.vaddr);
        if by_address.windows(2).any(|w| w[0].vaddr + w[0].memsz > w[1].vaddr) {
            return Err("two segments overlap".into());
        }
        let kind = match header.e_type(e) {
            elf::ET_EXEC => KIND_EXEC,
            elf::ET_DYN if is_pie(header, e, bytes) => KIND_PIE,
            elf::ET_DYN => KIND_LIB,
            other => return Err(format!("type {other} is not an executable or shared object")),
        };
        Ok(Self { bytes, kind, entry: header.e_entry(e), segments })
    }

    /// Bytes from the first to past the last mapped one, page-aligned at both ends.
    pub fn span(&self) -> (u64, u64) {
        let start = self.segments.iter().map(|s| s.vaddr & !4095).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| (s.vaddr + s.memsz + 4095) & !4095).max().unwrap_or(0);
        (start, end)
    }

    /// Page-aligned range that holds all executable segments; empty without one.
    pub fn text(&self) -> (u64, u64) {
        let exec = || self.segments.iter().filter(|s| s.exec && s.filesz > 0);
        let start = exec().map(|s| s.vaddr & !4095).min().unwrap_or(0);
        let end = exec().map(|s| (s.vaddr + s.filesz + 4095) & !4095).max().unwrap_or(0);
        (start, end)
    }

    /// File bytes at an address, to the end of its segment's file part.
    pub fn at(&self, vaddr: u64) -> Option<&'a [u8]> {
        let s = self.segments.iter().find(|s| vaddr >= s.vaddr && vaddr < s.vaddr + s.filesz)?;
        self.bytes.get((s.off + (vaddr - s.vaddr)) as usize..(s.off + s.filesz) as usize)
    }
}

impl Elf<'_> {
    /// Made by the Go compiler, which has a calling convention of its own.
    pub fn is_go(&self) -> bool {
        use object::{Object, ObjectSection};
        let file = object::File::parse(self.bytes);
        file.is_ok_and(|f| f.sections().any(|s| matches!(s.name(), Ok(".gopclntab" | ".go.buildinfo"))))
    }
}

/// Whether a shared object is a program: DF_1_PIE says so; older linkers left only an interpreter and
/// no DT_SONAME (libc.so.6 has an interpreter too, and is a library).
fn is_pie(header: &FileHeader64<Endianness>, e: Endianness, bytes: &[u8]) -> bool {
    use object::read::elf::Dyn;
    const DT_SONAME: u64 = 14;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_PIE: u64 = 0x0800_0000;
    let Ok(headers) = header.program_headers(e, bytes) else { return false };
    let dynamic = || headers.iter().filter_map(|p| p.dynamic(e, bytes).ok().flatten()).flatten();
    let flagged = dynamic().any(|d| d.d_tag(e).0 as u64 == DT_FLAGS_1 && d.d_val(e) & DF_1_PIE != 0);
    let interp = headers.iter().any(|p| p.p_type(e) == PT_INTERP);
    flagged || interp && !dynamic().any(|d| d.d_tag(e).0 as u64 == DT_SONAME)
}
