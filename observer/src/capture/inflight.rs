//! Waits in progress: a scan of the tasks' table, and which of them are to be reported now.

use std::collections::hash_map::Entry;

// Each scan asks for every task that waits, some ten thousand, twenty times a second.
use ahash::HashMap;
use observer_common::{LockKey, TID_ENDED, TaskHead, TaskSlot, WOKEN, flag};

use super::{convert, mapped::MappedArray};

/// A wait for a futex or a file lock of this age may be for what somebody holds: it is worth a look.
const SUSPECT_NS: u64 = 200_000_000;
/// Waits that wait for a look.
const MAX_SUSPECTS: usize = 8_192;

/// Waits in progress are looked at this often at the most and at the least.
const SCAN_NS: (u64, u64) = (50_000_000, 250_000_000);
/// Scans take this part of a core at most, as long as they can be so rare: one four-hundredth.
const SCAN_PART: u64 = 400;

/// Time from one scan to the next, if waits are long from `long_ns` on, and the last scan took `cost_ns`.
pub(super) fn until_next_scan(long_ns: u64, cost_ns: u64) -> u64 {
    (long_ns / 4)
        .max(cost_ns.saturating_mul(SCAN_PART))
        .clamp(SCAN_NS.0, SCAN_NS.1)
}

/// A wait that has been reported as in progress.
#[derive(Clone, Copy, Debug)]
struct Reported {
    start_ns: u64,
    /// Age at which it is reported again.
    next_ns: u64,
    /// When a scan first found it made runnable; 0: none has.
    woken_ns: u64,
    slot: TaskSlot,
}

/// What the latest scan found in a task's entry. Of ten thousand waits hardly one is another at the next scan, so
/// that all that is done of nearly all of them is to see that they are the same.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// When the wait began; 0: there is none.
    start_ns: u64,
    tid: u32,
    /// Both change when a wait goes on after it was disturbed.
    wake_ns: u64,
    sleep_ns: u64,
    /// When there is something to be done though nothing has changed: it becomes old, or is to be reported.
    due_ns: u64,
    key: Option<LockKey>,
}

/// Follows waits in progress from scan to scan.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    places: Vec<Place>,
    /// From which age on waits were long at the latest scan.
    long_ns: u64,
    reported: HashMap<u32, Reported>,
    /// Reported waits that a scan no longer found and whose end has not been seen, by task and start.
    gone: HashMap<(u32, u64), TaskSlot>,
    /// Waiters of each lock in the latest scan: how many, and the place of the one that came last.
    waiters: HashMap<LockKey, (u32, usize)>,
    /// When waits for futexes and file locks began that are old enough for a look, by task.
    old: HashMap<u32, u64>,
    /// Those that became so and have not been asked for.
    suspects: Vec<TaskSlot>,
    over: Over,
}

/// Tasks whose waits were noted and are over.
#[derive(Debug, Default)]
struct Over {
    tids: Vec<u32>,
    /// There were too many to name them.
    more: bool,
}

impl Over {
    fn add(&mut self, tid: u32) {
        if self.tids.len() < MAX_SUSPECTS {
            self.tids.push(tid);
        } else {
            self.more = true;
        }
    }
}

impl InFlight {
    /// Looks at all tasks; returns the waits to be reported: they have passed the limit `long_ns`, or
    /// doubled their age.
    pub(super) fn scan(
        &mut self,
        heads: &MappedArray<TaskHead>,
        slots: &MappedArray<TaskSlot>,
        long_ns: u64,
        now_ns: u64,
    ) -> Vec<TaskSlot> {
        let mut due = Vec::new();
        self.limit(long_ns);
        for index in 0..heads.len() {
            let Some(head) = heads.get(index) else { break };
            let slot = (head.start_ns != 0 && head.tid & TID_ENDED == 0)
                .then(|| slots.get(index))
                .flatten()
                // The kernel writes the start first and last: equal on both sides of the copy, and in it,
                // means the copy is of one wait.
                .filter(|slot| slot.start_ns == head.start_ns)
                .filter(|_| heads.get(index).map(|again| again.start_ns) == Some(head.start_ns));
            due.extend(self.see(index, slot.as_ref(), now_ns));
        }
        due
    }

    /// Waits are long from this age on.
    fn limit(&mut self, long_ns: u64) {
        if std::mem::replace(&mut self.long_ns, long_ns) != long_ns {
            for place in &mut self.places {
                place.due_ns = 0;
            }
        }
    }

