//! Translated programs in a wasmtime store, with the loader's imports in small (vkernel_abi::wasm has
//! the contract; native/loader/src/cpu.rs is the real one).

use crate::area::{self, EXIT};
use crate::batch::{finish, signal};
use crate::snapshot::Snapshot;
use std::sync::Arc;
use std::sync::OnceLock;
use vkernel_abi::state::{CpuState, RAX, RDI, RDX, RSI, RSP};
use vkernel_abi::wasm::{MAP_BLOCK, MAP_PAGES, REGION_PAGES, STATE_PAGES, TABLE_SLOTS, map_payload, map_word};
use vkernel_recompiler::{elf::Elf, module};
use vkernel_semantics::decode::Cache;
use vkernel_semantics::host_ops;
use vkernel_semantics::interp::{Exit, Interp, Text, div128};
use wasmtime::{
    AsContextMut, Caller, Engine, Extern, Func, Global, GlobalType, Instance, LinearMemory, MemoryCreator, MemoryType,
    Module, Mutability, Ref, RefType, Store, StoreContextMut, Table, TableType, TypedFunc, Val, ValType,
};

type GuestFn = TypedFunc<(i64, i64, i64, i64), (i32, i64, i64, i64)>;
const SLOT_BASE: u32 = 1;

struct Memory(usize, usize);
// SAFETY: the mappings are never unmapped and have guards behind them.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.1
    }
    fn byte_capacity(&self) -> usize {
        self.1
    }
    fn grow_to(&mut self, _: usize) -> wasmtime::Result<()> {
        Err(wasmtime::format_err!("the memories have a fixed size"))
    }
    fn as_ptr(&self) -> *mut u8 {
        self.0 as *mut u8
    }
}

fn reserve(cell: &'static OnceLock<usize>, len: usize) -> usize {
    *cell.get_or_init(|| area::map(0, len, libc::PROT_READ | libc::PROT_WRITE) as usize)
}

/// The state page.
fn state_page() -> *mut CpuState {
    static STATE: OnceLock<usize> = OnceLock::new();
    reserve(&STATE, 2 << 20) as *mut CpuState
}

/// The dispatch map.
fn map_base() -> *mut u32 {
    static MAP: OnceLock<usize> = OnceLock::new();
    reserve(&MAP, (4 << 30) + (2 << 20)) as *mut u32
}

struct Creator;
// SAFETY: hands out mappings with the reservation and guard of the configuration.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        ty: MemoryType,
        min: usize,
        _: Option<usize>,
        _: Option<usize>,
        _: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let base = match ty.minimum() {
            REGION_PAGES => area::region() as usize,
            STATE_PAGES => state_page() as usize,
            MAP_PAGES => map_base() as usize,
            n => return Err(format!("no memory has {n} pages")),
        };
        Ok(Box::new(Memory(base, min)))
    }
}

pub fn engine() -> Engine {
    let mut config = vkernel_engine::config();
    config.with_host_memory(Arc::new(Creator));
    Engine::new(&config).expect("the loader's configuration")
}

struct Anywhere;
impl Text for Anywhere {
    fn executable(&self, _: u32) -> usize {
        15
    }
}

struct Thread {
    /// By slot; slot 0 is not called by us.
    functions: Vec<GuestFn>,
    cache: Cache,
    /// Set by a trap of the guest; the frames are being dropped.
    signal: i32,
    /// The interpreter has run something of the program.
    helped: bool,
}

/// A guest trap: leaves all frames.
fn trapped() -> wasmtime::Error {
    wasmtime::format_err!("guest signal")
}

pub struct Lifted {
    store: Store<Thread>,
}

fn state() -> &'static mut CpuState {
    // SAFETY: the page lives for good; the bench's lock lets one thread at it, and the borrows are short.
    unsafe { &mut *state_page() }
}

const HOST_MXCSR: u32 = 0x1f80;

fn load_mxcsr(v: u32) {
    // SAFETY: no reserved bit is set.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &v, options(nostack, readonly)) };
}

fn to_guest() {
    load_mxcsr(state().mxcsr & 0xffff | HOST_MXCSR);
}

