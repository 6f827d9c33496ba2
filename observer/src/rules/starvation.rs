//! A writer waits while readers come and go.

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{Access, Severity, Subject},
    model::Model,
    time::human,
};

/// A writer of a reader-writer lock that readers hold.
pub(super) struct WriterStarvation;

impl Rule for WriterStarvation {
    fn name(&self) -> &'static str {
        "writer_starvation"
    }

    fn advice(&self) -> &'static str {
        "Use a lock that lets a waiting writer go first (PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP), or make \
         the readers' sections shorter."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        for wait in model.blocked() {
            let (Some(lock), Some(holder)) = (&wait.event.lock, &wait.event.holder) else {
                continue;
            };
            let age_ns = wait.age_ns(model.now_ns());
            // A writer that holds the lock is known by name; without one, it is readers.
            if wait.event.access != Some(Access::Write)
                || holder.tid.is_some()
                || !holder.evidence.contains("reader")
                || age_ns < thresholds.starvation_ns
            {
                continue;
            }
            found.push(Diagnosis {
                key: format!("{} {}", lock.id, wait.event.task.tid),
                severity: Severity::Warning,
                title: format!(
                    "{} has waited for {} to write under {lock}, which readers keep",
                    wait.event.task,
                    human(age_ns)
                ),
                evidence: vec![holder.evidence.to_string()],
                subjects: vec![
                    Subject::Task(wait.event.task.clone()),
                    Subject::Lock(lock.clone()),
                ],
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_writer_behind_readers() {
        let starved = waiter(10).writing().long(3).held_by_readers().blocked();
        let found = WriterStarvation.check(&model(&[starved]), &Thresholds::default());
        assert_eq!(
            found[0].title,
            "t10/10 has waited for 3.00s to write under lock_1, which readers keep"
        );
    }

    #[test]
    fn a_writer_behind_a_writer_and_readers_are_innocent() {
        let events = [
            waiter(10)
                .writing()
                .long(3)
                .held_by(20, "running")
                .blocked(),
            waiter(11).long(3).held_by_readers().blocked(),
        ];
        assert_eq!(
            WriterStarvation.check(&model(&events), &Thresholds::default()),
            []
        );
    }
}
