//! Jump tables: where an indirect jump inside a function can lead.
//!
//! A jump is *complete* when a comparison bounds its index, every entry up to the bound is an address in
//! the function, and the table is seen to be the one that is read: it can lead nowhere else. A table whose
//! address is merely made nearby may be another switch's of the same size. Every jump that is not complete
//! may lead to a label that was not found, and keeps all that such a label could read (liveness.rs).

use crate::discover::{Block, Extent, Program, holds};
use crate::elf::Segment;
use iced_x86::{
    Code, ConditionCode, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess, OpKind, Register,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Table {
    /// In the table's order.
    pub targets: Vec<u64>,
    pub complete: bool,
    /// The address of the instruction that reads the table's entry, and the register that is its index.
    pub index: Option<(u64, Register)>,
    /// The register that holds the table's address since before the comparison, and the instruction that
    /// made it: nothing else in the function may write it.
    pub kept: Option<(Register, u64)>,
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
        let since = compared(jump, decoded);
        let bound = since.and_then(|ja| bound(ja, jump, decoded));
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
        let mut made: Vec<u64> = made.filter_map(rip_address).collect();
        let read = read_by(jump, decoded);
        // A table whose address is kept in a register, from a place that is further away (a loop over options
        // with its switch): any that the register gets in the function.
        if let (None, Some(load)) = (&read, entry_load(jump, decoded)) {
            let to_base = decoded.values().filter(|i| writes(i, load.memory_base()));
            let far: Vec<u64> = to_base.filter_map(rip_address).filter(|t| !made.contains(t)).collect();
            made.extend(far);
        }
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
                match &read {
                    Some(r) if found.complete && r.table == table => {
                        let kept = (Some(r.made) < since).then_some((r.base, r.made));
                        return Table { index: Some(r.index), kept, ..found };
                    }
                    // Another way to read a table: its address is made between the comparison and the jump.
                    None if found.complete && made_since(decoded, since, jump, table) => return found,
                    _ => {}
                }
                if found.targets.len() > 1 {
                    all.targets.extend(found.targets);
                }
            }
        }
        all
    }

    /// Whether a jump reads a word of a table by a byte just extended, as interpreters' computed gotos do:
    /// there are 256 entries, and when all are labels of the function and the guest cannot change them,
    /// there is nowhere else to go.
    pub(crate) fn is_closed(&self, jump: u64, blocks: &BTreeMap<u64, Block>, labels: &BTreeSet<u64>) -> bool {
        let Some((_, block)) = blocks.range(..=jump).next_back() else { return false };
        let mut before = block.instructions.iter().rev();
        let Some(mut read) = before.next() else { return false };
        let mut info = InstructionInfoFactory::new();
        let mut writer = |r: Register| {
            before.find(|i| {
                let used = info.info(i).used_registers().iter();
                used.clone().any(|u| u.register().full_register() == r && u.access() != OpAccess::Read)
            })
        };
        if read.op0_kind() == OpKind::Register {
            let Some(load) = writer(read.op0_register()) else { return false };
            read = load;
        }
        let jumps_or_loads = read.ip() == jump || read.code() == Code::Mov_r64_rm64;
        let index = read.memory_index();
        if !jumps_or_loads
            || read.memory_base() != Register::None
            || read.memory_index_scale() != 8
            || !index.is_gpr64()
        {
            return false;
        }
        let is_byte = |i: &Instruction| match i.mnemonic() {
            Mnemonic::Movzx => i.memory_size() == MemorySize::UInt8 || i.op1_register().size() == 1,
            Mnemonic::And => matches!(i.code(), Code::And_rm32_imm32 | Code::And_EAX_imm32) && i.immediate32() == 0xff,
            _ => false,
        };
        let table = read.memory_displacement64().wrapping_sub(self.base);
        let fixed = |s: &Segment| !s.write && table >= s.vaddr && table + 256 * 8 <= s.vaddr + s.filesz;
        let entry = |n: u64| Some(u64::from_le_bytes(self.elf.at(table + 8 * n)?.get(..8)?.try_into().ok()?));
        writer(index).is_some_and(is_byte)
            && self.base == 0
            && self.elf.segments.iter().any(fixed)
            && (0..256).all(|n| entry(n).is_some_and(|t| labels.contains(&t)))
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
        Table { complete: bound.is_some() && targets.len() as u64 == count, targets, ..Table::default() }
    }
}

