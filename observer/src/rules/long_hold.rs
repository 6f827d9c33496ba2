//! A lock is held for long while others wait for it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Diagnosis, Rule, Thresholds, plural};
use crate::{
    event::{Holder, Kind, LockClass, LockRef, Severity, Subject},
    model::{InProgress, Model},
    time::human,
};

/// After this long every wait of a circle has been looked at, also on a host that has other things to do.
const CIRCLES_KNOWN_NS: u64 = 5_000_000_000;
/// Holders that wait for each other: followed so far.
const MAX_CHAIN: usize = 64;

/// Names the holder, and what it does instead of giving the lock back.
pub(super) struct LongHold;

/// Waits for one lock with one holder, the oldest first.
pub(super) struct Held<'a> {
    pub(super) lock: &'a Arc<LockRef>,
    pub(super) holder: &'a Holder,
    pub(super) tid: u32,
    pub(super) waits: Vec<&'a InProgress>,
    pub(super) oldest_ns: u64,
}

impl Held<'_> {
    /// `accounts` held by writer/12.
    pub(super) fn what(&self) -> String {
        let name = self.holder.comm.as_deref().unwrap_or("?");
        format!("{} held by {name}/{}", self.lock, self.tid)
    }

    pub(super) fn doing(&self) -> &str {
        self.holder
            .doing
            .as_deref()
            .unwrap_or("doing something not known")
    }

    pub(super) fn evidence(&self) -> Vec<String> {
        let mut evidence = vec![format!(
            "holder: {} ({})",
            self.holder.confidence.name(),
            self.holder.evidence
        )];
        evidence.extend(self.waits.iter().take(5).map(|wait| {
            format!(
                "{} has waited for {}",
                wait.event.task,
                human(wait.event.age_ns)
            )
        }));
        evidence
    }

    pub(super) fn subjects(&self) -> Vec<Subject> {
        let tasks = self.waits.iter().take(5);
        let tasks = tasks.map(|wait| Subject::Task(wait.event.task.clone()));
        std::iter::once(Subject::Lock(Arc::clone(self.lock)))
            .chain(tasks)
            .collect()
    }
}

/// Locks that tasks wait for and whose holder is known, but for those in a deadlock, of which everything is
/// said already, or will be as soon as it is confirmed; and but for joins: a thread that lives keeps nothing back.
pub(super) fn held(model: &Model) -> Vec<Held<'_>> {
    let told = model
        .deadlocks()
        .flat_map(|deadlock| deadlock.tasks.iter().map(|one| one.task.tid));
    let circles = model.graph().cycles();
    let circles = circles.iter().flatten().map(|edge| edge.from);
    let locked: HashSet<u32> = told.chain(circles).collect();
    let mut by_lock: BTreeMap<(&str, u32), Held<'_>> = BTreeMap::new();
    for wait in model.blocked() {
        let (Some(lock), Some(holder)) = (&wait.event.lock, &wait.event.holder) else {
            continue;
        };
        let Some(tid) = holder.tid else { continue };
        if !lock.class.is_held() || lock.class.kind() == Kind::Join || locked.contains(&tid) {
            continue;
        }
        if is_open(model, holder) && wait.age_ns(model.now_ns()) < CIRCLES_KNOWN_NS {
            continue;
        }
        let held = by_lock.entry((&lock.id, tid)).or_insert_with(|| Held {
            lock,
            holder,
            tid,
            waits: Vec::new(),
            oldest_ns: 0,
        });
        held.waits.push(wait);
        held.oldest_ns = held.oldest_ns.max(wait.age_ns(model.now_ns()));
    }
    let mut all: Vec<Held<'_>> = by_lock.into_values().collect();
    for held in &mut all {
        held.waits
            .sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
        // The youngest look at the holder says what it does now.
        if let Some(latest) = held.waits.iter().max_by_key(|wait| wait.event.mono_ns)
            && let Some(holder) = &latest.event.holder
        {
            held.holder = holder;
        }
    }
    all
}

/// Is it open yet whether the holder is itself in a deadlock? Whoever it waits for in the end sleeps in a call that
/// takes a lock, and no look has told which.
fn is_open(model: &Model, holder: &Holder) -> bool {
    const TAKING: [&str; 4] = ["in futex", "in flock", "in fcntl", "waiting for"];
    let mut holder = holder;
    for _ in 0..MAX_CHAIN {
        let wait = holder.tid.and_then(|tid| model.blocked_task(tid));
        let Some(wait) = wait else {
            let doing = holder.doing.as_deref().unwrap_or_default();
            return TAKING.iter().any(|call| doing.starts_with(call));
        };
        let Some(next) = &wait.event.holder else {
            let lock = wait.event.lock.as_ref();
            return lock.is_some_and(|lock| lock.class == LockClass::Futex || lock.class.is_held());
        };
        holder = next;
    }
    true
}

impl Rule for LongHold {
    fn name(&self) -> &'static str {
        "long_hold"
    }

    fn advice(&self) -> &'static str {
        "Look at the holder's stack: what it does while it holds the lock belongs outside of it."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        held(model)
            .into_iter()
            .filter(|held| held.oldest_ns >= thresholds.long_hold_ns)
            .map(|held| Diagnosis {
                key: format!("{} {}", held.lock.id, held.tid),
                severity: Severity::Warning,
                title: format!(
                    "{}, {}, while {} for up to {}",
                    held.what(),
                    held.doing(),
                    match held.waits.len() {
                        1 => "1 task waits".to_owned(),
                        more => format!("{} wait", plural(more, "task")),
                    },
                    human(held.oldest_ns)
                ),
                evidence: held.evidence(),
                subjects: held.subjects(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn the_holder_and_what_it_does() {
        let model = model(&[
            waiter(10)
                .long(3)
                .held_by(20, "in fsync(/data/wal)")
                .blocked(),
            waiter(11)
                .long(2)
                .held_by(20, "in fsync(/data/wal)")
                .blocked(),
        ]);
        let found = LongHold.check(&model, &Thresholds::default());
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].title,
            "lock_1 held by t20/20, in fsync(/data/wal), while 2 tasks wait for up to 3.00s"
        );
    }

    #[test]
    fn a_circle_is_a_deadlock_also_before_it_is_confirmed() {
        let model = model(&[
            waiter(10).at(1).long(3).held_by(11, "in futex").blocked(),
            waiter(11).at(2).long(3).held_by(10, "in futex").blocked(),
        ]);
        assert_eq!(LongHold.check(&model, &Thresholds::default()), []);
    }

    #[test]
    fn a_holder_whose_own_wait_is_not_known_yet_may_be_in_a_circle() {
        let found = |long| {
            let wait = waiter(10).long(long).held_by(11, "in futex for 1.00s");
            LongHold.check(&model(&[wait.blocked()]), &Thresholds::default())
        };
        assert_eq!(found(3), []);
        assert_eq!(found(6).len(), 1);
    }

    #[test]
    fn short_holds_and_what_nobody_holds_are_innocent() {
        let mut short = waiter(10).held_by(20, "running");
        short.0.age_ns = SECOND / 2;
        let cond = waiter(11)
            .class(crate::event::LockClass::PthreadCond)
            .long(99)
            .held_by(20, "running");
        let join = waiter(13)
            .class(crate::event::LockClass::PthreadJoin)
            .long(99)
            .held_by(20, "running");
        let model = model(&[
            short.blocked(),
            cond.blocked(),
            join.blocked(),
            waiter(12).long(99).blocked(),
        ]);
        assert_eq!(LongHold.check(&model, &Thresholds::default()), []);
    }
}
