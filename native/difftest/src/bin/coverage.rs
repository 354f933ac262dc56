//! `coverage FILE...`: how many of the instructions that discovery finds in ELF files are translated,
//! left to the interpreter, or without semantics; by mnemonic, most first.

use std::collections::BTreeMap;
use std::process::ExitCode;
use vkernel_difftest::generate::is_known;
use vkernel_recompiler::coverage::{Class, class};
use vkernel_recompiler::{discover::Program, elf::Elf};

type Counts = BTreeMap<(Class, String), usize>;

fn count(path: &str, sum: &mut Counts) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let elf = Elf::parse(&bytes).map_err(|e| format!("{path}: {e}"))?;
    let mut seen = std::collections::HashSet::new();
    let mut own = [0usize; 4];
    for f in Program::new(&elf, 0x1000_0000).functions() {
        for i in f.blocks.values().flat_map(|b| &b.instructions).filter(|i| seen.insert(i.ip())) {
            if !is_known(i) {
                own[3] += 1;
                continue;
            }
            let c = class(i);
            own[c as usize] += 1;
            let rep = if i.has_rep_prefix() || i.has_repne_prefix() { "Rep " } else { "" };
            let rep = if i.is_string_instruction() { rep } else { "" };
            *sum.entry((c, format!("{rep}{:?}", i.mnemonic()))).or_default() += 1;
        }
    }
    let baseline = (own[0] + own[1] + own[2]) as f64 / 100.0;
    println!(
        "{path}: {} lifted ({:.3} %), {} stepped ({:.3} %), {} unknown ({:.3} %), {} of later extensions",
        own[0],
        own[0] as f64 / baseline,
        own[1],
        own[1] as f64 / baseline,
        own[2],
        own[2] as f64 / baseline,
        own[3],
    );
    Ok(())
}

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: coverage FILE...");
        return ExitCode::FAILURE;
    }
    let mut sum = Counts::new();
    for path in &files {
        if let Err(e) = count(path, &mut sum) {
            eprintln!("coverage: {e}");
            return ExitCode::FAILURE;
        }
    }
    for c in [Class::Stepped, Class::Unknown] {
        let mut list: Vec<_> = sum.iter().filter(|((k, _), _)| *k == c).map(|((_, m), n)| (*n, m)).collect();
        list.sort_by(|a, b| b.cmp(a));
        println!("{c:?}: {}", list.iter().map(|(n, m)| format!("{m} {n}")).collect::<Vec<_>>().join(", "));
    }
    ExitCode::SUCCESS
}
