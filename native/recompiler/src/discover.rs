//! Where functions are, and their control-flow graphs.
//!
//! Entries: FDEs of .eh_frame, symbols, the ELF entry, targets of direct calls, words in data and
//! relocation addends that point at an FDE's start, and every direct jump target outside its own
//! function. Words in data and jump-table entries that point into a function become targets of its
//! indirect jumps. A miss costs speed only: the interpreter runs it.

pub use crate::blocks::Block;
use crate::blocks::blocks;
use crate::elf::Elf;
use crate::tables::{self, Table};
use iced_x86::{Decoder, FlowControl, Instruction, Mnemonic, OpKind};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use vkernel_semantics::decode::OPTIONS;

pub struct Function {
    pub entry: u64,
    /// By address; every block is reachable from the entry.
    pub blocks: BTreeMap<u64, Block>,
    /// Targets of indirect jumps inside the function, in ascending order.
    pub switch_targets: Vec<u64>,
    /// Indirect jumps whose targets are all known, by address.
    pub tables: HashMap<u64, Table>,
    /// Those of `switch_targets` that other indirect jumps may lead to.
    pub labels: BTreeSet<u64>,
    /// Indirect jumps that may lead to a label that was not found, and those that lead to found ones only.
    pub open_jumps: HashSet<u64>,
    pub closed_jumps: HashSet<u64>,
    /// From a hint file: entered from the dispatcher, possibly in the middle of what is another function.
    pub hinted: bool,
    /// May be called other than by the direct calls and jumps found: a pointer to it is in the data or
    /// made by an instruction, or it has a name that others can bind to.
    pub indirect: bool,
}

impl Function {
    /// The address of the word that a PLT stub jumps by; None: it is no stub.
    pub fn stub_word(&self) -> Option<u64> {
        let code = self.blocks[&self.entry].instructions.iter().find(|i| i.mnemonic() != Mnemonic::Endbr64)?;
        (code.flow_control() == FlowControl::IndirectBranch && code.is_ip_rel_memory_operand())
            .then(|| code.ip_rel_memory_address())
    }
}

/// Larger functions are left to the interpreter: compile time is not linear in size.
const MAX_INSTRUCTIONS: usize = 30_000;

pub struct Program<'a> {
    pub(crate) elf: &'a Elf<'a>,
    pub(crate) base: u64,
    /// FDE ranges: start → end.
    ranges: BTreeMap<u64, u64>,
    /// Addresses that instructions make: where jump tables start, and end at the latest.
    pub(crate) anchors: BTreeSet<u64>,
    /// Words in data that point into text.
    pointers: BTreeSet<u64>,
    /// Those that may be labels inside a function.
    labels: BTreeSet<u64>,
    /// FDEs that are parts of one function (gcc's .cold), by the start of each.
    parts: BTreeMap<u64, Rc<Extent>>,
    /// Starts of parts that only their own function jumps to.
    fragments: BTreeSet<u64>,
    /// Addresses of dynamic symbols.
    named: HashSet<u64>,
    /// Entries that a profile asks for.
    hints: BTreeSet<u64>,
}

/// The code of one function: ranges in ascending order.
pub(crate) type Extent = Vec<(u64, u64)>;

pub(crate) fn holds(extent: &Extent, pc: u64) -> bool {
    extent.iter().any(|(start, end)| pc >= *start && pc < *end)
}

impl<'a> Program<'a> {
    pub fn new(elf: &'a Elf<'a>, base: u64) -> Self {
        let mut p = Self {
            elf,
            base,
            ranges: BTreeMap::new(),
            anchors: BTreeSet::new(),
            pointers: BTreeSet::new(),
            labels: BTreeSet::new(),
            parts: BTreeMap::new(),
            fragments: BTreeSet::new(),
            named: HashSet::new(),
            hints: BTreeSet::new(),
        };
        let Ok(file) = object::File::parse(elf.bytes) else { return p };
        p.read_fdes(&file);
        p.read_pointers(&file);
        for s in file.symbols().chain(file.dynamic_symbols()) {
            if s.kind() == object::SymbolKind::Text && s.size() > 0 && p.is_text(base + s.address()) {
                p.ranges.entry(base + s.address()).or_insert(base + s.address() + s.size());
            }
        }
        p.named = file.dynamic_symbols().map(|s| base + s.address()).collect();
        p.join_parts();
        p
    }

