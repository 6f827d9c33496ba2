//! Tasks that could run wait for CPUs.

use super::{Diagnosis, Rule, Thresholds};
use crate::{event::Severity, model::Model};

/// More is to be done than the CPUs can do.
pub(super) struct RunQueue;

impl Rule for RunQueue {
    fn name(&self) -> &'static str {
        "runqueue_latency"
    }

    fn advice(&self) -> &'static str {
        "The CPUs are overloaded: everything waits longer than its locks explain. Take load away, or look at what \
         uses the CPUs."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let Some(cpus) = model.meta().map(|meta| f64::from(meta.cpus.max(1))) else {
            return Vec::new();
        };
        let waiting = model.runqueue_waiting();
        if waiting < thresholds.runqueue_waiting * cpus {
            return Vec::new();
        }
        vec![Diagnosis {
            key: String::new(),
            severity: Severity::Warning,
            title: format!("{waiting:.1} tasks wait for one of {cpus} CPUs on average"),
            evidence: vec![format!(
                "time on run queues in the last interval: {waiting:.2} s a second"
            )],
            subjects: Vec::new(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::testing::*, *};
    use crate::event::{Capture, Cost, CostReport, Event, Filters, Meta, TaskTotals, WaitTotals};

    fn load(waiting: u64) -> Model {
        let time = waiter(1).0.time;
        let cost = |mono_ns| {
            Event::from(CostReport {
                time,
                mono_ns,
                cost: Cost::default(),
            })
        };
        model(&[
            Event::from(Meta {
                time,
                mono_ns: NOW,
                schema: 1,
                observer: String::new(),
                host: String::new(),
                kernel: String::new(),
                cpus: 2,
                filters: Filters::default(),
                capture: Capture::default(),
            }),
            cost(NOW),
            Event::from(TaskTotals {
                time,
                mono_ns: NOW + SECOND,
                task: waiter(1).0.task,
                kinds: BTreeMap::new(),
                runqueue: Some(WaitTotals {
                    waits: 10,
                    total_ns: waiting * SECOND,
                    max_ns: SECOND,
                }),
                estimated: false,
            }),
            cost(NOW + SECOND),
        ])
    }

    #[test]
    fn more_than_the_cpus_can_do() {
        assert_eq!(RunQueue.check(&load(3), &Thresholds::default()), []);
        let found = RunQueue.check(&load(6), &Thresholds::default());
        assert_eq!(
            found[0].title,
            "6.0 tasks wait for one of 2 CPUs on average"
        );
    }
}
