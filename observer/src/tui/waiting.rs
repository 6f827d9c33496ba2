//! Rows of Blocked: threads, and goroutines among them. Goroutines of a group wait at the same place and are one
//! row, as old as the longest of their waits.

use std::{ops::Deref, sync::Arc};

use super::{
    goroutines::GoRow,
    host::{Place, Places},
};
use crate::{
    event::{
        Blocked, Confidence, GoOperation, GoState, Goroutines, Holder, Kind, LockRef, TaskRef,
    },
    model::{InProgress, Model},
};

/// A wait in progress.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    wait: Arc<InProgress>,
    /// The goroutines that wait; a thread does where there are none.
    pub(super) goroutines: Option<GoRow>,
    /// Where the process runs.
    pub(super) place: Option<Place>,
    /// Its holder, that of what the holder waits for, and so on, up to one that was there before. Only of a row in
    /// sight.
    pub(super) chain: Vec<Holder>,
}

impl Deref for Waiting {
    type Target = InProgress;

    fn deref(&self) -> &InProgress {
        &self.wait
    }
}

/// Holders of a chain that are followed.
const STEPS: usize = 5;

impl Waiting {
    /// Finds out whom its holder waits for.
    pub(super) fn follow(&mut self, model: &Model) {
        let mut tids = vec![self.event.task.tid];
        let mut next = self.wait.event.holder.as_deref();
        self.chain.clear();
        while self.chain.len() < STEPS
            && let Some(holder) = next
            && let Some(tid) = holder.tid
        {
            self.chain.push(holder.clone());
            let is_new = !tids.contains(&tid);
            tids.push(tid);
            let wait = model.blocked_task(tid).filter(|_| is_new);
            next = wait.and_then(|wait| wait.event.holder.as_deref());
        }
    }
}

/// All waits in progress, in no order.
pub(super) fn collect(model: &Model, places: &Places) -> Vec<Waiting> {
    let place = |pid| places.of(pid).cloned();
    let thread = |wait: &Arc<InProgress>| Waiting {
        place: place(wait.event.task.pid),
        wait: Arc::clone(wait),
        goroutines: None,
        chain: Vec::new(),
    };
    let mut all: Vec<Waiting> = model.blocked_shared().map(thread).collect();
    all.extend(super::goroutines::collect_all(model).filter_map(|row| {
        Some(Waiting {
            wait: Arc::new(wait(&row)?),
            place: place(row.key.pid),
            goroutines: Some(row),
            chain: Vec::new(),
        })
    }));
    all
}

/// The waits of a group of goroutines as one; `None`: they do not wait, or are the runtime's own.
fn wait(row: &GoRow) -> Option<InProgress> {
    let group = row.group();
    if group.state != GoState::Waiting && group.state != GoState::Leaked || group.system {
        return None;
    }
    let first = group.waits_for.first();
    let lock = first.and_then(|one| one.lock.clone());
    let reason = group.wait_reason.as_deref().unwrap_or_default();
    let kind = match (first.and_then(|one| one.operation), &lock) {
        (Some(GoOperation::Read | GoOperation::Write), _) => Kind::Poll,
        // Workers that wait for work do so: most often no trouble. Senders are held up.
        (Some(GoOperation::Receive), _) => Kind::Condvar,
        (Some(GoOperation::Send), _) => Kind::Other,
        (_, Some(lock)) => lock.class.kind(),
        (_, None) if reason == "sleep" => Kind::Sleep,
        (_, None) if reason.starts_with("select") || reason.starts_with("chan") => Kind::Condvar,
        (_, None) => Kind::Other,
    };
    let holder = lock.as_ref().and_then(|lock| holder(&row.all, lock));
    let age_ns = group.longest_wait_ns.unwrap_or(0);
    let comm = match group.count {
        1 => "1 goroutine".to_owned(),
        n => format!("{n} goroutines"),
    };
    let event = Blocked {
        time: row.all.time,
        mono_ns: row.all.mono_ns,
        task: TaskRef {
            comm: Some(comm.into()),
            process: row.all.process.clone(),
            ..TaskRef::new(row.key.pid, 0)
        }
        .into(),
        kind,
        age_ns,
        blocked_ns: None,
        runqueue_ns: None,
        lock: lock.map(Arc::new),
        locks: Vec::new(),
        access: None,
        mode: None,
        holder: holder.map(Box::new),
        syscall: None,
        probe: None,
        stack: None,
        at_least: true,
    };
    Some(InProgress {
        start_ns: row.all.mono_ns.saturating_sub(age_ns),
        event,
    })
}

/// The goroutine that holds a lock, as the holders of other locks are told.
pub(super) fn holder(all: &Goroutines, lock: &LockRef) -> Option<Holder> {
    let of_it = all.locks.iter().find(|one| one.lock.id == lock.id)?;
    let holder = of_it.holders.first()?;
    Some(Holder {
        pid: Some(all.pid),
        tid: None,
        comm: Some(format!("goroutine {}", holder.goid).into()),
        confidence: holder.confidence.min(Confidence::Likely),
        evidence: holder.evidence.clone().into(),
        state: None,
        doing: holder.doing.as_deref().map(Into::into),
    })
}
