//! One record under inspection: it is followed by its identity for as long as it is there, and kept
//! as it was last seen when it is gone.

use super::rows::{Record, RowId, Source};
use crate::{
    event::{LockRef, Wait},
    model::{InProgress, Lock},
};

/// Waiters of a lock that are named; of the others, only how many there are.
const WAITERS: usize = 20;

/// One record in full.
#[derive(Debug)]
pub(super) struct Detail {
    id: RowId,
    pub(super) record: Option<Subject>,
    /// The record is no longer there: what is shown is the last that was seen of it.
    pub(super) gone: bool,
    /// Tasks that wait for the same lock, longest first.
    pub(super) waiters: Vec<InProgress>,
    pub(super) more_waiters: usize,
    pub(super) now_ns: u64,
    /// First line shown.
    pub(super) scroll: usize,
}

/// What a detail is about.
#[derive(Debug)]
pub(super) enum Subject {
    Blocked(InProgress),
    Lock(Lock),
    Wait(Wait),
}

impl Subject {
    /// Locks concerned.
    pub(super) fn locks(&self) -> Vec<&LockRef> {
        match self {
            Subject::Blocked(wait) => locks(wait.event.lock.as_ref(), &wait.event.locks),
            Subject::Lock(lock) => vec![&lock.totals.lock],
            Subject::Wait(wait) => locks(wait.lock.as_ref(), &wait.locks),
        }
    }
}

/// The lock of a wait and then the others, each once.
fn locks<'a>(lock: Option<&'a LockRef>, all: &'a [LockRef]) -> Vec<&'a LockRef> {
    let others = all.iter().filter(|other| Some(*other) != lock);
    lock.into_iter().chain(others).collect()
}

impl Detail {
    pub(super) fn of(id: RowId, source: Source<'_>) -> Self {
        let mut detail = Detail {
            id,
            record: None,
            gone: false,
            waiters: Vec::new(),
            more_waiters: 0,
            now_ns: 0,
            scroll: 0,
        };
        detail.refresh(source);
        detail
    }

    /// Looks at the record again.
    pub(super) fn refresh(&mut self, source: Source<'_>) {
        let record = match &self.id {
            RowId::Task(_) => find(source, &self.id).map(Subject::Blocked),
            RowId::Lock(_) => find(source, &self.id).map(Subject::Lock),
            RowId::Wait { .. } => find(source, &self.id).map(Subject::Wait),
        };
        self.gone = record.is_none();
        if record.is_none() {
            return;
        }
        self.record = record;
        self.now_ns = source.now_ns();
        self.find_waiters(source);
    }

    fn find_waiters(&mut self, source: Source<'_>) {
        let concerned = self.record.as_ref().map(Subject::locks).unwrap_or_default();
        if concerned.is_empty() {
            return;
        }
        let wants = |lock: &LockRef| concerned.iter().any(|other| other.id == lock.id);
        let mut waiters: Vec<&InProgress> = InProgress::all(source)
            .filter(|wait| {
                let event = &wait.event;
                event.lock.iter().chain(&event.locks).any(wants) && !wait.is(&self.id)
            })
            .collect();
        waiters.sort_unstable_by(|a, b| a.tie(b));
        self.more_waiters = waiters.len().saturating_sub(WAITERS);
        self.waiters = waiters.into_iter().take(WAITERS).cloned().collect();
    }
}

fn find<R: Record>(source: Source<'_>, id: &RowId) -> Option<R> {
    R::all(source).find(|row| row.is(id)).cloned()
}
