//! Straight programs of random instructions, and states in which they run: what they use as an
//! address points into scratch memory, whatever comes before.

use crate::area::{SCRATCH, SCRATCH_LEN};
use crate::batch::Layout;
use crate::dump;
use crate::generate::{Encoded, Generator, decode};
use crate::rng::Rng;
use crate::state::random_state;
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind, Register, RflagsBits as Bits};
use vkernel_abi::state::{CpuState, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};
use vkernel_recompiler::coverage::{Class, class};
use vkernel_semantics::operand::gpr;

const MIDDLE: u64 = SCRATCH + SCRATCH_LEN as u64 / 2;
const FS_BASE: u64 = 0x80;
const GS_BASE: u64 = 0x100;
const ALL: u64 = 0xcd5;

/// What a program demands of the state it starts in.
#[derive(Clone, Default)]
pub struct Setup {
    pub(crate) fixed: [Option<u64>; 16],
    /// Registers that the instructions so far have written.
    written: u16,
    /// Flags undefined now, and at any time.
    undefined: u64,
    ever_undefined: u64,
    /// What must be in scratch memory at the start.
    patches: Vec<(usize, Vec<u8>)>,
}

impl Setup {
    pub(crate) fn define_flags(&mut self) {
        self.undefined = 0;
    }

    pub(crate) fn has_undefined_flags(&self) -> bool {
        self.undefined != 0
    }

    fn is_written(&self, r: usize) -> bool {
        self.written >> r & 1 != 0
    }

    /// Demands `v` in `r`; false when it is taken.
    fn fix(&mut self, r: usize, v: u64) -> bool {
        if self.is_written(r) || self.fixed[r].is_some() {
            return false;
        }
        self.fixed[r] = Some(v);
        true
    }
}

pub struct Program {
    pub pc: u64,
    pub instructions: Vec<Instruction>,
    pub(crate) setup: Setup,
    pub(crate) single: bool,
}

/// RFLAGS bits of the decoder's flags.
fn bits(f: u32) -> u64 {
    [(Bits::OF, 11), (Bits::DF, 10), (Bits::SF, 7), (Bits::ZF, 6), (Bits::AF, 4), (Bits::PF, 2), (Bits::CF, 0)]
        .iter()
        .filter(|(b, _)| f & b != 0)
        .map(|(_, n)| 1u64 << n)
        .sum()
}

/// May leave the flags alone: a count that may be zero.
fn may_keep_flags(i: &Instruction) -> bool {
    matches!(i.mnemonic(), M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd)
        || i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix())
}

/// Flags that the manuals leave undefined, beyond the decoder's: AF after shifts.
fn undefined(i: &Instruction) -> u64 {
    let mut v = bits(i.rflags_undefined());
    if may_keep_flags(i) && !i.is_string_instruction() {
        let by_one = i.op_count() < 2 || i.op_count() == 2 && matches!(i.try_immediate(1), Ok(1));
        if !by_one {
            v |= 1 << 11;
        }
        if !matches!(i.mnemonic(), M::Rol | M::Ror | M::Rcl | M::Rcr) {
            v |= 1 << 4;
        }
    }
    v
}

/// Base of the operand's segment in every state: small, so that string operands stay in scratch.
fn segment_base(i: &Instruction) -> u64 {
    match i.memory_segment() {
        Register::FS => FS_BASE,
        Register::GS => GS_BASE,
        _ => 0,
    }
}