fn from_guest() {
    let mut v = 0u32;
    // SAFETY: writes the local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack)) };
    state().mxcsr |= v & 0x3f;
    load_mxcsr(HOST_MXCSR);
}

fn from_code<R>(
    mut c: Caller<'_, Thread>,
    f: impl FnOnce(&mut StoreContextMut<Thread>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    from_guest();
    let r = f(&mut c.as_context_mut());
    to_guest();
    r
}

fn entry_at(pc: u32) -> Option<u32> {
    // SAFETY: the map covers 4 GiB.
    let word = unsafe { map_base().cast::<u8>().add((pc & !3) as usize).cast::<u32>().read() };
    let slot = map_payload(pc, word);
    (slot != 0 && u64::from(slot) < TABLE_SLOTS).then_some(slot)
}

fn interpret(t: &mut Thread, f: impl FnOnce(&mut Interp<Anywhere>) -> Exit) -> wasmtime::Result<()> {
    t.helped = true;
    let exit = f(&mut Interp::new(state(), area::region(), &Anywhere, &mut t.cache));
    t.signal = signal(exit);
    if t.signal == 0 { Ok(()) } else { Err(trapped()) }
}

/// Runs until the guest is at EXIT, or has returned to `until` (pc, rsp).
fn run(ctx: &mut StoreContextMut<Thread>, until: Option<(u32, u64)>) -> wasmtime::Result<i32> {
    let s = state();
    loop {
        let pc = s.rip as u32;
        if u64::from(pc) == EXIT || until.is_some_and(|(rip, rsp)| pc == rip && s.gpr[RSP] == rsp || s.gpr[RSP] > rsp) {
            return Ok(pc as i32);
        }
        let Some(slot) = entry_at(pc) else {
            interpret(ctx.data_mut(), |i| {
                i.run(|s| {
                    s.rip == EXIT
                        || entry_at(s.rip as u32).is_some()
                        || until.is_some_and(|(rip, _)| s.rip as u32 == rip)
                })
            })?;
            continue;
        };
        let f = ctx.data().functions[slot as usize].clone();
        let args = (s.gpr[RSP] as i64, s.gpr[RDI] as i64, s.gpr[RSI] as i64, s.gpr[RDX] as i64);
        to_guest();
        let result = f.call(&mut *ctx, args);
        from_guest();
        let (next, rax, rsp, rdx) = result?;
        s.rip = u64::from(next as u32);
        (s.gpr[RAX], s.gpr[RSP], s.gpr[RDX]) = (rax as u64, rsp as u64, rdx as u64);
        if next as u32 == pc {
            // It left at its first instruction, for the interpreter.
            interpret(ctx.data_mut(), |i| i.one())?;
        }
    }
}

/// Slot 0: what is not translated, and EXIT.
fn enter(ctx: &mut StoreContextMut<Thread>, [rsp, rdi, rsi, rdx]: [i64; 4]) -> wasmtime::Result<(i32, i64, i64, i64)> {
    let s = state();
    (s.gpr[RSP], s.gpr[RDI], s.gpr[RSI], s.gpr[RDX]) = (rsp as u64, rdi as u64, rsi as u64, rdx as u64);
    if s.rip != EXIT {
        let mut site = [0; 8];
        // SAFETY: the guest's stack is in the region.
        unsafe { std::ptr::copy_nonoverlapping(area::region().add(rsp as u32 as usize), site.as_mut_ptr(), 8) };
        run(ctx, Some((u64::from_le_bytes(site) as u32, rsp as u64 + 8)))?;
    }
    Ok((s.rip as i32, s.gpr[RAX] as i64, s.gpr[RSP] as i64, s.gpr[RDX] as i64))
}

impl Lifted {
    pub fn new(engine: &Engine, file: &[u8]) -> Self {
        let elf = Elf::parse(file).expect("an ELF of our own");
        let wasm = module::translate(&elf, 0, &module::Options::default()).expect("it has code");
        let text = elf.text();
        // SAFETY: within the map.
        let map = unsafe { std::slice::from_raw_parts_mut(map_base().add(text.0 as usize / 4), area::TEXT_LEN / 4) };
        map.fill(0);
        for (off, payload) in wasm.map {
            let payload = if payload & MAP_BLOCK != 0 { payload } else { payload - 1 + SLOT_BASE };
            map[off as usize / 4] = map_word(off, payload);
        }
        let module = Module::new(engine, &wasm.bytes).unwrap_or_else(|e| panic!("the translation is no module: {e:#}"));
        let mut store =
            Store::new(engine, Thread { functions: Vec::new(), cache: Cache::new(), signal: 0, helped: false });
        let ty = TableType::new(RefType::FUNCREF, TABLE_SLOTS as u32, Some(TABLE_SLOTS as u32));
        let table = Table::new(&mut store, ty, Ref::Func(None)).expect("a table");
        let enter = Func::wrap(&mut store, |c: Caller<'_, Thread>, a: i64, b: i64, d: i64, e: i64| {
            from_code(c, |ctx| enter(ctx, [a, b, d, e]))
        });
        table.set(&mut store, 0, Ref::Func(Some(enter))).expect("slot 0");
        let base =
            Global::new(&mut store, GlobalType::new(ValType::I32, Mutability::Const), Val::I32(SLOT_BASE as i32))
                .expect("a global");
        let imports = imports(&mut store, table, base);
        Instance::new(&mut store, &module, &imports).unwrap_or_else(|e| panic!("no instance: {e:#}"));
        let functions: Vec<GuestFn> = (0..=wasm.functions)
            .map(|slot| match table.get(&mut store, u64::from(slot)) {
                Some(Ref::Func(Some(f))) => f.typed(&store).expect("the type of every guest function"),
                _ => panic!("slot {slot} is empty"),
            })
            .collect();
        store.data_mut().functions = functions;
        Self { store }
    }

    /// Runs the program at `pc`; true: with the interpreter's help.
    pub fn run(&mut self, pc: u64, from: &CpuState) -> (Snapshot, bool) {
        let s = state();
        // SAFETY: plain data; the page is ours.
        unsafe { std::ptr::copy_nonoverlapping(from, s, 1) };
        s.rip = pc;
        let t = self.store.data_mut();
        (t.signal, t.helped) = (0, false);
        let result = run(&mut self.store.as_context_mut(), None);
        let t = self.store.data_mut();
        if let Err(e) = result
            && t.signal == 0
        {
            match e.downcast_ref::<wasmtime::Trap>() {
                Some(wasmtime::Trap::MemoryOutOfBounds) => t.signal = libc::SIGSEGV,
                _ => panic!("the engine trapped: {e:#}"),
            }
        }
        (finish(s, t.signal), t.helped)
    }
}