    /// Makes functions of these addresses (as in the file) as well.
    pub fn hinted(mut self, hints: &[u64]) -> Self {
        self.hints = hints.iter().map(|h| self.base.wrapping_add(*h)).filter(|pc| self.is_text(*pc)).collect();
        self
    }

    /// Joins ranges that jump to each other, once into the middle; a part that is only jumped to from
    /// its own function is no entry. Jumps one way do not join: half a library jumps into .plt's FDE.
    fn join_parts(&mut self) {
        let mut leader: BTreeMap<u64, u64> = BTreeMap::new();
        let find = |leader: &BTreeMap<u64, u64>, mut r: u64| {
            while let Some(&up) = leader.get(&r) {
                r = up;
            }
            r
        };
        let mut called = BTreeSet::from([self.base + self.elf.entry]);
        let (mut jumps, mut edges) = (Vec::new(), BTreeSet::new());
        for (&start, &end) in &self.ranges {
            let Some(bytes) = self.elf.at(start - self.base) else { continue };
            let bytes = &bytes[..bytes.len().min((end - start) as usize)];
            for i in &mut Decoder::with_ip(64, bytes, start, OPTIONS) {
                self.anchors.extend(tables::rip_address(&i));
                if i.op0_kind() != OpKind::NearBranch64 {
                    continue;
                }
                let to = i.near_branch64();
                if i.flow_control() == FlowControl::Call {
                    called.insert(to);
                } else if let Some((&r, &r_end)) = self.ranges.range(..=to).next_back()
                    && to < r_end
                    && r != start
                {
                    jumps.push((start, to));
                    edges.insert((start, r));
                }
            }
        }
        for &(start, to) in &jumps {
            let r = *self.ranges.range(..=to).next_back().expect("it was found above").0;
            let (a, b) = (find(&leader, start), find(&leader, r));
            if to != r && a != b && edges.contains(&(r, start)) {
                leader.insert(a.max(b), a.min(b));
            }
        }
        let mut groups: BTreeMap<u64, Extent> = BTreeMap::new();
        for (&start, &end) in &self.ranges {
            let top = find(&leader, start);
            if top != start || leader.values().any(|l| *l == start) {
                groups.entry(top).or_default().push((start, end));
            }
        }
        for extent in groups.into_values() {
            let extent = Rc::new(extent);
            self.parts.extend(extent.iter().map(|(start, _)| (*start, extent.clone())));
        }
        // A pointer to a part's start names a function, or is a computed goto's: parts are jumped to.
        let jumped: BTreeSet<u64> = jumps.iter().map(|(_, to)| *to).collect();
        let inner = |start: &u64| !called.contains(start) && jumped.contains(start);
        self.fragments = self.parts.keys().copied().filter(inner).collect();
    }

    fn is_text(&self, pc: u64) -> bool {
        let v = pc.wrapping_sub(self.base);
        self.elf.segments.iter().any(|s| s.exec && v >= s.vaddr && v < s.vaddr + s.filesz)
    }

