//! Many programs at once: laid out, translated and compiled together, then run one by one on the host
//! CPU, in the interpreter and as translated code.

use crate::area::{self, SCRATCH, SCRATCH_LEN, TEXT};
use crate::dump;
use crate::host::{self, Host};
use crate::lifted::Lifted;
use crate::snapshot::Snapshot;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use vkernel_abi::state::CpuState;
use vkernel_abi::wasm::Trap;
use vkernel_semantics::decode::Cache;
use vkernel_semantics::interp::{Exit, Interp, Text};

/// What everything runs on; one user at a time.
pub struct Bench {
    host: Host,
    pub engine: wasmtime::Engine,
}

pub fn bench() -> MutexGuard<'static, Bench> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    host::prepare_thread();
    let make = || {
        area::region();
        Mutex::new(Bench { host: Host::new(), engine: crate::lifted::engine() })
    };
    // A failed test has left nothing behind that the next one does not write anew.
    BENCH.get_or_init(make).lock().unwrap_or_else(PoisonError::into_inner)
}

struct Table {
    /// Offset in the text of the 32-bit displacement of the LEA that loads the table's address.
    patch: usize,
    targets: Vec<u64>,
    /// Eight-byte addresses (labels as values); otherwise four-byte distances from the table.
    absolute: bool,
}

/// Programs under construction.
pub struct Layout {
    text: Vec<u8>,
    /// Addresses of the programs.
    entries: Vec<u64>,
    /// Address and size of every function.
    functions: Vec<(u64, u64)>,
    tables: Vec<Table>,
}

impl Layout {
    pub fn new() -> Self {
        let text = dump::code(TEXT);
        Self { entries: vec![TEXT], functions: vec![(TEXT, text.len() as u64)], text, tables: Vec::new() }
    }

    /// Where the next program will be.
    #[allow(clippy::should_implement_trait, reason = "the next free address, no iteration")]
    pub fn next(&mut self) -> u64 {
        self.text.resize(self.text.len().next_multiple_of(16), 0xcc);
        TEXT + self.text.len() as u64
    }

    /// Adds a function that others may enter; `code` was made for `next()`.
    pub fn add(&mut self, code: &[u8]) -> u64 {
        self.add_parts(code, &[])
    }

    /// Adds a function and those behind it that only it calls, which start at `inner`.
    pub fn add_parts(&mut self, code: &[u8], inner: &[u64]) -> u64 {
        let at = self.next();
        self.entries.push(at);
        let end = at + code.len() as u64;
        let starts = [&[at], inner, &[end]].concat();
        self.functions.extend(starts.windows(2).map(|w| (w[0], w[1] - w[0])));
        self.text.extend(code);
        at
    }

    /// Adds a jump table; `patch` is the address of the displacement of the LEA that loads its address.
    pub fn table(&mut self, patch: u64, targets: Vec<u64>, absolute: bool) {
        self.tables.push(Table { patch: (patch - TEXT) as usize, targets, absolute });
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

pub struct Batch<'a> {
    bench: &'a mut Bench,
    lifted: Lifted,
    cache: Cache,
}

struct Anywhere;
impl Text for Anywhere {
    fn executable(&self, _: u32) -> usize {
        15
    }
}

/// The signal Linux sends for an exit of the interpreter.
pub fn signal(exit: Exit) -> i32 {
    match exit {
        Exit::Trap(Trap::Divide | Trap::X87 | Trap::Simd) => libc::SIGFPE,
        Exit::Trap(Trap::Protection | Trap::Page) => libc::SIGSEGV,
        Exit::Trap(Trap::Invalid) => libc::SIGILL,
        Exit::Trap(_) => libc::SIGTRAP,
        Exit::Unknown(_) => UNKNOWN,
        _ => 0,
    }
}

/// In place of a signal: the interpreter has no semantics for the instruction.
pub const UNKNOWN: i32 = -1;

impl<'a> Batch<'a> {
    pub fn new(bench: &'a mut Bench, layout: Layout) -> Self {
        let Layout { mut text, entries, functions, tables } = layout;
        text.resize(text.len().next_multiple_of(4096), 0xcc);
        let mut data: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
        for Table { patch, targets, absolute } in tables {
            data.resize(data.len().next_multiple_of(8), 0xff);
            let table = TEXT + (text.len() + data.len()) as u64;
            let next = TEXT + patch as u64 + 4;
            text[patch..patch + 4].copy_from_slice(&(table.wrapping_sub(next) as u32).to_le_bytes());
            if absolute {
                data.extend(targets.iter().flat_map(|t| t.to_le_bytes()));
            } else {
                data.extend(targets.iter().flat_map(|t| (t.wrapping_sub(table) as u32).to_le_bytes()));
            }
            // What follows is no part of the table.
            data.extend(0x7fff_ffffu32.to_le_bytes());
        }
        data.resize(data.len().next_multiple_of(4096), 0);
        area::bytes(TEXT, text.len()).copy_from_slice(&text);
        area::bytes(TEXT + text.len() as u64, data.len()).copy_from_slice(&data);
        let lifted = Lifted::new(&bench.engine, &crate::elf::file(&text, &data, &functions));
        Self { bench, lifted, cache: Cache::new() }
    }

    fn prepare(memory: &[u8]) {
        area::bytes(SCRATCH, SCRATCH_LEN).copy_from_slice(memory);
    }

    pub fn native(&mut self, pc: u64, state: &CpuState, memory: &[u8]) -> Snapshot {
        Self::prepare(memory);
        self.bench.host.run(pc, state)
    }

    pub fn interpreted(&mut self, pc: u64, state: &CpuState, memory: &[u8]) -> Snapshot {
        Self::prepare(memory);
        let mut s = copy(state);
        s.rip = pc;
        let exit = loop {
            let exit = Interp::new(&mut s, area::region(), &Anywhere, &mut self.cache).run(|s| s.rip == area::EXIT);
            if exit != Exit::Poll || s.rip == area::EXIT {
                break exit;
            }
        };
        finish(&mut s, signal(exit))
    }

    /// The result, and whether the interpreter was asked for help on the way.
    pub fn lifted(&mut self, pc: u64, state: &CpuState, memory: &[u8]) -> (Snapshot, bool) {
        Self::prepare(memory);
        self.lifted.run(pc, state)
    }
}

/// The snapshot after a run that ended at EXIT (signal 0) or with a signal.
pub fn finish(s: &mut CpuState, signal: i32) -> Snapshot {
    if signal == 0 {
        dump::take(s);
    }
    Snapshot::of(s, area::bytes(SCRATCH, SCRATCH_LEN), signal)
}

pub fn copy(state: &CpuState) -> CpuState {
    // SAFETY: plain data.
    unsafe { std::ptr::read(state) }
}
