//! One guest function as one wasm function: data flow over its blocks, what is stored and reloaded
//! at calls and exits, and the shape of the whole (vkernel_abi::wasm has the contract).

use crate::discover::{Block, Function};
use crate::lift::{Lift, POLL, STEP, SYSCALL, V, state_arg};
use crate::locals::Locals;
use crate::structure::{self, End, Graph, Node};
use crate::usage::{self, ALL_REGISTERS, EVERYTHING, Set, Usage, gpr};
use iced_x86::Instruction;
use std::collections::HashMap;
use vkernel_abi::state::{OFF_POLL, OFF_RIP, RAX, RDI, RDX, RSI, RSP};
use vkernel_abi::wasm::{MAP_BLOCK, MEM_MAP, TABLE_SLOTS};
use vkernel_semantics::backend::Flow;
use wasm_encoder::{BlockType, InstructionSink, MemArg, MemArgTarget, ValType};

const PARAMETERS: Set = gpr(RSP) | gpr(RDI) | gpr(RSI) | gpr(RDX);
const RESULTS: Set = gpr(RAX) | gpr(RSP) | gpr(RDX);
/// Index of the guest function type, and of the table.
pub const TYPE: u32 = 0;
const TABLE: u32 = 0;

/// What a function needs to know of its module.
pub struct Context<'a> {
    /// Wasm function index by entry address.
    pub functions: &'a HashMap<u64, u32>,
    /// Module-wide number of this function's first switch target.
    pub first_target: u32,
    /// Switch targets without a word in the dispatch map, by their place in `switch_targets`.
    pub unmapped: &'a [usize],
}

/// How a block ends, before its code exists.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Falls or jumps to another block, or leaves by a direct jump.
    Jump,
    Branch,
    Call,
    /// By a register or memory word, through the function's dispatch node when it has targets.
    Indirect,
    /// The dispatch node of the function's indirect jumps; has no instructions.
    Dispatch,
    Leave,
}

struct Info<'a> {
    /// None: the dispatch node.
    block: Option<&'a Block>,
    usage: Vec<Usage>,
    kind: Kind,
    successors: Vec<usize>,
    dirty_in: Set,
    live_in: Set,
    header: bool,
}

impl Info<'_> {
    fn instructions(&self) -> &[Instruction] {
        self.block.map_or(&[], |b| &b.instructions)
    }
}

fn kind_of(i: &Instruction, u: &Usage) -> Kind {
    use iced_x86::FlowControl as F;
    if u.step {
        return if matches!(i.flow_control(), F::Next | F::Interrupt) { Kind::Jump } else { Kind::Leave };
    }
    match i.flow_control() {
        F::ConditionalBranch => Kind::Branch,
        F::Call if i.mnemonic() != iced_x86::Mnemonic::Syscall => Kind::Call,
        F::IndirectCall => Kind::Call,
        F::IndirectBranch => Kind::Indirect,
        F::Return => Kind::Leave,
        _ => Kind::Jump,
    }
}

pub struct Translated {
    /// Types of the locals behind the parameters.
    pub locals: Vec<wasm_encoder::ValType>,
    /// Body, `end` included.
    pub code: Vec<u8>,
}

