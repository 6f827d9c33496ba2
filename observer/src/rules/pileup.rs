//! Many tasks in uninterruptible waits at the same place.

use std::collections::BTreeMap;

use super::{Diagnosis, Rule, Thresholds, plural, stuck};
use crate::{
    event::{Severity, Subject},
    model::{InProgress, Model},
    time::human,
};

/// What one slow disk or one lost file server does to a host.
pub(super) struct PileUp;

/// Where in the kernel: the innermost function that has a name, else the system call.
fn place(wait: &InProgress) -> String {
    let kernel = wait.event.stack.as_ref().map(|stack| &stack.kernel);
    let function = kernel
        .into_iter()
        .flat_map(|frames| frames.iter())
        .find_map(|frame| {
            let name = frame.name.as_deref()?;
            (!name.contains("schedule")).then_some(name)
        });
    match (function, wait.event.syscall.as_deref()) {
        (Some(function), _) => function.to_owned(),
        (None, Some(syscall)) => syscall.to_owned(),
        (None, None) => wait.event.kind.name().to_owned(),
    }
}

impl Rule for PileUp {
    fn name(&self) -> &'static str {
        "d_state_pileup"
    }

    fn advice(&self) -> &'static str {
        "One resource holds all of them up: look at the disk, the file server or the kernel lock behind this place."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        let mut places: BTreeMap<String, Vec<&InProgress>> = BTreeMap::new();
        for wait in model.blocked() {
            if stuck::is_uninterruptible(&wait.event) {
                places.entry(place(wait)).or_default().push(wait);
            }
        }
        places
            .into_iter()
            .filter(|(_, waits)| waits.len() >= thresholds.pileup)
            .map(|(place, waits)| {
                let ages = waits.iter().map(|wait| wait.age_ns(model.now_ns()));
                Diagnosis {
                    severity: Severity::Critical,
                    title: format!(
                        "{} in uninterruptible waits in {place}, for up to {}",
                        plural(waits.len(), "task"),
                        human(ages.max().unwrap_or(0))
                    ),
                    evidence: vec![format!("each waits in {place}")],
                    subjects: waits
                        .iter()
                        .take(5)
                        .map(|wait| Subject::Task(wait.event.task.clone()))
                        .collect(),
                    key: place,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::Kind;

    #[test]
    fn several_in_one_place() {
        let in_call = |tid, syscall| waiter(tid).kind(Kind::Io, syscall).blocked();
        let mut events: Vec<_> = (0..5).map(|tid| in_call(tid, "fsync")).collect();
        events.extend((10..14).map(|tid| in_call(tid, "read")));
        let found = PileUp.check(&model(&events), &Thresholds::default());
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .title
                .starts_with("5 tasks in uninterruptible waits in fsync")
        );
    }
}
