//! One wasm module per ELF file (vkernel_abi::wasm has the contract), and its native code.

use crate::coverage::Report;
use crate::discover::{self, Program};
use crate::elf::Elf;
use crate::extra::Extra;
use crate::function::{self, Context};
use crate::lift::IMPORTS;
use crate::summaries;
use std::collections::{HashMap, HashSet};
use vkernel_abi::wasm::{MAP_BLOCK, MAP_PAGES, REGION_PAGES, STATE_PAGES, TABLE_SLOTS};
use wasm_encoder::{
    BranchHint, BranchHints, CodeSection, ConstExpr, ElementSection, Elements, EntityType, Function, FunctionSection,
    GlobalType, ImportSection, MemorySection, MemoryType, Module, RefType, TableType, TypeSection, ValType,
};

pub struct Wasm {
    pub bytes: Vec<u8>,
    /// Dispatch map: (offset from the text's start, payload); slots count from 1.
    pub map: Vec<(u32, u32)>,
    pub functions: u32,
    /// Bytes of each function's body.
    pub sizes: Vec<u64>,
    pub report: Report,
}

/// What decides a translation, the file and its base aside.
#[derive(Clone, Default)]
pub struct Options {
    /// Addresses as in the file, ascending, that shall be functions as well.
    pub hints: Vec<u64>,
    /// Translated code counts its instructions.
    pub count: bool,
}

/// Translates an ELF placed at `base`; None when it has no code.
pub fn translate(elf: &Elf, base: u64, options: &Options) -> Option<Wasm> {
    let extra = Extra { count: options.count, marks: false };
    translate_some(&Program::new(elf, base).hinted(&options.hints).functions(), elf, base, extra, |_| true)
}

/// Translates those of an ELF's functions that `wanted` picks by entry; the others are empty.
pub fn translate_some(
    found: &[discover::Function],
    elf: &Elf,
    base: u64,
    extra: Extra,
    wanted: impl Fn(u64) -> bool,
) -> Option<Wasm> {
    if found.is_empty() {
        return None;
    }
    let index: HashMap<u64, usize> = found.iter().enumerate().map(|(n, f)| (f.entry, n)).collect();
    let (text, loose) = (base + elf.text().0, elf.is_go());
    let indirect = found.iter().filter(|f| f.indirect).map(|f| f.entry).collect();
    let (analyses, known) = summaries::solve(found, &index, &indirect, loose);
    let mut code = CodeSection::new();
    let mut map = Vec::new();
    let mut sizes = Vec::new();
    let mut stepped = Vec::new();
    let mut first_target = 0u32;
    // One word for every four bytes: the first function there has it, and functions come before blocks.
    let mut taken = HashSet::new();
    for (n, f) in found.iter().enumerate() {
        if taken.insert(f.entry & !3) {
            map.push(((f.entry - text) as u32, n as u32 + 1));
        }
    }
    let mut hints = BranchHints::new();
    for (n, (f, a)) in found.iter().zip(&analyses).enumerate() {
        let mut unmapped = Vec::new();
        for (n, &pc) in f.switch_targets.iter().enumerate().filter(|(_, pc)| !index.contains_key(pc)) {
            if taken.insert(pc & !3) {
                map.push(((pc - text) as u32, MAP_BLOCK | (first_target + n as u32)));
            } else {
                unmapped.push(n);
            }
        }
        let ctx = Context { functions: &index, known: &known, first_target, extra, unmapped: &unmapped };
        if wanted(f.entry) {
            let t = function::translate(f, a, &ctx);
            let mut body = Function::new_with_locals_types(t.locals);
            let start = body.byte_len() as u32;
            hints.function_hints(IMPORTS + n as u32, unlikely(&t.code, start));
            body.raw(t.code);
            sizes.push(body.byte_len() as u64);
            code.function(&body);
            first_target += t.numbers;
            stepped.extend(t.stepped);
        } else {
            let mut body = Function::new([]);
            body.instructions().unreachable().end();
            code.function(&body);
            first_target += f.switch_targets.len() as u32;
        }
    }
    let report = Report::new(found, stepped.iter());
    let bytes = assemble(found.len() as u32, &hints, &code);
    Some(Wasm { bytes, map, functions: found.len() as u32, sizes, report })
}

/// Hints for the branches that are rarely taken: the translator marks them by a NOP before the IF.
/// Offsets count from the function's locals; the code starts at `start`.
fn unlikely(code: &[u8], start: u32) -> Vec<BranchHint> {
    let mut r = wasmparser::OperatorsReader::new(wasmparser::BinaryReader::new(code, 0));
    let (mut hints, mut marked) = (Vec::new(), false);
    while !r.eof() {
        let at = r.original_position() as u32;
        let Ok(op) = r.read() else { break };
        if marked && matches!(op, wasmparser::Operator::If { .. }) {
            hints.push(BranchHint { branch_func_offset: start + at, branch_hint_value: 0 });
        }
        marked = matches!(op, wasmparser::Operator::Nop);
    }
    hints
}

fn assemble(count: u32, hints: &BranchHints, code: &CodeSection) -> Vec<u8> {
    use ValType::{I32, I64};
    let mut types = TypeSection::new();
    types.ty().function([I64, I64, I64, I64], [I32, I64, I64, I64]);
    types.ty().function([I32], [I32]);
    types.ty().function([I32, I32, I64], [I32]);
    types.ty().function([I32, I64], [I64]);
    types.ty().function([I32, I64, I64], [I64]);
    let mut imports = ImportSection::new();
    let table = TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: TABLE_SLOTS,
        maximum: Some(TABLE_SLOTS),
        shared: false,
    };
    imports.import("k", "table", EntityType::Table(table));
    imports.import("k", "slot_base", EntityType::Global(GlobalType { val_type: I32, mutable: false, shared: false }));
    for (name, ty) in [("syscall", 1), ("poll", 1), ("step", 1), ("div", 2), ("x87", 3), ("host", 4)] {
        imports.import("k", name, EntityType::Function(ty));
    }
    let mut functions = FunctionSection::new();
    (0..count).for_each(|_| {
        functions.function(function::TYPE);
    });
    let mut memories = MemorySection::new();
    for pages in [REGION_PAGES, STATE_PAGES, MAP_PAGES] {
        memories.memory(MemoryType {
            minimum: pages,
            maximum: Some(pages),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
    }
    let mut elements = ElementSection::new();
    let list: Vec<u32> = (IMPORTS..IMPORTS + count).collect();
    elements.active(Some(0), &ConstExpr::global_get(0), Elements::Functions(list.into()));
    let mut m = Module::new();
    m.section(&types)
        .section(&imports)
        .section(&functions)
        .section(&memories)
        .section(&elements)
        .section(hints)
        .section(code);
    m.finish()
}
