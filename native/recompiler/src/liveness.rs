//! Which registers and flags are live where, over all functions of an ELF.
//!
//! Everything that is live at a call, a return or another exit is stored in the state there, so that
//! any frame may be dropped at any time; what is dead is never stored. Across direct calls and jumps
//! liveness follows what the callee reads and what its callers read afterwards. Where the other side
//! is not known it is the psABI's (x86-64, 3.2.1), widened by what the ELF's own functions do:
//! compilers with conventions of their own (Go) and hand-written assembly keep to theirs.

use crate::discover::{Block, Function};
use crate::structure;
use crate::usage::{self, ALL_FLAGS, ALL_REGISTERS, EVERYTHING, Set, Usage, gpr, xmm};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use std::collections::{HashMap, HashSet};
use vkernel_abi::state::{R8, R9, R10, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};

pub const PARAMETERS: Set = gpr(RSP) | gpr(RDI) | gpr(RSI) | gpr(RDX);
pub const RESULTS: Set = gpr(RAX) | gpr(RSP) | gpr(RDX);
const SAVED: Set = gpr(RBX) | gpr(RBP) | gpr(12) | gpr(13) | gpr(14) | gpr(15);
const ABI_READS: Set = PARAMETERS | SAVED | gpr(RAX) | gpr(RCX) | gpr(R8) | gpr(R9) | gpr(R10)
    | xmm(0) | xmm(1) | xmm(2) | xmm(3) | xmm(4) | xmm(5) | xmm(6) | xmm(7);
const ABI_RETURNS: Set = RESULTS | SAVED | xmm(0) | xmm(1);

/// How a block ends, before its code exists.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Falls or jumps to another block, or leaves by a direct jump.
    Jump,
    Branch,
    Call,
    /// By a register or memory word, through the function's dispatch node when it has targets.
    Indirect,
    /// The dispatch node of the function's indirect jumps; has no instructions.
    Dispatch,
    Leave,
}

pub struct Info<'a> {
    /// None: the dispatch node.
    pub block: Option<&'a Block>,
    pub usage: Vec<Usage>,
    pub kind: Kind,
    pub successors: Vec<usize>,
    /// Direct targets outside the function: of a call, or of the jumps that leave. None: not known.
    outside: Vec<Option<u64>>,
    pub dirty_in: Set,
    /// Live at the start, in the state or in a local.
    pub live_in: Set,
    /// Whose local is read from the start on.
    pub used_in: Set,
    pub header: bool,
    /// Read before any write, and written, by the block as a whole.
    reads: Set,
    writes: Set,
}

impl Info<'_> {
    pub fn instructions(&self) -> &[Instruction] {
        self.block.map_or(&[], |b| &b.instructions)
    }
}

/// A function's blocks with their flow; block 0 is the entry, the last is the dispatch node.
pub struct Analysis<'a> {
    pub infos: Vec<Info<'a>>,
    pub index: HashMap<u64, usize>,
    order: Vec<usize>,
    /// What callers read after the function has returned.
    pub returns: Set,
}

fn kind_of(i: &Instruction, u: &Usage) -> Kind {
    use FlowControl as F;
    if u.step {
        return if matches!(i.flow_control(), F::Next | F::Interrupt) { Kind::Jump } else { Kind::Leave };
    }
    match i.flow_control() {
        F::ConditionalBranch => Kind::Branch,
        F::Call if i.mnemonic() != Mnemonic::Syscall => Kind::Call,
        F::IndirectCall => Kind::Call,
        F::IndirectBranch => Kind::Indirect,
        F::Return => Kind::Leave,
        _ => Kind::Jump,
    }
}

pub fn is_barrier(i: &Instruction, u: &Usage) -> bool {
    u.step || i.mnemonic() == Mnemonic::Syscall
}

impl<'a> Analysis<'a> {
    fn new(f: &'a Function) -> Self {
        let mut starts: Vec<u64> = f.blocks.keys().copied().filter(|s| *s != f.entry).collect();
        starts.insert(0, f.entry);
        let index: HashMap<u64, usize> = starts.iter().enumerate().map(|(n, s)| (*s, n)).collect();
        let targets: Vec<usize> = f.switch_targets.iter().filter_map(|t| index.get(t).copied()).collect();
        let mut infos: Vec<Info> = starts.iter().map(|s| info(&f.blocks[s], &index, (!targets.is_empty()).then_some(starts.len()))).collect();
        infos.push(Info {
            block: None, usage: Vec::new(), kind: Kind::Dispatch, successors: targets, outside: vec![None],
            dirty_in: 0, live_in: 0, used_in: 0, header: false, reads: 0, writes: 0,
        });
        let (number, order) = structure::order(infos.len(), 0, |n| infos[n].successors.clone());
        for &n in &order {
            for s in infos[n].successors.clone() {
                infos[s].header |= number[s] <= number[n];
            }
        }
        let switches = f.blocks.values().flat_map(|b| &b.instructions).any(switches_stack);
        let mut a = Self { infos, index, order, returns: if switches { ALL_REGISTERS } else { ABI_RETURNS } };
        a.spread_dirty();
        a
    }

