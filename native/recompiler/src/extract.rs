//! `extract`: what became of a function: its x86, wasm and native code; or sizes of all functions.
//! For people, not for the build: what is printed is translated anew, at the base the ELF alone would get.

use crate::discover::{Function, Program};
use crate::elf::Elf;
use crate::{module, place};
use iced_x86::{Decoder, Formatter, IntelFormatter};
use object::{Object, ObjectSymbol};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// `what`: a symbol's name or an address as in the file (hexadecimal); none: a line for every function.
pub fn extract(path: &str, what: Option<&str>) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let elf = Elf::parse(&bytes).map_err(|e| format!("{path}: {e}"))?;
    let base = place::Placer::default().place(&elf, &Sha256::digest(&bytes).into())?;
    let found = Program::new(&elf, base).functions();
    let engine = wasmtime::Engine::new(&vkernel_engine::config()).map_err(|e| format!("engine: {e:#}"))?;
    let Some(what) = what else { return sizes(&engine, &found, &elf, base) };
    let at = address(&bytes, what)? + base;
    let n = found.iter().position(|f| f.blocks.values().any(|b| at >= b.start && at < b.end));
    let n = n.ok_or_else(|| {
        format!("{path}: no translated function has {what}; without a name, extract lists what there is")
    })?;
    let f = &found[n];
    println!("-- x86 of the function at {:#x} (in the file {:#x})", f.entry, f.entry - base);
    print!("{}", x86(f));
    let wasm = module::translate_some(&found, &elf, base, |pc| pc == f.entry).expect("there is a function");
    println!("-- wasm");
    println!("{}", wat(&wasm.bytes, n)?);
    println!("-- native");
    let code = engine.precompile_module(&wasm.bytes).map_err(|e| format!("the translation does not compile: {e:#}"))?;
    let (start, native) = native(&code, n)?;
    print!("{}", disassemble(native, start));
    Ok(())
}

fn address(bytes: &[u8], what: &str) -> Result<u64, String> {
    let file = object::File::parse(bytes).map_err(|e| e.to_string())?;
    if let Some(s) = file.symbols().chain(file.dynamic_symbols()).find(|s| s.name() == Ok(what) && s.address() != 0) {
        return Ok(s.address());
    }
    u64::from_str_radix(what.trim_start_matches("0x"), 16)
        .map_err(|_| format!("no symbol {what}; give a hexadecimal address for a stripped file"))
}

fn sizes(engine: &wasmtime::Engine, found: &[Function], elf: &Elf, base: u64) -> Result<(), String> {
    let Some(wasm) = module::translate_some(found, elf, base, |_| true) else { return Ok(()) };
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

fn x86(f: &Function) -> String {
    let mut out = String::new();
    let mut formatter = IntelFormatter::new();
    for b in f.blocks.values() {
        let _ = writeln!(out, "{:#x}:", b.start);
        for i in &b.instructions {
            let mut line = String::new();
            formatter.format(i, &mut line);
            let _ = writeln!(out, "  {:#x}  {line}", i.ip());
        }
    }
    out
}

/// Text of the `n`th function.
fn wat(bytes: &[u8], n: usize) -> Result<String, String> {
    let text = wasmprinter::print_bytes(bytes).map_err(|e| e.to_string())?;
    let start = format!("  (func (;{};)", n + crate::lift::IMPORTS as usize);
    let lines = text.lines().skip_while(|l| !l.starts_with(&start));
    let mut out: Vec<&str> = lines.clone().take(1).collect();
    out.extend(lines.skip(1).take_while(|l| !l.starts_with("  (func")));
    Ok(out.join("\n"))
}

/// Address in the artefact and bytes of the `n`th function's native code.
fn native(code: &[u8], n: usize) -> Result<(u64, &[u8]), String> {
    let file = object::File::parse(code).map_err(|e| e.to_string())?;
    let name = format!("wasm[0]::function[{}]", n + crate::lift::IMPORTS as usize);
    let s = file.symbols().find(|s| s.name() == Ok(&name)).ok_or("the artefact has no such function")?;
    use object::ObjectSection;
    let text = file.section_by_name(".text").ok_or("the artefact has no code")?;
    let data = text.data().map_err(|e| e.to_string())?;
    let at = (s.address() - text.address()) as usize;
    Ok((s.address(), &data[at..at + s.size() as usize]))
}

fn disassemble(bytes: &[u8], at: u64) -> String {
    let mut out = String::new();
    let mut formatter = IntelFormatter::new();
    for i in &mut Decoder::with_ip(64, bytes, at, 0) {
        let mut line = String::new();
        formatter.format(&i, &mut line);
        let _ = writeln!(out, "  {:#x}  {line}", i.ip());
    }
    out
}
