//! Tasks that wait for each other in a circle.

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{Confidence, Deadlock, Severity, Subject},
    model::Model,
    time::human,
};

/// Says what the confirmed circles say, in a sentence.
pub(super) struct Deadlocks;

impl Rule for Deadlocks {
    fn name(&self) -> &'static str {
        "deadlock"
    }

    fn advice(&self) -> &'static str {
        "None of these tasks will ever go on: restart the process, and take the locks in one order everywhere."
    }

    fn check(&mut self, model: &Model, _: &Thresholds) -> Vec<Diagnosis> {
        model.deadlocks().map(diagnose).collect()
    }
}

fn diagnose(deadlock: &Deadlock) -> Diagnosis {
    let names: Vec<String> = deadlock
        .tasks
        .iter()
        .map(|one| one.task.to_string())
        .collect();
    let age = deadlock
        .age_ns
        .map_or_else(String::new, |ns| format!(", for at least {}", human(ns)));
    let (word, severity) = if deadlock.confidence == Confidence::Exact {
        ("deadlock", Severity::Critical)
    } else {
        ("suspected deadlock", Severity::Warning)
    };
    let key: Vec<String> = deadlock
        .tasks
        .iter()
        .map(|one| one.task.tid.to_string())
        .collect();
    let evidence = deadlock.with_holders().map(|(one, holder)| {
        format!(
            "{} waits for {}, held by {} ({}: {})",
            one.task,
            one.lock,
            holder,
            one.confidence.name(),
            one.evidence
        )
    });
    let tasks = deadlock
        .tasks
        .iter()
        .map(|one| Subject::Task(one.task.clone()));
    let locks = deadlock
        .tasks
        .iter()
        .map(|one| Subject::Lock(one.lock.clone()));
    let subjects = tasks.chain(locks).collect();
    Diagnosis {
        key: key.join(" "),
        severity,
        title: format!("{word}: {}{age}", names.join(" ⇄ ")),
        evidence: evidence.collect(),
        subjects,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Rules, testing::*},
        *,
    };
    use crate::event::{DeadlockTask, Event, LockClass};

    fn circle(confidence: Confidence) -> Event {
        let task = |tid: u32, waits_for: u32| DeadlockTask {
            task: waiter(tid).0.task,
            lock: lock(u64::from(tid), LockClass::PthreadMutex).into(),
            stack: None,
            waits_for,
            confidence,
            evidence: "owner in the lock's memory".into(),
        };
        Event::from(Deadlock {
            time: waiter(1).0.time,
            mono_ns: NOW,
            tasks: vec![task(3, 7), task(7, 3)],
            confidence,
            age_ns: Some(41 * SECOND),
        })
    }

    #[test]
    fn a_circle_is_told_in_a_sentence() {
        let findings = Rules::default().check(&model(&[circle(Confidence::Exact)]));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].title,
            "deadlock: t3/3 ⇄ t7/7, for at least 41.0s"
        );
        assert_eq!(findings[0].severity, Severity::Critical);
        assert_eq!(
            findings[0].evidence[0],
            "t3/3 waits for lock_3, held by t7/7 (exact: owner in the lock's memory)"
        );
    }

    #[test]
    fn one_that_is_not_exact_is_only_suspected() {
        let findings = Rules::default().check(&model(&[circle(Confidence::Likely)]));
        assert!(findings[0].title.starts_with("suspected deadlock"));
        assert_eq!(findings[0].severity, Severity::Warning);
    }
}
