//! What was counted of each task so far. Its totals are cumulative: what is new in them is counted.

use std::{collections::HashMap, mem};

use crate::{
    event::{Kind, TaskTotals, WaitTotals},
    inspect::proc,
};

/// Tasks that are remembered at most.
const MAX: usize = 65_536;
/// Those that ended are looked for this often, among those that were quiet for so long, or only for the shorter time
/// where many come and go.
const LOOK_NS: u64 = 10_000_000_000;
const QUIET_NS: u64 = 60_000_000_000;
/// One that lives is looked at again after twice as long each time, up to this.
const LONGEST_NS: u64 = 600_000_000_000;
/// So many are looked at, at most, in one go. Those that are left are first in the next one, which is soon then.
const LOOKS: usize = 2_000;

/// A number of waits, and their time.
pub(super) type Waits = (u64, u64);

/// What was counted of a task.
#[derive(Default)]
struct Told {
    pid: u32,
    kinds: HashMap<Kind, Waits>,
    runqueue: Waits,
    seen_ns: u64,
    /// When it was looked at last since it is quiet, and for how long it then is not; 0: it was not.
    looked_ns: u64,
    pause_ns: u64,
    /// When it was found to have ended.
    ended_ns: Option<u64>,
}

impl Told {
    /// Is it to be looked at?
    fn is_due(&self, now_ns: u64, quiet_ns: u64) -> bool {
        let since = |then_ns| now_ns.saturating_sub(then_ns);
        since(self.seen_ns) >= quiet_ns
            && (self.pause_ns == 0 || since(self.looked_ns) >= self.pause_ns)
    }

    fn look(&mut self, tid: u32, now_ns: u64, quiet_ns: u64) {
        if proc::lives(self.pid, tid) {
            self.looked_ns = now_ns;
            self.pause_ns = (self.pause_ns * 2).clamp(quiet_ns, LONGEST_NS);
        } else {
            self.ended_ns = Some(now_ns);
        }
    }
}

/// What is new of a task.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    pub(super) kinds: Vec<(Kind, Waits)>,
    pub(super) runqueue: Option<Waits>,
}

/// All tasks that were counted.
#[derive(Default)]
pub(super) struct Tasks {
    told: HashMap<u32, Told>,
    /// When totals were read last.
    read_ns: u64,
    next_look_ns: u64,
}

impl Tasks {
    /// What is new of a task; `None`: there is no room to remember it.
    pub(super) fn news(&mut self, totals: &TaskTotals) -> Option<News> {
        self.read_ns = totals.mono_ns;
        let tid = totals.task.tid;
        if self.told.len() >= MAX && !self.told.contains_key(&tid) {
            // Forgetting others would count them twice.
            return None;
        }
        let told = self.told.entry(tid).or_default();
        let waits = |waits: &WaitTotals| (waits.waits, waits.total_ns);
        // The number is another task's by now: totals of one and the same never fall.
        let fell = told.pid != totals.task.pid
            || totals.kinds.iter().any(|(kind, now)| {
                let before = told.kinds.get(kind);
                before.is_some_and(|before| now.waits < before.0)
            });
        if fell {
            *told = Told {
                pid: totals.task.pid,
                ..Told::default()
            };
        }
        told.seen_ns = totals.mono_ns;
        told.pause_ns = 0;
        told.ended_ns = None;
        let kinds = totals.kinds.iter().map(|(kind, now)| {
            let before = told.kinds.insert(*kind, waits(now)).unwrap_or_default();
            (*kind, since(waits(now), before))
        });
        Some(News {
            kinds: kinds.collect(),
            runqueue: totals
                .runqueue
                .as_ref()
                .map(|now| since(waits(now), mem::replace(&mut told.runqueue, waits(now)))),
        })
    }

    /// Forgets tasks that ended. One that is quiet goes on, however long: all its totals would be counted again.
    pub(super) fn forget(&mut self, now_ns: u64) {
        if now_ns < self.next_look_ns {
            return;
        }
        let quiet_ns = if self.told.len() > MAX / 4 {
            LOOK_NS
        } else {
            QUIET_NS
        };
        let (read_ns, mut looks) = (self.read_ns, 0);
        self.told.retain(|tid, told| {
            if let Some(ended_ns) = told.ended_ns {
                // Its last totals may be read yet.
                return read_ns <= ended_ns;
            }
            if looks < LOOKS && told.is_due(now_ns, quiet_ns) {
                looks += 1;
                told.look(*tid, now_ns, quiet_ns);
            }
            true
        });
        if looks < LOOKS {
            self.next_look_ns = now_ns.saturating_add(LOOK_NS);
        }
    }
}

