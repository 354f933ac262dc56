//! Control-flow graphs to wasm's structured control: the dominator-tree translation of Ramsey,
//! "Beyond Relooper" (ICFP 2022). Loops with several entries get a dispatch node first, as LLVM's
//! WebAssemblyFixIrreducibleControlFlow does: their entries are reached through it, by a local.

use std::collections::{HashMap, HashSet};
use wasm_encoder::{BlockType, InstructionSink};

/// How a block ends; targets are block indices.
pub enum End {
    Goto(usize),
    /// The condition is an i32 local. `unlikely`: it hardly ever holds.
    Branch {
        cond: u32,
        yes: usize,
        no: usize,
        unlikely: bool,
    },
    /// `index` (an i32 local) picks a target; `default`'s code, which leaves the function, runs where
    /// there is none.
    Switch {
        index: u32,
        targets: Vec<Option<usize>>,
        default: Vec<u8>,
    },
    /// Code that leaves the function.
    Exit(Vec<u8>),
}

pub struct Node {
    pub body: Vec<u8>,
    pub end: End,
}

pub struct Graph {
    pub nodes: Vec<Node>,
    pub entry: usize,
    /// i32 local for the dispatch nodes.
    pub label: u32,
}

impl Graph {
    fn successors(&self, n: usize) -> Vec<usize> {
        match &self.nodes[n].end {
            End::Goto(t) => vec![*t],
            End::Branch { yes, no, .. } => vec![*yes, *no],
            End::Switch { targets, .. } => targets.iter().flatten().copied().collect(),
            End::Exit(_) => Vec::new(),
        }
    }

    fn redirect(&mut self, n: usize, to: &HashMap<usize, usize>) {
        let change = |t: &mut usize| *t = *to.get(t).unwrap_or(t);
        match &mut self.nodes[n].end {
            End::Goto(t) => change(t),
            End::Branch { yes, no, .. } => {
                change(yes);
                change(no);
            }
            End::Switch { targets, .. } => targets.iter_mut().flatten().for_each(change),
            End::Exit(_) => {}
        }
    }

    /// Gives every loop among `nodes` one entry; edges to `head` do not count.
    fn make_reducible(&mut self, nodes: &[usize], head: usize) {
        for component in components(nodes, |n| self.successors(n).into_iter().filter(|s| *s != head).collect()) {
            let inside: HashSet<usize> = component.iter().copied().collect();
            let mut entries: Vec<usize> = nodes
                .iter()
                .filter(|n| !inside.contains(n))
                .flat_map(|n| self.successors(*n))
                .filter(|s| *s != head && inside.contains(s))
                .collect();
            entries.sort_unstable();
            entries.dedup();
            let [entry] = entries[..] else {
                let dispatch = self.nodes.len();
                let mut default = Vec::new();
                InstructionSink::new(&mut default).unreachable();
                self.nodes.push(Node {
                    body: Vec::new(),
                    end: End::Switch {
                        index: self.label,
                        targets: entries.iter().copied().map(Some).collect(),
                        default,
                    },
                });
                let outside: Vec<usize> = nodes.iter().copied().filter(|n| !inside.contains(n)).collect();
                self.route(&outside, &entries, dispatch);
                let mut all = component.clone();
                all.extend(self.route(&component, &entries, dispatch));
                all.push(dispatch);
                self.make_reducible(&all, dispatch);
                continue;
            };
            self.make_reducible(&component, entry);
        }
    }

    /// Leads the edges from `nodes` to `entries` over new nodes, which it returns, to `dispatch`.
    fn route(&mut self, nodes: &[usize], entries: &[usize], dispatch: usize) -> std::ops::Range<usize> {
        let first = self.nodes.len();
        let routes: HashMap<usize, usize> = entries.iter().enumerate().map(|(k, e)| (*e, first + k)).collect();
        for &n in nodes {
            self.redirect(n, &routes);
        }
        for k in 0..entries.len() {
            let mut body = Vec::new();
            InstructionSink::new(&mut body).i32_const(k as i32).local_set(self.label);
            self.nodes.push(Node { body, end: End::Goto(dispatch) });
        }
        first..self.nodes.len()
    }
}

