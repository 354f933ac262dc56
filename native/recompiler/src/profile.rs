//! Reads what `recompiler run --profile` recorded (vkernel_abi::profile): host addresses become functions of ELF
//! files, stretches of interpretation get their cause. The file was written by guest processes: whatever does
//! not fit is left out.

use crate::coverage::{self, Class};
use crate::discover::{Function, Program};
use crate::elf::Elf;
use crate::flame;
use crate::lift::IMPORTS;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use vkernel_abi::megabinary::{Entry, Header, KIND_LIB};
use vkernel_abi::profile::{
    HOW_CALLED, HOW_STEP, IMAGE, INTERPRETED, SAMPLE, TRANSLATED, WHERE_CODE, WHERE_HOST, WHERE_INTERPRETER,
};
use vkernel_abi::wasm::{MAP_BLOCK, map_payload};

/// `profile`: what to read, written by src/image/profile.ts.
#[derive(Deserialize)]
struct Plan {
    profile: PathBuf,
    megabinary: PathBuf,
    /// By index in the megabinary.
    elfs: Vec<PlanElf>,
    /// Find out why code was interpreted, which takes discovery of the files concerned.
    causes: bool,
    /// Where to write a flame graph.
    svg: Option<PathBuf>,
    title: String,
}

/// An ELF file: its path in the image, and where its bytes are.
#[derive(Deserialize)]
struct PlanElf {
    path: String,
    file: PathBuf,
    off: u64,
    size: usize,
}

#[derive(Serialize, Default)]
pub struct Profile {
    /// Samples by where the thread was, in intervals of its processor time.
    code: u64,
    interpreter: u64,
    host: u64,
    /// Instructions that ran translated, when the image counts them.
    translated: Option<u64>,
    interpreted: u64,
    places: Vec<Place>,
    /// Functions with the most samples of their own.
    hot: Vec<(String, u64)>,
}

/// Interpretation that began at one address.
#[derive(Serialize)]
struct Place {
    /// Index in the megabinary; none: an address outside of all ELF files.
    elf: Option<usize>,
    /// Address as in the file.
    vaddr: u64,
    symbol: String,
    cause: String,
    /// A function made at this address would run translated.
    hint: bool,
    times: u64,
    instructions: u64,
}

/// Functions told in `Profile::hot`.
const HOT: usize = 40;

/// Records of a raw profile: (kind, words).
fn records(bytes: &[u8]) -> impl Iterator<Item = (u64, Vec<u64>)> {
    let mut at = 0;
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().expect("8 bytes")));
    std::iter::from_fn(move || {
        let head = word(at)?;
        let count = usize::try_from(head >> 8).ok().filter(|n| *n <= bytes.len() / 8)?;
        let words = (1..=count).map(|n| word(at + 8 * n)).collect::<Option<Vec<_>>>()?;
        at += 8 * (1 + count);
        Some((head & 0xff, words))
    })
}

/// The image directory that the profile is of.
pub fn image(bytes: &[u8]) -> Option<String> {
    let (_, words) = records(bytes).next().filter(|(kind, _)| *kind == IMAGE)?;
    let name: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).take_while(|b| *b != 0).collect();
    String::from_utf8(name).ok()
}

/// What is known of an ELF file of the image; read when it is asked for.
struct Known {
    entry: Entry,
    /// File name for functions without a symbol.
    short: String,
    /// Guest addresses of named functions: start → (end, name).
    symbols: BTreeMap<u64, (u64, String)>,
    /// Native functions: start in the artefact → (end, guest address; none: a trampoline).
    native: BTreeMap<u64, (u64, Option<u64>)>,
    /// Guest addresses of the translated functions.
    entries: Vec<u64>,
    bytes: Vec<u8>,
}

struct Image<'a> {
    plan: &'a Plan,
    mega: File,
    code_off: u64,
    entries: Vec<Entry>,
    known: HashMap<usize, Known>,
}

fn read_at(f: &File, off: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut b = vec![0; len];
    f.read_exact_at(&mut b, off).map(|()| b)
}

fn plain<T: Copy>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>());
    // SAFETY: long enough; the format's structs are plain integers.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

