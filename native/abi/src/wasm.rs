//! The contract between translated code and the loader. One wasm module per ELF.
//!
//! Memories, all *defined* by each module (not imported: a defined memory's base is one load from
//! the vmctx); the loader's MemoryCreator tells them apart by their sizes and returns the same host
//! memory to every instance of a thread:
//! - memory 0, 65536 pages: the guest region. Page access by i32 address.
//! - memory 1, 1 page: the thread's `CpuState`, constant addresses only.
//! - memory 2, 65535 pages: the dispatch map, read only: one word for every four bytes of text
//!   (`map_word`, `map_payload`), which names at most one address of the four.
//!
//! Imports, module name "k":
//! - `table`: funcref table, shared by all modules of a thread; slot 0 is the host's function that runs
//!   what is not translated, from `CpuState::rip`.
//! - `slot_base`: immutable global i32; function entry i of the module is table slot `slot_base + i`.
//! - `syscall(next_pc: i32) -> i32`: the SYSCALL instruction; what is live has been stored. Returns
//!   `next_pc`, and the function goes on with registers reloaded where live; when the guest goes on
//!   elsewhere, the call does not return: the host drops the frames down to its dispatcher.
//! - `poll(pc: i32) -> i32`: slow path of the back-edge poll; the same rule with `pc`.
//! - `step(pc: i32) -> i32`: interprets the one instruction at `pc`; what is live has been stored.
//!   Returns the PC after it, or not, by the same rule.
//! - `div(pc: i32, signed: i32, divisor: i64) -> i32`: 128-by-64 division of rdx:rax in the state,
//!   quotient to rax and remainder to rdx of the state; 0, or 1 for #DE.
//! - `x87(form: i32, operand: i64) -> i64`: an x87 instruction (`opcode << 8 | modrm`) on the x87 part of the
//!   state, all exceptions masked; `operand` are the bits that it reads from memory, the result those that it
//!   writes, or RFLAGS after a comparison into them.
//! - `host(form: i32, a: i64, b: i64) -> i64`: what wasm has no instruction for (semantics/src/host_ops.rs has
//!   the forms), on the two integers, or on `CpuState::operands` and `a`; of those the first is the result.
//!
//! Function type of every guest function:
//! `(rsp i64, rdi i64, rsi i64, rdx i64) -> (pc i32, rax i64, rsp i64, rdx i64)`.
//! At a call, everything else that the caller has changed and that is live (read by the callee or
//! after the call) is stored in the state. At a return, what the function has changed and its callers
//! may read, results aside, is stored in the state (recompiler/src/liveness.rs). The returned pc is the address popped from the
//! guest's stack: the caller goes on when it equals its own return site, and otherwise returns the
//! four results upward unchanged. The guest's return address is really pushed on the guest's stack
//! by the caller before the call.
//!
//! Exports: none but `"f"`, unused names; functions are reached through the table only.
//! The element segment puts entries 0…n-1 at `slot_base`.

/// Pages of each memory; their identity for the MemoryCreator.
pub const REGION_PAGES: u64 = 65536;
pub const STATE_PAGES: u64 = 1;
pub const MAP_PAGES: u64 = 65535;

pub const MEM_REGION: u32 = 0;
pub const MEM_STATE: u32 = 1;
pub const MEM_MAP: u32 = 2;

/// Set in the payload of a map word that names a block inside a function; the rest of the payload
/// is the block's number in its module. Without it the payload is a table slot.
pub const MAP_BLOCK: u32 = 1 << 29;

/// The dispatch map's little-endian word at byte offset `pc & !3`.
pub const fn map_word(pc: u32, payload: u32) -> u32 {
    payload << 2 | pc & 3
}

/// What a dispatch-map word says of `pc`: 0 when nothing was stored there, and no slot and no block
/// when the word is another address's.
pub const fn map_payload(pc: u32, word: u32) -> u32 {
    (word ^ pc & 3).rotate_right(2)
}

/// Size of the shared table in slots, fixed so that its bound is a constant.
pub const TABLE_SLOTS: u64 = 4 << 20;

/// Largest constant offset a translated access may carry in its memarg; the guard behind the
/// region is larger, so the engine elides the bounds check.
pub const MAX_MEMARG_OFFSET: u64 = 0xffff;
pub const GUARD_SIZE: u64 = 1 << 20;

/// Guest exceptions. Numbers are the x86 vectors where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Trap {
    /// #DE → SIGFPE FPE_INTDIV
    Divide = 0,
    /// #DB by INT1 → SIGTRAP
    Debug = 1,
    /// #BP → SIGTRAP
    Breakpoint = 3,
    /// #UD → SIGILL ILL_ILLOPN; also an instruction that the semantics do not define
    Invalid = 6,
    /// #GP (privileged instruction, HLT, misaligned SSE operand) → SIGSEGV SI_KERNEL
    Protection = 13,
    /// #PF → SIGSEGV; the address is in CpuState::fault_addr
    Page = 14,
    /// #MF → SIGFPE
    X87 = 16,
    /// #XM → SIGFPE
    Simd = 19,
}
