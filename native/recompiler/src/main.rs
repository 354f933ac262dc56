//! The recompiler: x86-64 ELF files to native artefacts in a megabinary.
//! Started by the TypeScript CLI; progress is one JSON object a line on stderr.

mod discover;
mod elf;
mod function;
mod lift;
mod lift_fp;
mod locals;
mod module;
mod package;
mod place;
mod structure;
mod usage;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vkernel_abi::megabinary::Entry;

/// `batch`: what to translate, written by src/image/translate.ts.
#[derive(Deserialize)]
struct Plan {
    out: PathBuf,
    /// Where translations are kept between builds.
    cache: Option<PathBuf>,
    /// False: nothing is translated, the interpreter runs it all.
    translate: bool,
    elfs: Vec<PlanElf>,
}

#[derive(Deserialize)]
struct PlanElf {
    /// Host path of the bytes.
    path: PathBuf,
    /// Hex; what the bytes must hash to.
    sha256: String,
    /// Inodes of image.erofs that hold these bytes.
    nids: Vec<u64>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Translation {
    map: Vec<(u32, u32)>,
    code: Vec<u8>,
    functions: u32,
}

/// Changes with everything that changes the output of a translation.
const VERSION: u32 = 1;

/// Translates an ELF, or takes its translation from the cache (keyed by content, base and version).
fn translation(engine: &wasmtime::Engine, cache: Option<&Path>, elf: &elf::Elf, entry: &Entry) -> Result<Translation, String> {
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
        std::fs::write(&temp, encode(&t)).and_then(|()| std::fs::rename(&temp, &f)).map_err(|e| format!("cache: {e}"))?;
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

fn batch(plan: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(plan).map_err(|e| format!("{plan}: {e}"))?;
    let mut plan: Plan = serde_json::from_str(&text).map_err(|e| format!("plan: {e}"))?;
    plan.elfs.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    let engine = wasmtime::Engine::new(&vkernel_engine::config()).map_err(|e| format!("engine: {e:#}"))?;
    let mut placer = place::Placer::default();
    let mut artifacts = Vec::new();
    for e in &plan.elfs {
        let shown = e.path.display();
        let bytes = std::fs::read(&e.path).map_err(|err| format!("{shown}: {err}"))?;
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        if hex(&sha256) != e.sha256 {
            return Err(format!("{shown}: the bytes changed while the image was built"));
        }
        let elf = elf::Elf::parse(&bytes).map_err(|err| format!("{shown}: {err}"))?;
        let base = placer.place(&elf, &sha256).map_err(|err| format!("{shown}: {err}"))?;
        let (start, end) = elf.text();
        let entry = Entry {
            sha256,
            base,
            kind: elf.kind,
            text_start: base + start,
            text_end: base + end,
            ..Entry::default()
        };
        let mut a = package::Artifact { entry, nids: e.nids.clone(), map: Vec::new(), code: Vec::new() };
        if plan.translate {
            let t = translation(&engine, plan.cache.as_deref(), &elf, &a.entry).map_err(|err| format!("{shown}: {err}"))?;
            a.entry.slot_count = t.functions;
            a.map = t.map;
            a.code = t.code;
        }
        eprintln!("{}", serde_json::json!({ "elf": shown.to_string(), "functions": a.entry.slot_count, "code": a.code.len() }));
        artifacts.push(a);
    }
    package::write(&plan.out, &mut artifacts).map_err(|e| format!("{}: {e}", plan.out.display()))
}

fn main() -> ExitCode {
    // Large functions nest deeply: the structurer recurses over the dominator tree.
    let worker = std::thread::Builder::new().stack_size(1 << 30).spawn(run).expect("a thread");
    worker.join().unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let result = match args.get(1).map(String::as_str) {
        Some("batch") if args.len() == 3 => batch(&args[2]),
        _ => Err("usage: vkernel-recompiler batch PLAN.json".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}", serde_json::json!({ "error": e }));
            ExitCode::FAILURE
        }
    }
}
