//! Indirect jumps inside a function: by a table at the jump itself, or through the dispatch node, which
//! takes everything from the state; and the edges that go through it because of hub.rs.

use crate::function::Builder;
use crate::lift::{Lift, V};
use crate::structure::End;
use std::collections::HashMap;
use vkernel_abi::wasm::MAP_BLOCK;
use wasm_encoder::BlockType;

impl Builder<'_> {
    /// Node for the block `to`: itself, or one that leads there through the dispatch node.
    pub fn edge(&mut self, l: &mut Lift, to: usize) -> usize {
        if !self.hub.edges.contains(&(self.from, to)) {
            return to;
        }
        let mark = l.code.len();
        let info = &self.analysis.infos[to];
        l.store_dirty(info.used_in);
        let place = self.hub.targets.iter().position(|t| *t == to).expect("the targets of the edges");
        let number = self.ctx.first_target + (self.f.switch_targets.len() + place) as u32;
        let start = info.block.expect("edges lead to blocks").start;
        l.sink().i32_const((MAP_BLOCK | number) as i32).local_set(self.jump.index);
        l.sink().i64_const(start as i64).local_set(self.jump.pc);
        self.exit(l, mark, End::Goto(self.analysis.dispatch()))
    }

    /// The dispatch node: from the state to the block that `jump` names, or out of the function.
    pub fn dispatch(&mut self, l: &mut Lift) -> End {
        let mark = l.code.len();
        Self::leave(l, self.jump, 0);
        let default = l.code.split_off(mark);
        self.number(l, self.jump.index, self.jump.pc, 0, |t| self.f.labels.contains(&t));
        let labels = self.f.switch_targets.iter();
        let labels = labels.map(|t| self.f.labels.contains(t).then(|| self.analysis.index[t]));
        let targets: Vec<_> = labels.chain(self.hub.targets.iter().copied().map(Some)).collect();
        let targets = targets.into_iter().map(|t| {
            let t = t?;
            let mark = l.code.len();
            l.reload(self.analysis.infos[t].used_in);
            Some(self.exit(l, mark, End::Goto(t)))
        });
        let targets = targets.collect();
        End::Switch { index: self.label, targets, default }
    }

    /// Sets the label local to a target's number, counted from `low`: by the map's payload, or by the
    /// address where the map has no word for it.
    fn number(&self, l: &mut Lift, payload: u32, pc: u32, low: usize, wanted: impl Fn(u64) -> bool) {
        let first = MAP_BLOCK | (self.ctx.first_target + low as u32);
        l.sink().local_get(payload).i32_const(first as i32).i32_sub().local_set(self.label);
        for &k in self.ctx.unmapped.iter().filter(|k| wanted(self.f.switch_targets[**k])) {
            let target = self.f.switch_targets[k];
            l.sink().local_get(pc).i64_const(target as i64).i64_eq().if_(BlockType::Empty);
            l.sink().i32_const((k - low) as i32).local_set(self.label).end();
        }
    }

    /// A jump by a table to its targets. What the analysis holds for impossible, an index beyond the
    /// table, is the interpreter's.
    pub fn by_index(&mut self, l: &mut Lift, index: u32, targets: &[u64]) -> End {
        let nodes = self.nodes(l, targets);
        let targets = targets.iter().map(|t| Some(nodes[t])).collect();
        End::Switch { index, targets, default: Self::bailed(l) }
    }

    /// The same where the index is not known: by the number of the target.
    pub fn by_target(&mut self, l: &mut Lift, v: V, targets: &[u64]) -> End {
        let nodes = self.nodes(l, targets);
        let place = |t: u64| self.f.switch_targets.binary_search(&t).expect("all targets are in it");
        let low = targets.iter().map(|t| place(*t)).min().expect("tables are not empty");
        let high = targets.iter().map(|t| place(*t)).max().expect("tables are not empty");
        let payload = Self::map_payload(l, v);
        l.push64(v);
        let V::I64(pc) = l.pop64() else { unreachable!("pop64 gives a local") };
        self.number(l, payload, pc, low, |t| nodes.contains_key(&t));
        let targets = self.f.switch_targets[low..=high].iter().map(|t| nodes.get(t).copied()).collect();
        End::Switch { index: self.label, targets, default: Self::bailed(l) }
    }

    fn nodes(&mut self, l: &mut Lift, targets: &[u64]) -> HashMap<u64, usize> {
        let mut nodes = HashMap::new();
        for &t in targets {
            nodes.entry(t).or_insert_with(|| self.target(l, t));
        }
        nodes
    }

    fn bailed(l: &mut Lift) -> Vec<u8> {
        let mark = l.code.len();
        l.bail();
        l.code.split_off(mark)
    }
}