/// Makes the memory operand of `e` point into scratch; true when it could.
fn aim(e: &mut Encoded, s: &mut Setup, rng: &mut Rng) -> Option<()> {
    let i = e.instruction;
    let size = i.memory_size().size() as u64;
    let mut target = MIDDLE + rng.below(512);
    if rng.one_in(4) || size >= 16 && !rng.one_in(16) {
        target &= !15;
    }
    // Intel's CPUs want SHA's operands aligned, AMD's do not.
    let sha = i.cpuid_features().contains(&iced_x86::CpuidFeature::SHA);
    if sha || matches!(i.mnemonic(), M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64) {
        target &= !15;
    }
    let (base, index) = (i.memory_base(), i.memory_index());
    target -= segment_base(&i);
    let mut offset = if matches!(base, Register::RIP | Register::EIP) { 0 } else { i.memory_displacement64() };
    if index != Register::None {
        let x = gpr(index);
        if x == gpr(base) || s.is_written(x) {
            return None;
        }
        // An index times eight still lies in the low 4 GiB.
        if *s.fixed[x].get_or_insert_with(|| rng.below(1 << 20)) >= 1 << 20 {
            return None;
        }
        offset = offset.wrapping_add(s.fixed[x]? << i.memory_index_scale().trailing_zeros());
    }
    if matches!(base, Register::None | Register::RIP | Register::EIP) {
        let at = e.displacement?;
        let relative =
            if base == Register::None { offset.wrapping_sub(i.memory_displacement64()) } else { i.next_ip() };
        let d = target.wrapping_sub(relative) as u32;
        let mut raw = e.bytes.clone();
        raw[at..at + 4].copy_from_slice(&d.to_le_bytes());
        *e = decode(&raw, i.ip());
        return Some(());
    }
    let r = gpr(base);
    if let Some(v) = s.fixed[r] {
        let a = v.wrapping_add(offset) & if base.size() == 4 { 0xffff_ffff } else { u64::MAX };
        let a = a.wrapping_add(segment_base(&i));
        let fits = (SCRATCH + 512..SCRATCH + SCRATCH_LEN as u64 - 512 - size).contains(&a);
        let moved = s.is_written(r) && r != RSP;
        return (fits && !moved && (size < 16 || a % 16 == 0)).then_some(());
    }
    let high = if base.size() == 4 { rng.next() << 32 } else { 0 };
    let v =
        if base.size() == 4 { high | target.wrapping_sub(offset) & 0xffff_ffff } else { target.wrapping_sub(offset) };
    s.fix(r, v).then_some(())
}

/// Guest address of the memory operand in the fixed registers.
fn aimed(i: &Instruction, s: &Setup) -> u64 {
    let mut a = i.memory_displacement64().wrapping_add(segment_base(i));
    if !matches!(i.memory_base(), Register::None | Register::RIP | Register::EIP) {
        a = a.wrapping_add(s.fixed[gpr(i.memory_base())].unwrap_or(0));
    }
    if i.memory_index() != Register::None {
        a = a.wrapping_add(s.fixed[gpr(i.memory_index())].unwrap_or(0) << i.memory_index_scale().trailing_zeros());
    }
    a & 0xffff_ffff
}

