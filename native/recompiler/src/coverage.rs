//! What becomes of an instruction: for reports and tests.

use crate::lift::Lift;
use crate::locals::Locals;
use crate::usage::EVERYTHING;
use iced_x86::{EncodingKind, Instruction};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use vkernel_semantics::backend::Flow;

/// What a translation covers, for reports.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Bytes of text in translated functions, each once.
    pub covered: u64,
    /// Instructions in translated functions, each once.
    pub instructions: u64,
    /// Those that the interpreter runs one by one, by mnemonic.
    pub stepped: BTreeMap<String, u64>,
    /// Those without semantics, by mnemonic.
    pub unknown: BTreeMap<String, u64>,
}

impl Report {
    pub fn new<'a>(found: &[crate::discover::Function], stepped: impl Iterator<Item = &'a Instruction>) -> Self {
        let mut r = Self::default();
        let mut blocks: Vec<_> = found.iter().flat_map(|f| f.blocks.values()).collect();
        blocks.sort_by_key(|b| (b.start, b.end));
        let mut end = 0;
        for b in blocks {
            let new = b.instructions.iter().filter(|i| i.ip() >= end);
            r.instructions += new.count() as u64;
            r.covered += b.end.saturating_sub(b.start.max(end));
            end = end.max(b.end);
        }
        let mut seen = HashSet::new();
        for i in stepped.filter(|i| seen.insert(i.ip())) {
            let c = class(i);
            let list = if c == Class::Unknown { &mut r.unknown } else { &mut r.stepped };
            *list.entry(name(c, i)).or_default() += 1;
        }
        r
    }
}

/// The mnemonic, with REP where it counts; what is unknown and has a VEX or EVEX prefix goes by its extension.
pub fn name(c: Class, i: &Instruction) -> String {
    if c == Class::Unknown && i.code().encoding() != EncodingKind::Legacy {
        return format!("{:?}", i.code().cpuid_features()[0]);
    }
    let rep = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
    format!("{}{:?}", if rep { "Rep " } else { "" }, i.mnemonic())
}

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
