//! What the functions of an ELF need to know of each other: what each reads at its entry, clobbers and
//! returns, found by going round the call graph until nothing changes (liveness.rs has the rules).

use crate::discover::Function;
use crate::liveness::{ABI_READS, ABI_RETURNS, Analysis, Kind, SCRATCH};
use crate::usage::{ALL_FLAGS, ALL_REGISTERS, EVERYTHING, Set, gpr};
use std::collections::{HashMap, HashSet};
use vkernel_abi::state::RSP;

/// What is known of functions from outside.
pub struct Summaries<'a> {
    functions: &'a HashMap<u64, usize>,
    /// Live at the entry, by function.
    reads: Vec<Set>,
    /// The same for what is not known.
    unknown: Set,
    /// A compiler whose functions return in any register (Go).
    loose: bool,
    /// Entries of PLT stubs, and the words they jump by.
    stubs: HashMap<u64, u64>,
}

impl Summaries<'_> {
    /// What the code at `pc` may read; None: anywhere.
    pub fn reads(&self, pc: Option<u64>) -> Set {
        let known = |pc: u64| self.functions.get(&pc).map_or(self.unknown | ALL_FLAGS, |n| self.reads[*n]);
        pc.map_or(self.unknown, known) | gpr(RSP)
    }

    /// The word that the PLT stub at `pc` jumps by; None: there is no stub.
    pub fn stub_word(&self, pc: u64) -> Option<u64> {
        self.stubs.get(&pc).copied()
    }

    /// Whether the code at `pc` is of this ELF: its callers know what it reads, and what it leaves alone.
    fn is_own(&self, pc: Option<u64>) -> bool {
        pc.is_some_and(|pc| self.functions.contains_key(&pc) && !self.stubs.contains_key(&pc))
    }

    /// What a call of the code at `pc` may read: another ELF's reads no flags.
    pub fn arguments(&self, pc: Option<u64>) -> Set {
        self.reads(pc) & if self.is_own(pc) { EVERYTHING } else { ALL_REGISTERS }
    }

    /// What has no meaning after a call: the flags and the psABI's scratch registers, where the callee is
    /// of another ELF or not known. In the ELF itself compilers know what a callee leaves alone (gcc's
    /// -fipa-ra; Go has flags live across its DUFFZERO), and assembly returns where it likes.
    pub fn clobbers(&self, pc: Option<u64>) -> Set {
        match self.is_own(pc) {
            true => 0,
            false if self.loose => ALL_FLAGS,
            false => SCRATCH & !ABI_RETURNS | ALL_FLAGS,
        }
    }
}

/// Analyses all functions of an ELF. `functions`: index by entry; `indirect`: entries that may be
/// reached by other ways than the direct calls and jumps in `found`. `loose`: a compiler whose functions
/// return in any register (Go).
pub fn solve<'a, 'b>(
    found: &'a [Function],
    functions: &'b HashMap<u64, usize>,
    indirect: &HashSet<u64>,
    loose: bool,
) -> (Vec<Analysis<'a>>, Summaries<'b>) {
    let mut all: Vec<Analysis> = found.iter().map(Analysis::new).collect();
    let mut known = Summaries {
        functions,
        reads: vec![0; all.len()],
        unknown: ABI_READS,
        loose,
        stubs: found.iter().filter_map(|f| Some((f.entry, f.stub_word()?))).collect(),
    };
    let mut unknown_returns = ABI_RETURNS;
    let mut stale: Vec<bool> = vec![true; all.len()];
    // Who has to look again when a function's entry reads more.
    let mut callers: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for (n, a) in all.iter().enumerate() {
        for pc in a.reachable().flat_map(|(_, i)| &i.outside).flatten() {
            if let Some(&callee) = functions.get(pc) {
                callers[callee].push(n);
            }
        }
    }
    if !loose {
        all.iter_mut().for_each(|a| a.spread_held(&known));
    }
    while stale.contains(&true) {
        for n in 0..all.len() {
            if !std::mem::take(&mut stale[n]) {
                continue;
            }
            let entry = found[n].entry;
            if indirect.contains(&entry) {
                all[n].returns |= unknown_returns;
            }
            all[n].spread_live(&known);
            let reads = all[n].infos[0].live_in;
            if reads != known.reads[n] {
                known.reads[n] = reads;
                callers[n].iter().for_each(|c| stale[*c] = true);
                let unknown = known.unknown | reads & ALL_REGISTERS;
                if loose && indirect.contains(&entry) && unknown != known.unknown {
                    known.unknown = unknown;
                    stale.fill(true);
                }
            }
            let wanted: Vec<(Option<u64>, Set)> = all[n]
                .reachable()
                .flat_map(|(k, i)| {
                    let after = match i.kind {
                        Kind::Call => all[n].after_call(k) & !known.clobbers(i.outside[0]),
                        _ => all[n].inherited(),
                    };
                    i.outside.iter().map(move |t| (*t, after))
                })
                .collect();
            for (target, after) in wanted {
                match target.and_then(|pc| functions.get(&pc)) {
                    Some(&callee) if all[callee].returns | after != all[callee].returns => {
                        all[callee].returns |= after;
                        stale[callee] = true;
                    }
                    None if loose && unknown_returns | after & ALL_REGISTERS != unknown_returns => {
                        unknown_returns |= after & ALL_REGISTERS;
                        stale.fill(true);
                    }
                    _ => {}
                }
            }
        }
    }
    all.iter_mut().for_each(|a| a.spread_used(&known));
    (all, known)
}
