//! A guest thread: its CPU state, its wasm store, and the dispatcher that moves between translated
//! code and the interpreter.
//!
//! Invariant: no guest state lives in wasm frames across a host call, so any frame may be dropped at
//! any time; `rip` in the state says where the guest is. That is how longjmp, signal return, execve
//! and traps work here.

use crate::captured::{self, Captured};
use crate::errno::{ERESTARTNOINTR, from_raw, to_raw};
use crate::image::Image;
use crate::mxcsr::{from_guest, to_guest};
use crate::signal::{self, Delivered};
use crate::syscall::Outcome;
use crate::{guest, profile, syscall, trace};
use vkernel_abi::profile::{HOW_CALLED, HOW_RETURNED, HOW_STARTED, HOW_STEP};
use vkernel_abi::state::{CpuState, RAX, RCX, RDI, RDX, RSI, RSP};
use vkernel_abi::wasm::{TABLE_SLOTS, Trap};
use vkernel_semantics::decode::Cache;
use vkernel_semantics::host_ops;
use vkernel_semantics::interp::{Exit, Interp, Text, div128};
use vkernel_semantics::x87_values;
use wasmtime::{
    AsContextMut, Caller, Extern, Func, Global, GlobalType, Instance, Mutability, Ref, RefType, Store, StoreContextMut,
    Table, TableType, TypedFunc, Val, ValType,
};

type GuestFn = TypedFunc<(i64, i64, i64, i64), (i32, i64, i64, i64)>;

/// Why translated code and everything around it is being left.
#[derive(Debug)]
pub enum Leave {
    /// execve has replaced the program: start again at `rip` in a new store.
    Exec,
    /// The thread has ended.
    Exit,
    /// A signal or fault has sent the guest elsewhere: the translated frames down to the last
    /// dispatcher are dropped, which goes on at `rip`.
    Elsewhere,
}

impl std::fmt::Display for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
impl std::error::Error for Leave {}

/// The store's data. Field order: what signals touch, what calls touch, what the engine touches.
pub struct Thread {
    state: *mut CpuState,
    pub captured: Box<Captured>,
    /// The guest's signal mask.
    pub sigmask: u64,
    /// The mask to restore after a handler that ran under a temporary one (sigsuspend, ppoll, …).
    pub saved_mask: Option<u64>,
    pub altstack: libc::stack_t,
    /// (trap number, address) of the last fault, for signal frames.
    pub fault: (u64, u64),
    pub clear_child_tid: u64,
    pub robust_list: u64,
    pub tid: i32,
    pub slot: Option<u32>,
    /// Its entry among the container's threads (ring.rs).
    pub entry: crate::ring::ThreadEntry,
    pub patience: crate::ring::Patience,
    cache: Cache,
    text_generation: u64,
    depth: u32,
    table: Option<Table>,
    imports: Vec<Extern>,
    /// ELFs instantiated in this store.
    instantiated: Vec<bool>,
}

// SAFETY: a Thread is used by one host thread at a time; its pointers are that thread's own.
unsafe impl Send for Thread {}

struct GuestText;
impl Text for GuestText {
    fn executable(&self, pc: u32) -> usize {
        crate::process::mm().executable(u64::from(pc))
    }
}

impl Thread {
    /// A thread whose state page is `state`; attaches the host thread's signal record.
    pub fn new(state: *mut CpuState) -> Self {
        let captured = Captured::new(state);
        Self {
            state,
            captured,
            sigmask: 0,
            saved_mask: None,
            altstack: signal::NO_ALTSTACK,
            fault: (0, 0),
            clear_child_tid: 0,
            robust_list: 0,
            tid: 0,
            slot: None,
            entry: crate::ring::ThreadEntry::Unclaimed,
            patience: crate::ring::Patience::new(),
            cache: Cache::new(),
            text_generation: 0,
            depth: 0,
            table: None,
            imports: Vec::new(),
            instantiated: Vec::new(),
        }
    }

