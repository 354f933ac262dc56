//! Translations are kept between builds, keyed by everything that decides them; a build takes them from
//! their files, one at a time, when it writes the megabinary (package.rs).

use crate::coverage::Report;
use crate::{elf, module};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use vkernel_abi::megabinary::Entry;

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An ELF file's translation, in a file.
pub struct Translation {
    pub file: PathBuf,
    digest: [u8; 32],
    pub functions: u32,
    /// Bytes of native code; 0: there was nothing to translate.
    pub code: u64,
    pub report: Report,
    /// It was there already.
    pub cached: bool,
}

/// What such a file holds.
pub struct Contents {
    bytes: Vec<u8>,
    /// Dispatch-map words as in `module::Wasm`.
    pub map: Vec<(u32, u32)>,
    functions: u32,
    report: Report,
    code: std::ops::Range<usize>,
}

impl Contents {
    pub fn code(&self) -> &[u8] {
        &self.bytes[self.code.clone()]
    }
    fn digest(&self) -> [u8; 32] {
        self.bytes[self.code.end..].try_into().expect("decode leaves 32 bytes")
    }
}

/// Changes with everything that changes the output of a translation.
const VERSION: u32 = 28;

/// The name of a translation: what it is of, and what has decided it.
fn name(entry: &Entry, options: &module::Options) -> String {
    let mut name =
        format!("{}-{:x}-{VERSION}-{}", hex(&entry.sha256), entry.base, vkernel_abi::megabinary::ABI_VERSION);
    if options.count {
        name.push_str("-count");
    }
    if !options.hints.is_empty() {
        let hints: Vec<u8> = options.hints.iter().flat_map(|h| h.to_le_bytes()).collect();
        name.push_str(&format!("-{}", &hex(&Sha256::digest(&hints))[..16]));
    }
    name
}

/// Translates an ELF into a file in `cache`, or finds it there.
pub fn translation(
    engine: &wasmtime::Engine,
    cache: &Path,
    elf: &elf::Elf,
    entry: &Entry,
    options: &module::Options,
) -> Result<Translation, String> {
    let file = cache.join(name(entry, options));
    if let Some(c) = std::fs::read(&file).ok().and_then(decode) {
        // What is used stays: `prune` goes by this time. A cache that may only be read is as good.
        let _ = std::fs::File::options().write(true).open(&file).and_then(|f| f.set_modified(SystemTime::now()));
        let (digest, code) = (c.digest(), c.code.len() as u64);
        return Ok(Translation { file, digest, functions: c.functions, code, report: c.report, cached: true });
    }
    let Some(wasm) = module::translate(elf, entry.base, options) else {
        return Ok(Translation {
            file,
            digest: [0; 32],
            functions: 0,
            code: 0,
            report: Report::default(),
            cached: false,
        });
    };
    let module::Wasm { bytes, map, functions, report, .. } = wasm;
    let code = engine.precompile_module(&bytes).map_err(|e| format!("the translation does not compile: {e:#}"))?;
    drop(bytes);
    let digest =
        write(&file, &head(functions, &map, &report), &code).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Translation { file, digest, functions, code: code.len() as u64, report, cached: false })
}

impl Translation {
    /// Reads the file again.
    pub fn contents(&self) -> std::io::Result<Contents> {
        let changed = || std::io::Error::other(format!("{} changed while the image was built", self.file.display()));
        let c = split(std::fs::read(&self.file)?).ok_or_else(changed)?;
        if c.digest() == self.digest { Ok(c) } else { Err(changed()) }
    }
}

/// Writes a translation in one step; returns its digest, which is its end.
fn write(file: &Path, head: &[u8], code: &[u8]) -> std::io::Result<[u8; 32]> {
    use std::io::Write;
    let digest: [u8; 32] = Sha256::new().chain_update(head).chain_update(code).finalize().into();
    let temp = file.with_extension(std::process::id().to_string());
    let mut f = std::fs::File::create(&temp)?;
    [head, code, &digest].into_iter().try_for_each(|part| f.write_all(part))?;
    std::fs::rename(&temp, file)?;
    Ok(digest)
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

/// What comes before the code: functions, words of the map, bytes of the report; map; report as JSON.
fn head(functions: u32, map: &[(u32, u32)], report: &Report) -> Vec<u8> {
    let report = serde_json::to_vec(report).expect("a report is plain");
    let mut b: Vec<u8> =
        [functions, map.len() as u32, report.len() as u32].iter().flat_map(|v| v.to_le_bytes()).collect();
    b.extend(map.iter().flat_map(|(o, w)| [o.to_le_bytes(), w.to_le_bytes()]).flatten());
    b.extend(report);
    b
}

/// None for a file that was cut short or changed.
fn decode(b: Vec<u8>) -> Option<Contents> {
    let body = b.split_at(b.len().checked_sub(32)?).0;
    let digest: [u8; 32] = Sha256::digest(body).into();
    split(b).filter(|c| c.digest() == digest)
}

/// The parts of a file, whatever its digest.
fn split(bytes: Vec<u8>) -> Option<Contents> {
    let u32_at = |n: usize| Some(u32::from_le_bytes(bytes.get(n..n + 4)?.try_into().ok()?));
    let (functions, count, report) = (u32_at(0)?, u32_at(4)? as usize, u32_at(8)? as usize);
    let map = (0..count).map(|n| Some((u32_at(12 + 8 * n)?, u32_at(16 + 8 * n)?))).collect::<Option<_>>()?;
    let code = 12 + 8 * count + report..bytes.len().checked_sub(32)?;
    let report = serde_json::from_slice(bytes.get(code.start - report..code.start)?).ok()?;
    (code.start <= code.end).then_some(Contents { map, functions, report, code, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_and_what_was_changed_is_not() {
        let dir = std::env::temp_dir().join(format!("vkernel-cache-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("a");
        let report = Report { instructions: 7, ..Report::default() };
        let digest = write(&file, &head(3, &[(4, 5), (6, 7)], &report), b"code").unwrap();
        let c = decode(std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(
            (c.functions, &c.map[..], c.code(), c.report.instructions),
            (3, &[(4, 5), (6, 7)][..], &b"code"[..], 7)
        );
        let t = |digest| Translation {
            file: file.clone(),
            digest,
            functions: 3,
            code: 4,
            report: Report::default(),
            cached: true,
        };
        assert_eq!(t(digest).contents().unwrap().code(), b"code");
        assert!(t([0; 32]).contents().is_err());
        let whole = std::fs::read(&file).unwrap();
        for n in 0..whole.len() {
            let mut changed = whole.clone();
            changed[n] ^= 1;
            assert!(decode(changed).is_none(), "byte {n}");
            assert!(decode(whole[..n].to_vec()).is_none(), "cut at {n}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

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
