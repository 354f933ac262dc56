//! Control-flow graphs to wasm's structured control: the dominator-tree translation of Ramsey,
//! "Beyond Relooper" (ICFP 2022). An irreducible graph is dispatched by a local instead.

use wasm_encoder::{BlockType, InstructionSink};

/// How a block ends; targets are block indices.
pub enum End {
    Goto(usize),
    /// The condition is an i32 local.
    Branch { cond: u32, yes: usize, no: usize },
    /// `index` (an i32 local) picks among the graph's switch targets, otherwise `default`'s code runs.
    Switch { index: u32, default: Vec<u8> },
    /// Code that leaves the function.
    Exit(Vec<u8>),
}

pub struct Node {
    pub body: Vec<u8>,
    pub end: End,
}

pub struct Graph {
    /// Node 0 is the entry.
    pub nodes: Vec<Node>,
    pub switch_targets: Vec<usize>,
    /// i32 local for dispatch, used by irreducible graphs only.
    pub label: u32,
}

impl Graph {
    fn successors(&self, n: usize) -> Vec<usize> {
        match &self.nodes[n].end {
            End::Goto(t) => vec![*t],
            End::Branch { yes, no, .. } => vec![*yes, *no],
            End::Switch { .. } => self.switch_targets.clone(),
            End::Exit(_) => Vec::new(),
        }
    }
}

/// Reverse post-order numbers (usize::MAX: unreachable) and the order itself.
pub fn order(count: usize, successors: impl Fn(usize) -> Vec<usize>) -> (Vec<usize>, Vec<usize>) {
    let mut post = Vec::new();
    let mut seen = vec![false; count];
    let mut stack = vec![(0usize, successors(0), 0usize)];
    seen[0] = true;
    while let Some((n, succ, at)) = stack.last_mut() {
        if let Some(&s) = succ.get(*at) {
            *at += 1;
            if !seen[s] {
                seen[s] = true;
                stack.push((s, successors(s), 0));
            }
        } else {
            post.push(*n);
            stack.pop();
        }
    }
    post.reverse();
    let mut number = vec![usize::MAX; count];
    for (k, &n) in post.iter().enumerate() {
        number[n] = k;
    }
    (number, post)
}

struct Structurer<'a> {
    g: &'a Graph,
    rpo: Vec<usize>,
    /// Children in the dominator tree that are merge nodes, outermost first.
    merges: Vec<Vec<usize>>,
    is_merge: Vec<bool>,
    is_loop: Vec<bool>,
    /// Innermost last; None: an `if`.
    context: Vec<Option<usize>>,
    out: Vec<u8>,
}

/// The body of the function, `end` not included.
pub fn structure(g: &Graph) -> Vec<u8> {
    let n = g.nodes.len();
    let (rpo, list) = order(n, |k| g.successors(k));
    let mut preds = vec![Vec::new(); n];
    for &k in &list {
        for s in g.successors(k) {
            if !preds[s].contains(&k) {
                preds[s].push(k);
            }
        }
    }
    // Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm".
    let mut idom = vec![usize::MAX; n];
    idom[0] = 0;
    let mut changed = true;
    while changed {
        changed = false;
        for &k in list.iter().skip(1) {
            let mut new = usize::MAX;
            for &p in &preds[k] {
                if idom[p] == usize::MAX {
                    continue;
                }
                new = if new == usize::MAX { p } else { intersect(p, new, &idom, &rpo) };
            }
            if idom[k] != new {
                idom[k] = new;
                changed = true;
            }
        }
    }
    let dominates = |a: usize, mut b: usize| {
        while rpo[b] > rpo[a] {
            b = idom[b];
        }
        a == b
    };
    let mut is_loop = vec![false; n];
    let mut forward = vec![0usize; n];
    for &k in &list {
        for s in g.successors(k) {
            if rpo[s] <= rpo[k] {
                if !dominates(s, k) {
                    return dispatched(g, &list);
                }
                is_loop[s] = true;
            } else {
                forward[s] += 1;
            }
        }
    }
    let mut is_merge: Vec<bool> = forward.iter().map(|f| *f >= 2).collect();
    for &t in &g.switch_targets {
        is_merge[t] |= rpo[t] != usize::MAX && t != 0;
    }
    let mut merges = vec![Vec::new(); n];
    for &k in list.iter().rev() {
        if k != 0 && is_merge[k] {
            merges[idom[k]].push(k);
        }
    }
    let mut s = Structurer { g, rpo, merges, is_merge, is_loop, context: Vec::new(), out: Vec::new() };
    s.tree(0);
    s.out
}

