//! What a triage looked at beside the stream, and what that adds to a report.

use std::collections::HashSet;

use crate::{
    dump::{Dump, Task},
    event::{Deadlock, Finding, Goroutines, Kind, Subject},
    model::Model,
    runtimes::sessions::Session,
    time::human,
};

/// Tasks that are named in a sentence.
const NAMED: usize = 4;

/// Beside the stream: nothing for a recording.
#[derive(Debug, Default)]
pub struct Scene {
    /// One look at every thread, after the watch.
    pub dump: Option<Dump>,
    /// Goroutines of processes that were not asked for by number.
    pub goroutines: Vec<Goroutines>,
    /// Sessions of PostgreSQL.
    pub sessions: Vec<Session>,
    /// What could not be looked at, and why.
    pub missing: Vec<String>,
    /// Why there was no watch, only a look.
    pub unwatched: Option<String>,
}

impl Scene {
    /// The stream's findings, and those of the dump that it does not have.
    pub(super) fn findings<'a>(&'a self, model: &'a Model) -> Vec<&'a Finding> {
        let mut all: Vec<&Finding> = model.findings().collect();
        let mut known: HashSet<_> = all.iter().map(|found| key(found)).collect();
        let of_dump = self.dump.iter().flat_map(|dump| &dump.findings);
        all.extend(of_dump.filter(|found| known.insert(key(found))));
        all
    }

    /// The same of deadlocks, by their tasks.
    pub(super) fn deadlocks<'a>(&'a self, model: &'a Model) -> Vec<&'a Deadlock> {
        let tids = |deadlock: &Deadlock| {
            let mut tids: Vec<u32> = deadlock.tasks.iter().map(|one| one.task.tid).collect();
            tids.sort_unstable();
            tids
        };
        let mut all: Vec<&Deadlock> = model.deadlocks().collect();
        let mut known: HashSet<_> = all.iter().map(|one| tids(one)).collect();
        let of_dump = self.dump.iter().flat_map(|dump| &dump.deadlocks);
        all.extend(of_dump.filter(|one| known.insert(tids(one))));
        all
    }

    /// The latest look at the goroutines of each process: a follower of the stream knows their growth, so it
    /// goes before a single look.
    pub(super) fn goroutines<'a>(&'a self, model: &'a Model) -> Vec<&'a Goroutines> {
        let mut all: Vec<&Goroutines> = model.goroutines().collect();
        let mut known: HashSet<u32> = all.iter().map(|one| one.pid).collect();
        let of_dump = self.dump.iter().flat_map(|dump| &dump.goroutines);
        let more = of_dump.chain(&self.goroutines);
        all.extend(more.filter(|one| known.insert(one.pid)));
        all
    }

    /// What is known and no rule's business, a sentence each.
    pub(super) fn circumstances(&self, model: &Model) -> Vec<String> {
        self.postgres(model)
            .into_iter()
            .chain(self.monitors(model))
            .collect()
    }

    /// Sessions that wait, as their titles say, and who may have what they wait for.
    fn postgres(&self, model: &Model) -> Option<String> {
        let waiting: Vec<&Session> = self.sessions.iter().filter(|one| one.waiting).collect();
        let oldest_ns = waiting.iter().filter_map(|one| self.age_ns(model, one.pid));
        let age = oldest_ns.max().map_or_else(String::new, |ns| {
            format!(", the longest for at least {}", human(ns))
        });
        let what: Vec<String> = waiting
            .iter()
            .map(|one| match lock_of(model, one.pid) {
                Some(lock) => format!("{}: {} ({lock})", one.pid, one.title),
                None => format!("{}: {}", one.pid, one.title),
            })
            .collect();
        let idle: Vec<String> = self
            .sessions
            .iter()
            .filter(|one| one.idle_in_transaction)
            .map(|one| format!("{}: {}", one.pid, one.title))
            .collect();
        let holders = match idle.len() {
            0 => String::new(),
            1 => format!(
                "; a session that is idle in a transaction may hold it ({})",
                few(&idle)
            ),
            count => format!(
                "; {count} sessions that are idle in a transaction may hold them ({})",
                few(&idle)
            ),
        };
        let who = match waiting.len() {
            0 => return None,
            1 => "One session of PostgreSQL waits for a lock".to_owned(),
            count => format!("{count} sessions of PostgreSQL wait for locks"),
        };
        Some(format!("{who}{age}: {}{holders}.", few(&what)))
    }