    pub fn state(&self) -> &'static mut CpuState {
        // SAFETY: the page lives as long as the host thread, and only this thread (and translated
        // code it runs) touches it; no two of these borrows are held across each other's writes.
        unsafe { &mut *self.state }
    }

    pub fn poll(&self) -> *const u32 {
        self.captured.poll
    }

    /// Guest registers of a system call.
    pub fn args(&self) -> [u64; 6] {
        let g = &self.state().gpr;
        [g[RDI], g[RSI], g[RDX], g[10], g[8], g[9]]
    }
}

/// Runs the guest thread until it ends; execve starts over in a new store.
pub fn run_thread(image: &'static Image, mut thread: Thread) {
    let here = 0u64;
    loop {
        captured::attach(&raw mut *thread.captured);
        profile::thread(thread.state, &raw const here as usize);
        let engine = crate::process::engine();
        let mut store = Store::new(&image.engine, thread);
        let prepared = prepare(image, &mut store);
        drop(engine);
        let left = prepared.and_then(|()| run(&mut store.as_context_mut(), None));
        match left.map_err(|e| e.downcast::<Leave>()) {
            Err(Ok(Leave::Exec | Leave::Elsewhere)) => {}
            Err(Ok(Leave::Exit)) | Ok(_) => {
                captured::attach(std::ptr::null_mut());
                let _engine = crate::process::engine();
                drop(store);
                return;
            }
            Err(Err(e)) => {
                trace::bug(&format!("engine: {e:#}"));
                signal::die(libc::SIGKILL);
            }
        }
        let _engine = crate::process::engine();
        thread = store.into_data();
        thread.cache.clear();
        thread.table = None;
        thread.imports.clear();
        thread.instantiated.clear();
    }
}

/// Runs host code that translated code has called.
fn from_code<R>(c: &mut Caller<'_, Thread>, f: impl FnOnce(&mut StoreContextMut<Thread>) -> R) -> R {
    from_guest(c.data().state());
    let r = f(&mut c.as_context_mut());
    to_guest(c.data().state());
    r
}

/// Creates what every instance of the store imports.
fn prepare(image: &'static Image, store: &mut Store<Thread>) -> wasmtime::Result<()> {
    store.data_mut().instantiated = vec![false; image.elfs.len()];
    if image.elfs.is_empty() {
        return Ok(());
    }
    let slots = TABLE_SLOTS as u32;
    let ty = TableType::new(RefType::FUNCREF, slots, Some(slots));
    let table = Table::new(&mut *store, ty, Ref::Func(None))?;
    let enter = Func::wrap(&mut *store, |mut c: Caller<'_, Thread>, rsp: i64, rdi: i64, rsi: i64, rdx: i64| {
        from_code(&mut c, |ctx| enter(ctx, [rsp, rdi, rsi, rdx]))
    });
    table.set(&mut *store, 0, Ref::Func(Some(enter)))?;
    let imports = vec![
        Extern::from(table),
        Func::wrap(&mut *store, |mut c: Caller<'_, Thread>, next: i32| {
            let s = c.data().state();
            s.rip = u64::from(next as u32);
            let done = crate::direct::at_once(c.data(), s.gpr[RAX]);
            if let Some((value, _)) = done
                && s.poll == 0
            {
                s.gpr[RAX] = value as u64;
                s.gpr[RCX] = u64::from(next as u32);
                return Ok(next);
            }
            let done = done.map(|(v, restartable)| Outcome { value: from_raw(v), restartable, restores_state: false });
            from_code(&mut c, |ctx| on_syscall(ctx, next as u32, done)).and_then(|pc| back_at(pc, next))
        })
        .into(),
        Func::wrap(&mut *store, |mut c: Caller<'_, Thread>, pc: i32| {
            c.data().state().rip = u64::from(pc as u32);
            from_code(&mut c, |ctx| safe_point(ctx, pc as u32)).and_then(|to| back_at(to, pc))
        })
        .into(),
        Func::wrap(&mut *store, |mut c: Caller<'_, Thread>, pc: i32| {
            c.data().state().rip = u64::from(pc as u32);
            from_code(&mut c, |ctx| {
                let exit = interpreter(ctx.data_mut(), HOW_STEP, |i| i.one());
                if exit != Exit::Stop {
                    raise(ctx.data_mut(), exit);
                    return Err(Leave::Elsewhere.into());
                }
                Ok(ctx.data().state().rip as i32)
            })
        })
        .into(),
        Func::wrap(&mut *store, |c: Caller<'_, Thread>, _pc: i32, signed: i32, divisor: i64| {
            let g = &mut c.data().state().gpr;
            match div128(signed != 0, g[RDX], g[RAX], divisor as u64) {
                Some((q, r)) => {
                    g[RAX] = q;
                    g[RDX] = r;
                    0
                }
                None => 1,
            }
        })
        .into(),
        Func::wrap(&mut *store, |c: Caller<'_, Thread>, form: i32, operand: i64| {
            x87_values::run(c.data().state(), form as u32, operand as u64) as i64
        })
        .into(),
        Func::wrap(&mut *store, |c: Caller<'_, Thread>, form: i32, a: i64, b: i64| {
            host_ops::import(c.data().state(), guest::base(), form as u32, a as u64, b as u64) as i64
        })
        .into(),
    ];
    store.data_mut().table = Some(table);
    store.data_mut().imports = imports;
    Ok(())
}

