//! The holder of a lock could give it back, if only it got a CPU.

use super::{Diagnosis, Rule, Thresholds, long_hold};
use crate::{
    event::{HolderState, Severity},
    model::Model,
    time::human,
};

/// The holder is runnable without running, throttled, or stopped.
pub(super) struct HolderNotRunning;

impl Rule for HolderNotRunning {
    fn name(&self) -> &'static str {
        "holder_not_running"
    }

    fn advice(&self) -> &'static str {
        "Give the holder its CPU back: raise the quota of its control group or its priority, take load off the \
         CPUs, or continue the process that was stopped."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        for held in long_hold::held(model) {
            let why = match held.holder.state {
                Some(HolderState::Runnable) => "has no CPU to run on",
                Some(HolderState::Throttled) => "is kept off the CPUs by its group's quota",
                Some(HolderState::Stopped) => "is stopped",
                _ => continue,
            };
            if held.oldest_ns < thresholds.long_hold_ns {
                continue;
            }
            found.push(Diagnosis {
                key: format!("{} {}", held.lock.id, held.tid),
                severity: Severity::Critical,
                title: format!(
                    "{}, which {why}; {} waited for",
                    held.what(),
                    human(held.oldest_ns)
                ),
                evidence: held.evidence(),
                subjects: held.subjects(),
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn only_a_holder_that_could_go_on() {
        for (doing, expected) in [
            ("runnable", 1),
            ("throttled", 1),
            ("stopped", 1),
            ("running", 0),
            ("in fsync(/x)", 0),
        ] {
            let model = model(&[waiter(10).long(3).held_by(20, doing).blocked()]);
            let found = HolderNotRunning.check(&model, &Thresholds::default());
            assert_eq!(found.len(), expected, "{doing}");
        }
    }
}
