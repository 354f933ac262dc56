//! The recompiler: x86-64 ELF files to native artefacts in a megabinary.
//! Started by the TypeScript CLI; what happens is one JSON object a line on stdout.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex};
use vkernel_abi::megabinary::Entry;
use vkernel_recompiler::cache::{self, hex};
use vkernel_recompiler::{elf, extract, module, package, place, profile};

/// `batch`: what to translate, written by src/image/translate.ts.
#[derive(Deserialize)]
struct Plan {
    out: PathBuf,
    /// Where translations are kept, also between builds.
    cache: PathBuf,
    /// Translated code counts its instructions (`build --count`).
    #[serde(default)]
    count: bool,
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
    /// Addresses as in the file that a profile asks for, ascending.
    #[serde(default)]
    hints: Vec<u64>,
}

/// A line for the CLI.
fn tell(event: &serde_json::Value) {
    println!("{event}");
}

/// Places every ELF; those that cannot be are refused by name and left out.
fn artifacts<'a>(plan: &Plan, bytes: &'a [Vec<u8>]) -> Vec<(elf::Elf<'a>, module::Options, package::Artifact)> {
    let mut placer = place::Placer::default();
    let mut list = Vec::new();
    for (e, bytes) in plan.elfs.iter().zip(bytes) {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let placed = elf::Elf::parse(bytes).and_then(|elf| placer.place(&elf, &sha256).map(|base| (elf, base)));
        match placed {
            Ok((elf, base)) => {
                let (start, end) = elf.text();
                let entry = Entry {
                    sha256,
                    base,
                    kind: elf.kind,
                    text_start: base + start,
                    text_end: base + end,
                    ..Entry::default()
                };
                let options = module::Options { hints: e.hints.clone(), count: plan.count };
                list.push((elf, options, package::Artifact { entry, nids: e.nids.clone(), translation: None }));
            }
            Err(reason) => tell(&serde_json::json!({ "refused": e.sha256, "path": e.path, "reason": reason })),
        }
    }
    list
}

/// Reads an ELF and checks that it is still the one that was planned.
fn read(e: &PlanElf) -> Result<Vec<u8>, String> {
    let shown = e.path.display();
    let bytes = std::fs::read(&e.path).map_err(|err| format!("{shown}: {err}"))?;
    if hex(&Sha256::digest(&bytes)) != e.sha256 {
        return Err(format!("{shown}: the bytes changed while the image was built"));
    }
    Ok(bytes)
}

/// Text that may be in translation at a time: translating takes about 170 times its size in memory
/// (python3.11: 475 MB for 2.8 MB). A larger file is translated alone.
const IN_FLIGHT: u64 = 8 << 20;

/// Bytes of text being translated.
#[derive(Default)]
struct InFlight {
    bytes: Mutex<u64>,
    less: Condvar,
}

impl InFlight {
    /// Waits until there is room for `size`, runs `f`, and makes room again.
    fn with<R>(&self, size: u64, f: impl FnOnce() -> R) -> R {
        let full = |bytes: &mut u64| *bytes > 0 && *bytes + size > IN_FLIGHT;
        *self.less.wait_while(self.bytes.lock().expect("never poisoned"), full).expect("never poisoned") += size;
        let r = f();
        *self.bytes.lock().expect("never poisoned") -= size;
        self.less.notify_all();
        r
    }
}

fn batch(plan: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(plan).map_err(|e| format!("{plan}: {e}"))?;
    let mut plan: Plan = serde_json::from_str(&text).map_err(|e| format!("plan: {e}"))?;
    plan.elfs.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    let engine = wasmtime::Engine::new(&vkernel_engine::config()).map_err(|e| format!("engine: {e:#}"))?;
    let bytes = plan.elfs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let list = artifacts(&plan, &bytes);
    let size = |e: &elf::Elf| e.text().1 - e.text().0;
    tell(&serde_json::json!({ "total": list.iter().map(|(e, ..)| size(e)).sum::<u64>() }));
    // The largest first, so that none of them is left alone at the end.
    let mut order: Vec<_> = list.into_iter().map(Some).collect();
    order.sort_by_key(|slot| std::cmp::Reverse(slot.as_ref().map(|(e, ..)| size(e))));
    let queue = Mutex::new(order.into_iter());
    let done = Mutex::new(Vec::new());
    let in_flight = InFlight::default();
    cache::prune(&plan.cache);
    let work = || -> Result<(), String> {
        loop {
            let Some((elf, options, mut a)) = queue.lock().expect("never poisoned").next().flatten() else {
                return Ok(());
            };
            let mut event = serde_json::json!({ "done": hex(&a.entry.sha256), "text": size(&elf) });
            if plan.translate {
                let t = in_flight
                    .with(size(&elf), || cache::translation(&engine, &plan.cache, &elf, &a.entry, &options))
                    .map_err(|e| format!("{}: {e}", hex(&a.entry.sha256)))?;
                a.entry.slot_count = t.functions;
                event["functions"] = t.functions.into();
                event["code"] = t.code.into();
                event["cached"] = t.cached.into();
                event["report"] = serde_json::json!(t.report);
                a.translation = Some(t);
            }
            tell(&event);
            done.lock().expect("never poisoned").push(a);
        }
    };
    std::thread::scope(|s| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads)
            // Large functions nest deeply: the structurer recurses over the dominator tree.
            .map(|_| std::thread::Builder::new().stack_size(1 << 30).spawn_scoped(s, work).expect("a thread"))
            .collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| Err("a translation failed".into())))
    })?;
    package::write(&plan.out, &mut done.into_inner().expect("never poisoned"))
        .map_err(|e| format!("{}: {e}", plan.out.display()))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let result = match args.get(1).map(String::as_str) {
        Some("batch") if args.len() == 3 => batch(&args[2]),
        Some("extract") if args.len() >= 3 => {
            extract::extract(&args[2], args.get(3).map(String::as_str), args.get(4).map(String::as_str))
        }
        Some("profile") if args.len() == 3 => profile::report(&args[2]).map(|r| tell(&r)),
        _ => Err("usage: vkernel-recompiler batch PLAN.json | extract ELF [SYMBOL|ADDRESS [BASE]] | profile PLAN.json"
            .into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("recompiler: {e}");
            ExitCode::FAILURE
        }
    }
}
