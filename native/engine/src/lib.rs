//! The one wasmtime configuration. The recompiler compiles with it and the loader deserialises with
//! it: an artefact is accepted only when every tunable is equal, so each one is set here.

use wasmtime::Config;

/// Host stack that translated code may use, bytes. Larger than any guest stack, so that the guest's
/// own stack guard faults first.
pub const WASM_STACK: usize = 256 << 20;

pub fn config() -> Config {
    let mut c = Config::new();
    c.wasm_multi_memory(true)
        .wasm_tail_call(true)
        .wasm_threads(true)
        .wasm_wide_arithmetic(true)
        // Not deterministic: a relaxed operation is the CPU's own instruction (PSHUFB, PMADDUBSW, …).
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(false)
        .wasm_branch_hinting(true)
        .memory_reservation(vkernel_abi::region::REGION_SIZE)
        .memory_guard_size(vkernel_abi::wasm::GUARD_SIZE)
        .memory_may_move(false)
        .memory_init_cow(false)
        .table_lazy_init(false)
        .native_unwind_info(false)
        .generate_address_map(false)
        .max_wasm_stack(WASM_STACK)
        // Unused, but wasmtime wants it above max_wasm_stack.
        .async_stack_size(WASM_STACK + (44 << 20));
    #[cfg(feature = "compiler")]
    {
        c.cranelift_opt_level(wasmtime::OptLevel::Speed);
        // Guests are processes of their own, with no secrets of others in their memory: nothing to gain from
        // keeping a guest from speculating past its own bounds.
        // SAFETY: the flags are known to the engine.
        unsafe {
            c.cranelift_flag_set("enable_heap_access_spectre_mitigation", "false");
            c.cranelift_flag_set("enable_table_access_spectre_mitigation", "false");
        }
        // The translated code runs on this kind of host only; baseline x86-64 plus what the wasm
        // SIMD lowering needs is asked for explicitly so that builds are the same everywhere.
        // SAFETY: the flags are features every x86-64-v2 CPU has; `doctor` checks the host.
        unsafe {
            for flag in ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"] {
                c.cranelift_flag_enable(flag);
            }
        }
        c.target("x86_64-unknown-linux-gnu").expect("the target is a constant");
    }
    c
}
