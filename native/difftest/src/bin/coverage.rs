//! `coverage FILE...`: how many of the instructions that discovery finds in ELF files are translated,
//! left to the interpreter, or without semantics; by mnemonic, most first. What has a VEX or EVEX prefix
//! and is unknown is counted by extension: the guest's CPU does not show those (src/abi/cpu.ts).

use std::collections::BTreeMap;
use std::process::ExitCode;
use vkernel_recompiler::coverage::{Class, class, name};
use vkernel_recompiler::{discover::Program, elf::Elf};

type Counts = BTreeMap<(Class, String), usize>;

fn count(path: &str, sum: &mut Counts) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let elf = Elf::parse(&bytes).map_err(|e| format!("{path}: {e}"))?;
    let mut seen = std::collections::HashSet::new();
    let mut own = [0usize; 3];
    for f in Program::new(&elf, 0x1000_0000).functions() {
        for i in f.blocks.values().flat_map(|b| &b.instructions).filter(|i| seen.insert(i.ip())) {
            let c = class(i);
            own[c as usize] += 1;
            *sum.entry((c, name(c, i))).or_default() += 1;
        }
    }
    let all = (own[0] + own[1] + own[2]) as f64 / 100.0;
    println!(
        "{path}: {} lifted ({:.3} %), {} stepped ({:.3} %), {} unknown ({:.3} %)",
        own[0],
        own[0] as f64 / all,
        own[1],
        own[1] as f64 / all,
        own[2],
        own[2] as f64 / all,
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
