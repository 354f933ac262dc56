//! What becomes of an instruction: for reports and tests.

use crate::lift::Lift;
use crate::locals::Locals;
use crate::usage::EVERYTHING;
use iced_x86::Instruction;
use vkernel_semantics::backend::Flow;

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Class {
    /// Translated to wasm.
    Lifted,
    /// Run by the interpreter, one call for each execution.
    Stepped,
    /// Without semantics: SIGILL for the guest.
    Unknown,
}

pub fn class(i: &Instruction) -> Class {
    let mut locals = Locals::default();
    let mut l = Lift::new(&mut locals, 0, EVERYTHING);
    let unknown = matches!(vkernel_semantics::exec::exec(&mut l, i), Ok(Flow::Unknown));
    match l.instruction(i) {
        Some(_) if !crate::usage::of(i).step => Class::Lifted,
        _ if unknown => Class::Unknown,
        _ => Class::Stepped,
    }
}