/// Strongly connected components that contain a cycle (Tarjan, without recursion).
pub fn components(nodes: &[usize], successors: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<usize>> {
    let inside: HashSet<usize> = nodes.iter().copied().collect();
    let edges = |n: usize| successors(n).into_iter().filter(|s| inside.contains(s)).collect::<Vec<_>>();
    let (mut index, mut low, mut on): (HashMap<usize, usize>, HashMap<usize, usize>, HashSet<usize>) =
        Default::default();
    let (mut stack, mut out) = (Vec::new(), Vec::new());
    for &root in nodes {
        if index.contains_key(&root) {
            continue;
        }
        let mut work = vec![(root, edges(root), 0usize)];
        while let Some((n, succ, at)) = work.last_mut() {
            let n = *n;
            if *at == 0 && !index.contains_key(&n) {
                low.insert(n, index.len());
                index.insert(n, index.len());
                stack.push(n);
                on.insert(n);
            }
            if let Some(&s) = succ.get(*at) {
                *at += 1;
                if !index.contains_key(&s) {
                    let next = edges(s);
                    work.push((s, next, 0));
                } else if on.contains(&s) {
                    let l = low[&n].min(index[&s]);
                    low.insert(n, l);
                }
                continue;
            }
            let own_edge = succ.contains(&n);
            work.pop();
            if let Some((parent, ..)) = work.last() {
                let l = low[parent].min(low[&n]);
                low.insert(*parent, l);
            }
            if low[&n] == index[&n] {
                let at = stack.iter().rposition(|k| *k == n).expect("on the stack");
                let component = stack.split_off(at);
                component.iter().for_each(|k| {
                    on.remove(k);
                });
                if component.len() > 1 || own_edge {
                    out.push(component);
                }
            }
        }
    }
    out
}

/// Reverse post-order numbers (usize::MAX: unreachable) and the order itself.
pub fn order(count: usize, entry: usize, successors: impl Fn(usize) -> Vec<usize>) -> (Vec<usize>, Vec<usize>) {
    let mut post = Vec::new();
    let mut seen = vec![false; count];
    let mut stack = vec![(entry, successors(entry), 0usize)];
    seen[entry] = true;
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

/// The body of the function, `end` not included. The entry has no predecessors.
pub fn structure(mut g: Graph) -> Vec<u8> {
    let (_, reachable) = order(g.nodes.len(), g.entry, |k| g.successors(k));
    g.make_reducible(&reachable, g.entry);
    let n = g.nodes.len();
    let (rpo, list) = order(n, g.entry, |k| g.successors(k));
    let mut preds = vec![Vec::new(); n];
    for &k in &list {
        for s in g.successors(k) {
            preds[s].push(k);
        }
    }
    // Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm".
    let mut idom = vec![usize::MAX; n];
    idom[g.entry] = g.entry;
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
    let mut is_loop = vec![false; n];
    let mut forward = vec![0usize; n];
    let mut is_merge = vec![false; n];
    for &k in &list {
        for s in g.successors(k) {
            if rpo[s] <= rpo[k] {
                is_loop[s] = true;
            } else {
                forward[s] += 1;
                is_merge[s] |= forward[s] >= 2 || matches!(g.nodes[k].end, End::Switch { .. });
            }
        }
    }
    let mut merges = vec![Vec::new(); n];
    for &k in list.iter().rev() {
        if is_merge[k] {
            merges[idom[k]].push(k);
        }
    }
    let mut s = Structurer { g: &g, rpo, merges, is_merge, is_loop, context: Vec::new(), out: Vec::new() };
    s.tree(g.entry);
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
            End::Branch { cond, yes, no, unlikely } => {
                self.sink().local_get(*cond);
                if *unlikely {
                    self.sink().nop();
                }
                self.sink().if_(BlockType::Empty);
                self.context.push(None);
                self.branch(x, *yes);
                self.sink().else_();
                self.branch(x, *no);
                self.context.pop();
                self.sink().end().unreachable();
            }
            End::Switch { index, targets, default } => {
                self.sink().block(BlockType::Empty);
                self.context.push(None);
                let targets: Vec<u32> = targets.iter().map(|t| t.map_or(0, |t| self.depth(t))).collect();
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