pub fn translate(f: &Function, ctx: &Context) -> Translated {
    // The entry is node 0.
    let mut starts: Vec<u64> = f.blocks.keys().copied().filter(|s| *s != f.entry).collect();
    starts.insert(0, f.entry);
    let index: HashMap<u64, usize> = starts.iter().enumerate().map(|(n, s)| (*s, n)).collect();
    let targets: Vec<usize> = f.switch_targets.iter().filter_map(|t| index.get(t).copied()).collect();
    let mut infos: Vec<Info> = starts
        .iter()
        .map(|s| {
            let block = &f.blocks[s];
            let usage: Vec<Usage> = block.instructions.iter().map(usage::of).collect();
            let last = block.instructions.last().expect("blocks are not empty");
            let kind = kind_of(last, usage.last().expect("as many as instructions"));
            let jump = (last.flow_control() == iced_x86::FlowControl::UnconditionalBranch
                || last.flow_control() == iced_x86::FlowControl::ConditionalBranch)
                .then(|| last.near_branch64());
            let mut successors = Vec::new();
            match kind {
                Kind::Jump => successors.extend(index.get(&jump.unwrap_or(block.end))),
                Kind::Branch => {
                    successors.extend(jump.and_then(|t| index.get(&t)));
                    successors.extend(index.get(&block.end));
                }
                Kind::Call => successors.extend(index.get(&block.end)),
                Kind::Indirect => successors.extend((!targets.is_empty()).then_some(starts.len())),
                Kind::Leave | Kind::Dispatch => {}
            }
            Info { block: Some(block), usage, kind, successors, dirty_in: 0, live_in: 0, header: false }
        })
        .collect();
    infos.push(Info { block: None, usage: Vec::new(), kind: Kind::Dispatch, successors: targets, dirty_in: 0, live_in: 0, header: false });
    let (number, list) = structure::order(infos.len(), 0, |n| infos[n].successors.clone());
    for &n in &list {
        for s in infos[n].successors.clone() {
            infos[s].header |= number[s] <= number[n];
        }
    }
    flow(&mut infos, &list);
    emit(ctx, f, &infos, &index)
}

/// May-dirty forwards, then liveness backwards; what is stored somewhere is read there.
fn flow(infos: &mut [Info], list: &[usize]) {
    infos[0].dirty_in = PARAMETERS;
    let mut changed = true;
    while changed {
        changed = false;
        for &n in list {
            let out = dirty_out(&infos[n]);
            for s in infos[n].successors.clone() {
                let new = infos[s].dirty_in | out;
                changed |= new != infos[s].dirty_in;
                infos[s].dirty_in = new;
            }
        }
    }
    changed = true;
    while changed {
        changed = false;
        for &n in list.iter().rev() {
            let live = live_sets(infos, n)[0];
            changed |= live != infos[n].live_in;
            infos[n].live_in = live;
        }
    }
}

fn is_barrier(i: &Instruction, u: &Usage) -> bool {
    u.step || i.mnemonic() == iced_x86::Mnemonic::Syscall
}

/// Dirty sets before each instruction, and after the last.
fn dirty_sets(info: &Info) -> Vec<Set> {
    let mut d = info.dirty_in;
    let mut sets = vec![d];
    for (i, u) in info.instructions().iter().zip(&info.usage) {
        d = if is_barrier(i, u) { 0 } else { d | u.writes };
        sets.push(d);
    }
    sets
}

fn dirty_out(info: &Info) -> Set {
    if info.kind == Kind::Call { RESULTS } else { *dirty_sets(info).last().expect("one more than instructions") }
}

/// Live sets before each instruction (0: at the block's start, the poll included), and at the end.
fn live_sets(infos: &[Info], n: usize) -> Vec<Set> {
    let info = &infos[n];
    let dirty = dirty_sets(info);
    let count = info.instructions().len();
    let end = dirty[count];
    let after: Set = info.successors.iter().fold(0, |s, t| s | infos[*t].live_in);
    let mut live = match info.kind {
        // Registers come back in the results or are reloaded.
        Kind::Call => PARAMETERS | end,
        Kind::Leave if info.usage[count - 1].step => 0,
        Kind::Leave => RESULTS | end & ALL_REGISTERS,
        Kind::Indirect | Kind::Dispatch => after | PARAMETERS | end & ALL_REGISTERS,
        // A jump may leave the function: what is dirty is stored then, flags too.
        Kind::Jump | Kind::Branch => {
            let wanted = if info.kind == Kind::Branch { 2 } else { 1 };
            if info.successors.len() < wanted { after | PARAMETERS | end } else { after }
        }
    };
    let mut sets = vec![0; count + 1];
    sets[count] = live;
    for (k, (i, u)) in info.instructions().iter().zip(&info.usage).enumerate().rev() {
        live = if is_barrier(i, u) {
            u.reads | dirty[k]
        } else {
            live & !u.writes | u.reads | if u.may_bail { dirty[k] } else { 0 }
        };
        sets[k] = live;
    }
    if info.header {
        // The poll stores the registers that have changed. Flags that nothing reads are left as they are.
        sets[0] |= info.dirty_in & ALL_REGISTERS;
    }
    sets
}

