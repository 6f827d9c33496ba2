//! Who waits for whom: a graph in which a task has at most one step out, to the holder of the lock it waits
//! for, and chains and circles in it.

use std::collections::{HashMap, HashSet};

use crate::event::Confidence;

/// One step: a task waits for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Thread that waits.
    pub from: u32,
    /// Thread that holds what it waits for.
    pub to: u32,
    /// How sure that is.
    pub confidence: Confidence,
}

/// A line of the graph drawn as trees: a thread, below the one that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The thread.
    pub tid: u32,
    /// Steps from the root of its tree.
    pub depth: u32,
    /// Threads that it holds up, directly or not.
    pub behind: u32,
    /// It is one of a circle.
    pub in_cycle: bool,
    /// It is the root once more: here the circle closes.
    pub closes: bool,
}

/// The steps, by the waiting thread.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    next: HashMap<u32, Edge>,
}

impl FromIterator<Edge> for Graph {
    fn from_iter<I: IntoIterator<Item = Edge>>(edges: I) -> Self {
        Graph {
            next: edges.into_iter().map(|edge| (edge.from, edge)).collect(),
        }
    }
}

impl Graph {
    /// The steps from a thread to the one at whose door it all ends, which waits for nobody known. In a
    /// circle each step comes once.
    pub fn chain(&self, from: u32) -> Vec<Edge> {
        let mut steps = Vec::new();
        let mut seen = HashSet::new();
        let mut at = from;
        while seen.insert(at)
            && let Some(edge) = self.next.get(&at)
        {
            steps.push(*edge);
            at = edge.to;
        }
        steps
    }

    /// Circles, each from its lowest thread number on; the lowest first.
    pub fn cycles(&self) -> Vec<Vec<Edge>> {
        let mut done = HashSet::new();
        let mut cycles = Vec::new();
        let mut starts: Vec<u32> = self.next.keys().copied().collect();
        starts.sort_unstable();
        for start in starts {
            let mut path = Vec::new();
            let mut at = start;
            while done.insert(at)
                && let Some(edge) = self.next.get(&at)
            {
                path.push(*edge);
                at = edge.to;
            }
            // Back on this very path, and not on one that was followed before: a circle, and new.
            if let Some(first) = path.iter().position(|edge| edge.from == at) {
                let mut cycle = path.split_off(first);
                let lowest = (0..cycle.len()).min_by_key(|&i| cycle[i].from);
                cycle.rotate_left(lowest.unwrap_or(0));
                cycles.push(cycle);
            }
        }
        cycles.sort_by_key(|cycle| cycle[0].from);
        cycles
    }

    /// Threads that others wait for and that wait for nobody known themselves, with how many threads each
    /// holds up, directly or not: the most first.
    pub fn roots(&self) -> Vec<(u32, usize)> {
        let mut behind: HashMap<u32, usize> = HashMap::new();
        for &from in self.next.keys() {
            if let Some(last) = self.chain(from).last()
                && !self.next.contains_key(&last.to)
            {
                *behind.entry(last.to).or_default() += 1;
            }
        }
        let mut roots: Vec<(u32, usize)> = behind.into_iter().collect();
        roots.sort_by_key(|&(tid, count)| (std::cmp::Reverse(count), tid));
        roots
    }

    /// The whole graph as trees, in the order in which they are drawn: circles first, then the threads that
    /// hold up the most others; below each thread those that wait for it, lowest first.
    pub fn forest(&self) -> Vec<Branch> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for edge in self.next.values() {
            children.entry(edge.to).or_default().push(edge.from);
        }
        for waiting in children.values_mut() {
            waiting.sort_unstable();
        }
        let cycles = self.cycles();
        let in_cycle: HashSet<u32> = cycles.iter().flatten().map(|edge| edge.from).collect();
        let roots = cycles.iter().map(|cycle| cycle[0].from);
        let mut others: Vec<u32> = children
            .keys()
            .copied()
            .filter(|tid| !self.next.contains_key(tid))
            .collect();
        others.sort_unstable();
        let mut trees: Vec<Vec<Branch>> = roots
            .chain(others)
            .map(|root| tree(root, &children, &in_cycle))
            .collect();
        // Stable: trees of the same size stay in the order of their roots.
        trees.sort_by_key(|tree| (!tree[0].in_cycle, std::cmp::Reverse(tree[0].behind)));
        trees.concat()
    }

    /// Threads that wait for this one directly, lowest first.
    pub fn waiting_for(&self, tid: u32) -> Vec<u32> {
        let mut waiting: Vec<u32> = self
            .next
            .values()
            .filter(|edge| edge.to == tid)
            .map(|edge| edge.from)
            .collect();
        waiting.sort_unstable();
        waiting
    }
}

