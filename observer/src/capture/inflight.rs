//! Waits in progress: a scan of the tasks' table, and which of them are to be reported now.

use std::collections::HashMap;

use observer_common::{LockKey, TID_ENDED, TaskHead, TaskSlot, WOKEN, flag};

use super::{convert, mapped::MappedArray};

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

/// Follows waits in progress from scan to scan.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    reported: HashMap<u32, Reported>,
    /// Reported waits that a scan no longer found and whose end has not been seen, by task and start.
    gone: HashMap<(u32, u64), TaskSlot>,
    /// Waiters of each lock in the latest scan.
    waiters: HashMap<LockKey, u32>,
    /// Tasks waiting in the latest scan.
    pub(super) waiting: u32,
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
        let mut waits = Vec::new();
        for index in 0..heads.len() {
            let Some(head) = heads.get(index) else { break };
            if head.start_ns == 0 || head.tid & TID_ENDED != 0 {
                continue;
            }
            let Some(slot) = slots.get(index) else { break };
            // The kernel writes the start first and last: equal on both sides of the copy, and in it,
            // means the copy is of one wait.
            let again = heads.get(index).map_or(0, |head| head.start_ns);
            if again == head.start_ns && slot.start_ns == head.start_ns {
                waits.push(slot);
            }
        }
        self.update(&waits, long_ns, now_ns)
    }

    /// The same, from a list.
    fn update(&mut self, waits: &[TaskSlot], long_ns: u64, now_ns: u64) -> Vec<TaskSlot> {
        self.waiters.clear();
        self.waiting = 0;
        let mut due = Vec::new();
        let mut current = HashMap::with_capacity(self.reported.len());
        for slot in waits.iter().filter(|slot| slot.flags & flag::RAN == 0) {
            self.waiting += 1;
            if let Some(key) = convert::key_of(slot) {
                *self.waiters.entry(key).or_default() += 1;
            }
            let age_ns = now_ns.saturating_sub(slot.start_ns);
            if age_ns < long_ns {
                continue;
            }
            let known = self
                .reported
                .get(&slot.tid)
                .filter(|known| known.start_ns == slot.start_ns);
            let mut next_ns = known.map_or(long_ns, |known| known.next_ns);
            let mut slot = *slot;
            let woken_ns = match (known.map_or(0, |known| known.woken_ns), slot.wake_ns) {
                (_, 0) => 0,
                (0, _) => now_ns,
                (earlier, _) => earlier,
            };
            // Woken at a time that the kernel programs did not note: since this scan at the latest.
            if slot.wake_ns == WOKEN {
                slot.wake_ns = woken_ns;
            }
            if age_ns >= next_ns {
                due.push(slot);
                next_ns = age_ns.saturating_mul(2).max(1);
            }
            current.insert(
                slot.tid,
                Reported {
                    start_ns: slot.start_ns,
                    next_ns,
                    woken_ns,
                    slot,
                },
            );
        }
        for (tid, old) in &self.reported {
            if current
                .get(tid)
                .is_none_or(|new| new.start_ns != old.start_ns)
            {
                self.gone.insert((*tid, old.start_ns), old.slot);
            }
        }
        self.reported = current;
        due
    }

    /// The end of a wait was seen.
    pub(super) fn ended(&mut self, tid: u32, start_ns: u64) {
        if let Some(known) = self.reported.get(&tid)
            && known.start_ns == start_ns
        {
            self.reported.remove(&tid);
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
        self.waiters.get(key).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_task_that_ran_is_not_waiting() {
        let mut inflight = InFlight::default();
        let mut ran = slot(1, 1);
        ran.flags = flag::RAN;
        assert!(inflight.update(&[ran], 10, 100).is_empty());
        assert_eq!(inflight.waiting, 0);
    }
}
