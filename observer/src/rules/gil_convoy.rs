//! Threads of a Python program queue for its interpreter lock.

use std::collections::BTreeMap;

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{LockClass, Severity, Subject},
    model::{Lock, Model},
};

/// The threads take turns: more of them do not make the program faster.
pub(super) struct GilConvoy;

/// What is waited for in one process: the lock has several futexes, which are waited on by turns.
#[derive(Default)]
struct Queue<'a> {
    waiting: f64,
    waits_per_s: f64,
    locks: Vec<&'a Lock>,
}

impl Rule for GilConvoy {
    fn name(&self) -> &'static str {
        "gil_convoy"
    }

    fn advice(&self) -> &'static str {
        "Only one thread runs Python at a time. Move what computes into other processes, or into code that gives \
         the interpreter lock back meanwhile (NumPy and the like do)."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut queues: BTreeMap<u32, Queue<'_>> = BTreeMap::new();
        for lock in model.locks() {
            if lock.totals.lock.class == LockClass::PythonGil
                && let Some(pid) = lock.totals.pid
            {
                let queue = queues.entry(pid).or_default();
                queue.waiting += lock.waiting;
                queue.waits_per_s += lock.waits_per_s;
                queue.locks.push(lock);
            }
        }
        queues
            .into_iter()
            .filter(|(_, queue)| {
                queue.waiting >= thresholds.gil_waiting
                    && queue.waits_per_s >= thresholds.gil_waits_per_s
            })
            .map(|(pid, queue)| {
                let process = queue.locks.iter().find_map(|lock| lock.totals.process.clone());
                let holder = queue.locks.iter().find_map(|lock| lock.holder());
                let mut evidence = Vec::new();
                if let Some(holder) = holder
                    && let Some(tid) = holder.tid
                {
                    evidence.push(format!(
                        "{}/{tid} had it when it was last looked at: {} ({})",
                        holder.comm.as_deref().unwrap_or("?"),
                        holder.confidence.name(),
                        holder.evidence
                    ));
                }
                let locks = queue.locks.iter();
                let locks = locks.map(|lock| Subject::Lock(lock.totals.lock.clone()));
                Diagnosis {
                    key: pid.to_string(),
                    severity: Severity::Warning,
                    title: format!(
                        "process {pid}{}: {:.1} threads queue for Python's interpreter lock on average, {:.0} waits a \
                         second",
                        process.map_or_else(String::new, |name| format!(" {name}")),
                        queue.waiting,
                        queue.waits_per_s
                    ),
                    evidence,
                    subjects: std::iter::once(Subject::Process(pid)).chain(locks).collect(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn two_futexes_of_one_lock_are_added_up() {
        let queue = |class, waiting: [u64; 2]| {
            let events: Vec<_> = [1, 2]
                .into_iter()
                .zip(waiting)
                .flat_map(|(addr, waiting)| queue(addr, class, 200, waiting))
                .collect();
            model(&events)
        };
        for (class, waiting, expected) in [
            // Hundredths of a task.
            (LockClass::PythonGil, [60, 60], 1),
            (LockClass::PythonGil, [20, 20], 0),
            (LockClass::PthreadMutex, [90, 90], 0),
        ] {
            let model = queue(class, waiting);
            let found = GilConvoy.check(&model, &Thresholds::default());
            assert_eq!(found.len(), expected, "{class:?} {waiting:?}");
        }
        let model = queue(LockClass::PythonGil, [100, 100]);
        let found = GilConvoy.check(&model, &Thresholds::default());
        assert_eq!(
            found[0].title,
            "process 1: 2.0 threads queue for Python's interpreter lock on average, 400 waits a second"
        );
    }
}
