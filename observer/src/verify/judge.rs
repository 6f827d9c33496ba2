//! What observer said, held against what the programs measured of themselves.

use std::collections::BTreeSet;

use super::{Row, Seen, Slack, scene::Scene};
use crate::event::{Blocked, Confidence, Event, Finding, LockTotals, Outcome, Subject, Wait};

/// A deadlock that forms is told within a second; on a busy machine observer itself may wait for a CPU.
const DEADLOCK_NS: u64 = 2_000_000_000;
/// The beginning of a wait that is older than observer is known as well as this.
const AGE_NS: u64 = 100_000_000;
/// Of waits that were to be told one by one, this share at least, and none that were not.
const WAITS: f64 = 0.97;
/// How a wait ended is said of this share at least, and of those rightly. It is not said where another task woke some
/// futex at that very moment: with all these programs on two CPUs that is up to one in twenty.
const OUTCOMES: f64 = 0.9;
/// The sum of their durations, in percent: what a program measures around a call is more than the wait.
const ERROR: f64 = 5.0;
/// The same, for each wait.
const AROUND_NS: u64 = 1_000_000;

/// All that was seen, by type.
pub(super) struct Said<'a> {
    scenes: &'a [Scene],
    seen: &'a [Seen],
    slack: Slack,
}

impl<'a> Said<'a> {
    pub(super) fn new(scenes: &'a [Scene], seen: &'a [Seen], slack: Slack) -> Said<'a> {
        Said {
            scenes,
            seen,
            slack,
        }
    }

    /// All capabilities, each with what there was to say and what was said.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for scene in self.scenes {
            match scene.name {
                "mutex" => {
                    rows.push(self.waits("waits for a mutex", scene, "waiter", "lock"));
                    rows.push(self.totals("totals of a mutex", scene, "waiter"));
                    rows.push(self.wakers(scene));
                }
                "pi" => rows.push(self.waits("waits for a PI mutex", scene, "waiter", "lock")),
                "shared" => rows.push(self.shared(scene)),
                "timedwait" => rows.push(self.outcomes(
                    "waits that time out",
                    scene,
                    ("timed", "timed_out"),
                    Outcome::Timeout,
                )),
                "interrupted" => rows.push(self.outcomes(
                    "waits that a signal ends",
                    scene,
                    ("sleeper", "interrupted"),
                    Outcome::Interrupted,
                )),
                "hold" => {
                    rows.push(self.holders(scene));
                    rows.push(self.found("long hold", scene, "long_hold"));
                }
                "convoy" => rows.push(self.found("lock convoy", scene, "lock_convoy")),
                "starved" => rows.push(self.found("writer starvation", scene, "writer_starvation")),
                "deadlock" => rows.push(self.older(scene)),
                _ => {}
            }
        }
        rows.push(self.deadlocks());
        rows.push(self.innocents());
        rows.push(self.lost());
        rows
    }

    fn events(&self) -> impl Iterator<Item = &'a Event> {
        self.seen.iter().map(|seen| &seen.event)
    }

    fn waits_of(&self, tid: u32) -> impl Iterator<Item = &'a Wait> {
        self.events().filter_map(move |event| match event {
            Event::Wait(wait) if wait.task.tid == tid => Some(&**wait),
            _ => None,
        })
    }

    fn blocked(&self, tid: u32) -> impl Iterator<Item = &'a Blocked> {
        self.events().filter_map(move |event| match event {
            Event::Blocked(blocked) if blocked.task.tid == tid => Some(&**blocked),
            _ => None,
        })
    }

    /// Long waits for a lock, one by one, and their durations.
    fn waits(&self, capability: &'static str, scene: &Scene, thread: &str, lock: &str) -> Row {
        let (tid, address) = (scene.tid(thread), scene.lock(lock));
        let told: Vec<&Wait> = self
            .waits_of(tid)
            .filter(|wait| wait.lock.is_some())
            .collect();
        let right = told.iter().filter(|wait| {
            let addr = wait.lock.as_ref().map(|lock| lock.addr.0);
            addr == Some(address)
        });
        let row = Row::count(
            capability,
            scene.measured(thread, "long_calls"),
            told.len() as u64,
            right.count() as u64,
        );
        let sum: u64 = told.iter().map(|wait| wait.dur_ns).sum();
        row.with_sum(sum, scene.measured(thread, "long_sum_ns"), self.slack)
            .at_least(WAITS)
    }

    /// All waits for a lock, as the kernel counts them.
    fn totals(&self, capability: &'static str, scene: &Scene, thread: &str) -> Row {
        let id = format!("{}:{:#x}", scene.pid(), scene.lock("lock"));
        let last = self.events().filter_map(|event| match event {
            Event::Lock(totals) if *totals.lock.id == id => Some(&**totals),
            _ => None,
        });
        let last: Option<&LockTotals> = last.last();
        let (waits, total_ns) = last.map_or((0, 0), |last| (last.waits, last.total_ns));
        // The holder may have to wait too, when it comes back early.
        let truth = scene.measured(thread, "calls");
        Row::count(capability, truth, waits, waits.min(truth))
            .with_sum(total_ns, scene.measured(thread, "sum_ns"), self.slack)
            .at_least(WAITS)
    }

    fn wakers(&self, scene: &Scene) -> Row {
        let lock = scene.lock("lock");
        let waits = self
            .waits_of(scene.tid("waiter"))
            .filter(|wait| wait.lock.as_ref().is_some_and(|one| one.addr.0 == lock));
        let (mut all, mut told, mut right) = (0, 0, 0);
        for wait in waits {
            all += 1;
            if let Some(waker) = &wait.waker {
                told += 1;
                right += u64::from(waker.tid == scene.tid("holder"));
            }
        }
        Row::count("who woke", all, told, right).at_least(WAITS)
    }

    fn shared(&self, scene: &Scene) -> Row {
        let (mut truth, mut sum, mut expected) = (0, 0, 0);
        let (mut told, mut ids) = (0, BTreeSet::new());
        for side in ["parent", "child"] {
            truth += scene.measured(side, "long_calls");
            expected += scene.measured(side, "long_sum_ns");
            for wait in self.waits_of(scene.tid(side)) {
                if let Some(lock) = wait.lock.as_ref().filter(|lock| lock.shared) {
                    told += 1;
                    sum += wait.dur_ns;
                    ids.insert(&lock.id);
                }
            }
        }
        // At two addresses it is one lock.
        let right = if ids.len() == 1 { told } else { 0 };
        Row::count("a futex that processes share", truth, told, right)
            .with_sum(sum, expected, self.slack)
            .at_least(WAITS)
    }

    fn outcomes(
        &self,
        capability: &'static str,
        scene: &Scene,
        (thread, truth): (&str, &str),
        outcome: Outcome,
    ) -> Row {
        let all: Vec<&Wait> = self
            .waits_of(scene.tid(thread))
            .filter(|wait| wait.lock.is_some())
            .collect();
        let right = all.iter().filter(|wait| wait.outcome == Some(outcome));
        // The last one is ended by the program itself, with another outcome.
        let told = all.iter().filter(|wait| wait.outcome.is_some()).count() as u64;
        Row::count(
            capability,
            scene.measured(thread, truth),
            told,
            right.count() as u64,
        )
        .with_sum(
            all.iter().map(|wait| wait.dur_ns).sum(),
            scene.measured(thread, "long_sum_ns"),
            self.slack,
        )
        .at_least_precision(WAITS)
        .at_least_recall(self.slack.recall(OUTCOMES))
    }

    fn holders(&self, scene: &Scene) -> Row {
        let (mut all, mut told, mut right) = (0, 0, 0);
        for blocked in self.blocked(scene.tid("waiter")) {
            if blocked.lock.is_none() {
                continue;
            }
            all += 1;
            if let Some(holder) = &blocked.holder
                && holder.confidence == Confidence::Exact
            {
                told += 1;
                right += u64::from(holder.tid == Some(scene.tid("holder")));
            }
        }
        // A look may come too late to see the holder: that is no fault, a wrong one is.
        Row::count("who holds it", all, told, right)
            .precise()
            .at_least_recall(0.5)
    }

    /// Waits that began before observer did.
    fn older(&self, scene: &Scene) -> Row {
        let formed_ns = scene.formed_ns();
        let age_ns = self.slack.ns(AGE_NS);
        let (mut told, mut right) = (0, 0);
        for thread in ["ab", "ba"] {
            if let Some(blocked) = self.blocked(scene.tid(thread)).next() {
                told += 1;
                let start_ns = blocked.mono_ns.saturating_sub(blocked.age_ns);
                // The program knows when it had seen that both wait, which is a bit later.
                let is_right = if blocked.at_least {
                    start_ns + age_ns >= formed_ns.saturating_sub(age_ns)
                } else {
                    start_ns.abs_diff(formed_ns) < age_ns
                };
                right += u64::from(is_right);
            }
        }
        Row::count("waits older than observer", 2, told, right).at_least(1.0)
    }

    fn deadlocks(&self) -> Row {
        let of = |scene: &Scene| BTreeSet::from([scene.tid("ab"), scene.tid("ba")]);
        let mut open: Vec<(BTreeSet<u32>, Option<u64>)> = Vec::new();
        for scene in self.scenes {
            match scene.name {
                "deadlock" => open.push((of(scene), None)),
                "forming" => open.push((of(scene), Some(scene.formed_later_ns()))),
                _ => {}
            }
        }
        let (truth, mut told, mut right, mut late_ns) = (open.len() as u64, 0, 0, 0);
        for seen in self.seen {
            let Event::Deadlock(deadlock) = &seen.event else {
                continue;
            };
            told += 1;
            let tids: BTreeSet<u32> = deadlock.tasks.iter().map(|one| one.task.tid).collect();
            if let Some(at) = open.iter().position(|(members, _)| *members == tids) {
                right += 1;
                let (_, formed_ns) = open.remove(at);
                if let Some(formed_ns) = formed_ns {
                    late_ns = seen.at_ns.saturating_sub(formed_ns);
                }
            }
        }
        let mut row = Row::count("deadlocks", truth, told, right).at_least(1.0);
        row.holds &= late_ns < self.slack.ns(DEADLOCK_NS);
        row.note = Some(format!("told after {}", crate::time::human(late_ns)));
        row
    }

    fn findings(&self) -> impl Iterator<Item = &'a Finding> {
        self.events().filter_map(|event| match event {
            Event::Finding(finding) => Some(&**finding),
            _ => None,
        })
    }

    /// A finding of a rule about a program.
    fn found(&self, capability: &'static str, scene: &Scene, rule: &str) -> Row {
        let of_rule = self.findings().filter(|finding| *finding.rule == *rule);
        let right = of_rule.filter(|finding| is_about(finding, scene));
        let right = u64::from(right.count() > 0);
        Row::count(capability, 1, right, right).at_least(1.0)
    }

    /// Findings about threads that wait for work, or for nothing but time.
    fn innocents(&self) -> Row {
        let innocents = ["pool", "threads", "timedwait", "interrupted", "shared"];
        let scenes = self
            .scenes
            .iter()
            .filter(|scene| innocents.contains(&scene.name));
        let scenes: Vec<&Scene> = scenes.collect();
        let accused: Vec<&Finding> = self
            .findings()
            .filter(|finding| scenes.iter().any(|scene| is_about(finding, scene)))
            .collect();
        let mut row = Row::count("innocents accused", 0, accused.len() as u64, 0);
        row.holds = accused.is_empty();
        row.note = accused
            .first()
            .map(|finding| format!("{}: {}", finding.rule, finding.title));
        row
    }

    fn lost(&self) -> Row {
        let last = self.events().filter_map(|event| match event {
            Event::Loss(loss) => Some(loss),
            _ => None,
        });
        let last = last.last();
        let lost = last.map_or(0, |loss| loss.total);
        let mut row = Row::count("records lost", 0, lost, 0);
        row.holds = lost == 0 && last.is_some();
        let causes = last.into_iter().flat_map(|loss| &loss.counters);
        let causes: Vec<String> = causes
            .filter(|(_, count)| lost > 0 && **count > 0)
            .map(|(cause, count)| format!("{cause} {count}"))
            .collect();
        row.note = (!causes.is_empty()).then(|| causes.join(", "));
        row
    }
}