/// How a jump reads its table.
struct Read {
    table: u64,
    /// The instruction `movsxd r,[base+i*4]` whose entry the jump goes to, and i.
    index: (u64, Register),
    base: Register,
    /// The instruction that puts the table's address into `base`.
    made: u64,
}

fn writes(i: &Instruction, r: Register) -> bool {
    i.op_count() > 0
        && i.op0_kind() == OpKind::Register
        && i.op0_register().full_register() == r
        && !matches!(i.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Bt)
}

/// The instruction among the 40 before `ip` that wrote `r` last.
fn writer(decoded: &BTreeMap<u64, Instruction>, ip: u64, r: Register) -> Option<&Instruction> {
    decoded.range(..ip).rev().map(|(_, i)| i).take(40).find(|i| writes(i, r))
}

/// The `movsxd r,[base+i*4]` whose result, and an address added to it, the jump goes to.
fn entry_load<'a>(jump: &Instruction, decoded: &'a BTreeMap<u64, Instruction>) -> Option<&'a Instruction> {
    let add = writer(decoded, jump.ip(), jump.op0_register().full_register())?;
    if add.mnemonic() != Mnemonic::Add || add.op1_kind() != OpKind::Register {
        return None;
    }
    let summands = [add.op0_register(), add.op1_register()];
    summands.iter().filter_map(|r| writer(decoded, add.ip(), *r)).find(|i| i.mnemonic() == Mnemonic::Movsxd)
}

fn read_by(jump: &Instruction, decoded: &BTreeMap<u64, Instruction>) -> Option<Read> {
    let load = entry_load(jump, decoded)?;
    let base = load.memory_base();
    let made = writer(decoded, load.ip(), base)?;
    (load.op1_kind() == OpKind::Memory
        && load.memory_index().is_gpr64()
        && load.memory_index_scale() == 4
        && load.memory_displacement64() == 0)
        .then_some(())?;
    Some(Read { table: rip_address(made)?, index: (load.ip(), load.memory_index()), base, made: made.ip() })
}

/// Whether nothing in the function but `made` and the restoring POPs writes `base`.
pub fn is_kept(base: Register, made: u64, decoded: &BTreeMap<u64, Instruction>) -> bool {
    decoded.values().all(|i| i.ip() == made || i.mnemonic() == Mnemonic::Pop || !writes(i, base))
}

/// The `ja` that bounds a jump's index.
fn compared(jump: &Instruction, decoded: &BTreeMap<u64, Instruction>) -> Option<u64> {
    let mut before = decoded.range(..jump.ip()).rev().take(16).map(|(_, i)| i);
    before.find(|i| i.condition_code() == ConditionCode::a && i.is_jcc_short_or_near()).map(Instruction::ip)
}

fn made_since(decoded: &BTreeMap<u64, Instruction>, since: Option<u64>, jump: &Instruction, table: u64) -> bool {
    since.is_some_and(|since| decoded.range(since..jump.ip()).any(|(_, i)| rip_address(i) == Some(table)))
}

/// The address that a `lea r,[rip+n]` makes.
pub fn rip_address(i: &Instruction) -> Option<u64> {
    (i.mnemonic() == Mnemonic::Lea && i.memory_base() == Register::RIP).then(|| i.memory_displacement64())
}

/// How many entries the comparison before the `ja` of a jump allows: `cmp reg, N; ja elsewhere`.
fn bound(ja: u64, jump: &Instruction, decoded: &BTreeMap<u64, Instruction>) -> Option<u64> {
    let (_, cmp) = decoded.range(..ja).next_back()?;
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
        Mnemonic::Lea => rip_address(i),
        Mnemonic::Mov | Mnemonic::Push => Some(i.immediate(i.op_count() - 1)).filter(|_| {
            matches!(i.op_kind(i.op_count() - 1), OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64)
        }),
        _ => None,
    }
}