impl<'a> Image<'a> {
    fn open(plan: &'a Plan) -> std::io::Result<Self> {
        let mega = File::open(&plan.megabinary)?;
        let h: Header = plain(&read_at(&mega, 0, size_of::<Header>())?);
        let index = read_at(&mega, h.index_off, h.count as usize * size_of::<Entry>())?;
        let entries = index.chunks_exact(size_of::<Entry>()).map(plain).collect();
        Ok(Self { plan, mega, code_off: h.code_off, entries, known: HashMap::new() })
    }

    /// The ELF that a guest address is in, when `program` runs.
    fn at(&self, program: u64, pc: u64) -> Option<usize> {
        let holds = |e: &Entry| pc >= e.text_start && pc < e.text_end;
        let program = usize::try_from(program).ok().filter(|p| self.entries.get(*p).is_some_and(holds));
        program.or_else(|| self.entries.iter().position(|e| e.kind == KIND_LIB && holds(e)))
    }

    fn known(&mut self, elf: usize) -> std::io::Result<&Known> {
        if !self.known.contains_key(&elf) {
            let k = self.read(elf)?;
            self.known.insert(elf, k);
        }
        Ok(&self.known[&elf])
    }

    fn read(&self, elf: usize) -> std::io::Result<Known> {
        let (entry, at) = (self.entries[elf], &self.plan.elfs[elf]);
        let bytes = read_at(&File::open(&at.file)?, at.off, at.size)?;
        let mut k = Known {
            entry,
            short: at.path.rsplit('/').next().unwrap_or_default().to_string(),
            symbols: BTreeMap::new(),
            native: BTreeMap::new(),
            entries: Vec::new(),
            bytes,
        };
        if let Ok(file) = object::File::parse(&*k.bytes) {
            for s in file.symbols().chain(file.dynamic_symbols()).filter(|s| s.kind() == SymbolKind::Text) {
                if let (Ok(name), true) = (s.name(), s.address() != 0) {
                    let start = entry.base + s.address();
                    k.symbols.insert(start, (start + s.size().max(1), name.to_string()));
                }
            }
        }
        if entry.code_len > 0 {
            let map = read_at(&self.mega, entry.map_off, (entry.text_end - entry.text_start) as usize)?;
            let mut by_slot = HashMap::new();
            for (n, w) in map.chunks_exact(4).enumerate() {
                let word: u32 = plain(w);
                // A word names one of four addresses, by its two low bits.
                let pc = (entry.text_start as u32 + 4 * n as u32) | word & 3;
                let payload = if word == 0 { 0 } else { map_payload(pc, word) };
                if payload != 0 && payload & MAP_BLOCK == 0 {
                    by_slot.insert(payload.wrapping_sub(entry.slot_base), u64::from(pc));
                }
            }
            k.entries = by_slot.values().copied().collect();
            k.entries.sort_unstable();
            let code = read_at(&self.mega, entry.code_off, entry.code_len as usize)?;
            if let Ok(file) = object::File::parse(&*code)
                && let Some(text) = file.section_by_name(".text")
                && let Some((off, _)) = text.file_range()
            {
                for s in file.symbols() {
                    let number = s.name().ok().and_then(|n| n.strip_prefix("wasm[0]::function[")?.strip_suffix(']'));
                    let number = number.and_then(|n| n.parse::<u32>().ok()?.checked_sub(IMPORTS));
                    let start = off + (s.address() - text.address());
                    k.native.insert(start, (start + s.size(), number.and_then(|n| by_slot.get(&n).copied())));
                }
            }
        }
        Ok(k)
    }

    /// Name of the translated function whose native code holds `offset` of the code section.
    fn frame(&mut self, offset: u64) -> std::io::Result<Option<String>> {
        let holds = |e: &Entry| offset.wrapping_sub(e.code_off - self.code_off) < e.code_len;
        let Some(elf) = self.entries.iter().position(|e| e.code_len > 0 && holds(e)) else { return Ok(None) };
        let at = offset - (self.entries[elf].code_off - self.code_off);
        let k = self.known(elf)?;
        let found = k.native.range(..=at).next_back().filter(|(_, (end, _))| at < *end);
        Ok(found.and_then(|(_, (_, pc))| pc.map(|pc| k.name(pc))))
    }
}