    /// May-dirty sets at the starts of the blocks.
    fn spread_dirty(&mut self) {
        self.infos[0].dirty_in = PARAMETERS;
        let mut changed = true;
        while changed {
            changed = false;
            for &n in &self.order {
                let info = &self.infos[n];
                let out = if info.kind == Kind::Call { RESULTS } else { *dirty_sets(info).last().expect("never empty") };
                for s in self.infos[n].successors.clone() {
                    let new = self.infos[s].dirty_in | out;
                    changed |= new != self.infos[s].dirty_in;
                    self.infos[s].dirty_in = new;
                }
            }
        }
    }

    /// Live set behind a block's last instruction.
    pub fn live_out(&self, n: usize, known: &Summaries) -> Set {
        let info = &self.infos[n];
        let after = info.successors.iter().fold(0, |s, t| s | self.infos[*t].live_in);
        let outside = info.outside.iter().fold(0, |s, t| s | known.reads(*t));
        match info.kind {
            Kind::Call => outside | self.after_call(n) & !RESULTS | gpr(RSP),
            Kind::Leave if info.usage.last().is_some_and(|u| u.step) => EVERYTHING,
            Kind::Leave => RESULTS | self.returns,
            Kind::Jump | Kind::Branch | Kind::Indirect | Kind::Dispatch if info.outside.is_empty() => after,
            Kind::Jump | Kind::Branch | Kind::Indirect | Kind::Dispatch => after | outside | self.returns,
        }
    }

    /// What is read after the call that ends block `n`; behind a call that does not return here,
    /// whatever its caller may read.
    fn after_call(&self, n: usize) -> Set {
        self.infos[n].successors.first().map_or(self.returns, |s| self.infos[*s].live_in)
    }

    fn spread_live(&mut self, known: &Summaries) {
        let mut changed = true;
        while changed {
            changed = false;
            for k in (0..self.order.len()).rev() {
                let n = self.order[k];
                let out = self.live_out(n, known);
                let info = &mut self.infos[n];
                let live = info.reads | out & !info.writes;
                changed |= live != info.live_in;
                info.live_in = live;
            }
        }
    }

    /// Which locals are read: what is live and may differ from the state, or is read in the function.
    fn spread_used(&mut self, known: &Summaries) {
        let mut changed = true;
        let live: Vec<Vec<Set>> = (0..self.infos.len()).map(|n| self.live_sets(n, known)).collect();
        while changed {
            changed = false;
            for k in (0..self.order.len()).rev() {
                let n = self.order[k];
                let used = self.used_sets(n, &live[n])[0];
                changed |= used != self.infos[n].used_in;
                self.infos[n].used_in = used;
            }
        }
    }

    fn used_sets(&self, n: usize, live: &[Set]) -> Vec<Set> {
        let info = &self.infos[n];
        let dirty = dirty_sets(info);
        let count = info.usage.len();
        let after = info.successors.iter().fold(0, |s, t| s | self.infos[*t].used_in);
        let stored = dirty[count] & live[count];
        let mut sets = vec![match info.kind {
            Kind::Call => stored | PARAMETERS & live[count],
            Kind::Leave if info.usage[count - 1].step => 0,
            Kind::Leave => stored | RESULTS,
            _ if info.outside.is_empty() => after,
            _ => after | stored | PARAMETERS,
        }];
        for (k, (i, u)) in info.instructions().iter().zip(&info.usage).enumerate().rev() {
            let used = *sets.last().expect("never empty");
            let stored = dirty[k] & (live[k] | live[k + 1]);
            sets.push(match is_barrier(i, u) {
                false => used & !u.writes | u.reads,
                true if u.step => used & !u.may_write | stored,
                true => stored,
            });
        }
        sets.reverse();
        sets
    }

    pub fn sets(&self, n: usize, known: &Summaries) -> Sets {
        let live = self.live_sets(n, known);
        Sets { used: self.used_sets(n, &live), live }
    }

    /// Live sets before each instruction of a block, and at its end.
    fn live_sets(&self, n: usize, known: &Summaries) -> Vec<Set> {
        let info = &self.infos[n];
        let mut sets = vec![self.live_out(n, known)];
        for u in info.usage.iter().rev() {
            let live = *sets.last().expect("never empty");
            sets.push(live & !u.writes | u.reads);
        }
        sets.reverse();
        sets
    }
}