/// Accepts `e` as the next instruction, with what it demands of the start.
fn accept(e: &mut Encoded, s: &mut Setup, rng: &mut Rng, alone: bool) -> Option<()> {
    let m = e.instruction.mnemonic();
    if bits(e.instruction.rflags_read()) & s.undefined != 0 {
        return None;
    }
    if (0..e.instruction.op_count()).any(|n| e.instruction.op_kind(n) == OpKind::Memory) {
        aim(e, s, rng)?;
    }
    let i = e.instruction;
    let ok = match m {
        M::Maskmovdqu | M::Maskmovq => s.fix(RDI, MIDDLE + rng.below(256)),
        M::Xlatb => s.fix(RBX, MIDDLE + rng.below(256)),
        M::Leave => alone && s.fix(RBP, MIDDLE + rng.below(256)),
        M::Enter => alone && i.immediate(0) < 256 && s.fix(RBP, MIDDLE + 512 + rng.below(64)),
        M::Popf | M::Popfq | M::Ldmxcsr | M::Fldenv | M::Frstor | M::Fxrstor | M::Fxrstor64 => alone,
        M::Fxsave | M::Fxsave64 | M::Fnstenv | M::Fnsave | M::Stmxcsr => alone,
        M::Fldcw => alone || rng.one_in(8),
        M::Bt | M::Bts | M::Btr | M::Btc if i.op0_kind() == OpKind::Memory && i.op1_kind() == OpKind::Register => {
            s.fix(gpr(i.op1_register()), (rng.below(4000) as i64 - 2000) as u64)
        }
        M::Pcmpestri | M::Pcmpestrm | M::Pcmpestri64 | M::Pcmpestrm64 => {
            // Lengths about the operands', which random registers hardly have.
            for r in [RAX, RDX] {
                s.fix(r, (rng.below(48) as i64 - 20) as u64);
            }
            true
        }
        M::Div | M::Idiv => {
            if s.fixed[RDX].is_none() && !s.is_written(RDX) && !rng.one_in(4) {
                s.fixed[RDX] = Some(if m == M::Idiv && rng.one_in(2) { u64::MAX } else { rng.below(8) / 4 });
            }
            true
        }
        _ if i.is_string_instruction() => {
            let uses = |k: OpKind| (0..i.op_count()).any(|n| i.op_kind(n) == k);
            let si = uses(OpKind::MemorySegRSI) || uses(OpKind::MemorySegESI);
            let di = uses(OpKind::MemoryESRDI) || uses(OpKind::MemoryESEDI);
            let repeated = i.has_rep_prefix() || i.has_repne_prefix();
            (!si || s.fix(RSI, MIDDLE + rng.below(256)))
                && (!di || s.fix(RDI, MIDDLE + rng.below(256)))
                && (!repeated || s.fix(RCX, rng.below(40)))
        }
        _ => true,
    };
    if !ok {
        return None;
    }
    match m {
        M::Popf | M::Popfq => {
            let at = (s.fixed[RSP]? - SCRATCH) as usize;
            s.patches.push((at, vec![rng.byte() & 0xd5, rng.byte() & 0x0c, 0, 0, 0, 0, 0, 0]));
        }
        M::Ldmxcsr => {
            let v = 0x1f80 | rng.next() as u32 & 0xe07f;
            s.patches.push(((aimed(&i, s) - SCRATCH) as usize, v.to_le_bytes().to_vec()));
        }
        M::Fxrstor | M::Fxrstor64 | M::Frstor | M::Fldenv => {
            // Control, status and tag words that are possible, exceptions masked; MXCSR without reserved bits.
            let at = (aimed(&i, s) - SCRATCH) as usize;
            let control = (0x37f & !0xf00 | rng.next() as u16 & 0xf00).to_le_bytes();
            let status = (rng.next() as u16 & 0x7f3f).to_le_bytes();
            if matches!(m, M::Fxrstor | M::Fxrstor64) {
                let tag = rng.byte();
                s.patches.push((at, vec![control[0], control[1], status[0], status[1], tag, 0, 0, 0]));
                s.patches.push((at + 24, (0x1f80 | rng.next() as u32 & 0xe07f).to_le_bytes().to_vec()));
            } else {
                s.patches
                    .push((at, vec![control[0], control[1], 0, 0, status[0], status[1], 0, 0, rng.byte(), rng.byte()]));
            }
        }
        _ => {}
    }
    let mut info = InstructionInfoFactory::new();
    let mut stack = false;
    for r in info.info(&i).used_registers() {
        let full = r.register().full_register();
        if full.is_gpr() && !matches!(r.access(), OpAccess::Read | OpAccess::CondRead) {
            s.written |= 1 << full.number();
            stack |= full == Register::RSP;
        }
    }
    // Only pushes and pops may move the stack pointer in front of others.
    if stack
        && !alone
        && (!i.is_stack_instruction()
            || matches!(i.op0_kind(), OpKind::Register)
                && i.op0_register().full_register() == Register::RSP
                && m == M::Pop)
    {
        return None;
    }
    if m == M::Pop && i.op0_kind() == OpKind::Memory && i.memory_base().full_register() == Register::RSP && !alone {
        return None;
    }
    let changed = bits(i.rflags_modified()) & !undefined(&i);
    if !may_keep_flags(&i) {
        s.undefined &= !changed;
    }
    s.undefined |= undefined(&i);
    s.ever_undefined |= s.undefined;
    Some(())
}

/// Accepts `e` in a program that may come by more than once: it writes no register that something
/// relies on and demands nothing of the start. `called`: in a function, whose callers find results in no
/// scratch register but those of the psABI (3.2.3), which the translation counts on.
pub(crate) fn accept_anywhere(e: &mut Encoded, s: &mut Setup, rng: &mut Rng, called: bool) -> bool {
    let mut new = s.clone();
    new.written = 0;
    if class(&e.instruction) != Class::Lifted && !rng.one_in(8) || accept(e, &mut new, rng, false).is_none() {
        return false;
    }
    let relied = (0..16).filter(|r| s.fixed[*r].is_some()).fold(1u16 << RSP, |m, r| m | 1 << r);
    let scratch = 1 << RSI | 1 << RDI | 0xf00;
    let op0 = e.instruction.op0_register();
    if called && (new.written & scratch != 0 || op0.is_xmm() && op0.number() > 1) {
        return false;
    }
    if new.fixed != s.fixed || !new.patches.is_empty() || new.written & relied != 0 {
        return false;
    }
    (s.undefined, s.ever_undefined) = (new.undefined, new.ever_undefined);
    true
}

