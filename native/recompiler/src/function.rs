//! One guest function as one wasm function: what is stored and reloaded at calls and exits, and the
//! shape of the whole (vkernel_abi::wasm has the contract).

use crate::discover::{Block, Function};
use crate::extra::Extra;
use crate::hub::{Hub, PROLOGUE};
use crate::lift::{IMPORTS, Lift, POLL, STEP, SYSCALL, V, state_arg};
use crate::liveness::{Analysis, Info, Kind, PARAMETERS, RESULTS, Sets};
use crate::locals::Locals;
use crate::structure::{self, End, Graph, Node};
use crate::summaries::Summaries;
use crate::usage::{ALL_REGISTERS, EVERYTHING, Set, gpr};
use iced_x86::Instruction;
use std::collections::HashMap;
use vkernel_abi::state::{OFF_GPR, OFF_POLL, OFF_RIP, RAX, RDI, RDX, RSI, RSP};
use vkernel_abi::wasm::{MEM_MAP, TABLE_SLOTS};
use vkernel_semantics::backend::{Backend, Flow, W};
use wasm_encoder::{BlockType, InstructionSink, MemArg, MemArgTarget, ValType};

/// Index of the guest function type, and of the table.
pub const TYPE: u32 = 0;
const TABLE: u32 = 0;

/// What a function needs to know of its module.
pub struct Context<'a> {
    /// Function number by entry address.
    pub functions: &'a HashMap<u64, usize>,
    pub known: &'a Summaries<'a>,
    /// Module-wide number of this function's first switch target.
    pub first_target: u32,
    /// What is added to the code.
    pub extra: Extra,
    /// Switch targets without a word in the dispatch map, by their place in `switch_targets`.
    pub unmapped: &'a [usize],
}

pub struct Translated {
    /// Types of the locals behind the parameters.
    pub locals: Vec<wasm_encoder::ValType>,
    /// Body, `end` included.
    pub code: Vec<u8>,
    /// Numbers that its dispatch node takes, from `Context::first_target` on.
    pub numbers: u32,
    /// Instructions that are left to the interpreter.
    pub stepped: Vec<Instruction>,
}

/// Translates an analysed function.
pub fn translate(f: &Function, a: &Analysis, ctx: &Context) -> Translated {
    let infos = &a.infos;
    let mut locals = Locals::default();
    let (label, ret) = (locals.kept(ValType::I32), locals.kept(ValType::I32));
    let jump = Jump { index: locals.kept(ValType::I32), pc: locals.kept(ValType::I64) };
    let hub = &Hub::new(infos.len(), a.dispatch(), |n| infos[n].successors.clone());
    let mut nodes: Vec<Node> = Vec::new();
    let mut steps = Vec::new();
    // Behind the blocks: what leaves the function, and the prologue.
    let mut exits: Vec<Node> = vec![return_node(&locals, ret)];
    for (n, info) in infos.iter().enumerate() {
        let sets = a.sets(n, ctx.known);
        let start = info.block.map_or(V::I64(jump.pc), |b| V::Const(b.start));
        let mut l = Lift::new(&mut locals, info.dirty_in, sets.live[0]);
        ctx.extra.mark(&mut l, info.block.map_or(0, |b| b.start));
        if info.header {
            poll(&mut l, start, sets.live[0], sets.used[0]);
        }
        let mut b =
            Builder { f, ctx, analysis: a, hub, exits: &mut exits, jump, label, ret, from: n, steps: &mut steps };
        let end = match info.block {
            Some(block) => b.block(&mut l, block, info, &sets),
            None => b.dispatch(&mut l),
        };
        nodes.push(Node { body: l.code, end });
        locals.release();
    }
    let mut l = Lift::new(&mut locals, PARAMETERS, 0);
    l.reload(infos[0].used_in & !PARAMETERS);
    let mut b =
        Builder { f, ctx, analysis: a, hub, exits: &mut exits, jump, label, ret, from: PROLOGUE, steps: &mut steps };
    let first = b.edge(&mut l, 0);
    nodes.append(&mut exits);
    let entry = nodes.len();
    nodes.push(Node { body: l.code, end: End::Goto(first) });
    let mut code = structure::structure(Graph { nodes, entry, label });
    InstructionSink::new(&mut code).unreachable().end();
    let numbers = (f.switch_targets.len() + hub.targets.len()) as u32;
    Translated { locals: locals.types(), code, numbers, stepped: steps }
}