/// Translated code goes on only where it expects to.
fn back_at(pc: i32, expected: i32) -> wasmtime::Result<i32> {
    if pc == expected { Ok(pc) } else { Err(Leave::Elsewhere.into()) }
}

/// Instantiates what has been mapped since the last look, and drops stale decoded instructions.
fn follow_text(ctx: &mut StoreContextMut<Thread>) -> wasmtime::Result<()> {
    let image = crate::image::get();
    let generation = crate::process::text_generation();
    if ctx.data().text_generation == generation {
        return Ok(());
    }
    ctx.data_mut().text_generation = generation;
    let mapped = crate::process::elfs().clone();
    ctx.data_mut().cache.clear();
    let _engine = crate::process::engine();
    for elf in mapped {
        if ctx.data().instantiated[elf as usize] {
            continue;
        }
        ctx.data_mut().instantiated[elf as usize] = true;
        let e = &image.elfs[elf as usize];
        let Some(module) = &e.module else { continue };
        let ty = GlobalType::new(ValType::I32, Mutability::Const);
        let slot_base = Global::new(&mut *ctx, ty, Val::I32(e.entry.slot_base as i32))?;
        crate::image::set_state_page(ctx.data().state.cast());
        // Import order is fixed by the recompiler's emitter: table, slot_base, then the functions.
        let mut imports = ctx.data().imports.clone();
        imports.insert(1, slot_base.into());
        Instance::new(&mut *ctx, module, &imports)?;
    }
    Ok(())
}

fn interpreter<R>(t: &mut Thread, how: u64, f: impl FnOnce(&mut Interp<GuestText>) -> R) -> R {
    let (state, pc) = (t.state(), t.state().rip as u32);
    let mut i = Interp::new(state, guest::base(), &GuestText, &mut t.cache);
    t.captured.interpreting = true;
    let r = f(&mut i);
    t.captured.interpreting = false;
    profile::interpreted(how, pc, i.executed);
    r
}

/// Table slot of the translated function at `pc`.
fn entry_at(pc: u32) -> Option<u32> {
    let slot = crate::image::map_payload(pc);
    (slot != 0 && u64::from(slot) < TABLE_SLOTS).then_some(slot)
}

/// Runs until the guest is at `until` (pc, rsp), or has left that frame behind; returns the PC.
pub fn run(ctx: &mut StoreContextMut<Thread>, until: Option<(u32, u64)>) -> wasmtime::Result<i32> {
    run_from(ctx, until, HOW_STARTED)
}

