//! Accesses to guest memory that cannot crash the host: each is one instruction inside a known range
//! of code; when it faults, the host's SIGSEGV/SIGBUS handler moves RIP to `fixup(pc)`, and the
//! function returns "faulted". The loader's copies use `copy` for the same reason.

use std::arch::global_asm;

/// `rax` = value, `rdx` = 0, or 1 after a fault.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Access {
    pub value: u64,
    pub faulted: u64,
}

global_asm!(
    ".pushsection .text.vk_mem,\"ax\",@progbits",
    ".globl vk_mem_start, vk_mem_end, vk_mem_fixup",
    "vk_mem_start:",
    ".macro vk_fn name",
    ".globl \\name",
    ".p2align 4",
    "\\name:",
    "xor edx, edx",
    ".endm",
    "vk_fn vk_load8",
    "movzx eax, byte ptr [rdi]",
    "ret",
    "vk_fn vk_load16",
    "movzx eax, word ptr [rdi]",
    "ret",
    "vk_fn vk_load32",
    "mov eax, dword ptr [rdi]",
    "ret",
    "vk_fn vk_load64",
    "mov rax, qword ptr [rdi]",
    "ret",
    "vk_fn vk_store8",
    "mov byte ptr [rdi], sil",
    "ret",
    "vk_fn vk_store16",
    "mov word ptr [rdi], si",
    "ret",
    "vk_fn vk_store32",
    "mov dword ptr [rdi], esi",
    "ret",
    "vk_fn vk_store64",
    "mov qword ptr [rdi], rsi",
    "ret",
    "vk_fn vk_load128",
    "movdqu xmm0, xmmword ptr [rdi]",
    "movdqu xmmword ptr [rsi], xmm0",
    "ret",
    "vk_fn vk_store128",
    "movdqu xmm0, xmmword ptr [rsi]",
    "movdqu xmmword ptr [rdi], xmm0",
    "ret",
    "vk_fn vk_xadd8",
    "lock xadd byte ptr [rdi], sil",
    "movzx eax, sil",
    "ret",
    "vk_fn vk_xadd16",
    "lock xadd word ptr [rdi], si",
    "movzx eax, si",
    "ret",
    "vk_fn vk_xadd32",
    "lock xadd dword ptr [rdi], esi",
    "mov eax, esi",
    "ret",
    "vk_fn vk_xadd64",
    "lock xadd qword ptr [rdi], rsi",
    "mov rax, rsi",
    "ret",
    "vk_fn vk_xchg8",
    "xchg byte ptr [rdi], sil",
    "movzx eax, sil",
    "ret",
    "vk_fn vk_xchg16",
    "xchg word ptr [rdi], si",
    "movzx eax, si",
    "ret",
    "vk_fn vk_xchg32",
    "xchg dword ptr [rdi], esi",
    "mov eax, esi",
    "ret",
    "vk_fn vk_xchg64",
    "xchg qword ptr [rdi], rsi",
    "mov rax, rsi",
    "ret",
    // (addr, expected, new) -> old
    ".macro vk_cas name, size, reg",
    ".globl \\name",
    ".p2align 4",
    "\\name:",
    "mov rax, rsi",
    "mov rcx, rdx",
    "xor edx, edx",
    "lock cmpxchg \\size ptr [rdi], \\reg",
    "ret",
    ".endm",
    "vk_cas vk_cas8, byte, cl",
    "vk_cas vk_cas16, word, cx",
    "vk_cas vk_cas32, dword, ecx",
    "vk_cas vk_cas64, qword, rcx",
    // (addr, in/out pair [expected lo, hi, new lo, hi]) -> value = 1 when exchanged
    ".globl vk_cas128",
    ".p2align 4",
    "vk_cas128:",
    "push rbx",
    "mov r8, rsi",
    "mov rax, [r8]",
    "mov rdx, [r8 + 8]",
    "mov rbx, [r8 + 16]",
    "mov rcx, [r8 + 24]",
    "vk_cas128_access:",
    "lock cmpxchg16b xmmword ptr [rdi]",
    "mov [r8], rax",
    "mov [r8 + 8], rdx",
    "sete al",
    "movzx eax, al",
    "xor edx, edx",
    "pop rbx",
    "ret",
    // (to, from, len) -> value = bytes left
    ".globl vk_copy",
    ".p2align 4",
    "vk_copy:",
    "mov rcx, rdx",
    "xor edx, edx",
    "rep movsb",
    "mov rax, rcx",
    "ret",
    // (addr, byte, len) -> value = bytes left
    ".globl vk_fill",
    ".p2align 4",
    "vk_fill:",
    "mov rcx, rdx",
    "mov eax, esi",
    "xor edx, edx",
    "rep stosb",
    "mov rax, rcx",
    "ret",
    "vk_mem_end:",
    ".p2align 4",
    "vk_mem_fixup:",
    "mov rax, rcx",
    "mov edx, 1",
    "ret",
    ".globl vk_mem_fixup_pop",
    "vk_mem_fixup_pop:",
    "pop rbx",
    "mov edx, 1",
    "ret",
    ".globl vk_cas128_access",
    ".popsection",
);

