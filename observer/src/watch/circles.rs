//! Which circles have been seen, so that each is confirmed by a second look and told once.

use std::{collections::HashMap, time::Instant};

use super::{Watch, take};
use crate::{
    event::{Blocked, Confidence, Deadlock, DeadlockTask, Event},
    model::graph::{Edge, Graph},
    time::WallTime,
};

/// A circle is looked at again this long after it was first seen.
const CONFIRM_NS: u64 = 50_000_000;
/// Circles that are remembered.
const MAX_CIRCLES: usize = 1_024;

/// The waits of a circle: threads and their waits' starts, in the circle's order.
type Members = Vec<(u32, u64)>;

/// Circles by their waits.
#[derive(Debug, Default)]
pub(super) struct Circles {
    /// When each was first seen; `None`: it has been told.
    seen: HashMap<Members, Option<u64>>,
}

impl Circles {
    /// Is it time for the second look? Never for one that has been told.
    pub(super) fn is_due(&mut self, members: &Members, now_ns: u64) -> bool {
        match self.seen.get(members) {
            Some(Some(first_ns)) => now_ns.saturating_sub(*first_ns) >= CONFIRM_NS,
            Some(None) => false,
            None => {
                if self.seen.len() < MAX_CIRCLES {
                    self.seen.insert(members.clone(), Some(now_ns));
                }
                false
            }
        }
    }

    /// Does one wait for its second look?
    pub(super) fn any_is_open(&self) -> bool {
        self.seen.values().any(Option::is_some)
    }

    pub(super) fn told(&mut self, members: &Members) {
        self.seen.insert(members.clone(), None);
    }

    /// Forgets circles with a wait that is over.
    pub(super) fn retain(&mut self, mut is_waiting: impl FnMut((u32, u64)) -> bool) {
        self.seen
            .retain(|members, _| members.iter().all(|one| is_waiting(*one)));
    }
}

/// The step from a task that waits to the holder of what it waits for.
pub(crate) fn edge(blocked: &Blocked) -> Option<Edge> {
    let holder = blocked.holder.as_ref()?;
    Some(Edge {
        from: blocked.task.tid,
        to: holder.tid?,
        confidence: holder.confidence,
    })
}

/// What is to be told of a circle.
pub(crate) fn deadlock<'a>(
    cycle: &[Edge],
    known: impl Fn(u32) -> Option<&'a Blocked>,
    time: WallTime,
    now_ns: u64,
) -> Deadlock {
    let tasks = cycle.iter().filter_map(|edge| {
        let blocked = known(edge.from)?;
        let holder = blocked.holder.as_ref()?;
        Some(DeadlockTask {
            task: blocked.task.clone(),
            lock: blocked.lock.clone()?,
            stack: blocked.stack.clone(),
            waits_for: edge.to,
            confidence: holder.confidence,
            evidence: holder.evidence.clone(),
        })
    });
    let starts = cycle.iter().map(|edge| {
        let blocked = known(edge.from)?;
        Some(blocked.mono_ns.saturating_sub(blocked.age_ns))
    });
    // An age of zero is one that is not known.
    let youngest = starts.max().flatten().filter(|start_ns| *start_ns < now_ns);
    Deadlock {
        time,
        mono_ns: now_ns,
        tasks: tasks.collect(),
        confidence: cycle
            .iter()
            .map(|edge| edge.confidence)
            .min()
            .unwrap_or(Confidence::Unknown),
        age_ns: youngest.map(|start_ns| now_ns - start_ns),
    }
}

impl Watch {
    /// Circles among the waits that were looked at; told when a second look confirms them.
    pub(super) fn find_deadlocks(&mut self, out: &mut Vec<Event>) {
        if !self.changed && !self.circles.any_is_open() {
            return;
        }
        self.changed = false;
        let graph: Graph = self
            .looks
            .iter()
            .filter_map(|(_, known)| edge(&known.blocked))
            .collect();
        let now = crate::time::mono_ns();
        for cycle in graph.cycles() {
            let members: Option<Vec<(u32, u64)>> = cycle
                .iter()
                .map(|edge| Some((edge.from, self.looks.get(edge.from)?.since_ns)))
                .collect();
            let Some(members) = members else { continue };
            if !self.circles.is_due(&members, now) {
                continue;
            }
            if self.is_confirmed(&cycle) {
                self.circles.told(&members);
                let known = |tid| self.looks.get(tid).map(|known| &known.blocked);
                let time = self.model.wall_time_at(now);
                out.push(Event::from(deadlock(&cycle, known, time, now)));
                self.capture.count_events(1);
            }
        }
        let (looks, pieces) = (&self.looks, &self.pieces);
        self.circles.retain(|(tid, since_ns)| {
            looks
                .get(tid)
                .is_some_and(|known| known.since_ns == since_ns)
                || pieces.may_go_on(tid, since_ns, now)
        });
    }

    /// Looks at each task of a circle once more.
    fn is_confirmed(&mut self, cycle: &[Edge]) -> bool {
        cycle.iter().all(|before| {
            let Some(known) = self.looks.get(before.from) else {
                return false;
            };
            let mut blocked = known.blocked.clone();
            // The thread may wait for another lock by now.
            blocked.holder = None;
            let Some(look) = self.look(&blocked, &mut take::Given::default()) else {
                return false;
            };
            take(&mut blocked, &look);
            let same = blocked.holder.as_ref().and_then(|holder| holder.tid) == Some(before.to);
            self.looks.change(before.from, |known| {
                known.told = look.told.is_some();
                known.blocked = blocked;
                known.asked = Instant::now();
            });
            same
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_look_and_then_never_again() {
        let mut circles = Circles::default();
        let members = vec![(1, 10), (2, 20)];
        assert!(!circles.is_due(&members, 100));
        assert!(!circles.is_due(&members, 100 + CONFIRM_NS - 1));
        assert!(circles.is_due(&members, 100 + CONFIRM_NS));
        circles.told(&members);
        assert!(!circles.is_due(&members, 100 + 2 * CONFIRM_NS));
        // One of the waits is over; the same threads may come to it again.
        circles.retain(|(tid, _)| tid != 2);
        assert!(circles.seen.is_empty());
    }
}
