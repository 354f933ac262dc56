//! The raw profile: what the guest processes of `recompiler run --profile` append to the descriptor that the
//! client has handed over. Records of little-endian u64 words, each record written at once; the first is
//! `kind | words << 8`, where `words` counts what follows. The recompiler reads it (recompiler/src/profile.rs).
//!
//! A guest address is told as (program, address): `program` is the megabinary's index of the ELF file that
//! runs as the program, which decides what lies below `region::LIB_BASE`; libraries have addresses of their own.

/// Where the client writes what was run, before anything else: the image's directory, zero-padded UTF-8.
pub const IMAGE: u64 = 1;
/// A sample of one thread: program, `WHERE_*`, its weight in `INTERVAL_NS`, the guest's rip as far as it is
/// known outside translated code, then the host's frames from the innermost out: offsets in the megabinary's
/// code section.
pub const SAMPLE: u64 = 2;
/// What ran in the interpreter since the process's last such record: program, `HOW_*`, the guest address it
/// began at, how often, instructions.
pub const INTERPRETED: u64 = 3;
/// Instructions that ran translated, since the process's last such record; from images built with --count.
pub const TRANSLATED: u64 = 4;

pub const WHERE_CODE: u64 = 0;
pub const WHERE_INTERPRETER: u64 = 1;
/// In the loader or in a host call.
pub const WHERE_HOST: u64 = 2;

/// One instruction that translated code leaves to the interpreter.
pub const HOW_STEP: u64 = 0;
/// Translated code called or jumped to what has no function.
pub const HOW_CALLED: u64 = 1;
/// Translated code returned to what has no function: a frame that is gone, or an instruction that it left to the
/// interpreter because of a condition.
pub const HOW_RETURNED: u64 = 2;
/// The dispatcher itself: a program's start, a handler, a context that was restored.
pub const HOW_STARTED: u64 = 3;

/// Time between samples of a thread, in its own processor time. The kernel looks at its tick only, so that a sample
/// stands for several of them.
pub const INTERVAL_NS: u64 = 1_000_000;
/// Host frames in a sample at most.
pub const MAX_FRAMES: usize = 200;
