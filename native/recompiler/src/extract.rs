//! `extract`: what became of a function, side by side: its x86, wasm and native code; or sizes of all functions.
//! For people, not for the build: what is printed is translated anew, at the base the ELF alone would get, or at
//! the one that is given.

use crate::discover::{Function, Program};
use crate::elf::Elf;
use crate::extra::{Extra, mark_of};
use crate::{module, place};
use iced_x86::{Decoder, Formatter, IntelFormatter};
use object::{Object, ObjectSection, ObjectSymbol};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

/// `what`: a symbol's name, or an address as in the file or in the guest (hexadecimal); none: a line for every
/// function. `base`: where the image has the file.
pub fn extract(path: &str, what: Option<&str>, base: Option<&str>) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let elf = Elf::parse(&bytes).map_err(|e| format!("{path}: {e}"))?;
    let base = match base {
        Some(b) => hexadecimal(b).ok_or(format!("{b} is no base address"))?,
        None => place::Placer::default().place(&elf, &Sha256::digest(&bytes).into())?,
    };
    let found = Program::new(&elf, base).functions();
    let mut config = vkernel_engine::config();
    // Artefacts have no such map; the code is the same with it.
    config.generate_address_map(what.is_some());
    let engine = wasmtime::Engine::new(&config).map_err(|e| format!("engine: {e:#}"))?;
    let Some(what) = what else { return sizes(&engine, &found, &elf, base) };
    let at = address(&bytes, what)?;
    let at = if at >= base + elf.text().0 && at < base + elf.text().1 { at } else { at.wrapping_add(base) };
    let n = found.iter().position(|f| f.blocks.values().any(|b| at >= b.start && at < b.end));
    let n = n.ok_or_else(|| {
        format!("{path}: no translated function has {what}; without a name, extract lists what there is")
    })?;
    let f = &found[n];
    let extra = Extra { marks: true, count: false };
    let wasm = module::translate_some(&found, &elf, base, extra, |pc| pc == f.entry).expect("there is a function");
    let code = engine.precompile_module(&wasm.bytes).map_err(|e| format!("the translation does not compile: {e:#}"))?;
    let (start, native) = native(&code, n)?;
    println!(
        "function at {:#x} (in the file {:#x}): x86 {} bytes, native {} bytes",
        f.entry,
        f.entry - base,
        f.blocks.values().map(|b| b.end - b.start).sum::<u64>(),
        native.len()
    );
    let wasm = wasm_lines(&wasm.bytes, n)?;
    let native = native_lines(&engine, &code, native, start, &wasm)?;
    print!("{}", side_by_side(f, &wasm, &native));
    Ok(())
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// Lines by the guest address of the instruction that they come from; 0: the frame of the whole function.
type Lines = BTreeMap<u64, Vec<String>>;

struct WasmLines {
    lines: Lines,
    /// Offsets in the module from which on code is another instruction's.
    owners: BTreeMap<usize, u64>,
}

/// The text of the `n`th function without its marks.
fn wasm_lines(bytes: &[u8], n: usize) -> Result<WasmLines, String> {
    let mut text = String::new();
    let mut config = wasmprinter::Config::new();
    config.print_offsets(true);
    config.print(bytes, &mut wasmprinter::PrintFmtWrite(&mut text)).map_err(|e| e.to_string())?;
    let start = format!("(func (;{};)", n + crate::lift::IMPORTS as usize);
    let (mut w, mut owner, mut skip) = (WasmLines { lines: Lines::new(), owners: BTreeMap::new() }, 0, false);
    let lines = text.lines().map(|l| {
        let (offset, rest) = l.strip_prefix("(;@").and_then(|l| l.split_once(";)")).unwrap_or(("", l));
        (usize::from_str_radix(offset.trim(), 16).ok(), rest.trim_start_matches([' ']), rest)
    });
    let body = lines.skip_while(|(_, l, _)| !l.starts_with(&start)).skip(1);
    for (offset, line, indented) in body.take_while(|(_, l, _)| !l.starts_with("(func")) {
        if std::mem::take(&mut skip) {
            continue;
        }
        let constant = line.strip_prefix("i64.const ").and_then(|v| v.parse::<i64>().ok()).map(|v| v as u64);
        if let Some(pc) = constant.map(|v| v & 0xffff_ffff).filter(|pc| constant == Some(mark_of(*pc))) {
            (owner, skip) = (pc, true);
            w.owners.extend(offset.map(|o| (o, owner)));
        } else if offset.is_some() {
            let depth = (indented.len() - line.len()).saturating_sub(4).min(16);
            w.lines.entry(owner).or_default().push(format!("{}{line}", " ".repeat(depth)));
        }
    }
    Ok(w)
}