/// The same; `how` the guest came here, for profiles.
fn run_from(ctx: &mut StoreContextMut<Thread>, until: Option<(u32, u64)>, mut how: u64) -> wasmtime::Result<i32> {
    let state = ctx.data().state();
    // Left at its first instruction: the interpreter has to run it, or entering would never end.
    let mut refused = None;
    loop {
        // Also where a handler has returned: what waited for that comes before the interrupted code goes on.
        if state.poll != 0 {
            at_safe_point(ctx)?;
        }
        let pc = state.rip as u32;
        if let Some((rip, rsp)) = until {
            let here = state.gpr[RSP];
            if pc == rip && here == rsp || here > rsp && !signal::on_altstack(ctx.data(), here) {
                return Ok(pc as i32);
            }
        }
        follow_text(ctx)?;
        if refused.take() != Some(pc)
            && let Some(slot) = entry_at(pc)
            && let Some(f) = function(ctx, slot)?
        {
            let g = &state.gpr;
            let args = (g[RSP] as i64, g[RDI] as i64, g[RSI] as i64, g[RDX] as i64);
            to_guest(state);
            let result = f.call(&mut *ctx, args);
            from_guest(state);
            match result {
                Ok((next, rax, rsp, rdx)) => {
                    how = HOW_RETURNED;
                    refused = (next as u32 == pc).then_some(pc);
                    state.rip = u64::from(next as u32);
                    state.gpr[RAX] = rax as u64;
                    state.gpr[RSP] = rsp as u64;
                    state.gpr[RDX] = rdx as u64;
                }
                Err(e) if matches!(e.downcast_ref(), Some(Leave::Elsewhere)) => how = HOW_STARTED,
                Err(e) => engine_trap(ctx, e)?,
            }
            continue;
        }
        let exit = interpreter(ctx.data_mut(), how, |i| i.run(|s| entry_at(s.rip as u32).is_some() || stops(s, until)));
        match exit {
            Exit::Stop | Exit::Poll => {}
            Exit::Syscall => {
                on_syscall_here(ctx)?;
            }
            exit => raise(ctx.data_mut(), exit),
        }
    }
}

fn stops(s: &CpuState, until: Option<(u32, u64)>) -> bool {
    until.is_some_and(|(rip, rsp)| s.rip as u32 == rip || s.gpr[RSP] > rsp)
}

fn function(ctx: &mut StoreContextMut<Thread>, slot: u32) -> wasmtime::Result<Option<GuestFn>> {
    let table = ctx.data().table.expect("an image with ELFs has a table");
    let _engine = crate::process::engine();
    match table.get(&mut *ctx, u64::from(slot)) {
        Some(Ref::Func(Some(f))) => Ok(Some(f.typed(&*ctx)?)),
        _ => Ok(None),
    }
}

/// A call from translated code to what is not translated: runs it and returns what it returns.
fn enter(ctx: &mut StoreContextMut<Thread>, [rsp, rdi, rsi, rdx]: [i64; 4]) -> wasmtime::Result<(i32, i64, i64, i64)> {
    let s = ctx.data().state();
    s.gpr[RSP] = rsp as u64;
    s.gpr[RDI] = rdi as u64;
    s.gpr[RSI] = rsi as u64;
    s.gpr[RDX] = rdx as u64;
    let site = guest::read::<u64>(rsp as u64 & 0xffff_ffff).unwrap_or(0);
    let pc = run_from(ctx, Some((site as u32, rsp as u64 + 8)), HOW_CALLED)?;
    Ok((pc, s.gpr[RAX] as i64, s.gpr[RSP] as i64, s.gpr[RDX] as i64))
}

