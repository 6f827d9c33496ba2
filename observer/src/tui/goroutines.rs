//! Goroutines as rows: the groups of every Go process that is looked at.

use std::sync::Arc;

use super::{details::Subject, rows::RowId};
use crate::{
    event::{GoChannel, GoLock, GoWaitsFor, GoroutineGroup, Goroutines},
    model::{Model, group_key},
};

/// Which group of which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GoKey {
    pub(super) pid: u32,
    pub(super) group: u64,
}

/// A group of goroutines, at the latest look.
#[derive(Clone, Debug)]
pub(super) struct GoRow {
    pub(super) key: GoKey,
    pub(super) all: Arc<Goroutines>,
    at: usize,
    /// How many there were at the last looks, the latest last.
    pub(super) trend: Vec<u64>,
}

impl GoRow {
    pub(super) fn group(&self) -> &GoroutineGroup {
        &self.all.groups[self.at]
    }

    fn new(all: &Arc<Goroutines>, at: usize, model: &Model) -> GoRow {
        let key = GoKey {
            pid: all.pid,
            group: group_key(&all.groups[at]),
        };
        GoRow {
            key,
            all: Arc::clone(all),
            at,
            trend: model.trend(key.pid, key.group).collect(),
        }
    }
}

/// All groups of all Go processes.
pub(super) fn collect_all(model: &Model) -> impl Iterator<Item = GoRow> {
    let pids = model.goroutines().map(|all| all.pid);
    pids.flat_map(|pid| collect(model, pid))
}

/// All groups of a Go process.
pub(super) fn collect(model: &Model, pid: u32) -> impl Iterator<Item = GoRow> {
    let all = model.goroutines_of(pid).into_iter();
    all.flat_map(move |all| (0..all.groups.len()).map(move |at| GoRow::new(all, at, model)))
}

fn find(key: GoKey, model: &Model) -> Option<GoRow> {
    let all = model.goroutines_of(key.pid)?;
    let at = all
        .groups
        .iter()
        .position(|group| group_key(group) == key.group)?;
    Some(GoRow::new(all, at, model))
}

/// One goroutine, and the group that it is in.
#[derive(Debug)]
pub(super) struct One {
    pub(super) goid: u64,
    pub(super) row: GoRow,
}

impl One {
    /// What it waits for: what it alone is known to, or else what its group does.
    pub(super) fn waits_for(&self) -> Vec<&GoWaitsFor> {
        let group = self.row.group();
        let step = self
            .row
            .all
            .deadlocks
            .iter()
            .flat_map(|one| &one.goroutines);
        let own = step
            .filter(|step| step.goid == self.goid)
            .map(|step| &step.lock.id);
        let own: Vec<_> = own.collect();
        let is_own = |one: &&GoWaitsFor| {
            own.is_empty()
                || one
                    .lock
                    .as_ref()
                    .is_some_and(|lock| own.contains(&&lock.id))
        };
        group.waits_for.iter().filter(is_own).collect()
    }
}

/// What goroutines wait for.
#[derive(Debug)]
pub(super) enum Resource {
    Lock(GoLock),
    Channel(GoChannel),
}

/// A lock or a channel, and who waits for it.
#[derive(Debug)]
pub(super) struct ResourcePage {
    pub(super) resource: Resource,
    pub(super) pid: u32,
    pub(super) waiting: Vec<GoRow>,
}

/// What a page is about, if it is about goroutines and there still is what it is about.
pub(super) fn subject(id: &RowId, model: &Model) -> Option<Subject> {
    match id {
        RowId::GoGroup(key) => Some(Subject::GoGroup(Box::new(find(*key, model)?))),
        RowId::Goroutine { pid, goid } => {
            let all = model.goroutines_of(*pid)?;
            let at = all
                .groups
                .iter()
                .position(|group| group.goids.contains(goid))?;
            let row = GoRow::new(all, at, model);
            Some(Subject::Goroutine(Box::new(One { goid: *goid, row })))
        }
        RowId::GoResource { pid, id } => {
            let all = model.goroutines_of(*pid)?;
            let lock = all.locks.iter().find(|one| one.lock.id == *id);
            let channel = || all.channels.iter().find(|one| one.lock.id == *id);
            let resource = match lock {
                Some(lock) => Resource::Lock(lock.clone()),
                None => Resource::Channel(channel()?.clone()),
            };
            let waits = |group: &GoroutineGroup| {
                let mut locks = group.waits_for.iter().filter_map(|one| one.lock.as_ref());
                locks.any(|lock| lock.id == *id)
            };
            let waiting = (0..all.groups.len()).filter(|at| waits(&all.groups[*at]));
            let waiting = waiting.map(|at| GoRow::new(all, at, model)).collect();
            Some(Subject::GoResource(Box::new(ResourcePage {
                resource,
                pid: *pid,
                waiting,
            })))
        }
        _ => None,
    }
}
