//! Waits that a runtime breaks into pieces. HotSpot wakes the first thread that waits for a monitor at least once a
//! second, so that it looks for itself whether the monitor is free; to the system each of these is a wait of its own.

use std::{collections::HashMap, sync::Arc};

use super::{Known, Watch, take};
use crate::event::{Blocked, Event, LockRef};

/// Threads that are remembered; beyond it all are forgotten.
const MAX_THREADS: usize = 16_384;
/// A thread that goes on to wait does so within this time, however busy the machine is. If it had the lock in between,
/// it is not likely that the same thread as before has it again.
const GAP_NS: u64 = 100_000_000;
/// The next piece is looked at within this time.
const OPEN_NS: u64 = 2_000_000_000;

/// The latest piece of each thread's wait that ended.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    by_thread: HashMap<u32, Piece>,
    /// Waits of which a piece ended since they were told.
    ended: Vec<(Blocked, u64)>,
}

#[derive(Debug)]
struct Piece {
    lock: Arc<str>,
    holder: Option<u32>,
    /// When the first piece began.
    since_ns: u64,
    ended_ns: u64,
}

impl Pieces {
    /// A piece ended, and nobody gave the thread the lock.
    pub(super) fn ended(&mut self, known: &Known, ended_ns: u64) {
        let Some(lock) = known.blocked.lock.as_ref().map(|lock| Arc::clone(&lock.id)) else {
            return;
        };
        let (tid, since_ns) = (known.blocked.task.tid, known.since_ns);
        let holder = known.blocked.holder.as_ref().and_then(|holder| holder.tid);
        self.ended.push((known.blocked.clone(), since_ns));
        let piece = Piece {
            lock,
            holder,
            since_ns,
            ended_ns,
        };
        self.note(tid, piece);
    }

    fn note(&mut self, tid: u32, piece: Piece) {
        if self.by_thread.len() >= MAX_THREADS {
            self.by_thread.clear();
        }
        self.by_thread.insert(tid, piece);
    }

    /// When the wait began of which a piece began at `start_ns`, for `lock`, which `holder` has.
    pub(super) fn since(&self, tid: u32, lock: &str, holder: Option<u32>, start_ns: u64) -> u64 {
        self.by_thread
            .get(&tid)
            .filter(|piece| *piece.lock == *lock && piece.holder == holder)
            .filter(|piece| start_ns.abs_diff(piece.ended_ns) < GAP_NS)
            .map_or(start_ns, |piece| piece.since_ns)
    }

    /// May the wait that began at `since_ns` go on, though no piece of it is known now?
    pub(super) fn may_go_on(&self, tid: u32, since_ns: u64, now_ns: u64) -> bool {
        let piece = self.by_thread.get(&tid);
        piece.is_some_and(|piece| {
            piece.since_ns == since_ns && now_ns.saturating_sub(piece.ended_ns) < OPEN_NS
        })
    }
}

impl Watch {
    /// Tells of long waits of which a piece has just ended, and that go on.
    pub(super) fn tell_pieces(&mut self, out: &mut Vec<Event>) {
        let mut registers = take::Given::default();
        for (mut blocked, since_ns) in std::mem::take(&mut self.pieces.ended) {
            let now_ns = crate::time::mono_ns();
            let age_ns = now_ns.saturating_sub(since_ns);
            if u128::from(age_ns) < self.long_wait.as_nanos() {
                continue;
            }
            let lock = blocked.lock.take();
            blocked.holder = None;
            let Some(look) = self.look(&blocked, &mut registers) else {
                continue;
            };
            take(&mut blocked, &look);
            let same = |told: &Arc<LockRef>| lock.as_ref().is_some_and(|lock| lock.id == told.id);
            if look.told.is_some() && blocked.lock.as_ref().is_some_and(same) {
                blocked.time = self.model.wall_time_at(now_ns);
                blocked.mono_ns = now_ns;
                blocked.age_ns = age_ns;
                blocked.at_least = true;
                (blocked.blocked_ns, blocked.runqueue_ns) = (None, None);
                out.push(Event::from(blocked));
                self.capture.count_events(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_one_wait_have_one_beginning() {
        let mut pieces = Pieces::default();
        let since = |pieces: &Pieces, tid, lock, holder, start_ns| {
            pieces.since(tid, lock, Some(holder), start_ns)
        };
        assert_eq!(since(&pieces, 7, "a", 9, 100), 100);
        let piece = Piece {
            lock: "a".into(),
            holder: Some(9),
            since_ns: 100,
            ended_ns: 1_000_000_100,
        };
        pieces.note(7, piece);
        let next = 1_000_000_200;
        assert_eq!(since(&pieces, 7, "a", 9, next), 100);
        // Another lock, another thread, another holder, or something done in between.
        assert_eq!(since(&pieces, 7, "b", 9, next), next);
        assert_eq!(since(&pieces, 8, "a", 9, next), next);
        assert_eq!(since(&pieces, 7, "a", 8, next), next);
        assert_eq!(since(&pieces, 7, "a", 9, 1_900_000_000), 1_900_000_000);
        assert!(pieces.may_go_on(7, 100, 2_000_000_000));
        assert!(!pieces.may_go_on(7, 101, 2_000_000_000));
        assert!(!pieces.may_go_on(7, 100, 9_000_000_000));
    }
}
