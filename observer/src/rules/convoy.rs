//! A lock that many tasks queue for all the time, each holding it for a short while.

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{LockClass, Severity, Subject},
    model::Model,
    time::human,
};

/// The lock itself is the bottleneck.
pub(super) struct Convoy;

impl Rule for Convoy {
    fn name(&self) -> &'static str {
        "lock_convoy"
    }

    fn advice(&self) -> &'static str {
        "Everybody passes this lock one by one: split it, hold it for less, or batch the work behind it."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        model
            .locks()
            .filter(|lock| {
                // Python's interpreter lock has a rule of its own.
                lock.totals.lock.class.is_held()
                    && lock.totals.lock.class != LockClass::PythonGil
                    && lock.waiting >= thresholds.convoy_waiting
                    && lock.waits_per_s >= thresholds.convoy_waits_per_s
            })
            .map(|lock| Diagnosis {
                key: lock.totals.lock.id.to_string(),
                severity: Severity::Warning,
                title: format!(
                    "convoy at {}: {:.0} waits a second, {:.1} tasks queue on average",
                    lock.totals.lock, lock.waits_per_s, lock.waiting
                ),
                evidence: vec![format!(
                    "median wait {}, longest {}",
                    lock.totals.p50_ns.map_or_else(|| "-".to_owned(), human),
                    human(lock.totals.max_ns)
                )],
                subjects: vec![Subject::Lock(lock.totals.lock.clone())],
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::LockClass;

    #[test]
    fn many_short_waits_at_a_lock_that_is_held() {
        for (class, waits, waiting, expected) in [
            (LockClass::PthreadMutex, 5_000, 4, 1),
            (LockClass::PthreadMutex, 5_000, 1, 0),
            (LockClass::PthreadMutex, 20, 4, 0),
            (LockClass::PthreadCond, 5_000, 4, 0),
            (LockClass::Futex, 5_000, 4, 0),
            (LockClass::PythonGil, 5_000, 4, 0),
        ] {
            let model = model(&queue(1, class, waits, waiting * 100));
            assert_eq!(Convoy.check(&model, &Thresholds::default()).len(), expected);
        }
    }
}
