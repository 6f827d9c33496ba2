//! Locks that are waited for a lot, though never for long: one look at a waiter tells which lock it is, and who holds
//! it at that moment. A waiter of a moment ago may run by now, so looks that told nothing are taken again with the next
//! reading.

use std::collections::HashMap;

use super::Watch;
use crate::{
    event::{LockClass, LockRef, LockTotals},
    inspect::look::Lock,
};

/// Locks without a class that are looked at each interval: the hottest. And those of which only the holder is asked
/// for, which change each time, and take no places from the others.
const LOCKS: usize = 8;
const HELD: usize = 4;
/// Looks at one lock each interval, at most.
const TRIES: u32 = 20;

/// After so many looks that found a waiter and no class there is none to be found: a program's own futex.
const PLAIN: u8 = 3;
/// Locks of which looks are counted; beyond it the count starts anew.
const MAX_COUNTED: usize = 1_024;

/// Is there something about it that a look at a waiter may tell?
pub(super) fn is_open(totals: &LockTotals) -> bool {
    let asks_for_holder = totals.lock.class.is_held() && totals.holder.is_none();
    let has_futex = totals.pid.is_some() && !totals.lock.addr.is_none();
    has_futex && (has_no_class(totals.lock.class) || (asks_for_holder && totals.waiters_now > 0))
}

/// The interpreter's lock has one, but its holder changes all the time.
fn has_no_class(class: LockClass) -> bool {
    matches!(class, LockClass::Futex | LockClass::PythonGil)
}

/// Looks at locks that found nothing but a futex, by process and address.
#[derive(Debug, Default)]
pub(super) struct Plain(HashMap<(u32, u64), u8>);

impl Plain {
    fn is(&self, hot: &Hot) -> bool {
        self.0.get(&hot.key()).is_some_and(|looks| *looks >= PLAIN)
    }

    fn count(&mut self, hot: &Hot) {
        if self.0.len() >= MAX_COUNTED {
            self.0.clear();
        }
        let looks = self.0.entry(hot.key()).or_default();
        *looks = looks.saturating_add(1);
    }
}

/// A lock to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    pid: u32,
    futex: u64,
    tries: u32,
}

impl Hot {
    fn key(&self) -> (u32, u64) {
        (self.pid, self.futex)
    }
}

impl Watch {
    /// Looks at the hottest locks of an interval of which something is not known.
    pub(super) fn look_at_hot(&mut self, mut totals: Vec<&mut LockTotals>) {
        if !totals.is_empty() {
            self.hot.clear();
        }
        totals.sort_by_key(|totals| std::cmp::Reverse(totals.total_ns));
        let is_new = |totals: &&mut LockTotals| has_no_class(totals.lock.class);
        let (new, held): (Vec<_>, Vec<_>) = totals.into_iter().partition(is_new);
        for totals in new
            .into_iter()
            .take(LOCKS)
            .chain(held.into_iter().take(HELD))
        {
            let Some(pid) = totals.pid else { continue };
            let mut hot = Hot {
                pid,
                futex: totals.lock.addr.0,
                tries: TRIES,
            };
            let is_known = !has_no_class(totals.lock.class);
            // One look all the same: its memory may have become another lock's.
            if is_known || self.plain.is(&hot) {
                hot.tries = 1;
            }
            let look = self.look_once(hot);
            let Some(lock) = look.filter(|lock| lock.futex == hot.futex) else {
                continue;
            };
            if lock.class == LockClass::PythonGil {
                LockRef::learn(&mut totals.lock, lock.class, lock.name.as_ref());
            } else if !is_known {
                continue;
            }
            // That nobody is known says less than who was known before.
            let mut holder = lock.holder.filter(|holder| holder.tid.is_some());
            if let Some(holder) = &mut holder {
                self.describe_holder(holder);
            }
            totals.holder = holder.map(Box::new);
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
            let look = self.looker.look(hot.pid, tid, None, None).ok()?;
            look.lock
        });
        let is_plain = |lock: &Lock| lock.class == LockClass::Futex;
        if lock
            .as_ref()
            .is_some_and(|lock| is_plain(lock) && lock.futex == hot.futex)
        {
            self.plain.count(&hot);
            if self.plain.is(&hot) {
                return None;
            }
        }
        let lock = lock.filter(|lock| !is_plain(lock));
        // It may wait for another lock by now, which is worth to be known too.
        if lock.as_ref().is_none_or(|lock| lock.futex != hot.futex) {
            self.hot.push(hot);
        }
        let lock = lock?;
        self.capture
            .learn(hot.pid, lock.futex, lock.class, lock.name.as_ref());
        Some(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_class_is_counted_within_bounds() {
        let hot = |futex| Hot {
            pid: 1,
            futex,
            tries: TRIES,
        };
        let mut plain = Plain::default();
        for _ in 0..PLAIN {
            assert!(!plain.is(&hot(1)));
            plain.count(&hot(1));
        }
        assert!(plain.is(&hot(1)) && !plain.is(&hot(2)));
        for futex in 0..2 * MAX_COUNTED as u64 {
            plain.count(&hot(futex));
        }
        assert!(plain.0.len() <= MAX_COUNTED);
    }
}
