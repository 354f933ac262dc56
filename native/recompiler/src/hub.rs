//! The dispatch node as the way into loops. A computed goto makes most of a function one loop with as
//! many entries as there are labels, and a loop with several entries needs a local that says which
//! one, and moves of all locals to one place (structure.rs). Where there is a dispatch node, which
//! finds everything in the state anyway, the rarer edges go through it instead, and it becomes the
//! loop's only entry.

use crate::structure::{components, order};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Stands for the function's prologue as the origin of an edge.
pub const PROLOGUE: usize = usize::MAX;

#[derive(Default)]
pub struct Hub {
    /// Edges between blocks that go through the dispatch node.
    pub edges: HashSet<(usize, usize)>,
    /// Their targets: numbers of the dispatch node behind those of the labels.
    pub targets: Vec<usize>,
}

impl Hub {
    /// `dispatch` is the dispatch node's number, block 0 the entry. Nothing is routed where the dispatch node
    /// cannot be reached.
    pub fn new(count: usize, dispatch: usize, successors: impl Fn(usize) -> Vec<usize>) -> Self {
        let mut hub = Hub::default();
        let (number, reachable) = order(count, 0, |n| hub.successors(dispatch, n, &successors));
        if number[dispatch] == usize::MAX {
            return hub;
        }
        // Into the loop of the dispatch node from outside.
        let all = components(&reachable, |n| hub.successors(dispatch, n, &successors));
        let Some(around) = all.into_iter().find(|c| c.contains(&dispatch)) else { return hub };
        let inside: HashSet<usize> = around.iter().copied().collect();
        for &n in reachable.iter().filter(|n| !inside.contains(n)) {
            for to in successors(n).into_iter().filter(|t| inside.contains(t) && *t != dispatch) {
                hub.route(n, to);
            }
        }
        if inside.contains(&0) {
            hub.route(PROLOGUE, 0);
        }
        // Inner loops that are entered in several places: backward edges of theirs go through it.
        let within: Vec<usize> = around.iter().copied().filter(|n| *n != dispatch).collect();
        while hub.break_one_round(dispatch, count, &within, &successors) {}
        hub
    }

    fn route(&mut self, from: usize, to: usize) {
        if self.edges.insert((from, to)) && !self.targets.contains(&to) {
            self.targets.push(to);
        }
    }

    fn successors(&self, dispatch: usize, n: usize, plain: &impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
        let mut list: Vec<usize> =
            plain(n).into_iter().map(|t| if self.edges.contains(&(n, t)) { dispatch } else { t }).collect();
        if n == dispatch {
            list.extend(&self.targets);
        }
        list
    }

    /// Routes backward edges of loops with several entries; false: there are no such loops.
    fn break_one_round(
        &mut self,
        dispatch: usize,
        count: usize,
        within: &[usize],
        plain: &impl Fn(usize) -> Vec<usize>,
    ) -> bool {
        let (number, _) = order(count, dispatch, |n| self.successors(dispatch, n, plain));
        let all: HashMap<usize, Vec<usize>> =
            within.iter().chain([&dispatch]).map(|n| (*n, self.successors(dispatch, *n, plain))).collect();
        let mut routed = false;
        for component in components(within, |n| all[&n].clone()) {
            let inside: HashSet<usize> = component.iter().copied().collect();
            let entries: BTreeSet<usize> = all
                .iter()
                .filter(|(n, _)| !inside.contains(n))
                .flat_map(|(_, s)| s)
                .filter(|s| inside.contains(s))
                .copied()
                .collect();
            if entries.len() < 2 {
                continue;
            }
            let backward: Vec<(usize, usize)> = component
                .iter()
                .flat_map(|n| all[n].iter().map(move |t| (*n, *t)))
                .filter(|(n, t)| inside.contains(t) && number[*t] <= number[*n])
                .collect();
            let to_entries: Vec<_> = backward.iter().copied().filter(|(_, t)| entries.contains(t)).collect();
            for (n, t) in if to_entries.is_empty() { backward } else { to_entries } {
                self.route(n, t);
                routed = true;
            }
        }
        routed
    }
}
