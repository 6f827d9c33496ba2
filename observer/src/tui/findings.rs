//! The order in which diagnoses are shown, and whether they still hold.

use std::cmp::Reverse;

use super::rows::{Filter, RowId};
use crate::{
    event::{Finding, Subject},
    model::Model,
};

/// Those that still hold first, the worst and then the newest of them first; then those that are over.
pub(super) fn sorted<'a>(model: &'a Model, filter: &Filter) -> Vec<(&'a Finding, bool)> {
    let mut all: Vec<_> = model
        .findings()
        .filter(|found| filter.is_empty() || matches(found, filter))
        .map(|found| (found, is_over(found, model)))
        .collect();
    all.sort_by_key(|(found, over)| (*over, Reverse(found.severity), Reverse(found.mono_ns)));
    all
}

fn matches(found: &Finding, filter: &Filter) -> bool {
    filter.is_in(&found.title)
        || filter.is_in(&found.rule)
        || found.subjects.iter().any(|subject| match subject {
            Subject::Task(task) => filter.is_in_task(task),
            Subject::Lock(lock) => filter.is_in_lock(lock),
            Subject::Process(pid) => filter.is_in_number(*pid),
        })
}

/// Are the waits over that it is about? False too where it names none.
pub(super) fn is_over(found: &Finding, model: &Model) -> bool {
    let lasts = |subject: &Subject| match subject {
        Subject::Task(task) => model
            .blocked_task(task.tid)
            .is_some_and(|wait| wait.start_ns <= found.mono_ns),
        Subject::Lock(lock) => model.lock(&lock.id).is_some_and(|lock| lock.waiters > 0),
        Subject::Process(_) => false,
    };
    let is_task = |subject: &Subject| matches!(subject, Subject::Task(_));
    found.subjects.iter().any(is_task) && !found.subjects.iter().any(lasts)
}

pub(super) fn id(found: &Finding) -> RowId {
    RowId::Finding {
        mono_ns: found.mono_ns,
        title: found.title.clone(),
    }
}
