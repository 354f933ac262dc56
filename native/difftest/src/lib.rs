//! The host CPU as the oracle: random instructions, sequences and control-flow graphs with random
//! states run natively, in the interpreter and as translated code, and must leave the same registers,
//! flags and memory. Test code only; nothing that ships depends on it.

pub mod area;
pub mod batch;
pub mod compare;
mod dump;
mod elf;
pub mod generate;
pub mod graph;
pub mod host;
pub mod lifted;
pub mod program;
pub mod rng;
pub mod snapshot;
mod state;
