//! Which registers and flags are live where, over all functions of an ELF.
//!
//! Everything that is live at a call, a return or another exit is stored in the state there, so that
//! any frame may be dropped at any time; what is dead is never stored. Across direct calls and jumps
//! liveness follows what the callee reads and what its callers read afterwards. Where the other side
//! is not known it is the psABI's (x86-64, 3.2.1); Go's compiler has a convention of its own.

use crate::discover::{Block, Function};
use crate::structure;
use crate::summaries::Summaries;
use crate::usage::{self, ALL_FLAGS, ALL_REGISTERS, EVERYTHING, Set, Usage, gpr, xmm};
use iced_x86::{FlowControl, Instruction, Mnemonic};
use std::collections::{BTreeSet, HashMap};
use vkernel_abi::state::{R8, R9, R10, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};

pub const PARAMETERS: Set = gpr(RSP) | gpr(RDI) | gpr(RSI) | gpr(RDX);
pub const RESULTS: Set = gpr(RAX) | gpr(RSP) | gpr(RDX);
pub const SAVED: Set = gpr(RBX) | gpr(RBP) | gpr(12) | gpr(13) | gpr(14) | gpr(15);
pub const SCRATCH: Set = ALL_REGISTERS & !SAVED & !gpr(RSP);
pub const ABI_READS: Set = PARAMETERS
    | SAVED
    | gpr(RAX)
    | gpr(RCX)
    | gpr(R8)
    | gpr(R9)
    | gpr(R10)
    | xmm(0)
    | xmm(1)
    | xmm(2)
    | xmm(3)
    | xmm(4)
    | xmm(5)
    | xmm(6)
    | xmm(7);
pub const ABI_RETURNS: Set = RESULTS | SAVED | xmm(0) | xmm(1);

/// How a block ends, before its code exists.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Falls or jumps to another block, or leaves by a direct jump.
    Jump,
    Branch,
    Call,
    /// By a register or memory word: by a table to its targets, or through the function's dispatch node
    /// when there are labels.
    Indirect,
    /// The dispatch node of the function's indirect jumps; has no instructions, and everything is in the state.
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
    pub outside: Vec<Option<u64>>,
    /// An indirect jump that may lead to a label which was not found; one that leads to found ones only.
    open: bool,
    closed: bool,
    pub dirty_in: Set,
    /// Live at the start, in the state or in a local.
    pub live_in: Set,
    /// Whose local is read from the start on.
    pub used_in: Set,
    pub header: bool,
    /// Read before any write, and written, by the block as a whole.
    reads: Set,
    writes: Set,
    may_write: Set,
    /// What may have a meaning at the start: held from the entry, or written since the last call of
    /// another ELF.
    held_in: Set,
}

impl<'a> Info<'a> {
    fn new(block: Option<&'a Block>, usage: Vec<Usage>, kind: Kind) -> Self {
        Self {
            block,
            usage,
            kind,
            successors: Vec::new(),
            outside: Vec::new(),
            open: false,
            closed: false,
            dirty_in: 0,
            live_in: 0,
            used_in: 0,
            header: false,
            reads: 0,
            writes: 0,
            may_write: 0,
            held_in: EVERYTHING,
        }
    }

    /// Ends in an instruction that only traps (UD2).
    fn traps(&self) -> bool {
        self.instructions().last().is_some_and(|i| i.flow_control() == FlowControl::Exception)
    }
    pub fn instructions(&self) -> &[Instruction] {
        self.block.map_or(&[], |b| &b.instructions)
    }
}