/// The threads that wait for a root, directly or not, below it.
fn tree(root: u32, children: &HashMap<u32, Vec<u32>>, in_cycle: &HashSet<u32>) -> Vec<Branch> {
    let mut lines: Vec<Branch> = Vec::new();
    // Line of the thread above, to add up who is held up.
    let mut above: Vec<Option<usize>> = Vec::new();
    let mut rest = vec![(root, None)];
    while let Some((tid, parent)) = rest.pop() {
        let closes = parent.is_some() && tid == root;
        let depth = parent.map_or(0, |at: usize| lines[at].depth + 1);
        if !closes {
            let at = lines.len();
            let waiting = children.get(&tid).into_iter().flatten();
            rest.extend(waiting.rev().map(|&tid| (tid, Some(at))));
        }
        above.push(parent);
        lines.push(Branch {
            tid,
            depth,
            behind: 0,
            in_cycle: in_cycle.contains(&tid),
            closes,
        });
    }
    for at in (0..lines.len()).rev() {
        if let Some(parent) = above[at]
            && !lines[at].closes
        {
            lines[parent].behind += lines[at].behind + 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(u32, u32)]) -> Graph {
        let edge = |&(from, to): &(u32, u32)| Edge {
            from,
            to,
            confidence: Confidence::Exact,
        };
        edges.iter().map(edge).collect()
    }

    fn threads(steps: &[Edge]) -> Vec<u32> {
        steps.iter().map(|edge| edge.from).collect()
    }

    #[test]
    fn circles_are_found_once_each() {
        let all = graph(&[
            (5, 4),
            (4, 5),
            (1, 2),
            (2, 3),
            (3, 1),
            (9, 1),
            (8, 9),
            (7, 70),
        ]);
        let cycles = all.cycles();
        let found: Vec<Vec<u32>> = cycles.iter().map(|cycle| threads(cycle)).collect();
        assert_eq!(found, [vec![1, 2, 3], vec![4, 5]]);
        assert!(graph(&[(1, 2), (2, 3)]).cycles().is_empty());
        assert_eq!(threads(&graph(&[(1, 1)]).cycles()[0]), [1]);
    }

    #[test]
    fn chains_end_at_the_one_who_waits_for_nobody() {
        let all = graph(&[(1, 2), (2, 3), (3, 4), (6, 4), (7, 8), (8, 7)]);
        assert_eq!(threads(&all.chain(1)), [1, 2, 3]);
        assert_eq!(all.chain(1).last().unwrap().to, 4);
        assert!(all.chain(4).is_empty());
        assert_eq!(threads(&all.chain(7)), [7, 8]);
        assert_eq!(all.roots(), [(4, 4)]);
        assert_eq!(all.waiting_for(4), [3, 6]);
    }

    #[test]
    fn trees_from_their_roots() {
        let all = graph(&[(1, 2), (3, 2), (4, 3), (5, 9), (7, 8), (8, 7), (6, 7)]);
        let lines: Vec<_> = all
            .forest()
            .iter()
            .map(|line| {
                (
                    line.depth,
                    line.tid,
                    line.behind,
                    line.in_cycle,
                    line.closes,
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                (0, 7, 2, true, false),
                (1, 6, 0, false, false),
                (1, 8, 0, true, false),
                (2, 7, 0, true, true),
                (0, 2, 3, false, false),
                (1, 1, 0, false, false),
                (1, 3, 1, false, false),
                (2, 4, 0, false, false),
                (0, 9, 1, false, false),
                (1, 5, 0, false, false),
            ]
        );
        let own = graph(&[(1, 1)]).forest();
        assert_eq!((own.len(), own[1].closes), (2, true));
    }

    #[test]
    fn ten_thousand_in_a_row() {
        let edges: Vec<(u32, u32)> = (0..10_000).map(|i| (i, i + 1)).collect();
        assert_eq!(graph(&edges).chain(0).len(), 10_000);
        assert_eq!(graph(&edges).forest().len(), 10_001);
        assert!(graph(&edges).cycles().is_empty());
    }
}