    /// Takes what is in a task's entry now; returns the wait if it is to be reported.
    fn see(&mut self, index: usize, slot: Option<&TaskSlot>, now_ns: u64) -> Option<TaskSlot> {
        let slot = slot.filter(|slot| slot.flags & flag::RAN == 0);
        let known = self.places.get(index).copied().unwrap_or_default();
        let same = |slot: &TaskSlot| (slot.tid, slot.start_ns) == (known.tid, known.start_ns);
        if known.start_ns != 0 && !slot.is_some_and(same) {
            self.leave(index);
        }
        let slot = slot?;
        if self.places.len() <= index {
            self.places.resize(index + 1, Place::default());
        }
        let place = self.places.get_mut(index)?;
        if place.start_ns == 0 {
            let key = convert::key_of(slot);
            *place = Place {
                start_ns: slot.start_ns,
                tid: slot.tid,
                key,
                ..Place::default()
            };
            if let Some(key) = key {
                let (count, latest) = self.waiters.entry(key).or_default();
                (*count, *latest) = (*count + 1, index);
            }
        }
        let is_new = (place.wake_ns, place.sleep_ns) != (slot.wake_ns, slot.sleep_ns);
        if now_ns < place.due_ns && !is_new {
            return None;
        }
        (place.wake_ns, place.sleep_ns) = (slot.wake_ns, slot.sleep_ns);
        let (due, due_ns) = self.attend(slot, now_ns);
        if let Some(place) = self.places.get_mut(index) {
            place.due_ns = due_ns;
        }
        due
    }

    /// Notes what a wait has become; returns it if it is to be reported, and when there is more to do.
    fn attend(&mut self, slot: &TaskSlot, now_ns: u64) -> (Option<TaskSlot>, u64) {
        let age_ns = now_ns.saturating_sub(slot.start_ns);
        let is_futex = convert::key_of(slot).is_some_and(|key| key.tgid != 0);
        let mut next_ns = u64::MAX;
        if is_futex || convert::is_file_lock(slot) {
            if age_ns >= SUSPECT_NS {
                self.suspect(slot);
            } else {
                next_ns = SUSPECT_NS;
            }
        }
        let mut due = None;
        if age_ns >= self.long_ns {
            let again_ns;
            (due, again_ns) = self.report(*slot, now_ns);
            next_ns = next_ns.min(again_ns);
        } else {
            next_ns = next_ns.min(self.long_ns);
        }
        (due, slot.start_ns.saturating_add(next_ns))
    }

    /// The wait that an entry had is over.
    fn leave(&mut self, index: usize) {
        let Some(place) = self.places.get_mut(index) else {
            return;
        };
        let Place {
            start_ns, tid, key, ..
        } = std::mem::take(place);
        if let Some(key) = key
            && let Entry::Occupied(mut waiters) = self.waiters.entry(key)
        {
            match waiters.get().0 {
                0 | 1 => drop(waiters.remove()),
                _ => waiters.get_mut().0 -= 1,
            }
        }
        if self.old.get(&tid) == Some(&start_ns) {
            self.old.remove(&tid);
            self.over.add(tid);
        }
        if self.is_reported(tid, start_ns)
            && let Some(known) = self.reported.remove(&tid)
        {
            self.gone.insert((tid, start_ns), known.slot);
            self.over.add(tid);
        }
    }

    /// Notes a long wait; returns it if it is to be reported now, and the age at which it is next.
    fn report(&mut self, mut slot: TaskSlot, now_ns: u64) -> (Option<TaskSlot>, u64) {
        let new = Reported {
            start_ns: slot.start_ns,
            next_ns: self.long_ns,
            woken_ns: 0,
            slot,
        };
        let known = match self.reported.entry(slot.tid) {
            Entry::Vacant(entry) => entry.insert(new),
            Entry::Occupied(entry) => {
                let known = entry.into_mut();
                if known.start_ns != slot.start_ns {
                    self.gone.insert((slot.tid, known.start_ns), known.slot);
                    *known = new;
                    self.over.add(slot.tid);
                }
                known
            }
        };
        known.woken_ns = match (known.woken_ns, slot.wake_ns) {
            (_, 0) => 0,
            (0, _) => now_ns,
            (earlier, _) => earlier,
        };
        // Woken at a time that the kernel programs did not note: since this scan at the latest.
        if slot.wake_ns == WOKEN {
            slot.wake_ns = known.woken_ns;
        }
        known.slot = slot;
        let age_ns = now_ns.saturating_sub(slot.start_ns);
        let due = (age_ns >= known.next_ns).then(|| {
            known.next_ns = age_ns.saturating_mul(2).max(1);
            slot
        });
        (due, known.next_ns)
    }

    /// A wait for what somebody may hold has become old enough for a look.
    fn suspect(&mut self, slot: &TaskSlot) {
        match self.old.insert(slot.tid, slot.start_ns) {
            Some(start_ns) if start_ns == slot.start_ns => return,
            Some(_) => self.over.add(slot.tid),
            None => {}
        }
        if self.suspects.len() < MAX_SUSPECTS {
            self.suspects.push(*slot);
        }
    }