unsafe extern "C" {
    fn vk_mem_start();
    fn vk_mem_end();
    fn vk_mem_fixup();
    fn vk_mem_fixup_pop();
    fn vk_cas128_access();
    pub fn vk_load8(addr: *const u8) -> Access;
    pub fn vk_load16(addr: *const u8) -> Access;
    pub fn vk_load32(addr: *const u8) -> Access;
    pub fn vk_load64(addr: *const u8) -> Access;
    pub fn vk_store8(addr: *mut u8, v: u64) -> Access;
    pub fn vk_store16(addr: *mut u8, v: u64) -> Access;
    pub fn vk_store32(addr: *mut u8, v: u64) -> Access;
    pub fn vk_store64(addr: *mut u8, v: u64) -> Access;
    pub fn vk_load128(addr: *const u8, to: *mut u128) -> Access;
    pub fn vk_store128(addr: *mut u8, from: *const u128) -> Access;
    pub fn vk_xadd8(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xadd16(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xadd32(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xadd64(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xchg8(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xchg16(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xchg32(addr: *mut u8, v: u64) -> Access;
    pub fn vk_xchg64(addr: *mut u8, v: u64) -> Access;
    pub fn vk_cas8(addr: *mut u8, expected: u64, new: u64) -> Access;
    pub fn vk_cas16(addr: *mut u8, expected: u64, new: u64) -> Access;
    pub fn vk_cas32(addr: *mut u8, expected: u64, new: u64) -> Access;
    pub fn vk_cas64(addr: *mut u8, expected: u64, new: u64) -> Access;
    pub fn vk_cas128(addr: *mut u8, pair: *mut [u64; 4]) -> Access;
    fn vk_copy(to: *mut u8, from: *const u8, len: usize) -> Access;
    fn vk_fill(to: *mut u8, byte: u64, len: usize) -> Access;
}

/// Where to continue when the host faulted at `pc`; `None`: the fault is not ours.
/// Async-signal-safe.
pub fn fixup(pc: usize) -> Option<usize> {
    let at = |f: unsafe extern "C" fn()| f as *const () as usize;
    if pc < at(vk_mem_start) || pc >= at(vk_mem_end) {
        return None;
    }
    Some(if pc == at(vk_cas128_access) { at(vk_mem_fixup_pop) } else { at(vk_mem_fixup) })
}

/// Copies `len` bytes, either side of which may be unmapped guest memory.
///
/// Errors: the number of bytes that were not copied.
///
/// # Safety
/// The non-guest side must be valid for `len` bytes; the guest side must lie in the region.
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), usize> {
    // SAFETY: faults inside are turned into a result by `fixup`.
    let r = unsafe { vk_copy(to, from, len) };
    if r.faulted == 0 { Ok(()) } else { Err(r.value as usize) }
}

/// Fills guest memory; the same contract as `copy`.
///
/// # Safety
/// The range must lie in the region.
pub unsafe fn fill(to: *mut u8, byte: u8, len: usize) -> Result<(), usize> {
    // SAFETY: faults inside are turned into a result by `fixup`.
    let r = unsafe { vk_fill(to, u64::from(byte), len) };
    if r.faulted == 0 { Ok(()) } else { Err(r.value as usize) }
}