fn emit(ctx: &Context, f: &Function, infos: &[Info], index: &HashMap<u64, usize>) -> Translated {
    let mut locals = Locals::default();
    let label = locals.kept(ValType::I32);
    let jump = Jump { index: locals.kept(ValType::I32), pc: locals.kept(ValType::I64), targets: infos[infos.len() - 1].successors.len() };
    let mut nodes: Vec<Node> = Vec::new();
    // Behind the blocks: what leaves the function, and the prologue.
    let mut exits: Vec<Node> = Vec::new();
    let live_in: Vec<Set> = infos.iter().map(|i| i.live_in).collect();
    for (n, info) in infos.iter().enumerate() {
        let live = live_sets(infos, n);
        let start = info.block.map_or(V::I64(jump.pc), |b| V::Const(b.start));
        let mut l = Lift { code: Vec::new(), locals: &mut locals, lazy: None, dirty: info.dirty_in, pc: 0, give_up: false };
        if info.header {
            poll(&mut l, start, live[0]);
        }
        let mut b = Builder { ctx, index, exits: &mut exits, count: infos.len(), jump, live: &live_in };
        let end = match info.block {
            Some(block) => b.block(&mut l, block, info, &live),
            None => {
                let body = std::mem::take(&mut l.code);
                Builder::leave(&mut l, jump);
                let default = std::mem::replace(&mut l.code, body);
                l.sink().local_get(jump.index).i32_const((MAP_BLOCK | ctx.first_target) as i32).i32_sub().local_set(label);
                for &k in ctx.unmapped {
                    let target = f.switch_targets[k];
                    l.sink().local_get(jump.pc).i64_const(target as i64).i64_eq().if_(BlockType::Empty);
                    l.sink().i32_const(k as i32).local_set(label).end();
                }
                End::Switch { index: label, targets: info.successors.clone(), default }
            }
        };
        nodes.push(Node { body: l.code, end });
        locals.release();
    }
    nodes.append(&mut exits);
    let mut l = Lift { code: Vec::new(), locals: &mut locals, lazy: None, dirty: 0, pc: 0, give_up: false };
    l.reload(live_in[0] & !PARAMETERS);
    nodes.push(Node { body: l.code, end: End::Goto(0) });
    let entry = nodes.len() - 1;
    let mut code = structure::structure(Graph { nodes, entry, label });
    InstructionSink::new(&mut code).unreachable().end();
    Translated { locals: locals.types(), code }
}

/// Locals that carry an indirect jump to the dispatch node: the dispatch map's payload, and the target.
#[derive(Clone, Copy)]
struct Jump {
    index: u32,
    pc: u32,
    /// How many targets the dispatch node has.
    targets: usize,
}

/// The interrupt poll at a loop's head; also what keeps a spin loop's loads in the loop.
fn poll(l: &mut Lift, pc: V, live: Set) {
    l.sink().i32_const(0).i32_atomic_load(state_arg(OFF_POLL, 2)).if_(BlockType::Empty);
    l.store_dirty(ALL_REGISTERS | live);
    checked_call(l, pc, POLL, pc);
    l.reload(live);
    l.sink().end();
}

/// Calls an import that may send the guest elsewhere: returns upward unless it answers `expect`.
fn checked_call(l: &mut Lift, pc: V, import: u32, expect: V) {
    l.push32(pc);
    l.sink().call(import);
    let r = l.locals.temp32();
    l.sink().local_tee(r);
    l.push32(expect);
    l.sink().i32_ne().if_(BlockType::Empty).local_get(r);
    l.return_from_state();
    l.sink().end();
}

struct Builder<'a> {
    ctx: &'a Context<'a>,
    index: &'a HashMap<u64, usize>,
    /// Nodes that leave the function, numbered behind the blocks.
    exits: &'a mut Vec<Node>,
    count: usize,
    jump: Jump,
    /// Live sets at the starts of the blocks.
    live: &'a [Set],
}

