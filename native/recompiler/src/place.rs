//! Fixed addresses: every ELF of an image gets the one base it is translated for. Libraries are
//! placed by their hash, so that an unchanged library keeps its translation when others change.

use crate::elf::Elf;
use vkernel_abi::megabinary::{KIND_EXEC, KIND_PIE};
use vkernel_abi::region::{EXE_BASE, LIB_BASE, LIB_END, LIB_GRANULE};

/// Chooses bases in order of `sha256`; linear probing over the library area.
#[derive(Default)]
pub struct Placer {
    taken: Vec<(u64, u64)>,
}

impl Placer {
    /// The base of `elf`, or why it has none.
    pub fn place(&mut self, elf: &Elf, sha256: &[u8; 32]) -> Result<u64, String> {
        match elf.kind {
            KIND_EXEC => return Ok(0),
            KIND_PIE => return Ok(EXE_BASE),
            _ => {}
        }
        let (start, end) = elf.span();
        let len = (end - start + LIB_GRANULE - 1) & !(LIB_GRANULE - 1);
        let granules = (LIB_END - LIB_BASE) / LIB_GRANULE;
        let hash = u64::from_le_bytes(sha256[..8].try_into().expect("8 bytes"));
        for n in 0..granules {
            let at = LIB_BASE + (hash.wrapping_add(n) % granules) * LIB_GRANULE;
            if at + len <= LIB_END && self.taken.iter().all(|&(a, b)| at + len <= a || b <= at) {
                self.taken.push((at, at + len));
                return Ok(at - start);
            }
        }
        Err(format!("no room for {len} bytes in the library area"))
    }
}