impl Known {
    /// Symbol of a guest address; without one, the file and the address in it where the function starts.
    fn name(&self, pc: u64) -> String {
        if let Some((_, (end, name))) = self.symbols.range(..=pc).next_back()
            && pc < *end
        {
            return name.clone();
        }
        let start = self.entries.partition_point(|e| *e <= pc).checked_sub(1).map_or(pc, |n| self.entries[n]);
        format!("{}+{:#x}", self.short, start - self.entry.base)
    }
}

/// Reads the profile of a plan, and writes its flame graph.
pub fn report(plan: &str) -> Result<serde_json::Value, String> {
    let text = std::fs::read_to_string(plan).map_err(|e| format!("{plan}: {e}"))?;
    let plan: Plan = serde_json::from_str(&text).map_err(|e| format!("plan: {e}"))?;
    let bytes = std::fs::read(&plan.profile).map_err(|e| format!("{}: {e}", plan.profile.display()))?;
    let profile = read(&plan, &bytes).map_err(|e| format!("{}: {e}", plan.megabinary.display()))?;
    Ok(serde_json::json!(profile))
}

fn read(plan: &Plan, bytes: &[u8]) -> std::io::Result<Profile> {
    let mut image = Image::open(plan)?;
    let mut p = Profile::default();
    let mut stacks: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut places: BTreeMap<(Option<usize>, u64, u64), (u64, u64)> = BTreeMap::new();
    for (kind, words) in records(bytes) {
        match (kind, &words[..]) {
            (SAMPLE, [program, place, weight, rip, frames @ ..]) => {
                let sum = match *place {
                    WHERE_CODE => &mut p.code,
                    WHERE_INTERPRETER => &mut p.interpreter,
                    _ => &mut p.host,
                };
                *sum = sum.saturating_add(*weight);
                let program_path = usize::try_from(*program).ok().and_then(|n| plan.elfs.get(n)).map(|e| &e.path);
                let mut stack =
                    vec![program_path.map_or("?".into(), |p| p.rsplit('/').next().unwrap_or(p).to_string())];
                for f in frames.iter().rev() {
                    stack.extend(image.frame(*f)?);
                }
                if *place == WHERE_INTERPRETER {
                    let elf = image.at(*program, *rip);
                    let name = elf.map(|n| image.known(n).map(|k| k.name(*rip))).transpose()?;
                    stack.push(format!("{} (interpreted)", name.unwrap_or(format!("{rip:#x}"))));
                } else if *place == WHERE_HOST {
                    stack.push("(loader and host calls)".into());
                }
                *stacks.entry(stack).or_default() += weight;
            }
            (INTERPRETED, [program, how, pc, times, instructions]) => {
                let elf = image.at(*program, *pc);
                let vaddr = pc - elf.map_or(0, |e| image.entries[e].base);
                let e = places.entry((elf, vaddr, *how)).or_default();
                *e = (e.0.saturating_add(*times), e.1.saturating_add(*instructions));
                p.interpreted = p.interpreted.saturating_add(*instructions);
            }
            (TRANSLATED, [n]) => p.translated = Some(p.translated.unwrap_or(0).saturating_add(*n)),
            _ => {}
        }
    }
    let mut own: HashMap<&String, u64> = HashMap::new();
    for (stack, weight) in &stacks {
        *own.entry(stack.last().expect("never empty")).or_default() += weight;
    }
    p.hot = own.into_iter().map(|(name, n)| (name.clone(), n)).collect();
    p.hot.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    p.hot.truncate(HOT);
    if let Some(svg) = &plan.svg {
        std::fs::write(svg, flame::graph(&plan.title, &stacks))?;
    }
    p.places = explain(&mut image, places)?;
    Ok(p)
}