    /// The end of a wait was seen.
    pub(super) fn ended(&mut self, tid: u32, start_ns: u64) {
        if self.is_reported(tid, start_ns) {
            self.reported.remove(&tid);
            self.over.add(tid);
        }
        if !self.gone.is_empty() {
            self.gone.remove(&(tid, start_ns));
        }
    }

    /// Is a wait that passed the limit still in progress, as far as is known?
    pub(super) fn is_reported(&self, tid: u32, start_ns: u64) -> bool {
        self.reported
            .get(&tid)
            .is_some_and(|known| known.start_ns == start_ns)
    }

    /// Reported waits that are over though nobody saw their end. To be asked when all records have been
    /// taken.
    pub(super) fn unseen_ends(&mut self) -> Vec<TaskSlot> {
        self.gone.drain().map(|(_, slot)| slot).collect()
    }

    /// Tasks that wait for a lock now.
    pub(super) fn waiters(&self, key: &LockKey) -> u32 {
        self.waiters.get(key).map_or(0, |(count, _)| *count)
    }

    /// One of the tasks that wait for a lock now.
    pub(super) fn a_waiter(&self, key: &LockKey) -> Option<u32> {
        let (_, latest) = self.waiters.get(key)?;
        let waits = |place: &&Place| place.key.as_ref() == Some(key);
        let place = self.places.get(*latest).filter(waits);
        // It waits no more, but another one does.
        Some(place.or_else(|| self.places.iter().find(waits))?.tid)
    }

    /// Waits for futexes that have become old enough for a look since the last call.
    pub(super) fn suspects(&mut self) -> Vec<TaskSlot> {
        std::mem::take(&mut self.suspects)
    }

    /// Tasks whose waits were noted, and were found to be over since the last call; `None`: too many to name them.
    pub(super) fn over(&mut self) -> Option<Vec<u32>> {
        let Over { tids, more } = std::mem::take(&mut self.over);
        (!more).then_some(tids)
    }

