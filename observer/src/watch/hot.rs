//! Locks that are waited for a lot, though never for long: one look at a waiter tells which lock it is. A waiter of
//! a moment ago may run by now, so looks that told nothing are taken again with the next reading.

use super::Watch;
use crate::{
    event::{LockClass, LockTotals},
    inspect::look::Lock,
};

/// Locks that are looked at each interval: the hottest.
const LOCKS: usize = 8;
/// Looks at one lock each interval, at most.
const TRIES: u32 = 20;

/// A lock whose class is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    pid: u32,
    futex: u64,
    tries: u32,
}

impl Watch {
    /// Looks at the hottest locks of an interval that are not known yet.
    pub(super) fn look_at_hot(&mut self, mut totals: Vec<&mut LockTotals>) {
        if !totals.is_empty() {
            self.hot.clear();
        }
        totals.sort_by_key(|totals| std::cmp::Reverse(totals.total_ns));
        for totals in totals.into_iter().take(LOCKS) {
            let Some(pid) = totals.pid else { continue };
            let hot = Hot {
                pid,
                futex: totals.lock.addr.0,
                tries: TRIES,
            };
            // Of this one the holder changes all the time: this is the one of the moment.
            if let Some(lock) = self.look_once(hot)
                && lock.class == LockClass::PythonGil
                && lock.futex == hot.futex
            {
                totals.lock.class = lock.class;
                totals.lock.name = lock.name;
                totals.holder = lock.holder.map(Box::new);
            }
        }
    }

    /// Looks again at those that told nothing.
    pub(super) fn look_at_hot_again(&mut self) {
        for hot in std::mem::take(&mut self.hot) {
            self.look_once(hot);
        }
    }

    /// Looks at a waiter of a lock, if there is one now; what it tells is known from now on.
    fn look_once(&mut self, mut hot: Hot) -> Option<Lock> {
        hot.tries = hot.tries.checked_sub(1)?;
        let lock = self.capture.a_waiter(hot.pid, hot.futex).and_then(|tid| {
            let look = self.looker.look(hot.pid, tid, None, &|_| None).ok()?;
            look.lock.filter(|lock| lock.class != LockClass::Futex)
        });
        // It may wait for another lock by now, which is worth to be known too.
        if lock.as_ref().is_none_or(|lock| lock.futex != hot.futex) {
            self.hot.push(hot);
        }
        let lock = lock?;
        let name = lock.name.clone();
        self.capture.learn(hot.pid, lock.futex, lock.class, name);
        Some(lock)
    }
}