/// A function's blocks with their flow. Block 0 is the entry, the last one the dispatch node.
pub struct Analysis<'a> {
    pub infos: Vec<Info<'a>>,
    pub index: HashMap<u64, usize>,
    order: Vec<usize>,
    /// What callers read after the function has returned.
    pub returns: Set,
    /// A return of it may lead anywhere (see `switches_stack`).
    pub switches: bool,
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
    pub fn new(f: &'a Function) -> Self {
        let mut starts: Vec<u64> = f.blocks.keys().copied().filter(|s| *s != f.entry).collect();
        starts.insert(0, f.entry);
        let index: HashMap<u64, usize> = starts.iter().enumerate().map(|(n, s)| (*s, n)).collect();
        let jumps_to = |start: &u64| {
            let jump = f.blocks[start].instructions.last().expect("blocks are not empty").ip();
            match f.tables.get(&jump) {
                Some(t) => t.targets.iter().map(|t| index[t]).collect::<BTreeSet<_>>().into_iter().collect(),
                None if f.labels.is_empty() => Vec::new(),
                None => vec![starts.len()],
            }
        };
        let mut infos: Vec<Info> = starts.iter().map(|s| info(f, &f.blocks[s], &index, jumps_to(s))).collect();
        infos.push(Info {
            successors: f.labels.iter().map(|t| index[t]).collect(),
            open: true,
            outside: vec![None],
            ..Info::new(None, Vec::new(), Kind::Dispatch)
        });
        let (number, order) = structure::order(infos.len(), 0, |n| infos[n].successors.clone());
        for &n in &order {
            for s in infos[n].successors.clone() {
                infos[s].header |= number[s] <= number[n];
            }
        }
        // A hinted entry may lie in a function that returns in any register or flag to callers who know it.
        let switches = f.blocks.values().flat_map(|b| &b.instructions).any(usage::switches_stack);
        let returns = if switches { ALL_REGISTERS } else { ABI_RETURNS };
        let mut a = Self { infos, index, order, returns: if f.hinted { EVERYTHING } else { returns }, switches };
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
                let out = match info.kind {
                    Kind::Call => RESULTS,
                    _ if self.dispatches(info) => 0,
                    _ => *dirty_sets(info).last().expect("never empty"),
                };
                for s in self.infos[n].successors.clone() {
                    let new = self.infos[s].dirty_in | out;
                    changed |= new != self.infos[s].dirty_in;
                    self.infos[s].dirty_in = new;
                }
            }
        }
    }

    /// Live set behind a block's last instruction.
    fn live_out(&self, n: usize, known: &Summaries) -> Set {
        let info = &self.infos[n];
        let after = self.after(n);
        // An argument has been written before its call: what cannot have been is none.
        let held = info.held_in | info.writes | info.may_write | !SCRATCH;
        let outside = info.outside.iter().fold(0, |s, t| s | known.reads(*t)) & held;
        match info.kind {
            Kind::Call => {
                let kept = self.after_call(n) & !known.clobbers(info.outside[0]) & !RESULTS;
                known.arguments(info.outside[0]) & held | kept | gpr(RSP)
            }
            Kind::Leave if info.traps() => gpr(RSP),
            Kind::Leave if info.usage.last().is_some_and(|u| u.step) => EVERYTHING,
            Kind::Leave => RESULTS | self.returns,
            Kind::Indirect if info.closed => self.after(self.dispatch()),
            Kind::Jump | Kind::Branch | Kind::Indirect | Kind::Dispatch if info.outside.is_empty() => after,
            // To a label that was not found: whatever can have a meaning there.
            Kind::Indirect | Kind::Dispatch if info.open => after | held & ALL_REGISTERS | self.returns,
            Kind::Jump | Kind::Branch | Kind::Indirect | Kind::Dispatch => after | outside | self.returns,
        }
    }

    /// What is read after the call that ends block `n`; behind a call that does not return here,
    /// whatever its caller may read.
    pub fn after_call(&self, n: usize) -> Set {
        self.infos[n].successors.first().map_or(self.inherited(), |s| self.infos[*s].live_in)
    }

    /// The blocks that can be reached; a dispatch node need not be one.
    pub fn reachable(&self) -> impl Iterator<Item = (usize, &Info<'a>)> {
        self.order.iter().map(|n| (*n, &self.infos[*n]))
    }

    /// What functions that end in this one's place shall return.
    pub fn inherited(&self) -> Set {
        if self.switches { ABI_RETURNS } else { self.returns }
    }

    /// Which registers may have a meaning where; flags have none at an entry or behind a call, for SYSCALL.
    pub fn spread_held(&mut self, known: &Summaries) {
        self.infos.iter_mut().for_each(|i| i.held_in = 0);
        self.infos[0].held_in = ALL_REGISTERS;
        let mut changed = true;
        while changed {
            changed = false;
            for &n in &self.order {
                let info = &self.infos[n];
                let mut held = info.held_in | info.writes | info.may_write;
                if info.kind == Kind::Call {
                    held = held & !known.clobbers(info.outside[0]) & !ALL_FLAGS | ABI_RETURNS;
                }
                for s in self.infos[n].successors.clone() {
                    let new = self.infos[s].held_in | held;
                    changed |= new != self.infos[s].held_in;
                    self.infos[s].held_in = new;
                }
            }
        }
        for i in &mut self.infos {
            usage::limit_syscalls(i.block.map_or(&[], |b| &b.instructions), &mut i.usage, i.held_in);
            (i.reads, i.writes, i.may_write) = usage::of_block(&i.usage);
        }
    }

    pub fn spread_live(&mut self, known: &Summaries) {
        let mut changed = true;
        while changed {
            changed = false;
            for k in (0..self.order.len()).rev() {
                let n = self.order[k];
                let out = self.live_out(n, known);
                let info = &mut self.infos[n];
                let live = out & !info.writes | info.reads;
                changed |= live != info.live_in;
                info.live_in = live;
            }
        }
    }

    /// Which locals are read: what is live and may differ from the state, or is read in the function.
    pub fn spread_used(&mut self, known: &Summaries) {
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

    /// What the blocks behind a block may read.
    fn after(&self, n: usize) -> Set {
        self.infos[n].successors.iter().fold(0, |s, t| s | self.infos[*t].live_in)
    }

    /// The dispatch node's number.
    pub fn dispatch(&self) -> usize {
        self.infos.len() - 1
    }

    /// Whether a block goes to that node, which finds everything in the state: one with locals that
    /// hundreds of jumps lead to costs a move of each local at every jump.
    pub fn dispatches(&self, info: &Info) -> bool {
        info.kind == Kind::Indirect && info.successors.first() == Some(&self.dispatch())
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
            Kind::Dispatch => 0,
            Kind::Indirect if self.dispatches(info) => stored,
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

/// Live and used sets around the instructions of a block: before each, and at the end.
pub struct Sets {
    pub live: Vec<Set>,
    pub used: Vec<Set>,
}

fn info<'a>(f: &Function, block: &'a Block, index: &HashMap<u64, usize>, jumps_to: Vec<usize>) -> Info<'a> {
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
        Kind::Indirect if jumps_to.is_empty() => outside.push(None),
        Kind::Indirect => successors = jumps_to,
        Kind::Leave | Kind::Dispatch => {}
    }
    let (reads, writes, may_write) = usage::of_block(&usage);
    let (open, closed) = (f.open_jumps.contains(&last.ip()), f.closed_jumps.contains(&last.ip()));
    Info { successors, outside, open, closed, reads, writes, may_write, ..Info::new(Some(block), usage, kind) }
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