/// Whether an instruction takes the stack pointer from elsewhere: then RET is a jump to anywhere
/// (setcontext, coroutine switches), with every register as an argument.
fn switches_stack(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::Register
        && i.op0_register() == Register::RSP
        && match i.mnemonic() {
            Mnemonic::Mov => i.op1_kind() != OpKind::Register || i.op1_register() != Register::RBP,
            Mnemonic::Xchg | Mnemonic::Pop => true,
            Mnemonic::Lea => !matches!(i.memory_base(), Register::RSP | Register::RBP),
            _ => false,
        }
}

/// Live and used sets around the instructions of a block: before each, and at the end.
pub struct Sets {
    pub live: Vec<Set>,
    pub used: Vec<Set>,
}

fn info<'a>(block: &'a Block, index: &HashMap<u64, usize>, dispatch: Option<usize>) -> Info<'a> {
    let usage: Vec<Usage> = block.instructions.iter().map(usage::of).collect();
    let last = block.instructions.last().expect("blocks are not empty");
    let kind = kind_of(last, usage.last().expect("as many as instructions"));
    let (mut successors, mut outside) = (Vec::new(), Vec::new());
    let mut to = |pc: u64| match index.get(&pc) {
        Some(&n) => successors.push(n),
        None => outside.push(Some(pc)),
    };
    let direct = matches!(last.flow_control(), FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch);
    match kind {
        Kind::Jump => to(if direct { last.near_branch64() } else { block.end }),
        Kind::Branch => {
            to(last.near_branch64());
            to(block.end);
        }
        Kind::Call => {
            successors.extend(index.get(&block.end));
            outside.push((last.flow_control() == FlowControl::Call).then(|| last.near_branch64()));
        }
        Kind::Indirect => match dispatch {
            Some(n) => successors.push(n),
            None => outside.push(None),
        },
        Kind::Leave | Kind::Dispatch => {}
    }
    let (mut reads, mut writes) = (0, 0);
    for u in &usage {
        reads |= u.reads & !writes;
        writes |= u.writes;
    }
    Info { block: Some(block), usage, kind, successors, outside, dirty_in: 0, live_in: 0, used_in: 0, header: false, reads, writes }
}

/// Dirty sets before each instruction, and after the last. A barrier stores what is live; what is
/// dead is of no interest until it is written again.
pub fn dirty_sets(info: &Info) -> Vec<Set> {
    let mut d = info.dirty_in;
    let mut sets = vec![d];
    for (i, u) in info.instructions().iter().zip(&info.usage) {
        d = if is_barrier(i, u) { 0 } else { d | u.writes | u.may_write };
        sets.push(d);
    }
    sets
}

/// What is known of functions from outside.
pub struct Summaries<'a> {
    functions: &'a HashMap<u64, usize>,
    /// Live at the entry, by function.
    reads: Vec<Set>,
    /// The same for what is not known.
    unknown: Set,
}

impl Summaries<'_> {
    /// What the code at `pc` may read; None: anywhere.
    pub fn reads(&self, pc: Option<u64>) -> Set {
        let known = |pc: u64| self.functions.get(&pc).map_or(self.unknown | ALL_FLAGS, |n| self.reads[*n]);
        pc.map_or(self.unknown, known) | gpr(RSP)
    }
}

/// Analyses all functions of an ELF. `functions`: index by entry; `indirect`: entries that may be
/// reached by other ways than the direct calls and jumps in `found`.
pub fn solve<'a, 'b>(found: &'a [Function], functions: &'b HashMap<u64, usize>, indirect: &HashSet<u64>) -> (Vec<Analysis<'a>>, Summaries<'b>) {
    let mut all: Vec<Analysis> = found.iter().map(Analysis::new).collect();
    let mut known = Summaries { functions, reads: vec![0; all.len()], unknown: ABI_READS };
    let mut unknown_returns = ABI_RETURNS;
    let mut stale: Vec<bool> = vec![true; all.len()];
    // Who has to look again when a function's entry reads more.
    let mut callers: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for (n, a) in all.iter().enumerate() {
        for pc in a.infos.iter().flat_map(|i| &i.outside).flatten() {
            if let Some(&callee) = functions.get(pc) {
                callers[callee].push(n);
            }
        }
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
                if indirect.contains(&entry) && known.unknown | reads & ALL_REGISTERS != known.unknown {
                    known.unknown |= reads & ALL_REGISTERS;
                    stale.fill(true);
                }
            }
            let wanted: Vec<(Option<u64>, Set)> = all[n].infos.iter().enumerate().flat_map(|(k, i)| {
                let after = match i.kind {
                    Kind::Call => all[n].after_call(k) & ALL_REGISTERS,
                    _ => all[n].returns,
                };
                i.outside.iter().map(move |t| (*t, after))
            }).collect();
            for (target, after) in wanted {
                match target.and_then(|pc| functions.get(&pc)) {
                    Some(&callee) if all[callee].returns | after != all[callee].returns => {
                        all[callee].returns |= after;
                        stale[callee] = true;
                    }
                    None if unknown_returns | after != unknown_returns => {
                        unknown_returns |= after;
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