    /// Was this wait still in progress at the latest scan?
    pub(super) fn is_old(&self, tid: u32, start_ns: u64) -> bool {
        self.old.get(&tid) == Some(&start_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl InFlight {
        /// A scan of a table that has these waits, each in the place of its task's number.
        fn update(&mut self, waits: &[TaskSlot], long_ns: u64, now_ns: u64) -> Vec<TaskSlot> {
            self.limit(long_ns);
            let found = |index| waits.iter().find(|slot| slot.tid as usize == index);
            (0..8)
                .filter_map(|index| self.see(index, found(index), now_ns))
                .collect()
        }
    }

    fn slot(tid: u32, start_ns: u64) -> TaskSlot {
        TaskSlot {
            tid,
            start_ns,
            ..TaskSlot::default()
        }
    }

    #[test]
    fn reported_at_the_limit_and_at_each_doubling() {
        let mut inflight = InFlight::default();
        let mut reports = Vec::new();
        for now in (0..100).map(|i| i * 100) {
            if !inflight.update(&[slot(1, 1)], 1_000, now).is_empty() {
                reports.push(now);
            }
        }
        assert_eq!(reports, [1_100, 2_200, 4_400, 8_800]);
    }

    #[test]
    fn dear_scans_are_rare() {
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!(until_next_scan(ms(1_000), 10_000), ms(250));
        assert_eq!(until_next_scan(ms(100), 10_000), ms(50));
        assert_eq!(until_next_scan(ms(100), 300_000), ms(120));
        assert_eq!(until_next_scan(ms(100), ms(1)), ms(250));
    }

    #[test]
    fn a_wait_whose_end_was_lost_is_told_once() {
        let mut inflight = InFlight::default();
        assert_eq!(inflight.update(&[slot(1, 1)], 10, 100).len(), 1);
        // The same task waits anew.
        assert_eq!(inflight.update(&[slot(1, 150)], 10, 200).len(), 1);
        assert_eq!(inflight.unseen_ends(), [slot(1, 1)]);
        assert!(inflight.unseen_ends().is_empty());
        assert!(inflight.update(&[], 10, 300).is_empty());
        // The record comes after the scan, or before it.
        inflight.ended(1, 150);
        assert!(inflight.unseen_ends().is_empty());
        inflight.update(&[slot(2, 150)], 10, 400);
        inflight.ended(2, 150);
        inflight.update(&[], 10, 500);
        assert!(inflight.unseen_ends().is_empty());
    }

    #[test]
    fn a_wake_up_counts_from_the_first_scan_that_saw_it() {
        let mut inflight = InFlight::default();
        assert_eq!(inflight.update(&[slot(1, 1)], 100, 200)[0].wake_ns, 0);
        let mut woken = slot(1, 1);
        woken.wake_ns = WOKEN;
        inflight.update(&[woken], 100, 300);
        assert_eq!(inflight.update(&[woken], 100, 900)[0].wake_ns, 300);
    }

    #[test]
    fn who_no_longer_waits_is_named() {
        let mut inflight = InFlight::default();
        inflight.update(&[slot(1, 1), slot(2, 1)], 10, 100);
        inflight.update(&[slot(1, 1), slot(2, 1)], 10, 200);
        assert_eq!(inflight.over(), Some(vec![]));
        inflight.update(&[slot(1, 150), slot(2, 1)], 10, 300);
        assert_eq!(inflight.over(), Some(vec![1]));
        inflight.ended(2, 1);
        assert_eq!(inflight.over(), Some(vec![2]));
        inflight.update(&[], 10, 400);
        assert_eq!(inflight.over(), Some(vec![1]));
        // Nobody asks for a while.
        for start_ns in 0..=MAX_SUSPECTS as u64 {
            inflight.update(&[slot(3, 1 + start_ns)], 0, 10_000);
        }
        inflight.update(&[], 0, 10_000);
        assert_eq!(inflight.over(), None);
        assert_eq!(inflight.over(), Some(vec![]));
    }

    #[test]
    fn a_task_that_ran_is_not_waiting() {
        let mut inflight = InFlight::default();
        let mut ran = slot(1, 1);
        ran.flags = flag::RAN;
        assert!(inflight.update(&[ran], 10, 100).is_empty());
        assert!(!inflight.is_reported(1, 1));
        // It sleeps again in the same call, and is said to have run once more.
        assert_eq!(inflight.update(&[slot(1, 1)], 10, 200).len(), 1);
        assert!(inflight.update(&[ran], 10, 300).is_empty());
        assert_eq!(inflight.unseen_ends(), [slot(1, 1)]);
    }

    fn futex(tid: u32, start_ns: u64, addr: u64) -> TaskSlot {
        TaskSlot {
            tgid: 7,
            addr,
            nr: observer_common::syscall::FUTEX,
            kind: observer_common::kind::FUTEX,
            ..slot(tid, start_ns)
        }
    }

    #[test]
    fn a_wait_is_looked_at_once_when_it_is_old() {
        let ms = |ms: u64| 1 + ms * 1_000_000;
        let mut inflight = InFlight::default();
        for (now, long, suspects, reports) in [
            (ms(0), ms(100), 0, 0),
            // Its report comes first, and the next one after it has become old.
            (ms(150), ms(100), 0, 1),
            (ms(190), ms(100), 0, 0),
            (ms(200), ms(100), 1, 0),
            (ms(250), ms(100), 0, 0),
            (ms(300), ms(100), 0, 1),
            // Another limit is in force at once.
            (ms(400), ms(900), 0, 0),
            (ms(900), ms(50), 0, 1),
        ] {
            let due = inflight.update(&[futex(1, 1, 0x10)], long, now);
            assert_eq!(inflight.suspects().len(), suspects, "{now}");
            assert_eq!(due.len(), reports, "{now}");
        }
        assert!(inflight.is_old(1, 1) && inflight.is_reported(1, 1));
        inflight.update(&[futex(1, ms(905), 0x10)], ms(50), ms(910));
        assert!(!inflight.is_old(1, 1) && !inflight.is_reported(1, 1));
    }

    #[test]
    fn waiters_are_those_of_the_latest_scan() {
        let mut inflight = InFlight::default();
        let key = |addr| LockKey {
            addr,
            tgid: 7,
            pad: 0,
        };
        inflight.update(
            &[futex(1, 1, 0x10), futex(2, 1, 0x10), futex(3, 1, 0x20)],
            1_000,
            10,
        );
        assert_eq!(
            (inflight.waiters(&key(0x10)), inflight.waiters(&key(0x20))),
            (2, 1)
        );
        inflight.update(&[futex(2, 1, 0x10), futex(3, 15, 0x10)], 1_000, 20);
        assert_eq!(
            (inflight.waiters(&key(0x10)), inflight.waiters(&key(0x20))),
            (2, 0)
        );
        inflight.update(&[futex(2, 1, 0x10)], 1_000, 30);
        assert_eq!(
            (inflight.waiters(&key(0x10)), inflight.a_waiter(&key(0x10))),
            (1, Some(2))
        );
        inflight.update(&[], 1_000, 40);
        assert_eq!(inflight.a_waiter(&key(0x10)), None);
    }
}