    /// For how long a process's first thread has been in its wait.
    fn age_ns(&self, model: &Model, pid: u32) -> Option<u64> {
        let seen = model
            .blocked_task(pid)
            .map(|wait| wait.age_ns(model.now_ns()));
        let looked = self
            .dump
            .iter()
            .flat_map(|dump| &dump.tasks)
            .find(|task| task.task.tid == pid);
        seen.max(looked.and_then(|task| task.age_ns))
    }

    /// Java threads at the door of a monitor, with its owner. They look again every second at the latest, so no single
    /// wait of theirs is long. Those of a deadlock that was told are not told again.
    fn monitors(&self, model: &Model) -> Option<String> {
        let tasks = self.dump.iter().flat_map(|dump| &dump.tasks);
        let told: HashSet<u32> = model
            .deadlocks()
            .flat_map(|one| one.tasks.iter().map(|one| one.task.tid))
            .collect();
        let waiting: Vec<&Task> = tasks
            .filter(|task| task.kind == Some(Kind::JvmMonitor))
            .filter(|task| !told.contains(&task.task.tid))
            .collect();
        let pid = waiting.first()?.task.pid;
        let who = match waiting.len() {
            1 => "One Java thread waits".to_owned(),
            count => format!("{count} Java threads wait"),
        };
        let names: Vec<String> = waiting.iter().map(|task| at_door(task)).collect();
        let is_owned = |task: &&Task| task.holder.as_ref().is_some_and(|one| one.tid.is_some());
        let unknown = if waiting.iter().all(is_owned) {
            String::new()
        } else {
            format!(
                "; where no owner is named it could not be read, and a deadlock can neither be shown nor ruled out: \
                 `jcmd {pid} Thread.print` tells"
            )
        };
        Some(format!(
            "{who} to enter a monitor: {}{unknown}.",
            few(&names)
        ))
    }
}

/// `worker/12 (of Account, held by main/11)`
fn at_door(task: &Task) -> String {
    let name = task.lock.as_ref().and_then(|lock| lock.name.as_ref());
    let name = name.map(|name| format!("of {name}"));
    let owner = task.holder.as_ref().and_then(|holder| {
        let comm = holder.comm.as_deref().unwrap_or("?");
        Some(format!("held by {comm}/{}", holder.tid?))
    });
    let known: Vec<String> = name.into_iter().chain(owner).collect();
    if known.is_empty() {
        return task.task.to_string();
    }
    format!("{} ({})", task.task, known.join(", "))
}

/// The lock of the lock manager that a backend's probes tell of.
fn lock_of(model: &Model, pid: u32) -> Option<String> {
    let of_probe = model.blocked().find(|wait| {
        wait.event.task.tid == pid
            && wait.event.probe.is_some()
            && wait.event.kind == Kind::PostgresLock
    });
    of_probe?.event.lock.as_ref().map(ToString::to_string)
}

fn few(names: &[String]) -> String {
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

/// What makes two findings the same, whose titles tell of different ages.
fn key(found: &Finding) -> (&str, Vec<String>) {
    let mut subjects: Vec<String> = found
        .subjects
        .iter()
        .map(|subject| match subject {
            Subject::Task(task) => format!("task {}", task.tid),
            Subject::Lock(lock) => format!("lock {}", lock.id),
            Subject::Process(pid) => format!("process {pid}"),
        })
        .collect();
    if subjects.is_empty() {
        subjects.push(found.title.clone());
    }
    subjects.sort_unstable();
    (&found.rule, subjects)
}