/// Locals that carry an indirect jump to the dispatch node: the dispatch map's payload, and the target.
#[derive(Clone, Copy)]
pub(crate) struct Jump {
    pub index: u32,
    pub pc: u32,
}

/// Every return of the function: the engine makes a long epilogue of each, and most are a call's that
/// has returned to somewhere else.
fn return_node(locals: &Locals, ret: u32) -> Node {
    let mut body = Vec::new();
    let mut s = InstructionSink::new(&mut body);
    s.local_get(ret);
    for r in [RAX, RSP, RDX] {
        s.local_get(locals.gpr(r));
    }
    s.return_();
    Node { body, end: End::Exit(Vec::new()) }
}

/// The interrupt poll at a loop's head; also what keeps a spin loop's loads in the loop. It stores
/// and reads back what is live.
fn poll(l: &mut Lift, pc: V, live: Set, used: Set) {
    l.sink().i32_const(0).i32_atomic_load(state_arg(OFF_POLL, 2)).nop().if_(BlockType::Empty);
    l.store_dirty(live);
    l.push32(pc);
    l.sink().call(POLL).drop();
    l.reload(used);
    l.sink().end();
}

pub(crate) struct Builder<'a> {
    pub f: &'a Function,
    pub ctx: &'a Context<'a>,
    pub analysis: &'a Analysis<'a>,
    pub hub: &'a Hub,
    /// Nodes that leave the function or go through the dispatch node, numbered behind the blocks.
    pub exits: &'a mut Vec<Node>,
    pub jump: Jump,
    pub label: u32,
    /// i32 local for the PC that the function returns.
    pub ret: u32,
    /// The block whose code is being made.
    pub from: usize,
    /// Instructions that are left to the interpreter.
    pub steps: &'a mut Vec<Instruction>,
}