    fn read_fdes(&mut self, file: &object::File) {
        use gimli::UnwindSection;
        let Some(section) = file.section_by_name(".eh_frame") else { return };
        let Ok(data) = section.data() else { return };
        let eh = gimli::EhFrame::new(data, gimli::LittleEndian);
        let mut bases = gimli::BaseAddresses::default().set_eh_frame(section.address());
        if let Some(text) = file.section_by_name(".text") {
            bases = bases.set_text(text.address());
        }
        let mut entries = eh.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            if let gimli::CieOrFde::Fde(partial) = entry
                && let Ok(fde) = partial.parse(|section, bases, off| section.cie_from_offset(bases, off))
            {
                let start = self.base + fde.initial_address();
                if self.is_text(start) && fde.len() > 0 {
                    self.ranges.insert(start, start + fde.len());
                }
            }
        }
    }

    fn read_pointers(&mut self, file: &object::File) {
        let found: Vec<u64> = file
            .dynamic_relocations()
            .into_iter()
            .flatten()
            .filter(|(_, r)| r.target() == RelocationTarget::Absolute)
            .map(|(_, r)| self.base.wrapping_add(r.addend() as u64))
            .collect();
        let found: Vec<u64> = found.into_iter().filter(|pc| self.is_text(*pc)).collect();
        self.pointers.extend(&found);
        self.labels.extend(found);
        for s in self.elf.segments.iter().filter(|s| !s.exec) {
            let Some(bytes) = self.elf.bytes.get(s.off as usize..(s.off + s.filesz) as usize) else { continue };
            let skew = (s.vaddr.wrapping_neg() & 7) as usize;
            let words = bytes.get(skew..).unwrap_or_default().chunks_exact(8);
            let words = words.map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes")));
            let hits: Vec<Option<u64>> =
                words.map(|w| Some(self.base.wrapping_add(w)).filter(|pc| self.is_text(*pc))).collect();
            self.pointers.extend(hits.iter().flatten());
            // Labels come in tables; a lone word that looks like one is a number.
            let neighbours = hits.windows(2).filter_map(|w| Some([w[0]?, w[1]?]));
            self.labels.extend(neighbours.flatten());
        }
    }

    /// Addresses of the instructions in a range, decoded one after the other.
    fn sweep(&self, low: u64, high: u64) -> HashSet<u64> {
        let Some(bytes) = self.elf.at(low - self.base) else { return HashSet::new() };
        let bytes = &bytes[..bytes.len().min((high - low) as usize)];
        Decoder::with_ip(64, bytes, low, OPTIONS).into_iter().map(|i| i.ip()).collect()
    }

    /// The function that `pc` belongs to: an FDE and its parts, or up to the next known start.
    fn extent_of(&self, pc: u64, entries: &BTreeSet<u64>) -> Rc<Extent> {
        if let Some((&start, &end)) = self.ranges.range(..=pc).next_back()
            && pc < end
        {
            return self.parts.get(&start).cloned().unwrap_or_else(|| Rc::new(vec![(start, end)]));
        }
        let next_range = self.ranges.range(pc + 1..).next().map(|(s, _)| *s);
        let next_entry = entries.range(pc + 1..).next().copied();
        let end = [next_range, next_entry].into_iter().flatten().min().unwrap_or(pc + 0x10000);
        Rc::new(vec![(pc, end.min(pc + 0x10000))])
    }

    /// All functions, by entry.
    pub fn functions(&self) -> Vec<Function> {
        let mut entries: BTreeSet<u64> = self.ranges.keys().copied().filter(|s| !self.fragments.contains(s)).collect();
        entries.insert(self.base + self.elf.entry);
        entries.extend(&self.hints);
        for &pc in &self.pointers {
            // A pointer into the middle of a function is a jump target of that function, not an entry.
            if !self.fragments.contains(&pc) && self.extent_of(pc, &entries).iter().any(|(start, _)| *start == pc) {
                entries.insert(pc);
            }
        }
        let mut queue: Vec<u64> = entries.iter().copied().filter(|pc| self.is_text(*pc)).collect();
        let mut done = BTreeMap::new();
        while let Some(pc) = queue.pop() {
            if done.contains_key(&pc) {
                continue;
            }
            let mut outside = BTreeSet::new();
            let f = self.function(pc, &entries, &mut outside);
            for target in outside {
                if self.is_text(target) && entries.insert(target) {
                    queue.push(target);
                }
            }
            done.insert(pc, f);
        }
        let mut found: Vec<Function> = done.into_values().flatten().collect();
        let taken: HashSet<u64> = found
            .iter()
            .flat_map(|f| f.blocks.values())
            .flat_map(|b| &b.instructions)
            .filter_map(tables::made)
            .collect();
        for f in &mut found {
            let pc = f.entry;
            f.hinted = self.hints.contains(&pc);
            f.indirect = f.hinted
                || pc == self.base + self.elf.entry
                || self.named.contains(&pc)
                || self.pointers.contains(&pc)
                || taken.contains(&pc);
        }
        found
    }

    /// The blocks reachable from `entry` inside its range; direct targets outside go to `outside`.
    fn function(&self, entry: u64, entries: &BTreeSet<u64>, outside: &mut BTreeSet<u64>) -> Option<Function> {
        let extent = self.extent_of(entry, entries);
        let inside = |pc: u64| holds(&extent, pc);
        let mut decoded: BTreeMap<u64, Instruction> = BTreeMap::new();
        let mut leaders = BTreeSet::from([entry]);
        let (mut labels, mut tables, mut open_jumps) = (BTreeSet::new(), HashMap::new(), HashSet::new());
        let mut pending = vec![entry];
        let interior = |(low, high): &(u64, u64)| {
            let first = if self.fragments.contains(low) { *low } else { low + 1 };
            let mut labels = self.labels.range(first..*high).peekable();
            let starts = if labels.peek().is_some() { self.sweep(*low, *high) } else { HashSet::new() };
            labels.filter(|pc| starts.contains(pc)).copied().collect::<Vec<_>>()
        };
        let interior: Vec<u64> = extent.iter().flat_map(interior).collect();
        let mut indirect = false;
        while let Some(start) = pending.pop() {
            let mut pc = start;
            while inside(pc) && !decoded.contains_key(&pc) {
                let Some(bytes) = self.elf.at(pc - self.base) else { break };
                let i = Decoder::with_ip(64, &bytes[..bytes.len().min(15)], pc, OPTIONS).decode();
                if i.is_invalid() || decoded.len() > MAX_INSTRUCTIONS {
                    break;
                }
                decoded.insert(pc, i);
                let next = i.next_ip();
                let mut lead = |target: u64, leaders: &mut BTreeSet<u64>| {
                    if inside(target) {
                        if leaders.insert(target) {
                            pending.push(target);
                        }
                    } else {
                        outside.insert(target);
                    }
                };
                match i.flow_control() {
                    FlowControl::Next | FlowControl::Interrupt => {}
                    FlowControl::ConditionalBranch => {
                        lead(i.near_branch64(), &mut leaders);
                        lead(next, &mut leaders);
                    }
                    FlowControl::UnconditionalBranch => {
                        lead(i.near_branch64(), &mut leaders);
                        break;
                    }
                    // A jump by a fixed word is a tail call (PLT entries are), not a choice.
                    FlowControl::IndirectBranch if i.is_ip_rel_memory_operand() => break,
                    FlowControl::IndirectBranch => {
                        indirect = true;
                        let table = self.jump_table(&i, &decoded, &extent);
                        table.targets.iter().for_each(|t| lead(*t, &mut leaders));
                        if table.complete {
                            tables.insert(pc, table);
                        } else {
                            labels.extend(table.targets);
                            if tables::is_indexed(&i, &decoded) {
                                open_jumps.insert(pc);
                            }
                        }
                        break;
                    }
                    FlowControl::Call => {
                        if i.op0_kind() == OpKind::NearBranch64 {
                            outside.insert(i.near_branch64());
                        }
                        leaders.insert(next);
                    }
                    FlowControl::IndirectCall => {
                        leaders.insert(next);
                    }
                    // SYSCALL counts as a call of the decoder's, but goes on.
                    _ if i.mnemonic() == Mnemonic::Syscall => {}
                    _ => break,
                }
                pc = next;
            }
            if pending.is_empty() && indirect {
                indirect = false;
                for &t in &interior {
                    if labels.insert(t) && leaders.insert(t) {
                        pending.push(t);
                    }
                }
            }
        }
        if decoded.len() > MAX_INSTRUCTIONS || !decoded.contains_key(&entry) {
            return None;
        }
        let blocks = blocks(&decoded, &leaders);
        tables.retain(|jump, t: &mut Table| {
            let kept = t.kept.is_none_or(|(base, made)| tables::is_kept(base, made, &decoded));
            let known = kept && t.targets.iter().all(|t| blocks.contains_key(t));
            if !known {
                labels.extend(&t.targets);
                open_jumps.insert(*jump);
            }
            known
        });
        labels.retain(|t| blocks.contains_key(t));
        let switch_targets: BTreeSet<u64> = tables.values().flat_map(|t| &t.targets).chain(&labels).copied().collect();
        let switch_targets = switch_targets.into_iter().collect();
        let closed_jumps = open_jumps.extract_if(|jump| self.is_closed(*jump, &blocks, &labels)).collect();
        Some(Function {
            entry,
            blocks,
            switch_targets,
            tables,
            labels,
            open_jumps,
            closed_jumps,
            hinted: false,
            indirect: true,
        })
    }
}