/// Gives places their names and, when asked for, their causes; the most expensive first.
fn explain(image: &mut Image, places: BTreeMap<(Option<usize>, u64, u64), (u64, u64)>) -> std::io::Result<Vec<Place>> {
    let mut out = Vec::new();
    // By ELF, so that one is discovered at a time.
    let mut found: Option<(usize, Vec<Function>)> = None;
    for ((elf, vaddr, how), (times, instructions)) in places {
        let (mut symbol, mut cause, mut hint) = (format!("{vaddr:#x}"), String::new(), false);
        if let Some(n) = elf {
            let causes = image.plan.causes;
            let k = image.known(n)?;
            symbol = k.name(k.entry.base + vaddr);
            if causes {
                if found.as_ref().is_none_or(|(of, _)| *of != n) {
                    let functions = Elf::parse(&k.bytes).map(|e| Program::new(&e, k.entry.base).functions());
                    found = Some((n, functions.unwrap_or_default()));
                }
                let functions = &found.as_ref().expect("just made").1;
                (cause, hint) = why(k, functions, k.entry.base + vaddr, how);
            }
        }
        out.push(Place { elf, vaddr, symbol, cause, hint, times, instructions });
    }
    out.sort_by_key(|p| std::cmp::Reverse(p.instructions));
    Ok(out)
}

/// Why the interpreter ran at `pc`, and whether a function made there would change it.
fn why(k: &Known, functions: &[Function], pc: u64, how: u64) -> (String, bool) {
    let mut inside = functions.iter().flat_map(|f| &f.blocks).filter(|(_, b)| pc >= b.start && pc < b.end);
    let i = inside.find_map(|(_, b)| b.instructions.iter().find(|i| i.ip() == pc));
    let plain = |cause: &str| (cause.to_string(), false);
    let hint = |cause: &str| (cause.to_string(), true);
    if how == HOW_STEP {
        return match i {
            Some(i) => (format!("instruction {}", coverage::name(coverage::class(i), i)), false),
            None => plain("instruction"),
        };
    }
    if k.entry.code_len == 0 {
        return plain("file that is not translated");
    }
    let Some(i) = i else {
        return hint(if how == HOW_CALLED { "code called that was not found" } else { "code that was not found" });
    };
    if coverage::class(i) != Class::Lifted {
        return (format!("instruction {}", coverage::name(coverage::class(i), i)), false);
    }
    if functions.iter().any(|f| f.switch_targets.binary_search(&pc).is_ok()) {
        return plain("label of an indirect jump");
    }
    let mut before = functions.iter().flat_map(|f| f.blocks.values()).filter(|b| b.end == pc);
    let called = before.any(|b| b.instructions.last().is_some_and(is_call));
    match how {
        _ if called => hint("return to a frame that was dropped"),
        _ if bails(i) => (format!("condition of {}", coverage::name(coverage::class(i), i)), false),
        HOW_CALLED => hint("jump into a function"),
        _ => hint("resumed in a function"),
    }
}

fn is_call(i: &iced_x86::Instruction) -> bool {
    use iced_x86::FlowControl as F;
    matches!(i.flow_control(), F::Call | F::IndirectCall)
}

/// Whether a condition that only the interpreter can answer leaves translated code at this instruction.
fn bails(i: &iced_x86::Instruction) -> bool {
    use iced_x86::{Mnemonic as M, OpKind};
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    matches!(i.mnemonic(), M::Div | M::Idiv)
        || i.has_lock_prefix()
        || memory && i.mnemonic() == M::Xchg
        || i.is_string_instruction()
        || memory && i.op_count() > 1 && i.memory_size().size() >= 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(list: &[(u64, &[u64])]) -> Vec<u8> {
        list.iter()
            .flat_map(|(kind, words)| std::iter::once(kind | (words.len() as u64) << 8).chain(words.iter().copied()))
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    #[test]
    fn records_end_where_the_file_does() {
        let name = u64::from_le_bytes(*b"/img\0\0\0\0");
        let bytes = raw(&[(IMAGE, &[name]), (TRANSLATED, &[7]), (SAMPLE, &[1, 2, 3, 4, 5])]);
        assert_eq!(image(&bytes).as_deref(), Some("/img"));
        let all: Vec<_> = records(&bytes).collect();
        assert_eq!(all[1..], [(TRANSLATED, vec![7]), (SAMPLE, vec![1, 2, 3, 4, 5])]);
        for n in 0..bytes.len() {
            assert!(records(&bytes[..n]).count() < 3, "cut at {n}");
        }
        // Lengths that are not to be believed.
        for head in [u64::MAX, SAMPLE | 1 << 62, SAMPLE | 3 << 8] {
            assert_eq!(records(&head.to_le_bytes()).count(), 0);
        }
    }
}
