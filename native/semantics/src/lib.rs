//! What x86-64 instructions do, said once (`exec`), generic over a `Backend`: the interpreter's
//! values are numbers, the lifter's are nodes of an IR. Used by the loader (interpreter) and by the
//! recompiler (lifter). Contains no compiler and makes no system calls.

pub mod backend;
