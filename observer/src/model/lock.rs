//! Locks and waits in progress, as the model has them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Blocked, Holder, LockRef, LockTotals};

/// A lock and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// The latest totals.
    pub totals: LockTotals,
    /// Waits per second between the two latest totals.
    pub waits_per_s: f64,
    /// Tasks that waited for it on average, in the same time.
    pub waiting: f64,
    /// Tasks that are known to wait for it now.
    pub waiters: u32,
    /// Totals have come; else it is only known from waits in progress.
    pub(super) has_totals: bool,
    /// Waits of those that have ended since the totals came, which will be in the next ones.
    pub(super) ended_ns: u64,
    /// Sum of the starts of their waits.
    pub(super) starts_ns: u128,
    /// Who held it by the latest event that names somebody, or else of a task that waited for it, and when that was.
    pub(super) holder: Option<Box<(Holder, u64)>>,
}

impl Lock {
    pub(super) fn new(totals: LockTotals, has_totals: bool) -> Lock {
        let holder = totals
            .holder
            .as_deref()
            .filter(|holder| holder.tid.is_some());
        Lock {
            holder: holder.map(|holder| Box::new((holder.clone(), totals.mono_ns))),
            totals,
            has_totals,
            waits_per_s: 0.0,
            waiting: 0.0,
            waiters: 0,
            ended_ns: 0,
            starts_ns: 0,
        }
    }

    /// Newer totals. A copy of the model that shares the lock keeps the older ones.
    pub(super) fn replace_totals(
        self: &mut Arc<Self>,
        totals: LockTotals,
        waits_per_s: f64,
        waiting: f64,
    ) {
        let mut new = Lock {
            waits_per_s,
            waiting,
            waiters: self.waiters,
            starts_ns: self.starts_ns,
            ..Lock::new(totals, true)
        };
        if new.holder.is_none() {
            new.holder = match Arc::get_mut(self) {
                Some(lock) => lock.holder.take(),
                None => self.holder.clone(),
            };
        }
        match Arc::get_mut(self) {
            Some(lock) => *lock = new,
            None => *self = Arc::new(new),
        }
    }

    /// Ages of the waits in progress, added up.
    pub fn pending_ns(&self, now_ns: u64) -> u64 {
        let now_ns = u128::from(self.waiters) * u128::from(now_ns);
        u64::try_from(now_ns.saturating_sub(self.starts_ns)).unwrap_or(u64::MAX)
    }

    /// Time waited for it, waits in progress included.
    pub fn waited_ns(&self, now_ns: u64) -> u64 {
        let ended_ns = self.totals.total_ns.saturating_add(self.ended_ns);
        ended_ns.saturating_add(self.pending_ns(now_ns))
    }

    /// Tasks that wait for it now: those that were counted, or those that are known, whichever are more.
    pub fn waiters_now(&self) -> u32 {
        self.totals.waiters_now.max(self.waiters)
    }

    /// Who holds it, as far as somebody who waits for it was looked at.
    pub fn holder(&self) -> Option<&Holder> {
        let known = self.holder.as_ref().filter(|_| self.waiters > 0);
        known
            .map(|known| &known.0)
            .or(self.totals.holder.as_deref())
    }

    /// Who holds it, or, if that is not known, who held it last.
    pub fn known_holder(&self) -> Option<&Holder> {
        let is_named = |holder: &&Holder| holder.tid.is_some();
        let (now, last) = (self.holder(), self.last_holder());
        let last = last.map(|(holder, _)| holder).filter(is_named);
        now.filter(is_named).or(last).or(now)
    }

    /// Who held it when somebody who waited for it was last looked at, and when that was.
    pub fn last_holder(&self) -> Option<(&Holder, u64)> {
        self.holder.as_ref().map(|known| (&known.0, known.1))
    }
}

/// A lock that somebody waits for and of which no totals have come: no wait for it has ended.
pub(super) fn no_totals(event: &Blocked, lock: &Arc<LockRef>) -> LockTotals {
    LockTotals {
        time: event.time,
        mono_ns: event.mono_ns,
        lock: Arc::clone(lock),
        pid: (!lock.class.is_kernel()).then_some(event.task.pid),
        process: event.task.process.clone(),
        waits: 0,
        total_ns: 0,
        max_ns: 0,
        p50_ns: None,
        p99_ns: None,
        timeouts: 0,
        interrupted: 0,
        waiters_now: 0,
        holder: None,
        histogram: Vec::new(),
        callers: Vec::new(),
        estimated: false,
    }
}

/// A wait in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InProgress {
    /// The latest observation.
    pub event: Blocked,
    /// Start of the wait, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
}

impl InProgress {
    /// Age at a time.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.start_ns).max(self.event.age_ns)
    }
}
