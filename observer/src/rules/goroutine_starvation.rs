//! A goroutine waits to write while others read.

use std::{collections::HashMap, sync::Arc};

use super::{Diagnosis, Rule, Thresholds, process_name};
use crate::{
    event::{Severity, Subject},
    model::Model,
    time::human,
};

/// Looks at which the same writer has to be seen: it may also be a writer that comes back again and again.
const LOOKS: usize = 3;

/// A writer of a `sync.RWMutex` that readers hold. It shares its name with the rule for threads; what to do
/// differs, because a writer that waits for this lock goes before later readers.
#[derive(Default)]
pub(super) struct GoWriterStarvation {
    /// By lock and writer: the last look, and how many there were.
    seen: HashMap<(Arc<str>, u64), (u64, usize)>,
}

impl Rule for GoWriterStarvation {
    fn name(&self) -> &'static str {
        "writer_starvation"
    }

    fn advice(&self) -> &'static str {
        "A reader keeps this lock for long, or never gives it back: look at the stacks of the goroutines named, and \
         for a way out of them without RUnlock."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        let mut now = HashMap::new();
        for all in model.goroutines() {
            for starved in &all.starved_writers {
                let Some(writer) = starved.writers.first() else {
                    continue;
                };
                let key = (Arc::clone(&starved.lock.id), *writer);
                let (last_ns, mut looks) = self.seen.get(&key).copied().unwrap_or_default();
                looks += usize::from(last_ns != all.mono_ns);
                now.insert(key, (all.mono_ns, looks));
                let waits_ns = starved.waits_ns.unwrap_or_default();
                if looks < LOOKS || waits_ns < thresholds.starvation_ns {
                    continue;
                }
                let holders = starved.holders.iter();
                let mut evidence: Vec<String> = holders
                    .map(|goid| format!("read by goroutine {goid} (likely)"))
                    .collect();
                evidence.push(format!("{} readers wait behind it", starved.readers_behind));
                found.push(Diagnosis {
                    key: format!("{} {writer}", starved.lock.id),
                    severity: Severity::Warning,
                    title: format!(
                        "goroutine {writer} of {} has waited for ≥{} to write under {}, which {} readers keep",
                        process_name(all),
                        human(waits_ns),
                        starved.lock,
                        starved.readers_pending
                    ),
                    evidence,
                    subjects: vec![
                        Subject::Process(all.pid),
                        Subject::Lock(starved.lock.clone().into()),
                    ],
                });
            }
        }
        self.seen = now;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::{Event, GoStarvedWriter, LockClass};

    #[test]
    fn the_same_writer_at_three_looks() {
        let mut rule = GoWriterStarvation::default();
        let mut see = |look: u64, writer: u64| {
            let mut all = goroutines();
            all.mono_ns += look * SECOND;
            all.starved_writers.push(GoStarvedWriter {
                lock: lock(3, LockClass::GoRwmutex),
                writers: vec![writer],
                readers_behind: 4,
                readers_pending: 2,
                holders: vec![20],
                waits_ns: Some(look * SECOND),
            });
            rule.check(&model(&[Event::from(all)]), &Thresholds::default())
        };
        assert_eq!(see(0, 5), []);
        assert_eq!(see(1, 5), []);
        assert_eq!(see(1, 5), []);
        assert_eq!(
            see(2, 5)[0].title,
            "goroutine 5 of process 1 server has waited for ≥2.00s to write under lock_3, which 2 readers keep"
        );
        // Another one's turn.
        assert_eq!(see(3, 6), []);
    }
}