/// Is the finding about a process of the scene?
fn is_about(finding: &Finding, scene: &Scene) -> bool {
    let pids = scene.pids();
    finding.subjects.iter().any(|subject| match subject {
        Subject::Task(task) => pids.contains(&task.pid),
        Subject::Process(pid) => pids.contains(pid),
        Subject::Lock(lock) => pids
            .iter()
            .any(|pid| lock.id.starts_with(&format!("{pid}:"))),
    })
}

impl Row {
    /// The sum of durations, beside what the program measured around its calls.
    fn with_sum(mut self, told_ns: u64, truth_ns: u64, slack: Slack) -> Row {
        if truth_ns > 0 {
            let error = (told_ns as f64 - truth_ns as f64) / truth_ns as f64 * 100.0;
            self.error_percent = Some(error);
            let slack_ns = slack.ns(self.truth * AROUND_NS);
            let off_ns = told_ns.abs_diff(truth_ns);
            self.holds &= error.abs() <= slack.percent(ERROR) || off_ns <= slack_ns;
        }
        self
    }

    fn at_least(self, share: f64) -> Row {
        self.at_least_precision(share).at_least_recall(share)
    }

    fn at_least_precision(mut self, share: f64) -> Row {
        self.holds &= self.precision.is_some_and(|precision| precision >= share);
        self
    }

