//! Types and layouts shared by the crates of this workspace. No dependencies, no code that runs
//! system calls. What TypeScript shares with Rust is in `generated/` and comes from `src/abi`.

pub mod generated;
pub mod megabinary;
pub mod profile;
pub mod region;
pub mod state;
pub mod syscall;
pub mod wasm;