/// In the order of vkernel_abi::wasm.
fn imports(store: &mut Store<Thread>, table: Table, base: Global) -> Vec<Extern> {
    let system_call =
        Func::wrap(&mut *store, |_: i32| -> wasmtime::Result<i32> { Err(wasmtime::format_err!("a system call")) });
    let poll = Func::wrap(&mut *store, |pc: i32| pc);
    let step = Func::wrap(&mut *store, |c: Caller<'_, Thread>, pc: i32| {
        state().rip = u64::from(pc as u32);
        from_code(c, |ctx| interpret(ctx.data_mut(), |i| i.one()).map(|()| state().rip as i32))
    });
    let div = Func::wrap(&mut *store, |_: i32, signed: i32, divisor: i64| {
        let g = &mut state().gpr;
        let Some((q, r)) = div128(signed != 0, g[RDX], g[RAX], divisor as u64) else { return 1 };
        (g[RAX], g[RDX]) = (q, r);
        0
    });
    let x87 = Func::wrap(&mut *store, |form: i32, operand: i64| {
        vkernel_semantics::x87_values::run(state(), form as u32, operand as u64) as i64
    });
    let host = Func::wrap(&mut *store, |form: i32, a: i64, b: i64| {
        host_ops::import(state(), area::region(), form as u32, a as u64, b as u64) as i64
    });
    let functions = [system_call, poll, step, div, x87, host];
    [table.into(), base.into()].into_iter().chain(functions.map(Extern::from)).collect()
}