    fn at_least_recall(mut self, share: f64) -> Row {
        // Two for the edges of the time observed.
        let missed = self.truth.saturating_sub(self.right);
        let few = share < 1.0 && missed <= 2 && self.right > 0;
        self.holds &= few || self.recall.is_some_and(|recall| recall >= share);
        self
    }

    /// Nothing wrong may be said.
    fn precise(mut self) -> Row {
        self.holds &= self.right == self.told;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_or_made_up_breaks_the_promise() {
        let holds = |truth, told, right| Row::count("x", truth, told, right).at_least(WAITS).holds;
        assert!(holds(100, 100, 100));
        // The edges of the time observed.
        assert!(holds(20, 18, 18));
        assert!(!holds(100, 90, 90));
        assert!(!holds(100, 110, 100));
        assert!(!holds(3, 0, 0));
        assert!(!Row::count("x", 2, 1, 1).at_least(1.0).holds);
        assert!(!Row::count("x", 2, 3, 2).at_least(1.0).holds);
        assert!(
            !Row::count("x", 10, 6, 5)
                .precise()
                .at_least_recall(0.5)
                .holds
        );
        let sum = |told_ns, slack| {
            Row::count("x", 10, 10, 10)
                .with_sum(told_ns, 1_000_000_000, Slack::new(slack))
                .holds
        };
        assert!(sum(999_000_000, 1) && sum(960_000_000, 1));
        assert!(!sum(900_000_000, 1) && !sum(1_100_000_000, 1));
        assert!(sum(900_000_000, 2) && sum(1_100_000_000, 2) && !sum(880_000_000, 2));
        assert!(!sum(900_000_000, 0), "no slack is that of any machine");
        let recall = |slack| (Slack::new(slack).recall(WAITS) * 100.0).round() as u32;
        assert_eq!([1, 2, 10, 100].map(recall), [97, 94, 70, 50]);
    }
}