impl Builder<'_> {
    fn block(&mut self, l: &mut Lift, block: &Block, info: &Info, sets: &Sets) -> End {
        let Sets { live, used } = sets;
        let last = block.instructions.len() - 1;
        let table = self.f.tables.get(&block.instructions[last].ip());
        let mut index = None;
        self.ctx.extra.count(l, &info.usage);
        for (k, i) in block.instructions.iter().enumerate() {
            l.live = live[k];
            self.ctx.extra.mark(l, i.ip());
            if let Some((_, r)) = table.and_then(|t| t.index).filter(|(ip, _)| *ip == i.ip()) {
                let value = l.reg(r.number());
                l.push32(value);
                let V::I32(at) = l.pop32() else { unreachable!("pop32 gives a local") };
                index = Some(at);
            }
            let u = &info.usage[k];
            let flow = if u.step { None } else { l.instruction(i) };
            match flow {
                None => {
                    self.steps.push(*i);
                    // An instruction that the lifter gave up on was analysed as lifted: all it names is in `live`.
                    Self::barrier(l, i.ip(), STEP, live[k] | live[k + 1]);
                    if k == last && info.kind != Kind::Jump {
                        // The interpreter has executed the transfer: go on where it says.
                        l.sink().i32_const(0).i64_load(state_arg(OFF_RIP, 3)).i32_wrap_i64();
                        l.return_from_state();
                        return End::Exit(Vec::new());
                    }
                    l.reload(used[k + 1] & if u.step { u.may_write } else { EVERYTHING });
                }
                Some(Flow::Next) => {}
                Some(Flow::Syscall) => {
                    Self::barrier(l, i.next_ip(), SYSCALL, live[k] | live[k + 1] | u.writes);
                    l.reload(used[k + 1]);
                }
                Some(Flow::JumpTo(v)) if let Some(table) = table => {
                    l.settle_flags(live[last + 1]);
                    return match index {
                        Some(index) => self.by_index(l, index, &table.targets),
                        None => self.by_target(l, v, &table.targets),
                    };
                }
                Some(flow) => return self.transfer(l, live[last + 1], i, flow),
            }
        }
        l.settle_flags(live[last + 1]);
        self.goto(l, block.end)
    }

    /// `live` stored, the import called, nothing dirty afterwards.
    fn barrier(l: &mut Lift, pc: u64, import: u32, live: Set) {
        l.settle_flags(live);
        l.store_dirty(live);
        l.sink().i32_const(pc as i32).call(import).drop();
        l.dirty = 0;
    }

    /// Node for a direct target: a block, or an exit made here.
    pub fn target(&mut self, l: &mut Lift, pc: u64) -> usize {
        if let Some(&n) = self.analysis.index.get(&pc) {
            return self.edge(l, n);
        }
        let mark = l.code.len();
        self.tail(l, pc);
        self.exit(l, mark, End::Exit(Vec::new()))
    }

    /// Node that returns what is in the result locals and in `ret`.
    fn returning(&self) -> usize {
        self.analysis.infos.len()
    }

    /// Makes a node of the code from `mark` on.
    pub fn exit(&mut self, l: &mut Lift, mark: usize, end: End) -> usize {
        let mut body = l.code.split_off(mark);
        // Exits are placed elsewhere: they are still this instruction's.
        self.ctx.extra.mark(l, l.pc);
        body.splice(0..0, l.code.split_off(mark));
        self.exits.push(Node { body, end });
        self.analysis.infos.len() + self.exits.len() - 1
    }

    fn goto(&mut self, l: &mut Lift, pc: u64) -> End {
        End::Goto(self.target(l, pc))
    }

    /// Pushes the parameters that the callee reads.
    fn push_parameters(l: &mut Lift, live: Set) {
        for r in [RSP, RDI, RSI, RDX] {
            let at = l.locals.gpr(r);
            let mut s = l.sink();
            if live & gpr(r) != 0 {
                s.local_get(at)
            } else {
                s.i64_const(0)
            };
        }
    }

    /// Leaves by a direct jump to another function.
    fn tail(&mut self, l: &mut Lift, pc: u64) {
        let (reads, wanted) = (self.ctx.known.reads(Some(pc)), self.analysis.returns);
        if let Some(v) = self.by_stub(l, pc) {
            let payload = Self::map_payload(l, v);
            Self::store_all_for(l, v, reads | wanted | PARAMETERS);
            Self::push_parameters(l, PARAMETERS);
            Self::push_slot(l, payload);
            l.sink().return_call_indirect(TABLE, TYPE);
        } else if let Some(&f) = self.ctx.functions.get(&pc) {
            l.store_dirty(reads & !PARAMETERS | wanted & !RESULTS);
            Self::push_parameters(l, reads | wanted);
            l.sink().return_call(IMPORTS + f as u32);
        } else {
            l.sink().i32_const(0).i64_const(pc as i64).i64_store(state_arg(OFF_RIP, 3));
            l.store_dirty(reads | wanted | PARAMETERS);
            Self::push_parameters(l, PARAMETERS);
            l.sink().i32_const(0).return_call_indirect(TABLE, TYPE);
        }
    }

    /// The target behind a PLT stub: a call of one is a call by its word.
    fn by_stub(&self, l: &mut Lift, pc: u64) -> Option<V> {
        let word = self.ctx.known.stub_word(pc)?;
        Some(l.load(W::B8, V::Const(word)).expect("the lifter's loads do not fault"))
    }

    /// Leaves an i32 local with what the dispatch map says of the target in `v` (abi `map_payload`).
    pub fn map_payload(l: &mut Lift, v: V) -> u32 {
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
    fn store_all_for(l: &mut Lift, v: V, live: Set) {
        l.sink().i32_const(0);
        l.push64(v);
        l.sink().i64_store(state_arg(OFF_RIP, 3));
        l.store_dirty(live & ALL_REGISTERS);
    }

    /// Leaves by an indirect jump. Behind a dispatch node the parameters may be in the state only.
    pub fn leave(l: &mut Lift, jump: Jump, live: Set) {
        Self::store_all_for(l, V::I64(jump.pc), live);
        for r in [RSP, RDI, RSI, RDX] {
            l.sink().i32_const(0).i64_load(state_arg(OFF_GPR + 8 * r as u32, 3));
        }
        Self::push_slot(l, jump.index);
        l.sink().return_call_indirect(TABLE, TYPE);
    }

    /// `live`: the live set behind the instruction.
    fn transfer(&mut self, l: &mut Lift, live: Set, i: &Instruction, flow: Flow<V>) -> End {
        match flow {
            Flow::Jump(pc) => {
                l.settle_flags(live);
                self.goto(l, pc)
            }
            Flow::Branch { cond, target } => {
                let cond = l.condition(cond);
                l.settle_flags(live);
                let yes = self.target(l, target);
                let no = self.target(l, i.next_ip());
                if yes == no { End::Goto(yes) } else { End::Branch { cond, yes, no, unlikely: false } }
            }
            Flow::JumpTo(v) => {
                let payload = Self::map_payload(l, v);
                l.sink().local_get(payload).local_set(self.jump.index);
                l.push64(v);
                l.sink().local_set(self.jump.pc);
                if self.f.labels.is_empty() {
                    Self::leave(l, self.jump, live | PARAMETERS);
                    return End::Exit(Vec::new());
                }
                l.settle_flags(live);
                l.store_dirty(live);
                End::Goto(self.analysis.dispatch())
            }
            Flow::Ret(v) => {
                l.settle_flags(self.analysis.returns);
                l.store_dirty(self.analysis.returns & !RESULTS);
                l.push32(v);
                l.sink().local_set(self.ret);
                End::Goto(self.returning())
            }
            Flow::Call(pc) => {
                if let Some(v) = self.by_stub(l, pc) {
                    return self.transfer(l, live, i, Flow::CallTo(v));
                }
                if let Some(&f) = self.ctx.functions.get(&pc) {
                    // Registers that come as parameters are the callee's to store, but for those read here later.
                    l.settle_flags(live);
                    l.store_dirty(live & !(PARAMETERS & !self.after(i)));
                    Self::push_parameters(l, live);
                    l.sink().call(IMPORTS + f as u32);
                } else {
                    Self::store_all_for(l, V::Const(pc), live | PARAMETERS);
                    Self::push_parameters(l, PARAMETERS);
                    l.sink().i32_const(0).call_indirect(TABLE, TYPE);
                }
                self.after_call(l, i)
            }
            Flow::CallTo(v) => {
                let payload = Self::map_payload(l, v);
                Self::store_all_for(l, v, live | PARAMETERS);
                Self::push_parameters(l, PARAMETERS);
                Self::push_slot(l, payload);
                l.sink().call_indirect(TABLE, TYPE);
                self.after_call(l, i)
            }
            Flow::Next | Flow::Syscall | Flow::Step | Flow::Trap(_) | Flow::Unknown => unreachable!("not transfers"),
        }
    }

    /// What is read after the call `i`, results aside.
    fn after(&self, i: &Instruction) -> Set {
        let a = self.analysis;
        a.index.get(&i.next_ip()).map_or(a.returns, |n| a.infos[*n].live_in) & !RESULTS
    }

    /// Takes the results, and goes on only when the callee returned here.
    fn after_call(&mut self, l: &mut Lift, i: &Instruction) -> End {
        let (rdx, rsp, rax) = (l.locals.gpr(RDX), l.locals.gpr(RSP), l.locals.gpr(RAX));
        l.sink().local_set(rdx).local_set(rsp).local_set(rax).local_set(self.ret);
        let next = i.next_ip();
        let Some(&to) = self.analysis.index.get(&next) else { return End::Goto(self.returning()) };
        let cond = l.locals.temp32();
        l.sink().local_get(self.ret).i32_const(next as i32).i32_ne().local_set(cond);
        let mark = l.code.len();
        l.reload(self.analysis.infos[to].used_in & !RESULTS);
        let on = self.edge(l, to);
        let on = self.exit(l, mark, End::Goto(on));
        End::Branch { cond, yes: self.returning(), no: on, unlikely: true }
    }
}