fn since(now: Waits, before: Waits) -> Waits {
    (
        now.0.saturating_sub(before.0),
        now.1.saturating_sub(before.1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::TaskRef, time::WallTime};

    const SECOND: u64 = 1_000_000_000;
    /// A number that no task has.
    const ENDED: u32 = u32::MAX;

    fn totals(tid: u32, waits: u64, mono_ns: u64) -> TaskTotals {
        let of_lock = WaitTotals {
            waits,
            total_ns: waits * 7,
            max_ns: 7,
        };
        TaskTotals {
            time: WallTime(0),
            mono_ns,
            task: TaskRef::new(tid, tid).into(),
            kinds: [(Kind::Lock, of_lock)].into(),
            runqueue: Some(of_lock),
            estimated: false,
        }
    }

    fn new(waits: u64) -> News {
        News {
            kinds: vec![(Kind::Lock, (waits, waits * 7))],
            runqueue: Some((waits, waits * 7)),
        }
    }

    #[test]
    fn what_is_new() {
        let mut tasks = Tasks::default();
        assert_eq!(tasks.news(&totals(1, 3, 1)), Some(new(3)));
        assert_eq!(tasks.news(&totals(1, 5, 2)), Some(new(2)));
        assert_eq!(tasks.news(&totals(1, 5, 3)), Some(new(0)));
        // Another task with the number of the first.
        assert_eq!(tasks.news(&totals(1, 1, 4)), Some(new(1)));
    }

    #[test]
    fn one_that_was_quiet_for_long_is_not_counted_again() {
        let (mut tasks, own) = (Tasks::default(), std::process::id());
        tasks.news(&totals(own, 1_000, 1));
        for minute in 1..100 {
            tasks.forget(minute * 60 * SECOND);
        }
        assert_eq!(
            tasks.news(&totals(own, 1_002, 6_000 * SECOND)),
            Some(new(2))
        );
    }

    #[test]
    fn those_that_ended_are_forgotten_when_their_last_totals_were_read() {
        let mut tasks = Tasks::default();
        tasks.news(&totals(ENDED, 10, SECOND));
        for second in [100, 200, 300] {
            tasks.forget(second * SECOND);
        }
        // Nothing was read meanwhile.
        assert_eq!(tasks.news(&totals(ENDED, 11, 301 * SECOND)), Some(new(1)));
        tasks.forget(400 * SECOND);
        tasks.news(&totals(1, 1, 401 * SECOND));
        tasks.forget(411 * SECOND);
        assert!(!tasks.told.contains_key(&ENDED) && tasks.told.contains_key(&1));
    }

    #[test]
    fn one_that_is_quiet_is_looked_at_less_and_less() {
        let (mut tasks, own) = (Tasks::default(), std::process::id());
        tasks.news(&totals(own, 1, 0));
        let looks = |tasks: &mut Tasks, from: u64, to: u64| -> Vec<u64> {
            let mut looks = Vec::new();
            for second in from..to {
                let before = tasks.told[&own].looked_ns;
                tasks.forget(second * SECOND);
                if tasks.told[&own].looked_ns != before {
                    looks.push(second);
                }
            }
            looks
        };
        // After 1, 2, 4, 8 and 10 minutes.
        assert_eq!(
            looks(&mut tasks, 0, 2_200),
            [60, 120, 240, 480, 960, 1_560, 2_160]
        );
        // It was not quiet.
        tasks.news(&totals(own, 2, 2_200 * SECOND));
        assert_eq!(looks(&mut tasks, 2_200, 2_350), [2_260, 2_320]);
    }

    #[test]
    fn a_look_at_many_goes_on_where_it_ended() {
        let mut tasks = Tasks::default();
        let all = 2 * LOOKS as u32 + 1;
        for number in 0..all {
            tasks.news(&totals(ENDED - number, 1, SECOND));
        }
        let ended = |tasks: &Tasks| {
            let ended = tasks.told.values().filter(|told| told.ended_ns.is_some());
            ended.count()
        };
        for (second, expected) in [(61, LOOKS), (62, 2 * LOOKS), (63, 2 * LOOKS + 1)] {
            tasks.forget(second * SECOND);
            assert_eq!(ended(&tasks), expected);
        }
    }

    #[test]
    fn many_come_and_go() {
        let mut tasks = Tasks::default();
        // A thousand a second for ten minutes.
        for second in 0..600_u64 {
            for number in 0..1_000 {
                let tid = ENDED - (second as u32 * 1_000 + number);
                assert_eq!(tasks.news(&totals(tid, 1, second * SECOND)), Some(new(1)));
            }
            tasks.forget(second * SECOND);
        }
        assert!(tasks.told.len() < MAX);
        for tid in 0..MAX as u32 {
            tasks.news(&totals(tid, 1, 600 * SECOND));
        }
        assert_eq!(tasks.told.len(), MAX);
        assert_eq!(
            tasks.news(&totals(ENDED - 1_000_000, 1, 600 * SECOND)),
            None
        );
    }
}
