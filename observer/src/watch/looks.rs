//! The waits that were looked at, by task, and which of them are for the same: what one look tells of a lock is noted
//! for all its waits, and nothing else is gone through for it.

use std::{sync::Arc, time::Instant};

use ahash::{HashMap, HashSet};

use super::owners::{Known, Wanted};
use crate::event::Blocked;

/// One look at a wait for each task that waits.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// Boxed: the free places of a table this large would be megabytes.
    by_task: HashMap<u32, Box<Known>>,
    /// Those of them that may have a holder, or had one a moment ago: few, where many wait for nothing that somebody
    /// holds.
    held: HashSet<u32>,
    /// Those of them that wait for a lock.
    by_lock: HashMap<Arc<str>, HashSet<u32>>,
}

impl Looks {
    pub(super) fn get(&self, tid: u32) -> Option<&Known> {
        self.by_task.get(&tid).map(Box::as_ref)
    }

    /// All of them, by task.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Known)> {
        self.by_task.iter().map(|(tid, known)| (*tid, &**known))
    }

    /// Waits that may have a holder.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn insert(&mut self, tid: u32, known: Known) {
        self.remove(tid);
        self.list(tid, &known.blocked);
        self.by_task.insert(tid, Box::new(known));
    }

    pub(super) fn remove(&mut self, tid: u32) -> Option<Known> {
        let known = self.by_task.remove(&tid)?;
        self.held.remove(&tid);
        if let Some(lock) = &known.blocked.lock
            && let Some(tids) = self.by_lock.get_mut(&lock.id)
        {
            tids.remove(&tid);
            if tids.is_empty() {
                self.by_lock.remove(&lock.id);
            }
        }
        Some(*known)
    }

    /// Changes what is known of a wait, which may be for another lock, or have another holder then.
    pub(super) fn change(&mut self, tid: u32, change: impl FnOnce(&mut Known)) {
        let was_held = self.held.contains(&tid);
        if let Some(mut known) = self.remove(tid) {
            change(&mut known);
            self.insert(tid, known);
            if was_held {
                self.held.insert(tid);
            }
        }
    }

    /// Forgets waits that are over: of these tasks; `None`: of any.
    pub(super) fn forget(
        &mut self,
        over: Option<Vec<u32>>,
        is_waiting: impl Fn(u32, &Known) -> bool,
    ) {
        let over = over.unwrap_or_else(|| self.by_task.keys().copied().collect());
        for tid in over {
            if self.get(tid).is_some_and(|known| !is_waiting(tid, known)) {
                self.remove(tid);
            }
        }
    }

    /// What is held by somebody, with the wait for it that was looked at last; what was not looked at for longest comes
    /// first.
    pub(super) fn oldest_first(&self) -> Vec<(Wanted, u32)> {
        let mut latest: HashMap<Wanted, (Instant, u32)> = HashMap::default();
        for tid in &self.held {
            if let Some(known) = self.get(*tid)
                && let Some(wanted) = known.wanted()
            {
                let asked = (known.asked, *tid);
                let latest = latest.entry(wanted).or_insert(asked);
                *latest = asked.max(*latest);
            }
        }
        let mut all: Vec<_> = latest.into_iter().collect();
        all.sort_unstable_by_key(|(_, asked)| *asked);
        all.into_iter()
            .map(|(wanted, (_, tid))| (wanted, tid))
            .collect()
    }

    /// Of the waits for a lock the one that was looked at last.
    pub(super) fn latest(&self, lock: &str) -> Option<u32> {
        let tids = self.by_lock.get(lock)?;
        let asked = |tid: &u32| self.get(*tid).map(|known| known.asked);
        tids.iter().copied().max_by_key(|tid| (asked(tid), *tid))
    }

    /// Changes what is known of each wait for the same, as to its holder.
    pub(super) fn change_holders(&mut self, wanted: &Wanted, mut change: impl FnMut(&mut Known)) {
        let Some(tids) = self.by_lock.get(&wanted.0) else {
            return;
        };
        for tid in tids {
            let Some(known) = self.by_task.get_mut(tid) else {
                continue;
            };
            if known.blocked.access == wanted.1 {
                change(known);
                // One that has none may be about to have the next one.
                if known.blocked.holder.is_some() {
                    self.held.insert(*tid);
                }
            }
        }
    }

    fn list(&mut self, tid: u32, blocked: &Blocked) {
        if blocked.holder.is_some() {
            self.held.insert(tid);
        }
        if let Some(lock) = &blocked.lock {
            let tids = self.by_lock.entry(Arc::clone(&lock.id)).or_default();
            tids.insert(tid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Cause, Stack},
        rules::testing::{Waiter, waiter},
        watch::causes::Parts,
    };

    fn known(waiter: Waiter) -> Known {
        Known {
            start_ns: 1,
            since_ns: 1,
            blocked: waiter.0,
            told: false,
            stack: Stack::default(),
            parts: Parts::from(0),
            asked: Instant::now(),
        }
    }

    /// Two wait for lock 5, of one of them the holder is known; one waits for lock 6, which nobody is known to hold.
    fn looks() -> Looks {
        let mut looks = Looks::default();
        looks.insert(10, known(waiter(10).at(5).held_by(20, "running")));
        looks.insert(11, known(waiter(11).at(5)));
        looks.insert(12, known(waiter(12).at(6)));
        looks
    }

    fn wanted(looks: &Looks, tid: u32) -> Wanted {
        looks.get(tid).and_then(Known::wanted).unwrap()
    }

    #[test]
    fn only_what_has_a_holder_counts_as_held() {
        let mut looks = looks();
        assert_eq!(looks.held(), 1);
        assert_eq!(looks.oldest_first(), [(wanted(&looks, 10), 10)]);
        // The same wait, and its lock is free by now.
        looks.insert(10, known(waiter(10).at(5)));
        assert_eq!(looks.held(), 0);
        looks.change(12, |known| {
            known.blocked = waiter(12).at(5).held_by(20, "running").0;
            known.asked = Instant::now();
        });
        assert_eq!(looks.oldest_first(), [(wanted(&looks, 12), 12)]);
        assert_eq!(looks.latest(&wanted(&looks, 12).0), Some(12));
    }

    #[test]
    fn a_holder_is_noted_for_all_waits_for_the_same() {
        let mut looks = looks();
        let wanted = wanted(&looks, 10);
        let holder = waiter(1).held_by(30, "running").0.holder;
        let mut noted = 0;
        looks.change_holders(&wanted, |known| {
            known.blocked.holder.clone_from(&holder);
            known.parts.add(Cause::HolderRunning, 5);
            noted += 1;
        });
        // Lock 6 is another one.
        assert_eq!((noted, looks.held()), (2, 2));
        assert!(looks.get(12).unwrap().blocked.holder.is_none());
        // On its way from one holder to the next it is asked for again.
        looks.change_holders(&wanted, |known| known.blocked.holder = None);
        looks.change(10, |known| known.blocked.holder = None);
        assert_eq!(looks.held(), 2);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let is_waiting = |tid, _: &Known| tid != 10 && tid != 12;
        let mut named = looks();
        // Only those that are named are asked for.
        named.forget(Some(vec![10, 11, 99]), is_waiting);
        assert!(named.get(10).is_none() && named.get(12).is_some());
        let mut all = looks();
        all.forget(None, is_waiting);
        let left: Vec<u32> = all.iter().map(|(tid, _)| tid).collect();
        assert_eq!((left, all.held()), (vec![11], 0));
        assert_eq!(all.by_lock.len(), 1);
        all.forget(None, |_, _| false);
        assert!(all.by_lock.is_empty() && all.by_task.is_empty());
    }
}
