//! What x86-64 instructions do, said once (`exec`), generic over a `Backend`: the interpreter's
//! values are numbers, the lifter's are nodes of an IR. Used by the loader (interpreter) and by the
//! recompiler (lifter). Contains no compiler and makes no system calls.

pub mod backend;
mod bits;
mod bmi;
mod crypto;
pub mod decode;
pub mod exec;
pub mod flags;
pub mod fp;
pub mod host;
pub mod host_ops;
pub mod int;
pub mod interp;
pub mod memory;
mod mmx;
mod muldiv;
pub mod operand;
mod shift;
mod sse;
mod sse3;
mod sse4;
mod sse42;
mod sse_fp;
mod stack;
mod string;
mod system;
pub mod vector;
pub mod x87;
pub mod x87_values;