impl Program {
    /// A program of `count` instructions, added to the layout; `translated`: of such as are lifted.
    pub fn random(g: &mut Generator, layout: &mut Layout, count: usize, translated: bool) -> Self {
        let pc = layout.next();
        let mut setup = Setup::default();
        setup.fixed[RSP] = Some(MIDDLE + 1024 + 8 * g.rng.below(16));
        let mut code = Vec::new();
        let mut instructions = Vec::new();
        while instructions.len() < count {
            let mut e = g.next(pc + code.len() as u64);
            if translated && class(&e.instruction) != Class::Lifted {
                continue;
            }
            let mut next = setup.clone();
            if accept(&mut e, &mut next, &mut g.rng, count == 1).is_some() {
                setup = next;
                code.extend(&e.bytes);
                instructions.push(e.instruction);
            }
        }
        dump::jump(&mut code, pc, crate::area::TEXT);
        layout.add(&code);
        Self { pc, instructions, setup, single: count == 1 }
    }

    /// Cannot run natively: the host's FS and GS are its own.
    pub fn has_segments(&self) -> bool {
        self.instructions.iter().any(|i| matches!(i.memory_segment(), Register::FS | Register::GS))
    }

    /// One instruction and nothing else.
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// RFLAGS bits that are defined at the end, or all through.
    pub fn defined_flags(&self, all_through: bool) -> u64 {
        ALL & !if all_through { self.setup.ever_undefined } else { self.setup.undefined }
    }

    /// Has an instruction whose exception flags translated code does not reproduce.
    pub fn raises_other_flags(&self) -> bool {
        const OTHER: [M; 16] = [
            M::Roundss,
            M::Roundsd,
            M::Roundps,
            M::Roundpd,
            M::Comiss,
            M::Comisd,
            M::Ucomiss,
            M::Ucomisd,
            M::Cvttss2si,
            M::Cvttsd2si,
            M::Cvttps2dq,
            M::Cvttpd2dq,
            M::Cvtss2si,
            M::Cvtsd2si,
            M::Cvtps2dq,
            M::Cvtpd2dq,
        ];
        self.instructions.iter().any(|i| OTHER.contains(&i.mnemonic()))
    }

    /// A state to start in.
    pub fn state(&self, rng: &mut Rng) -> CpuState {
        let mut s = random_state(rng);
        for (r, v) in s.gpr.iter_mut().zip(self.setup.fixed) {
            *r = v.unwrap_or(*r);
        }
        (s.fs_base, s.gs_base) = (FS_BASE, GS_BASE);
        // The engine computes with constants beforehand, rounding to the nearest (docs/quirks.md).
        const FROM_INTEGERS: [M; 6] = [M::Cvtsi2ss, M::Cvtsi2sd, M::Cvtdq2ps, M::Movd, M::Movq, M::Pinsrw];
        if !self.single && self.instructions.iter().any(|i| FROM_INTEGERS.contains(&i.mnemonic())) {
            s.mxcsr = 0x1f80;
        }
        // Now and then with an interrupt poll pending, which changes nothing.
        s.poll = u32::from(!self.single && rng.one_in(4));
        s
    }

    /// Offsets in scratch memory that differ for good: the host's MXCSR_MASK, and where its last x87
    /// instruction was.
    #[allow(clippy::single_range_in_vec_init, reason = "a list of byte ranges that has one")]
    pub fn ignored(&self) -> Vec<usize> {
        let mut out = Vec::new();
        for i in &self.instructions {
            let ranges: &[std::ops::Range<usize>] = match i.mnemonic() {
                M::Fxsave | M::Fxsave64 => &[6..24, 28..32],
                M::Fnstenv | M::Fnsave => &[12..28],
                _ => continue,
            };
            let at = (aimed(i, &self.setup) - SCRATCH) as usize;
            out.extend(ranges.iter().cloned().flatten().map(|n| at + n));
        }
        out
    }

    /// Scratch memory to start with, from a random image.
    pub fn patch(&self, memory: &mut [u8]) {
        for (at, bytes) in &self.setup.patches {
            memory[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The instructions as text, for reports.
    pub fn text(&self) -> String {
        let text = |i: &Instruction| format!("{:x}: {i}", i.ip() - self.pc);
        self.instructions.iter().map(text).collect::<Vec<_>>().join("; ")
    }
}
