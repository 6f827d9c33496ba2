//! Blocked threads of one kind become more and more.

use std::collections::HashMap;

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{Severity, Subject},
    model::{InProgress, Model},
};

/// Samples that have to grow one after the other.
const SAMPLES: usize = 4;
/// Groups that are followed.
const MAX_GROUPS: usize = 4_096;

/// Threads of one process that were started in the same function and sleep at the same place.
type Group = (u32, String);

/// Threads that were started and never end.
#[derive(Default)]
pub(super) struct ThreadLeak {
    next_ns: u64,
    counts: HashMap<Group, Vec<usize>>,
}

/// What a thread has in common with its like: the function it began in, as far as its stack reaches, else
/// where it waits.
fn group(wait: &InProgress) -> Group {
    let user = wait.event.stack.as_ref().map(|stack| &stack.user);
    let names: Vec<&str> = user
        .into_iter()
        .flat_map(|frames| frames.iter().rev())
        .filter_map(|frame| frame.name.as_deref())
        .take(4)
        .collect();
    let place = match (&wait.event.lock, names.is_empty()) {
        (_, false) => names.join(" → "),
        (Some(lock), true) => lock.to_string(),
        (None, true) => wait.event.kind.name().to_owned(),
    };
    (wait.event.task.pid, place)
}

impl Rule for ThreadLeak {
    fn name(&self) -> &'static str {
        "thread_leak"
    }

    fn advice(&self) -> &'static str {
        "Threads are started there and never end: find what they wait for, and who should have told them to stop."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        if model.now_ns() >= self.next_ns {
            self.next_ns = model.now_ns().saturating_add(thresholds.leak_sample_ns);
            self.sample(model);
        }
        let grown = self.counts.iter().filter(|(_, counts)| {
            counts.len() == SAMPLES
                && counts.windows(2).all(|two| two[0] < two[1])
                && counts[SAMPLES - 1] - counts[0] >= thresholds.leak_threads
        });
        grown
            .map(|((pid, place), counts)| Diagnosis {
                key: format!("{pid} {place}"),
                severity: Severity::Warning,
                title: format!(
                    "process {pid} has {} blocked threads of one kind, {} more than {} samples ago: {place}",
                    counts[SAMPLES - 1],
                    counts[SAMPLES - 1] - counts[0],
                    SAMPLES - 1
                ),
                evidence: vec![format!("blocked threads at each sample: {counts:?}")],
                subjects: vec![Subject::Process(*pid)],
            })
            .collect()
    }
}

impl ThreadLeak {
    fn sample(&mut self, model: &Model) {
        let mut now: HashMap<Group, usize> = HashMap::new();
        for wait in model.blocked() {
            if now.len() < MAX_GROUPS {
                *now.entry(group(wait)).or_default() += 1;
            }
        }
        self.counts.retain(|group, _| now.contains_key(group));
        for (group, count) in now {
            let counts = self.counts.entry(group).or_default();
            if counts.len() == SAMPLES {
                counts.remove(0);
            }
            counts.push(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn run(counts: &[u32]) -> usize {
        let mut rule = ThreadLeak::default();
        let mut model = Model::default();
        let mut found = 0;
        for (i, count) in counts.iter().enumerate() {
            let now = NOW + i as u64 * 6 * SECOND;
            for tid in 0..*count {
                let mut wait = waiter(tid).at(7);
                wait.0.mono_ns = now;
                model.apply(wait.blocked());
            }
            found = rule.check(&model, &Thresholds::default()).len();
        }
        found
    }

    #[test]
    fn growth_at_each_sample() {
        assert_eq!(run(&[10, 20, 30, 40]), 1);
        assert_eq!(run(&[10, 20, 30]), 0);
        // A pool that is full, and one that grows a little.
        assert_eq!(run(&[200, 200, 200, 200]), 0);
        assert_eq!(run(&[10, 11, 12, 13]), 0);
    }
}
