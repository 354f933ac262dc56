//! Basic blocks of decoded instructions.

use iced_x86::{FlowControl, Instruction, Mnemonic};
use std::collections::{BTreeMap, BTreeSet};

/// A basic block; addresses are guest addresses.
pub struct Block {
    pub start: u64,
    pub instructions: Vec<Instruction>,
    /// Address after the last instruction.
    pub end: u64,
}

/// The blocks that start at `leaders`, by address.
pub fn blocks(decoded: &BTreeMap<u64, Instruction>, leaders: &BTreeSet<u64>) -> BTreeMap<u64, Block> {
    let mut out = BTreeMap::new();
    for &start in leaders {
        let (mut pc, mut instructions) = (start, Vec::new());
        while let Some(i) = decoded.get(&pc) {
            instructions.push(*i);
            pc = i.next_ip();
            let goes_on = matches!(i.flow_control(), FlowControl::Next | FlowControl::Interrupt)
                || i.mnemonic() == Mnemonic::Syscall;
            if !goes_on || leaders.contains(&pc) {
                break;
            }
        }
        if !instructions.is_empty() {
            out.insert(start, Block { start, instructions, end: pc });
        }
    }
    out
}
