//! Translations are kept between builds, keyed by everything that decides them.

use crate::{elf, module};
use sha2::{Digest, Sha256};
use std::path::Path;
use vkernel_abi::megabinary::Entry;

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An ELF file as native code.
pub struct Translation {
    /// Dispatch-map words as in `package::Artifact`.
    pub map: Vec<(u32, u32)>,
    pub code: Vec<u8>,
    pub functions: u32,
}

/// Changes with everything that changes the output of a translation.
const VERSION: u32 = 19;

/// Translates an ELF, or takes its translation from the cache (keyed by content, base and version).
pub fn translation(
    engine: &wasmtime::Engine,
    cache: Option<&Path>,
    elf: &elf::Elf,
    entry: &Entry,
) -> Result<Translation, String> {
    let name = format!("{}-{:x}-{VERSION}-{}", hex(&entry.sha256), entry.base, vkernel_abi::megabinary::ABI_VERSION);
    let file = cache.map(|c| c.join(name));
    if let Some(t) = file.as_ref().and_then(|f| std::fs::read(f).ok()).and_then(|b| decode(&b)) {
        return Ok(t);
    }
    let Some(wasm) = module::translate(elf, entry.base) else {
        return Ok(Translation { map: Vec::new(), code: Vec::new(), functions: 0 });
    };
    let code = engine.precompile_module(&wasm.bytes).map_err(|e| format!("the translation does not compile: {e:#}"))?;
    let t = Translation { map: wasm.map, code, functions: wasm.functions };
    if let Some(f) = file {
        let temp = f.with_extension(std::process::id().to_string());
        std::fs::write(&temp, encode(&t))
            .and_then(|()| std::fs::rename(&temp, &f))
            .map_err(|e| format!("cache: {e}"))?;
    }
    Ok(t)
}

fn encode(t: &Translation) -> Vec<u8> {
    let mut b = t.functions.to_le_bytes().to_vec();
    b.extend((t.map.len() as u32).to_le_bytes());
    b.extend(t.map.iter().flat_map(|(o, w)| [o.to_le_bytes(), w.to_le_bytes()]).flatten());
    b.extend(&t.code);
    let digest = Sha256::digest(&b);
    b.extend(digest);
    b
}

/// None for an entry that was cut short or changed.
fn decode(b: &[u8]) -> Option<Translation> {
    let (b, digest) = b.split_at(b.len().checked_sub(32)?);
    if Sha256::digest(b)[..] != *digest {
        return None;
    }
    let u32_at = |n: usize| Some(u32::from_le_bytes(b.get(n..n + 4)?.try_into().ok()?));
    let count = u32_at(4)? as usize;
    let map = (0..count).map(|n| Some((u32_at(8 + 8 * n)?, u32_at(12 + 8 * n)?))).collect::<Option<_>>()?;
    Some(Translation { functions: u32_at(0)?, map, code: b.get(8 + 8 * count..)?.to_vec() })
}
