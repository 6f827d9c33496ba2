//! What is known of a process, or of a container, a pod or a control group, rolled up from its tasks.

use std::{collections::HashMap, sync::Arc};

use super::{
    host::{Place, Places},
    rows,
};
use crate::model::{InProgress, Model};

/// One process (`GROUPS` is false), or all processes of a container, a pod or a control group.
#[derive(Clone, Debug)]
pub(super) struct Rollup<const GROUPS: bool> {
    pub(super) key: Key,
    pub(super) name: Option<Arc<str>>,
    pub(super) processes: u64,
    /// Tasks that are blocked now, those of idle kinds left out; of them, by locks that somebody holds.
    pub(super) blocked: u64,
    pub(super) held: u64,
    pub(super) idle: u64,
    /// The longest of their waits.
    pub(super) oldest: Option<Arc<InProgress>>,
    /// Time in waits that ended, those of idle kinds left out, and on run queues.
    pub(super) waited_ns: u64,
    pub(super) runqueue_ns: u64,
    pub(super) goroutines: u64,
}

/// What is rolled up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Process(u32),
    /// `None`: those of which it is not known where they run.
    Group(Option<Place>),
}

impl<const GROUPS: bool> Rollup<GROUPS> {
    fn new(key: Key) -> Self {
        Rollup {
            key,
            name: None,
            processes: 0,
            blocked: 0,
            held: 0,
            idle: 0,
            oldest: None,
            waited_ns: 0,
            runqueue_ns: 0,
            goroutines: 0,
        }
    }
}

/// All processes of which something is known, or where they run; `pods`: the containers of a pod as one.
pub(super) fn collect<const GROUPS: bool>(
    model: &Model,
    places: &Places,
    pods: bool,
) -> Vec<Rollup<GROUPS>> {
    let mut all: HashMap<u32, Rollup<GROUPS>> = HashMap::new();
    for wait in model.blocked_shared() {
        let event = &wait.event;
        let row = entry(&mut all, event.task.pid, event.task.process.as_ref());
        if rows::is_idle(event.kind) {
            row.idle += 1;
            continue;
        }
        row.blocked += 1;
        row.held += u64::from(event.lock.as_ref().is_some_and(|lock| lock.class.is_held()));
        if row
            .oldest
            .as_ref()
            .is_none_or(|old| wait.start_ns < old.start_ns)
        {
            row.oldest = Some(Arc::clone(wait));
        }
    }
    for totals in model.tasks() {
        let row = entry(&mut all, totals.task.pid, totals.task.process.as_ref());
        let kinds = totals
            .kinds
            .iter()
            .filter(|(kind, _)| !rows::is_idle(**kind));
        let waited_ns = kinds.fold(0, |sum: u64, (_, all)| sum.saturating_add(all.total_ns));
        row.waited_ns = row.waited_ns.saturating_add(waited_ns);
        let queued_ns = totals.runqueue.map_or(0, |all| all.total_ns);
        row.runqueue_ns = row.runqueue_ns.saturating_add(queued_ns);
    }
    for look in model.goroutines() {
        entry(&mut all, look.pid, look.process.as_ref()).goroutines = look.total;
    }
    if !GROUPS {
        return all.into_values().collect();
    }
    let mut groups: HashMap<Option<Place>, Rollup<GROUPS>> = HashMap::new();
    for (pid, row) in all {
        let place = places.of(pid);
        let place = place.map(|place| if pods { place.pod() } else { place.clone() });
        let group = groups
            .entry(place.clone())
            .or_insert_with(|| Rollup::new(Key::Group(place)));
        merge(group, row);
    }
    groups.into_values().collect()
}

fn entry<'a, const GROUPS: bool>(
    all: &'a mut HashMap<u32, Rollup<GROUPS>>,
    pid: u32,
    name: Option<&Arc<str>>,
) -> &'a mut Rollup<GROUPS> {
    let row = all.entry(pid).or_insert_with(|| Rollup {
        processes: 1,
        ..Rollup::new(Key::Process(pid))
    });
    if row.name.is_none() {
        row.name = name.cloned();
    }
    row
}

fn merge<const GROUPS: bool>(group: &mut Rollup<GROUPS>, row: Rollup<GROUPS>) {
    group.processes += row.processes;
    group.blocked += row.blocked;
    group.held += row.held;
    group.idle += row.idle;
    group.waited_ns = group.waited_ns.saturating_add(row.waited_ns);
    group.runqueue_ns = group.runqueue_ns.saturating_add(row.runqueue_ns);
    group.goroutines = group.goroutines.saturating_add(row.goroutines);
    if let Some(wait) = row.oldest
        && group
            .oldest
            .as_ref()
            .is_none_or(|old| wait.start_ns < old.start_ns)
    {
        group.oldest = Some(wait);
    }
}