/// The native instructions, by what the engine's address map says of each.
fn native_lines(
    engine: &wasmtime::Engine,
    code: &[u8],
    bytes: &[u8],
    at: u64,
    wasm: &WasmLines,
) -> Result<Lines, String> {
    let file = object::File::parse(code).map_err(|e| e.to_string())?;
    let text = file.section_by_name(".text").ok_or("the artefact has no code")?.address();
    // SAFETY: the engine has just made these bytes.
    let compiled = unsafe { wasmtime::Module::deserialize(engine, code) }.map_err(|e| format!("{e:#}"))?;
    let map: Vec<(usize, Option<u32>)> = compiled.address_map().ok_or("the artefact has no address map")?.collect();
    let mut lines = Lines::new();
    let mut formatter = IntelFormatter::new();
    for i in &mut Decoder::with_ip(64, bytes, at, 0) {
        let n = map.partition_point(|(offset, _)| *offset as u64 <= i.ip() - text);
        let position = n.checked_sub(1).and_then(|n| map[n].1);
        let owner = position.and_then(|p| wasm.owners.range(..=p as usize).next_back()).map_or(0, |(_, o)| *o);
        let mut line = String::new();
        formatter.format(&i, &mut line);
        lines.entry(owner).or_default().push(format!("{:x}  {line}", i.ip() - text));
    }
    Ok(lines)
}

/// Three columns; the lines of one x86 instruction stand beside it.
fn side_by_side(f: &Function, wasm: &WasmLines, native: &Lines) -> String {
    let mut out = String::new();
    let mut row = |x86: &str, pc: u64| {
        let none = Vec::new();
        let (w, n) = (wasm.lines.get(&pc).unwrap_or(&none), native.get(&pc).unwrap_or(&none));
        for k in 0..w.len().max(n.len()).max(1) {
            let cell = |list: &Vec<String>| list.get(k).cloned().unwrap_or_default();
            let line = format!("{:40} {:42} {}", if k == 0 { x86 } else { "" }, cell(w), cell(n));
            let _ = writeln!(out, "{}", line.trim_end());
        }
    };
    row("x86 (the frame of the function)", 0);
    let mut formatter = IntelFormatter::new();
    let mut shown = std::collections::HashSet::new();
    for b in f.blocks.values() {
        for i in b.instructions.iter().filter(|i| shown.insert(i.ip())) {
            let mut text = String::new();
            formatter.format(i, &mut text);
            let label = if i.ip() == b.start { ":" } else { " " };
            row(&format!("{:#x}{label} {text}", i.ip()), i.ip() & 0xffff_ffff);
        }
    }
    out
}

fn address(bytes: &[u8], what: &str) -> Result<u64, String> {
    let file = object::File::parse(bytes).map_err(|e| e.to_string())?;
    if let Some(s) = file.symbols().chain(file.dynamic_symbols()).find(|s| s.name() == Ok(what) && s.address() != 0) {
        return Ok(s.address());
    }
    hexadecimal(what).ok_or_else(|| format!("no symbol {what}; give a hexadecimal address for a stripped file"))
}

fn sizes(engine: &wasmtime::Engine, found: &[Function], elf: &Elf, base: u64) -> Result<(), String> {
    let Some(wasm) = module::translate_some(found, elf, base, Extra::default(), |_| true) else { return Ok(()) };
    let code = engine.precompile_module(&wasm.bytes).map_err(|e| format!("the translation does not compile: {e:#}"))?;
    let mut total = [0; 3];
    for (n, f) in found.iter().enumerate() {
        let x86: u64 = f.blocks.values().map(|b| b.end - b.start).sum();
        let wasm = wasm.sizes[n];
        let native = native(&code, n)?.1.len() as u64;
        println!("{:#x} x86 {x86} wasm {wasm} native {native}", f.entry - base);
        for (t, v) in total.iter_mut().zip([x86, wasm, native]) {
            *t += v;
        }
    }
    println!(
        "total functions {} x86 {} wasm {} native {} artefact {}",
        found.len(),
        total[0],
        total[1],
        total[2],
        code.len()
    );
    Ok(())
}

/// Address in the artefact and bytes of the `n`th function's native code.
fn native(code: &[u8], n: usize) -> Result<(u64, &[u8]), String> {
    let file = object::File::parse(code).map_err(|e| e.to_string())?;
    let name = format!("wasm[0]::function[{}]", n + crate::lift::IMPORTS as usize);
    let s = file.symbols().find(|s| s.name() == Ok(&name)).ok_or("the artefact has no such function")?;
    let text = file.section_by_name(".text").ok_or("the artefact has no code")?;
    let data = text.data().map_err(|e| e.to_string())?;
    let at = (s.address() - text.address()) as usize;
    Ok((s.address(), &data[at..at + s.size() as usize]))
}
