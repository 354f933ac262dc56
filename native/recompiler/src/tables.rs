//! Jump tables: where an indirect jump inside a function can lead.
//!
//! A jump is *complete* when a comparison bounds its index and every entry up to the bound is an
//! address in the function: it can lead nowhere else. Every other one may lead to a label that was
//! not found, and keeps all that such a label could read (liveness.rs).

use crate::discover::{Extent, Program, holds};
use iced_x86::{Code, ConditionCode, Instruction, Mnemonic, OpKind, Register};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Table {
    /// In the table's order.
    pub targets: Vec<u64>,
    pub complete: bool,
    /// The address of the instruction that reads the table's entry, and the register that is its index.
    pub index: Option<(u64, Register)>,
}

/// Entries looked at where nothing bounds the index.
const MOST: u64 = 2048;

impl Program<'_> {
    /// Targets of `jmp reg` after `movsxd reg,[table+i*4]; add reg,base`, where `base` is the table or a
    /// label of the function, and of `jmp [table+i*8]`.
    pub(crate) fn jump_table(
        &self,
        jump: &Instruction,
        decoded: &BTreeMap<u64, Instruction>,
        extent: &Extent,
    ) -> Table {
        let bound = bound(jump, decoded);
        if jump.op0_kind() == OpKind::Memory && jump.memory_base() == Register::None {
            let found = self.entries(
                jump.memory_displacement64(),
                bound,
                extent,
                |b| Some(self.base.wrapping_add(u64::from_le_bytes(b.get(..8)?.try_into().ok()?))),
                8,
            );
            let index = jump.memory_index();
            let whole = index.is_gpr64() && jump.memory_index_scale() == 8;
            return Table { index: whole.then_some((jump.ip(), index)), ..found };
        }
        // Addresses that the last instructions before the jump make, in address order.
        let made = decoded.range(..jump.ip()).rev().take(40).map(|(_, i)| i);
        let made: Vec<u64> = made
            .filter(|i| i.mnemonic() == Mnemonic::Lea && i.memory_base() == Register::RIP)
            .map(Instruction::memory_displacement64)
            .collect();
        let mut all = Table::default();
        for &table in made.iter().filter(|t| !holds(extent, **t)) {
            for base in std::iter::once(table).chain(made.iter().copied().filter(|t| holds(extent, *t))) {
                let found = self.entries(
                    table,
                    bound,
                    extent,
                    |b| Some(base.wrapping_add(i32::from_le_bytes(b.get(..4)?.try_into().ok()?) as u64)),
                    4,
                );
                if found.complete {
                    return Table { index: index(jump, decoded, table), ..found };
                }
                if found.targets.len() > 1 {
                    all.targets.extend(found.targets);
                }
            }
        }
        all
    }

    /// The entries of one table, while they point into the function and no other table begins.
    fn entries(
        &self,
        table: u64,
        bound: Option<u64>,
        extent: &Extent,
        entry: impl Fn(&[u8]) -> Option<u64>,
        size: u64,
    ) -> Table {
        let next = self.anchors.range(table + 1..).next().map_or(u64::MAX, |next| (next - table) / size);
        let count = bound.unwrap_or(MOST.min(next));
        let at = |n: u64| entry(self.elf.at(table.wrapping_sub(self.base) + size * n)?).filter(|t| holds(extent, *t));
        let targets: Vec<u64> = (0..count.min(1 << 16)).map_while(at).collect();
        Table { complete: bound.is_some() && targets.len() as u64 == count, targets, index: None }
    }
}

/// The instruction `movsxd r,[b+i*4]` whose entry a jump goes to, and i, where b is seen to hold `table`.
fn index(jump: &Instruction, decoded: &BTreeMap<u64, Instruction>, table: u64) -> Option<(u64, Register)> {
    let before = |ip: u64| decoded.range(..ip).rev().map(|(_, i)| i);
    let writer = |ip: u64, r: Register| {
        before(ip).take(40).find(|i| i.op0_kind() == OpKind::Register && i.op0_register().full_register() == r)
    };
    let add = writer(jump.ip(), jump.op0_register())?;
    if add.mnemonic() != Mnemonic::Add || add.op1_kind() != OpKind::Register {
        return None;
    }
    let summands = [add.op0_register(), add.op1_register()];
    let load = summands.iter().filter_map(|r| writer(add.ip(), *r)).find(|i| i.mnemonic() == Mnemonic::Movsxd)?;
    let base = writer(load.ip(), load.memory_base())?;
    (load.op1_kind() == OpKind::Memory
        && load.memory_index().is_gpr64()
        && load.memory_index_scale() == 4
        && load.memory_displacement64() == 0
        && base.mnemonic() == Mnemonic::Lea
        && base.memory_base() == Register::RIP
        && base.memory_displacement64() == table)
        .then(|| (load.ip(), load.memory_index()))
}

/// How many entries the comparison before a jump allows: `cmp reg, N; ja elsewhere`.
fn bound(jump: &Instruction, decoded: &BTreeMap<u64, Instruction>) -> Option<u64> {
    let before: Vec<&Instruction> = decoded.range(..jump.ip()).rev().take(16).map(|(_, i)| i).collect();
    let at = before.iter().position(|i| i.condition_code() == ConditionCode::a && i.is_jcc_short_or_near())?;
    let cmp = before.get(at + 1)?;
    let immediate = matches!(
        cmp.code(),
        Code::Cmp_rm8_imm8
            | Code::Cmp_AL_imm8
            | Code::Cmp_rm32_imm8
            | Code::Cmp_rm32_imm32
            | Code::Cmp_EAX_imm32
            | Code::Cmp_rm64_imm8
            | Code::Cmp_rm64_imm32
            | Code::Cmp_RAX_imm32
            | Code::Cmp_rm16_imm8
            | Code::Cmp_rm16_imm16
    );
    (immediate && cmp.op0_kind() == OpKind::Register && is_indexed(jump, decoded)).then(|| cmp.immediate(1) + 1)
}

/// Whether the jump's target is loaded by an index, or computed: such a jump stays in its function.
pub fn is_indexed(jump: &Instruction, decoded: &BTreeMap<u64, Instruction>) -> bool {
    if jump.op0_kind() == OpKind::Memory {
        return jump.memory_index() != Register::None;
    }
    let target = jump.op0_register().full_register();
    let writes = |i: &&Instruction| i.op0_kind() == OpKind::Register && i.op0_register().full_register() == target;
    let Some(i) = decoded.range(..jump.ip()).rev().take(12).map(|(_, i)| i).find(writes) else { return true };
    match i.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movsxd => i.op1_kind() == OpKind::Memory && i.memory_index() != Register::None,
        Mnemonic::Add => i.op1_kind() == OpKind::Register,
        Mnemonic::Lea => true,
        _ => false,
    }
}

/// The address that an instruction makes (LEA, or a constant).
pub fn made(i: &Instruction) -> Option<u64> {
    match i.mnemonic() {
        Mnemonic::Lea if i.memory_base() == Register::RIP => Some(i.memory_displacement64()),
        Mnemonic::Mov | Mnemonic::Push => Some(i.immediate(i.op_count() - 1)).filter(|_| {
            matches!(i.op_kind(i.op_count() - 1), OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64)
        }),
        _ => None,
    }
}