fn intersect(mut a: usize, mut b: usize, idom: &[usize], rpo: &[usize]) -> usize {
    while a != b {
        while rpo[a] > rpo[b] {
            a = idom[a];
        }
        while rpo[b] > rpo[a] {
            b = idom[b];
        }
    }
    a
}

impl Structurer<'_> {
    fn sink(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.out)
    }

    fn tree(&mut self, x: usize) {
        if self.is_loop[x] {
            self.sink().loop_(BlockType::Empty);
            self.context.push(Some(x));
            self.within(x, 0);
            self.context.pop();
            self.sink().end();
        } else {
            self.within(x, 0);
        }
    }

    fn within(&mut self, x: usize, merge: usize) {
        if let Some(&y) = self.merges[x].get(merge) {
            self.sink().block(BlockType::Empty);
            self.context.push(Some(y));
            self.within(x, merge + 1);
            self.context.pop();
            self.sink().end();
            self.tree(y);
            return;
        }
        let g = self.g;
        self.out.extend_from_slice(&g.nodes[x].body);
        match &g.nodes[x].end {
            End::Goto(t) => self.branch(x, *t),
            End::Branch { cond, yes, no } => {
                self.sink().local_get(*cond).if_(BlockType::Empty);
                self.context.push(None);
                self.branch(x, *yes);
                self.sink().else_();
                self.branch(x, *no);
                self.context.pop();
                self.sink().end().unreachable();
            }
            End::Switch { index, default } => {
                self.sink().block(BlockType::Empty);
                self.context.push(None);
                let targets: Vec<u32> = g.switch_targets.iter().map(|t| self.depth(*t)).collect();
                self.sink().local_get(*index).br_table(targets, 0);
                self.context.pop();
                self.sink().end();
                self.out.extend_from_slice(default);
            }
            End::Exit(code) => self.out.extend_from_slice(code),
        }
    }

    fn depth(&self, target: usize) -> u32 {
        let at = self.context.iter().rposition(|c| *c == Some(target)).expect("a label of the context");
        (self.context.len() - 1 - at) as u32
    }

    fn branch(&mut self, from: usize, to: usize) {
        if self.rpo[to] <= self.rpo[from] || self.is_merge[to] {
            let d = self.depth(to);
            self.sink().br(d);
        } else {
            self.tree(to);
        }
    }
}

/// loop { switch (label) { … } }: correct for every graph.
fn dispatched(g: &Graph, list: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let count = list.len() as u32;
    let index = |n: usize| list.iter().position(|k| *k == n).expect("reachable") as i32;
    let mut s = InstructionSink::new(&mut out);
    s.i32_const(0).local_set(g.label).loop_(BlockType::Empty);
    for _ in 0..count {
        s.block(BlockType::Empty);
    }
    s.local_get(g.label).br_table(0..count - 1, count - 1);
    for (k, &n) in list.iter().enumerate() {
        let top = count - 1 - k as u32;
        let mut s = InstructionSink::new(&mut out);
        s.end();
        out.extend_from_slice(&g.nodes[n].body);
        let mut s = InstructionSink::new(&mut out);
        match &g.nodes[n].end {
            End::Goto(t) => {
                s.i32_const(index(*t)).local_set(g.label).br(top);
            }
            End::Branch { cond, yes, no } => {
                s.i32_const(index(*yes)).i32_const(index(*no)).local_get(*cond).select().local_set(g.label).br(top);
            }
            End::Switch { index: at, default } => {
                s.block(BlockType::Empty).block(BlockType::Empty);
                s.local_get(*at).i32_const(g.switch_targets.len() as i32).i32_ge_u().br_if(0);
                // The targets' labels, by a chain of blocks would be long: a nested switch sets them.
                for _ in &g.switch_targets {
                    s.block(BlockType::Empty);
                }
                let m = g.switch_targets.len() as u32;
                s.local_get(*at).br_table(0..m.saturating_sub(1), m.saturating_sub(1));
                for (j, t) in g.switch_targets.iter().enumerate() {
                    s.end().i32_const(index(*t)).local_set(g.label).br(m - 1 - j as u32 + 1);
                }
                s.end();
                out.extend_from_slice(default);
                InstructionSink::new(&mut out).end().br(top);
            }
            End::Exit(code) => out.extend_from_slice(code),
        }
    }
    InstructionSink::new(&mut out).end().unreachable();
    out
}
