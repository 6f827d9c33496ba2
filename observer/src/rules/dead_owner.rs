//! A lock whose owner ended without giving it back.

use super::{Diagnosis, Rule, Thresholds, long_hold};
use crate::{
    event::{HolderState, Severity},
    model::Model,
};

/// Nobody can ever give the lock back.
pub(super) struct DeadOwner;

impl Rule for DeadOwner {
    fn name(&self) -> &'static str {
        "dead_owner"
    }

    fn advice(&self) -> &'static str {
        "The lock stays taken for ever: restart the process. A robust mutex would have told the next owner."
    }

    fn check(&mut self, model: &Model, _: &Thresholds) -> Vec<Diagnosis> {
        long_hold::held(model)
            .into_iter()
            .filter(|held| held.holder.state == Some(HolderState::Ended))
            .map(|held| Diagnosis {
                key: held.lock.id.to_string(),
                severity: Severity::Critical,
                title: format!(
                    "{} belongs to thread {}, which ended without giving it back",
                    held.lock, held.tid
                ),
                evidence: held.evidence(),
                subjects: held.subjects(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn an_owner_that_is_gone() {
        for (doing, expected) in [("ended", 1), ("running", 0)] {
            let model = model(&[waiter(10).held_by(20, doing).blocked()]);
            assert_eq!(
                DeadOwner.check(&model, &Thresholds::default()).len(),
                expected
            );
        }
    }
}
