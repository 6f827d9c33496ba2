//! Goroutines that wait for each other in a circle.

use super::{Diagnosis, Rule, Thresholds, plural, process_name};
use crate::{
    event::{Confidence, GoroutineDeadlock, Goroutines, Severity, Subject},
    model::Model,
};

/// Says what the confirmed circles say, in a sentence.
pub(super) struct GoroutineDeadlocks;

impl Rule for GoroutineDeadlocks {
    fn name(&self) -> &'static str {
        "goroutine_deadlock"
    }

    fn advice(&self) -> &'static str {
        "If the holders are right none of these goroutines will ever go on: restart the process, and take the \
         locks in one order everywhere."
    }

    fn check(&mut self, model: &Model, _: &Thresholds) -> Vec<Diagnosis> {
        let of = |all: &Goroutines| -> Vec<Diagnosis> {
            all.deadlocks.iter().map(|one| diagnose(all, one)).collect()
        };
        model.goroutines().flat_map(of).collect()
    }
}

fn diagnose(all: &Goroutines, deadlock: &GoroutineDeadlock) -> Diagnosis {
    let steps = &deadlock.goroutines;
    let names: Vec<String> = steps.iter().map(|step| step.goid.to_string()).collect();
    // Go records no owners, so that is what it stays.
    let (word, severity) = if deadlock.confidence == Confidence::Exact {
        ("deadlock", Severity::Critical)
    } else {
        ("suspected deadlock", Severity::Warning)
    };
    let mut evidence: Vec<String> = steps
        .iter()
        .map(|step| {
            let place = step.stack.iter().find(|frame| frame.is_program());
            let place = place.map_or_else(String::new, |frame| format!(" in {frame}"));
            format!(
                "goroutine {} waits{place} for {}, held by goroutine {} ({}: {})",
                step.goid,
                step.lock,
                step.waits_for,
                deadlock.confidence.name(),
                step.evidence
            )
        })
        .collect();
    if deadlock.behind > 0 {
        let others = plural(
            usize::try_from(deadlock.behind).unwrap_or(usize::MAX),
            "goroutine",
        );
        evidence.push(format!("behind them: {others}"));
    }
    let locks = steps
        .iter()
        .map(|step| Subject::Lock(step.lock.clone().into()));
    Diagnosis {
        key: format!("{} {}", all.pid, names.join(" ")),
        severity,
        title: format!(
            "{word}: goroutines {} of {}",
            names.join(" ⇄ "),
            process_name(all)
        ),
        evidence,
        subjects: std::iter::once(Subject::Process(all.pid))
            .chain(locks)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::{Event, GoroutineStep, LockClass};

    #[test]
    fn a_circle_is_suspected() {
        let step = |goid, waits_for| GoroutineStep {
            goid,
            lock: lock(goid, LockClass::GoMutex),
            waits_for,
            evidence: "the lock's address is on its stack".into(),
            stack: Vec::new(),
        };
        let mut all = goroutines();
        let rule = |all: &Goroutines| {
            GoroutineDeadlocks.check(&model(&[Event::from(all.clone())]), &Thresholds::default())
        };
        assert_eq!(rule(&all), []);
        all.deadlocks.push(GoroutineDeadlock {
            goroutines: vec![step(7, 9), step(9, 7)],
            confidence: Confidence::Likely,
            behind: 2,
        });
        let found = rule(&all);
        assert_eq!(
            found[0].title,
            "suspected deadlock: goroutines 7 ⇄ 9 of process 1 server"
        );
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(
            found[0].evidence[0],
            "goroutine 7 waits for lock_7, held by goroutine 9 (likely: the lock's address is on its stack)"
        );
        assert_eq!(found[0].evidence[2], "behind them: 2 goroutines");
    }
}
