//! Runs cases in all three and counts what differs.

use crate::batch::{Batch, Layout, UNKNOWN, bench};
use crate::generate::Generator;
use crate::program::Program;
use crate::snapshot::{Mask, Snapshot};
use crate::state::random_memory;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Report {
    /// Cases compared in the interpreter, and as translated code without the interpreter's help.
    pub interpreted: usize,
    pub lifted: usize,
    pub helped: usize,
    pub failures: usize,
    /// Different instruction codes that came up.
    pub codes: usize,
    /// Instructions that the interpreter should know and does not, by mnemonic.
    pub unknown: BTreeMap<String, usize>,
    /// Instructions that translated code left to the interpreter, by mnemonic (single ones only).
    pub stepped: BTreeMap<String, usize>,
    /// Mismatches, by mnemonic of single instructions.
    pub wrong: BTreeMap<String, usize>,
}

/// Differences that are printed in full.
const SHOWN: usize = 30;
/// Programs that are translated together.
const BATCH: usize = 4096;

impl Report {
    fn differs(&mut self, backend: &str, p: &Program, diff: &[String]) {
        self.failures += 1;
        let name = p.instructions.first().map_or(String::new(), |i| format!("{backend} {:?}", i.mnemonic()));
        let seen = self.wrong.entry(if p.is_single() { name } else { backend.into() }).or_default();
        *seen += 1;
        if self.failures <= SHOWN && *seen <= 3 {
            eprintln!("{backend}: {} at {:#x}: ours != native", p.text(), p.pc);
            diff.iter().take(4).for_each(|d| eprintln!("  {d}"));
        }
    }
}

/// Runs `programs` programs of `length` instructions (a range) with `states` states each.
pub fn straight(seed: u64, programs: usize, length: std::ops::Range<u64>, states: usize) -> Report {
    run(seed, programs, states, |g, layout| {
        let n = length.start + g.rng.below(length.end - length.start);
        // Most sequences of what is lifted, or the interpreter would be in nearly all of them.
        let translated = n > 1 && !g.rng.one_in(4);
        Program::random(g, layout, n as usize, translated)
    })
}

/// Runs `programs` control-flow graphs with `states` states each.
pub fn graphs(seed: u64, programs: usize, states: usize) -> Report {
    run(seed, programs, states, crate::graph::random)
}

fn run(seed: u64, programs: usize, states: usize, make: impl Fn(&mut Generator, &mut Layout) -> Program) -> Report {
    let mut bench = bench();
    let mut g = Generator::new(seed);
    let mut report = Report::default();
    let mut left = programs;
    while left > 0 {
        let count = left.min(BATCH);
        left -= count;
        let mut layout = Layout::new();
        let list: Vec<Program> = (0..count).map(|_| make(&mut g, &mut layout)).collect();
        let images: Vec<Vec<u8>> = (0..64).map(|_| random_memory(&mut g.rng)).collect();
        let mut batch = Batch::new(&mut bench, layout);
        for p in &list {
            for _ in 0..states {
                let mut memory = images[g.rng.below(images.len() as u64) as usize].clone();
                p.patch(&mut memory);
                one(&mut batch, &mut report, p, &mut g, &memory);
            }
        }
    }
    report.codes = g.codes();
    report
}

/// Exception flags of MXCSR; the rest is control.
const STICKY: u32 = 0x3f;
/// DE, which no language's environment shows: comparisons are made of several.
const DENORMAL: u32 = 2;

fn one(batch: &mut Batch, report: &mut Report, p: &Program, g: &mut Generator, memory: &[u8]) {
    let state = p.state(&mut g.rng);
    let single = p.is_single();
    let name = || format!("{:?}", p.instructions[0].mnemonic());
    let ignored = p.ignored();
    let forget = |mut s: Snapshot| {
        ignored.iter().for_each(|n| s.memory[*n] = 0);
        s
    };
    let ours = forget(batch.interpreted(p.pc, &state, memory));
    if ours.signal == UNKNOWN {
        let i = p.instructions.iter().find(|i| i.ip() == ours.pc);
        let name = i.map_or("?".into(), |i| format!("{:?}", i.mnemonic()));
        *report.unknown.entry(name).or_default() += 1;
        return;
    }
    // With FS or GS the interpreter stands in for the host.
    let native = if p.has_segments() { ours.clone() } else { forget(batch.native(p.pc, &state, memory)) };
    let flags = p.defined_flags(native.signal != 0);
    let diff = ours.diff(&native, Mask { flags, mxcsr: 0xffff, after_signal: true });
    report.interpreted += 1;
    if !diff.is_empty() {
        report.differs("interpreter", p, &diff);
    }
    let (lifted, helped) = batch.lifted(p.pc, &state, memory);
    let mut lifted = forget(lifted);
    if helped {
        report.helped += 1;
        if single {
            *report.stepped.entry(name()).or_default() += 1;
        }
    } else {
        report.lifted += 1;
    }
    // A misaligned SSE operand is no fault in translated code (docs/quirks.md); of others the engine
    // does not say where.
    if native.signal == libc::SIGSEGV {
        return;
    }
    // What translated code does not promise (docs/quirks.md): a result that nobody uses raises no flag,
    // and neither conversions by truncation nor comparisons raise exactly the CPU's.
    if p.raises_other_flags() {
        lifted.mxcsr = lifted.mxcsr & !STICKY | native.mxcsr & STICKY;
    } else if !single {
        lifted.mxcsr |= native.mxcsr & STICKY;
    }
    let diff = lifted.diff(&native, Mask { flags, mxcsr: 0xffff & !DENORMAL, after_signal: false });
    if !diff.is_empty() {
        report.differs("translated", p, &diff);
    }
}
