//! ELF files to wasm modules and native code, in pipeline order: elf → discover → function (lift,
//! structure) → module → cache → package.

mod blocks;
pub mod cache;
pub mod coverage;
pub mod discover;
mod dispatch;
pub mod elf;
mod extra;
pub mod extract;
mod flame;
pub mod function;
mod hub;
mod lift;
mod lift_fp;
mod lift_host;
mod lift_state;
mod lift_string;
mod lift_vector;
mod lift_x87;
mod liveness;
mod locals;
pub mod module;
pub mod package;
pub mod place;
pub mod profile;
mod structure;
mod summaries;
mod tables;
mod usage;
