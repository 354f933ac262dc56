//! The interpreter against the host CPU.

use std::collections::BTreeMap;
use vkernel_abi::wasm::Trap;
use vkernel_difftest::{Snapshot, cases, host::Host};
use vkernel_semantics::decode::Cache;
use vkernel_semantics::interp::{Exit, Interp, Text};

const CASES: usize = 150_000;
const PC: u64 = 0x1000_0000 + 64;

struct Scratch;
impl Text for Scratch {
    fn executable(&self, _: u32) -> usize {
        15
    }
}

/// The signal Linux sends for an exit of the interpreter.
fn signal(exit: Exit) -> i32 {
    match exit {
        Exit::Trap(Trap::Divide | Trap::X87 | Trap::Simd) => libc::SIGFPE,
        Exit::Trap(Trap::Protection | Trap::Page) => libc::SIGSEGV,
        Exit::Trap(Trap::Invalid) => libc::SIGILL,
        _ => 0,
    }
}

#[test]
fn agrees_with_the_host_cpu() {
    let mut host = Host::new();
    let mut rng = cases::Rng(0x9e37_79b9_7f4a_7c15);
    let (mut run, mut failures) = (0, 0);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    let mut cache = Cache::new();
    while run < CASES {
        let case = cases::next(&mut rng);
        let name = format!("{:?}", case.instruction.mnemonic());
        let mut state = case.state_copy();
        host.scratch().copy_from_slice(&case.memory);
        host.scratch()[64..64 + case.bytes.len()].copy_from_slice(&case.bytes);
        state.rip = PC;
        cache.clear();
        let exit = Interp::new(&mut state, std::ptr::null_mut(), &Scratch, &mut cache).one();
        if let Exit::Unknown(_) = exit {
            *unknown.entry(name).or_default() += 1;
            continue;
        }
        let ours = Snapshot::of(&state, host.scratch(), signal(exit));
        host.scratch().copy_from_slice(&case.memory);
        host.scratch()[64..64 + case.bytes.len()].copy_from_slice(&case.bytes);
        let native = host.run(&case.bytes, &case.state);
        let diff = ours.diff(&native, case.defined_flags());
        if !diff.is_empty() {
            failures += 1;
            if failures <= 40 {
                eprintln!("{} [{:02x?}]: ours != native", case.instruction, case.bytes);
                diff.iter().take(4).for_each(|d| eprintln!("  {d}"));
            }
        }
        *seen.entry(name).or_default() += 1;
        run += 1;
    }
    eprintln!("{run} cases, {} mnemonics, {failures} differences", seen.len());
    eprintln!("without semantics: {}", unknown.keys().cloned().collect::<Vec<_>>().join(" "));
    assert!(seen.len() > 250, "only {} mnemonics were reached", seen.len());
    assert_eq!(failures, 0);
}
