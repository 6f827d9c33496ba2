//! A task that makes no progress, in a wait that nothing but its completion ends.

use super::{Diagnosis, Rule, Thresholds};
use crate::{
    event::{Blocked, Kind, Severity, Subject},
    model::Model,
    time::human,
};

/// Waits for a file system, a device, a page or a kernel lock.
pub(super) struct Stuck;

/// Is it a wait inside the kernel for something that should come soon? A pipe, a socket or a terminal may
/// rightly stay silent for ever.
pub(super) fn is_uninterruptible(blocked: &Blocked) -> bool {
    matches!(blocked.kind, Kind::Io | Kind::PageFault | Kind::KernelLock)
}

impl Rule for Stuck {
    fn name(&self) -> &'static str {
        "thread_stuck"
    }

    fn advice(&self) -> &'static str {
        "Look at the device, the network file system or the kernel lock that the kernel stack names; the kernel's \
         log may say more."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        model
            .blocked()
            .filter(|wait| is_uninterruptible(&wait.event))
            .filter(|wait| wait.age_ns(model.now_ns()) >= thresholds.stuck_ns)
            .map(|wait| Diagnosis {
                key: format!("{} {}", wait.event.task.tid, wait.start_ns),
                severity: Severity::Warning,
                title: format!(
                    "{} has made no progress for {}: {}{}",
                    wait.event.task,
                    human(wait.age_ns(model.now_ns())),
                    wait.event.kind.name(),
                    wait.event
                        .syscall
                        .as_ref()
                        .map_or_else(String::new, |name| format!(" in {name}"))
                ),
                evidence: vec!["the wait is uninterruptible: no signal ends it".to_owned()],
                subjects: vec![Subject::Task(wait.event.task.clone())],
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn only_waits_that_should_be_short() {
        for (kind, expected) in [
            (Kind::Io, 1),
            (Kind::PageFault, 1),
            (Kind::Pipe, 0),
            (Kind::Poll, 0),
        ] {
            let model = model(&[waiter(10).kind(kind, "read").long(20).blocked()]);
            assert_eq!(Stuck.check(&model, &Thresholds::default()).len(), expected);
        }
        let short = model(&[waiter(10).kind(Kind::Io, "read").long(2).blocked()]);
        assert_eq!(Stuck.check(&short, &Thresholds::default()), []);
    }
}