/// A trap of the engine inside translated code: all its frames are gone. The state holds what had
/// been stored; `rip` may be behind (docs/quirks.md).
fn engine_trap(ctx: &mut StoreContextMut<Thread>, e: wasmtime::Error) -> wasmtime::Result<()> {
    use wasmtime::Trap as T;
    let Some(trap) = e.downcast_ref::<T>().copied() else {
        return Err(e);
    };
    let t = ctx.data_mut();
    match trap {
        T::MemoryOutOfBounds => {
            let addr = (captured::fault_addr() as u64).wrapping_sub(guest::base() as u64);
            t.state().fault_addr = addr & 0xffff_ffff;
            trace::engine_trap(&e);
            raise(t, Exit::Trap(Trap::Page));
        }
        T::StackOverflow => signal::force(t, libc::SIGSEGV, SEGV_MAPERR, t.state().gpr[RSP], 14),
        // A function of an ELF that another thread has mapped: `follow_text` instantiates it; the
        // caller has stored everything, `rip` included.
        T::IndirectCallToNull => t.text_generation = 0,
        _ => {
            trace::bug(&format!("{trap:?} in translated code near {:#x}: {e:?}", t.state().rip));
            signal::force(t, libc::SIGILL, ILL_ILLOPN, t.state().rip, 6);
        }
    }
    Ok(())
}

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const ILL_ILLOPN: i32 = 2;
const FPE_INTDIV: i32 = 1;
const FPE_FLTINV: i32 = 7;
const TRAP_BRKPT: i32 = 1;
const SI_KERNEL: i32 = 0x80;

/// Turns an exit of the interpreter into the guest's signal; leaves the state at its handler.
fn raise(t: &mut Thread, exit: Exit) {
    let rip = t.state().rip;
    let (signal, code, addr, trapno) = match exit {
        Exit::Trap(Trap::Divide) => (libc::SIGFPE, FPE_INTDIV, rip, 0),
        Exit::Trap(Trap::X87) => (libc::SIGFPE, FPE_FLTINV, rip, 16),
        Exit::Trap(Trap::Simd) => (libc::SIGFPE, FPE_FLTINV, rip, 19),
        Exit::Trap(Trap::Debug) => (libc::SIGTRAP, TRAP_BRKPT, rip, 1),
        Exit::Trap(Trap::Breakpoint) => {
            t.state().rip += 1;
            (libc::SIGTRAP, SI_KERNEL, 0, 3)
        }
        Exit::Trap(Trap::Page) => {
            let addr = t.state().fault_addr;
            if t.captured.fault_signal == libc::SIGBUS {
                return signal::force(t, libc::SIGBUS, libc::BUS_ADRERR, addr, 14);
            }
            let code = if crate::process::mm().find(addr).is_some() { SEGV_ACCERR } else { SEGV_MAPERR };
            (libc::SIGSEGV, code, addr, 14)
        }
        Exit::Trap(Trap::Protection) => (libc::SIGSEGV, SI_KERNEL, 0, 13),
        Exit::Trap(Trap::Invalid) => (libc::SIGILL, ILL_ILLOPN, rip, 6),
        Exit::Unknown(m) => {
            let text = format!("unknown instruction {m:?} at {rip:#x}");
            trace::line(&text);
            crate::mediated::report(t, &text);
            (libc::SIGILL, ILL_ILLOPN, rip, 6)
        }
        Exit::Stop | Exit::Poll | Exit::Syscall => return,
    };
    signal::force(t, signal, code, addr, trapno);
}

/// The poll import: delivers what is pending; signal handlers run nested, on top of the caller.
fn safe_point(ctx: &mut StoreContextMut<Thread>, pc: u32) -> wasmtime::Result<i32> {
    let rsp = ctx.data().state().gpr[RSP];
    leave_if_asked(ctx.data_mut())?;
    match signal::deliver(ctx.data_mut()) {
        Delivered::Handler => nested(ctx, pc, rsp),
        _ => Ok(pc as i32),
    }
}

/// Handlers nested deeper than this drop the frames below them instead of returning into them.
const MAX_DEPTH: u32 = 32;

fn nested(ctx: &mut StoreContextMut<Thread>, pc: u32, rsp: u64) -> wasmtime::Result<i32> {
    if ctx.data().depth >= MAX_DEPTH {
        return Ok(ctx.data().state().rip as i32);
    }
    ctx.data_mut().depth += 1;
    let r = run(ctx, Some((pc, rsp)));
    ctx.data_mut().depth -= 1;
    r
}

/// A safe point of the dispatcher, where no frame is below: the handler simply comes next.
fn at_safe_point(ctx: &mut StoreContextMut<Thread>) -> wasmtime::Result<()> {
    leave_if_asked(ctx.data_mut())?;
    signal::deliver(ctx.data_mut());
    Ok(())
}

