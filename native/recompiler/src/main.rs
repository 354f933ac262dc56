//! The recompiler: x86-64 ELF files to native artefacts in a megabinary.
//! Started by the TypeScript CLI; progress is one JSON object a line on stderr.

mod elf;
mod package;
mod place;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::ExitCode;
use vkernel_abi::megabinary::Entry;

/// `batch`: what to translate, written by src/image/translate.ts.
#[derive(Deserialize)]
struct Plan {
    out: PathBuf,
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

fn batch(plan: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(plan).map_err(|e| format!("{plan}: {e}"))?;
    let mut plan: Plan = serde_json::from_str(&text).map_err(|e| format!("plan: {e}"))?;
    plan.elfs.sort_by(|a, b| a.sha256.cmp(&b.sha256));
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
        artifacts.push(package::Artifact { entry, nids: e.nids.clone(), map: Vec::new(), code: Vec::new() });
    }
    package::write(&plan.out, &mut artifacts).map_err(|e| format!("{}: {e}", plan.out.display()))
}

fn main() -> ExitCode {
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
