//! Translations are kept between builds, keyed by everything that decides them.

use crate::{elf, module};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::{Duration, SystemTime};
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
    /// It was there already.
    pub cached: bool,
}

/// Changes with everything that changes the output of a translation.
const VERSION: u32 = 27;

/// Translates an ELF, or takes its translation from the cache (keyed by content, base and version).
pub fn translation(
    engine: &wasmtime::Engine,
    cache: Option<&Path>,
    elf: &elf::Elf,
    entry: &Entry,
) -> Result<Translation, String> {
    let name = format!("{}-{:x}-{VERSION}-{}", hex(&entry.sha256), entry.base, vkernel_abi::megabinary::ABI_VERSION);
    let file = cache.map(|c| c.join(name));
    if let Some(f) = &file
        && let Some(t) = std::fs::read(f).ok().and_then(|b| decode(&b))
    {
        // What is used stays: `prune` goes by this time. A cache that may only be read is as good.
        let _ = std::fs::File::options().write(true).open(f).and_then(|f| f.set_modified(SystemTime::now()));
        return Ok(t);
    }
    let Some(wasm) = module::translate(elf, entry.base) else {
        return Ok(Translation { map: Vec::new(), code: Vec::new(), functions: 0, cached: false });
    };
    let code = engine.precompile_module(&wasm.bytes).map_err(|e| format!("the translation does not compile: {e:#}"))?;
    let t = Translation { map: wasm.map, code, functions: wasm.functions, cached: false };
    if let Some(f) = file {
        let temp = f.with_extension(std::process::id().to_string());
        std::fs::write(&temp, encode(&t))
            .and_then(|()| std::fs::rename(&temp, &f))
            .map_err(|e| format!("cache: {e}"))?;
    }
    Ok(t)
}

/// How long a translation that no build has used is kept, and one that was cut short.
const UNUSED: Duration = Duration::from_secs(30 * 86_400);
const CUT_SHORT: Duration = Duration::from_secs(86_400);

/// Removes what is not used any more: translations by other versions and of files that are gone, and what
/// builds that were killed have left. Another build may be doing the same: what is gone already is no error.
pub fn prune(cache: &Path) {
    for entry in std::fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((sha256, _)) = name.split_once('-') else { continue };
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            continue;
        }
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age > Some(if name.contains('.') { CUT_SHORT } else { UNUSED }) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
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
    Some(Translation { functions: u32_at(0)?, map, code: b.get(8 + 8 * count..)?.to_vec(), cached: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_old_and_ours_is_pruned() {
        let dir = std::env::temp_dir().join(format!("vkernel-prune-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let days = |n: u64| SystemTime::now() - Duration::from_secs(n * 86_400);
        let sha = "a".repeat(64);
        let files = [
            (format!("{sha}-0-1-2"), 31, false),
            (format!("{sha}-0-3-2"), 29, true),
            (format!("{sha}-0-3-2.77"), 2, false),
            (format!("{sha}-0-3-2.78"), 0, true),
            ("notes-of-mine".to_string(), 99, true),
        ];
        for (name, age, _) in &files {
            std::fs::File::create(dir.join(name)).unwrap().set_modified(days(*age)).unwrap();
        }
        prune(&dir);
        for (name, _, stays) in &files {
            assert_eq!(dir.join(name).exists(), *stays, "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
