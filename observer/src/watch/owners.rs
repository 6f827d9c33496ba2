//! Who holds what is waited for, asked again: while somebody waits, and whenever an event names a holder.
//!
//! A lock may be handed on while a waiter sleeps on. An event that is made now says `exact` only of an owner that
//! was read just now, or that was found to be still the same; otherwise it is `likely`, with how long ago that was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Watch,
    causes::{self, Parts},
    take,
};
use crate::{
    event::{Access, Blocked, Cause, Confidence, Holder, HolderState, Stack},
    inspect::{
        look::{Look, Looker},
        proc::{self, State},
    },
};

/// Time for asking again who holds the locks that an interval's events are about.
const ASKING: Duration = Duration::from_millis(100);
/// An owner that was read longer ago may have given the lock on.
const SURE: Duration = Duration::from_millis(2);
/// Locks whose holders are looked at again and again, while somebody waits for long. A look takes some 100 µs: at their
/// rarest, all of them together take a five-hundredth of a core.
const SAMPLED_LOCKS: usize = 16;

/// What a thread waits for, and how: those who read and those who write under a lock may have different holders.
pub(super) type Wanted = (Arc<str>, Option<Access>);

/// A wait that was looked at.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) start_ns: u64,
    /// When the wait began of which this may be a piece.
    pub(super) since_ns: u64,
    pub(super) blocked: Blocked,
    /// Its runtime told that it is another wait than the system sees.
    pub(super) told: bool,
    pub(super) stack: Stack,
    pub(super) parts: Parts,
    /// When the holder was asked for.
    pub(super) asked: Instant,
}

impl Known {
    /// What it waits for, if that is a lock.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let lock = self.blocked.lock.as_ref()?;
        Some((Arc::clone(&lock.id), self.blocked.access))
    }

    /// The holder as a new event may have it: an owner that was read a while ago has to be there still.
    pub(super) fn holder(&self, looker: &Looker) -> Option<Box<Holder>> {
        let mut holder = self.blocked.holder.clone()?;
        let ago = self.asked.elapsed();
        if holder.confidence == Confidence::Exact
            && ago > SURE
            && !(looker.is_still_owner(self.blocked.task.tid) && is_there(&holder))
        {
            holder.confidence = Confidence::Likely;
            holder.evidence = format!("{}, {} ms ago", holder.evidence, ago.as_millis()).into();
        }
        Some(holder)
    }
}

/// Is the thread still there, if it was?
fn is_there(holder: &Holder) -> bool {
    let alive = |pid, tid| proc::stat(pid, tid).is_some_and(|stat| stat.state != State::Ended);
    holder.state == Some(HolderState::Ended)
        || holder
            .pid
            .zip(holder.tid)
            .is_some_and(|(pid, tid)| alive(pid, tid))
}

/// Did a look tell of the lock `id` as one before it did? It may have told another, or less: what a runtime tells is
/// not always to be read.
fn is_of_same(blocked: &Blocked, look: &Look, told: bool, id: &str) -> bool {
    let lock = blocked.lock.as_ref();
    look.told.is_some() == told && lock.is_some_and(|lock| *lock.id == *id)
}

impl Watch {
    /// Looks at holders again, if it is time to.
    pub(super) fn sample(&mut self) {
        let now = crate::time::mono_ns();
        let held = self.looks.held();
        if held > 0 && self.samples.are_due(now, held) {
            self.look_at_holders(now);
        }
    }

    /// Looks again at one wait for each lock, and notes for all its waits what the holder does.
    fn look_at_holders(&mut self, now: u64) {
        let asked = Instant::now();
        let mut holders: Vec<(Wanted, Option<Box<Holder>>)> = Vec::new();
        let mut registers = take::Given::default();
        // Each gets its turn.
        for (wanted, tid) in self.looks.oldest_first().into_iter().take(SAMPLED_LOCKS) {
            let Some(known) = self.looks.get(tid) else {
                continue;
            };
            let mut blocked = known.blocked.clone();
            blocked.holder = None;
            let told = known.told;
            if let Some(look) = self.look(&blocked, &mut registers) {
                take(&mut blocked, &look);
                if is_of_same(&blocked, &look, told, &wanted.0) {
                    holders.push((wanted, blocked.holder));
                }
            }
        }
        let in_lock = |tid: u32| {
            let known = self.looks.get(tid);
            known.is_some_and(|known| known.blocked.holder.is_some())
        };
        let cause = |holder: &Option<Box<Holder>>| causes::cause(holder.as_deref(), in_lock);
        let causes: Vec<Cause> = holders.iter().map(|(_, holder)| cause(holder)).collect();
        let changed = &mut self.changed;
        for ((wanted, holder), cause) in holders.iter().zip(causes) {
            let tid = |holder: &Option<Box<Holder>>| holder.as_ref().and_then(|holder| holder.tid);
            self.looks.change_holders(wanted, |known| {
                known.parts.add(cause, now);
                *changed |= tid(&known.blocked.holder) != tid(holder);
                known.blocked.holder.clone_from(holder);
                known.asked = asked;
            });
        }
    }

    /// Who holds what a thread waits for, asked again for an event that is made now, as far as there is time.
    pub(super) fn holder_now(
        &mut self,
        tid: u32,
        began: Instant,
        registers: &mut take::Given,
    ) -> Option<Box<Holder>> {
        let known = self.looks.get(tid)?;
        if known.blocked.holder.is_none() || began.elapsed() >= ASKING {
            return known.holder(&self.looker);
        }
        let mut blocked = known.blocked.clone();
        blocked.holder = None;
        if let Some(look) = self.look(&blocked, registers) {
            // By now the thread may run, or wait for another lock: then there is none.
            take(&mut blocked, &look);
            self.looks.change(tid, |known| {
                let lock = known.blocked.lock.as_ref();
                if lock.is_none_or(|lock| is_of_same(&blocked, &look, known.told, &lock.id)) {
                    known.blocked.holder = blocked.holder;
                    known.asked = Instant::now();
                }
            });
        }
        self.looks.get(tid)?.holder(&self.looker)
    }
}