fn leave_if_asked(t: &mut Thread) -> wasmtime::Result<()> {
    if t.captured.leave {
        crate::thread::ended(t);
        return Err(Leave::Exit.into());
    }
    Ok(())
}

/// SYSCALL in the interpreter at the top of the dispatcher.
fn on_syscall_here(ctx: &mut StoreContextMut<Thread>) -> wasmtime::Result<()> {
    let s = ctx.data().state();
    let nr = s.gpr[RAX];
    let r = syscall::dispatch(ctx.data_mut(), nr)?;
    let t = ctx.data_mut();
    if r.restores_state {
        return Ok(());
    }
    s.gpr[RAX] = to_raw(r.value) as u64;
    finish(t, nr, r.restartable);
    leave_if_asked(t)
}

/// After a call: a signal that interrupted it is delivered, with the call restarted behind the
/// handler when SA_RESTART says so (signal(7)). True: the state is at a handler.
fn finish(t: &mut Thread, nr: u64, restartable: bool) -> bool {
    let s = t.state();
    let signal = t.captured.next(t.sigmask);
    let interrupted = restartable && s.gpr[RAX] as i64 == -i64::from(libc::EINTR);
    // Not made, or interrupted by what the guest blocks.
    let unmade = s.gpr[RAX] as i64 == -i64::from(ERESTARTNOINTR.0) || interrupted && signal == 0;
    if signal != 0 || unmade {
        let interrupted = unmade || interrupted;
        let (rip, rax) = (s.rip, s.gpr[RAX]);
        if interrupted {
            // As the kernel does: the frame's state re-executes SYSCALL; undone without SA_RESTART.
            let a = signal::ACTIONS.lock().expect("never poisoned")[signal as usize];
            if unmade || a.handler <= 1 || a.flags & libc::SA_RESTART as u64 != 0 {
                s.rip = rip - 2;
                s.gpr[RAX] = nr;
            }
        }
        match signal::deliver(t) {
            Delivered::Handler => return true,
            _ => {
                if !interrupted {
                    s.rip = rip;
                    s.gpr[RAX] = rax;
                }
            }
        }
    }
    if let Some(mask) = t.saved_mask.take() {
        t.sigmask = mask;
        signal::follow(t);
    }
    false
}

/// The syscall import; `done`: the call has been made, and a signal came.
fn on_syscall(ctx: &mut StoreContextMut<Thread>, next: u32, mut done: Option<Outcome>) -> wasmtime::Result<i32> {
    let s = ctx.data().state();
    loop {
        let nr = s.gpr[RAX];
        let r = match done.take() {
            Some(r) => r,
            None => syscall::dispatch(ctx.data_mut(), nr)?,
        };
        if r.restores_state {
            return Ok(s.rip as i32);
        }
        s.gpr[RAX] = to_raw(r.value) as u64;
        s.gpr[RCX] = u64::from(next);
        let rsp = s.gpr[RSP];
        let at_handler = finish(ctx.data_mut(), nr, r.restartable);
        leave_if_asked(ctx.data_mut())?;
        follow_text(ctx)?;
        let resume = if at_handler {
            // The frame resumes at `next`, or at the SYSCALL before it.
            let resumed = run_handler(ctx, next, rsp)?;
            resumed as u32
        } else {
            s.rip as u32
        };
        if resume == next.wrapping_sub(2) && s.rip as u32 == resume && s.gpr[RSP] == rsp {
            s.rip = u64::from(next);
            continue;
        }
        return Ok(resume as i32);
    }
}

/// Runs a handler that interrupted the call before `next`; it may resume at either PC.
fn run_handler(ctx: &mut StoreContextMut<Thread>, next: u32, rsp: u64) -> wasmtime::Result<i32> {
    let frame = ctx.data().state().gpr[RSP];
    let resumes = guest::read::<u64>(frame + 8 + 40 + 128).unwrap_or(0) as u32;
    nested(ctx, if resumes == next.wrapping_sub(2) { resumes } else { next }, rsp)
}