impl Builder<'_> {
    fn block(&mut self, l: &mut Lift, block: &Block, info: &Info, live: &[Set]) -> End {
        let last = block.instructions.len() - 1;
        for (k, i) in block.instructions.iter().enumerate() {
            let flow = if info.usage[k].step { None } else { l.instruction(i) };
            match flow {
                None => {
                    self.barrier(l, i.ip(), STEP, i.next_ip());
                    if k == last && (info.kind == Kind::Leave || !matches!(info.kind, Kind::Jump)) {
                        // The interpreter has executed the transfer: go on where it says.
                        l.sink().i32_const(0).i64_load(state_arg(OFF_RIP, 3)).i32_wrap_i64();
                        l.return_from_state();
                        return End::Exit(Vec::new());
                    }
                    l.reload(live[k + 1]);
                }
                Some(Flow::Next) => {}
                Some(Flow::Syscall) => {
                    self.barrier(l, i.next_ip(), SYSCALL, i.next_ip());
                    l.reload(live[k + 1]);
                }
                Some(flow) => return self.transfer(l, live[last + 1], i, flow),
            }
        }
        self.settle_flags(l, live[last + 1]);
        self.goto(l, block.end)
    }

    /// Everything stored, the import called, nothing dirty afterwards.
    fn barrier(&mut self, l: &mut Lift, pc: u64, import: u32, expect: u64) {
        vkernel_semantics::flags::flush_flags(l);
        l.store_dirty(EVERYTHING);
        checked_call(l, V::Const(pc), import, V::Const(expect));
        l.dirty = 0;
    }

    /// Computes those pending flags that a successor reads.
    fn settle_flags(&mut self, l: &mut Lift, live: Set) {
        use vkernel_semantics::backend::Backend;
        if l.lazy.is_none() {
            return;
        }
        for f in 0..vkernel_abi::state::FLAG_COUNT {
            if live & usage::flag(f) != 0 && f != vkernel_abi::state::DF {
                let v = vkernel_semantics::flags::get_flag(l, f);
                l.store_flag(f, v);
            }
        }
        l.lazy = None;
    }

    /// Node for a direct target: a block, or an exit made here.
    fn target(&mut self, l: &mut Lift, pc: u64) -> usize {
        if let Some(&n) = self.index.get(&pc) {
            return n;
        }
        let mark = l.code.len();
        self.tail(l, pc);
        let body = l.code.split_off(mark);
        self.exits.push(Node { body, end: End::Exit(Vec::new()) });
        self.count + self.exits.len() - 1
    }

    fn goto(&mut self, l: &mut Lift, pc: u64) -> End {
        End::Goto(self.target(l, pc))
    }

    fn push_parameters(l: &mut Lift) {
        for r in [RSP, RDI, RSI, RDX] {
            let at = l.locals.gpr(r);
            l.sink().local_get(at);
        }
    }

    /// Leaves by a direct jump to another function.
    fn tail(&mut self, l: &mut Lift, pc: u64) {
        if let Some(&f) = self.ctx.functions.get(&pc) {
            l.store_dirty(EVERYTHING & !PARAMETERS);
            Self::push_parameters(l);
            l.sink().return_call(f);
        } else {
            l.sink().i32_const(0).i64_const(pc as i64).i64_store(state_arg(OFF_RIP, 3));
            l.store_dirty(EVERYTHING);
            Self::push_parameters(l);
            l.sink().i32_const(0).return_call_indirect(TABLE, TYPE);
        }
    }

    /// Leaves an i32 local with what the dispatch map says of the target in `v` (abi `map_payload`).
    fn map_payload(l: &mut Lift, v: V) -> u32 {
        l.push32(v);
        let V::I32(pc) = l.pop32() else { unreachable!("pop32 gives a local") };
        l.sink().local_get(pc).i32_const(!3).i32_and();
        l.sink().i32_load(MemArg { offset: 0, align: 2, target: MemArgTarget::Memory(MEM_MAP), ordering: None });
        l.sink().local_get(pc).i32_const(3).i32_and().i32_xor().i32_const(2).i32_rotr();
        let V::I32(payload) = l.pop32() else { unreachable!("pop32 gives a local") };
        payload
    }

    /// Pushes the table slot for a payload: what is no slot becomes slot 0.
    fn push_slot(l: &mut Lift, payload: u32) {
        l.sink().local_get(payload).i32_const(0).local_get(payload).i32_const(TABLE_SLOTS as i32).i32_lt_u().select();
    }

    /// Before an indirect transfer: the state is complete, target included, so that the loader can
    /// take over when the slot is empty.
    fn store_all_for(l: &mut Lift, v: V) {
        l.sink().i32_const(0);
        l.push64(v);
        l.sink().i64_store(state_arg(OFF_RIP, 3));
        l.store_dirty(ALL_REGISTERS);
    }

    /// Leaves by an indirect jump.
    fn leave(l: &mut Lift, jump: Jump) {
        Self::store_all_for(l, V::I64(jump.pc));
        Self::push_parameters(l);
        Self::push_slot(l, jump.index);
        l.sink().return_call_indirect(TABLE, TYPE);
    }

    /// `live`: the live set behind the instruction.
    fn transfer(&mut self, l: &mut Lift, live: Set, i: &Instruction, flow: Flow<V>) -> End {
        match flow {
            Flow::Jump(pc) => {
                self.settle_flags(l, live);
                self.goto(l, pc)
            }
            Flow::Branch { cond, target } => {
                let cond = l.condition(cond);
                self.settle_flags(l, live);
                let yes = self.target(l, target);
                let no = self.target(l, i.next_ip());
                if yes == no { End::Goto(yes) } else { End::Branch { cond, yes, no } }
            }
            Flow::JumpTo(v) => {
                let payload = Self::map_payload(l, v);
                l.sink().local_get(payload).local_set(self.jump.index);
                l.push64(v);
                l.sink().local_set(self.jump.pc);
                if self.jump.targets == 0 {
                    Self::leave(l, self.jump);
                    return End::Exit(Vec::new());
                }
                self.settle_flags(l, live);
                End::Goto(self.count - 1)
            }
            Flow::Ret(v) => {
                l.store_dirty(ALL_REGISTERS & !RESULTS);
                l.push32(v);
                for r in [RAX, RSP, RDX] {
                    let at = l.locals.gpr(r);
                    l.sink().local_get(at);
                }
                l.sink().return_();
                End::Exit(Vec::new())
            }
            Flow::Call(pc) => {
                if let Some(&f) = self.ctx.functions.get(&pc) {
                    l.store_dirty(ALL_REGISTERS & !PARAMETERS);
                    Self::push_parameters(l);
                    l.sink().call(f);
                } else {
                    Self::store_all_for(l, V::Const(pc));
                    Self::push_parameters(l);
                    l.sink().i32_const(0).call_indirect(TABLE, TYPE);
                }
                self.after_call(l, i)
            }
            Flow::CallTo(v) => {
                let payload = Self::map_payload(l, v);
                Self::store_all_for(l, v);
                Self::push_parameters(l);
                Self::push_slot(l, payload);
                l.sink().call_indirect(TABLE, TYPE);
                self.after_call(l, i)
            }
            Flow::Next | Flow::Syscall | Flow::Step | Flow::Trap(_) | Flow::Unknown => unreachable!("not transfers"),
        }
    }

    /// Takes the results, and goes on only when the callee returned here.
    fn after_call(&mut self, l: &mut Lift, i: &Instruction) -> End {
        let (rdx, rsp, rax) = (l.locals.gpr(RDX), l.locals.gpr(RSP), l.locals.gpr(RAX));
        let pc = l.locals.temp32();
        l.sink().local_set(rdx).local_set(rsp).local_set(rax).local_tee(pc);
        let next = i.next_ip();
        let Some(&to) = self.index.get(&next) else {
            l.sink().drop().local_get(pc).local_get(rax).local_get(rsp).local_get(rdx).return_();
            return End::Exit(Vec::new());
        };
        l.sink().i32_const(next as i32).i32_ne().if_(BlockType::Empty);
        l.sink().local_get(pc).local_get(rax).local_get(rsp).local_get(rdx).return_().end();
        l.reload(self.live[to] & !RESULTS);
        End::Goto(to)
    }
}
