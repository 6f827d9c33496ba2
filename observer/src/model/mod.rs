//! What is known of a host: tasks, locks, waits in progress, waits that ended, losses and cost.
//!
//! The model is plain data. It is fed events, in the order of the stream, and asked questions; it
//! reads no file, knows no kernel and has no clock of its own, so a recording and a live host give the
//! same answers. Its memory is bounded by [`Limits`]; what it forgets it counts.

pub mod graph;
mod lock;
mod runtimes;
mod saved;
mod trend;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

// Its seed is another one in each process: recordings cannot be made for its weak spots.
use ahash::HashMap;
use indexmap::{IndexMap, map::Entry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::saved::FORM;
use self::{
    graph::{Edge, Graph},
    lock::no_totals,
    runtimes::Runtimes,
    trend::Trends,
};
pub use self::{
    lock::{InProgress, Lock},
    trend::group_key,
};
use crate::event::{
    Blocked, BudgetStep, Cost, Deadlock, End, Event, Finding, Goroutines, Holder, LockRef,
    LockTotals, Loss, Meta, RuntimeFound, TaskTotals, Wait, WaitTotals,
};
use crate::time::WallTime;

/// How much the model keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Waits that ended, the newest.
    pub waits: usize,
    /// Locks, those that changed last.
    pub locks: usize,
    /// Tasks, those that changed last.
    pub tasks: usize,
    /// Deadlocks and findings, the newest of each.
    pub findings: usize,
    /// Processes whose goroutines are kept.
    pub go_processes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            waits: 10_000,
            locks: 100_000,
            tasks: 100_000,
            findings: 1_000,
            go_processes: 256,
        }
    }
}

/// A task is in one wait at a time that the system sees, and in one of each pair of USDT probes around it.
type WaitKey = (u32, Option<Arc<str>>);

/// What the model had to forget to stay within its [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// Locks.
    pub locks: u64,
    /// Tasks.
    pub tasks: u64,
}

/// Points of the history of waits per second.
const HISTORY: usize = 240;

/// Everything known. How it is kept in a recording: [`Model::save`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Model {
    #[serde(skip)]
    limits: Limits,
    meta: Option<Meta>,
    now_ns: u64,
    start_ns: Option<u64>,
    // What is kept is shared with the copies of the model that a screen keeps of the last minutes: a copy takes
    // room for what has changed since.
    // In the order in which they came: that is nearly how they lie in memory, and all of them are gone through
    // by rules each second, and for each frame of the screen.
    #[serde(with = "saved::values")]
    blocked: IndexMap<WaitKey, Arc<InProgress>, ahash::RandomState>,
    #[serde(with = "saved::values")]
    locks: IndexMap<Arc<str>, Arc<Lock>, ahash::RandomState>,
    #[serde(with = "saved::values")]
    tasks: HashMap<u32, Arc<TaskTotals>>,
    waits: VecDeque<Arc<Wait>>,
    long_waits: u64,
    loss: Option<Loss>,
    cost: Cost,
    cost_rate: f64,
    cost_at_ns: u64,
    budget: Option<BudgetStep>,
    /// Time on run queues since the last report of the cost, and tasks there on average before it.
    queued_ns: u64,
    runqueue_waiting: f64,
    /// Waits that ended since the last report of the cost, those of idle kinds left out, and how many a
    /// second there were before each report.
    ended: u64,
    waits_per_s: VecDeque<f64>,
    wall: Option<(WallTime, u64)>,
    deadlocks: VecDeque<Arc<Deadlock>>,
    findings: VecDeque<Arc<Finding>>,
    goroutines: BTreeMap<u32, Arc<Goroutines>>,
    trends: BTreeMap<u32, Arc<Trends>>,
    runtimes: Arc<Runtimes>,
    end: Option<End>,
    forgotten: Forgotten,
    /// Entries that were made or changed, for the room that a copy takes.
    #[serde(skip)]
    changes: u64,
}

impl Model {
    /// An empty model with limits of its own.
    pub fn new(limits: Limits) -> Self {
        Model {
            limits,
            ..Model::default()
        }
    }

    /// Takes the next event.
    pub fn apply(&mut self, event: Event) {
        let (time, mono_ns) = event.when();
        self.advance(mono_ns);
        self.wall = Some((time, mono_ns));
        self.changes += 1;
        match event {
            Event::Meta(meta) => {
                self.start_ns.get_or_insert(meta.mono_ns);
                Arc::make_mut(&mut self.runtimes).add_all(&meta);
                self.meta = Some(*meta);
            }
            Event::Wait(wait) => self.wait(wait),
            Event::Blocked(blocked) => self.blocked_now(*blocked),
            Event::Lock(totals) => self.lock_totals(*totals),
            Event::Task(totals) => self.task_totals(totals),
            Event::Deadlock(deadlock) => {
                keep(&mut self.deadlocks, deadlock, self.limits.findings);
            }
            Event::Runtime(found) => Arc::make_mut(&mut self.runtimes).add(*found),
            Event::Attached(new) => {
                if let Some(meta) = &mut self.meta {
                    meta.capture.add(*new);
                }
            }
            Event::Goroutines(goroutines) => self.goroutines_now(*goroutines),
            Event::Finding(finding) => {
                keep(&mut self.findings, finding, self.limits.findings);
            }
            Event::Loss(loss) => self.loss = Some(*loss),
            Event::Cost(report) => {
                if self.cost_at_ns != 0 && report.mono_ns > self.cost_at_ns {
                    let elapsed_ns = (report.mono_ns - self.cost_at_ns) as f64;
                    self.runqueue_waiting = self.queued_ns as f64 / elapsed_ns;
                    let waits_per_s = self.ended as f64 * 1e9 / elapsed_ns;
                    keep(&mut self.waits_per_s, waits_per_s, HISTORY);
                }
                (self.queued_ns, self.ended) = (0, 0);
                self.cost_now(report.cost, report.mono_ns);
            }
            Event::Budget(step) => self.budget = Some(*step),
            Event::End(end) => {
                self.cost_now(end.cost, end.mono_ns);
                self.end = Some(*end);
            }
        }
    }

    /// Moves the model's time forward; it never goes back.
    pub fn advance(&mut self, mono_ns: u64) {
        self.now_ns = self.now_ns.max(mono_ns);
    }

    fn wait(&mut self, wait: Arc<Wait>) {
        let start_ns = wait.mono_ns.saturating_sub(wait.dur_ns);
        // Records of different CPUs may be out of order: only a wait that began no earlier than the one
        // in progress ends it.
        let key = (wait.task.tid, wait.probe.clone());
        if let Some(current) = self.blocked.get(&key)
            && current.start_ns <= wait.mono_ns
            && (start_ns >= current.start_ns || wait.at_least || current.event.at_least)
        {
            let old = self.blocked.swap_remove(&key);
            self.no_longer_blocked(old, Some(wait.mono_ns));
        }
        self.long_waits = self.long_waits.saturating_add(1);
        keep(&mut self.waits, wait, self.limits.waits);
    }

    fn blocked_now(&mut self, event: Blocked) {
        let start_ns = event.mono_ns.saturating_sub(event.age_ns);
        let key = (event.task.tid, event.probe.clone());
        let old = self.blocked.get(&key).cloned();
        self.no_longer_blocked(old, None);
        // A wait for what nobody holds may be mere idleness, and is not added to what a lock costs.
        if let Some(lock) = event.lock.as_ref().filter(|lock| lock.class.is_held()) {
            let entry = self
                .locks
                .entry(Arc::clone(&lock.id))
                .or_insert_with(|| Arc::new(Lock::new(no_totals(&event, lock), false)));
            let entry = Arc::make_mut(entry);
            // A model that was read from a file may hold any number.
            entry.waiters = entry.waiters.saturating_add(1);
            entry.starts_ns = entry.starts_ns.saturating_add(u128::from(start_ns));
            if let Some(holder) = &event.holder {
                entry.holder = Some(Box::new((Holder::clone(holder), event.mono_ns)));
            }
            if !entry.has_totals {
                entry.totals.lock = Arc::clone(lock);
            }
        }
        let wait = Arc::new(InProgress { event, start_ns });
        self.blocked.insert(key, wait);
        self.limit_locks();
    }

    /// Takes a wait from its lock. `end_ns`: when it ended; none if it goes on, and more is known of it.
    fn no_longer_blocked(&mut self, old: Option<Arc<InProgress>>, end_ns: Option<u64>) {
        let Some(old) = old else {
            return;
        };
        let lock = old.event.lock.as_ref();
        if let Some(lock) = lock.filter(|lock| lock.class.is_held())
            && let Some(entry) = self.locks.get_mut(&lock.id)
        {
            let entry = Arc::make_mut(entry);
            entry.waiters = entry.waiters.saturating_sub(1);
            entry.starts_ns = entry.starts_ns.saturating_sub(u128::from(old.start_ns));
            let ended_ns = end_ns.map_or(0, |end_ns| end_ns.saturating_sub(old.start_ns));
            entry.ended_ns = entry.ended_ns.saturating_add(ended_ns);
            if entry.waiters == 0 {
                entry.starts_ns = 0;
                if !entry.has_totals {
                    self.locks.swap_remove(&lock.id);
                }
            }
        }
    }

    fn task_totals(&mut self, totals: Arc<TaskTotals>) {
        let queued_ns = |totals: &TaskTotals| totals.runqueue.map_or(0, |all| all.total_ns);
        let ended = |totals: &TaskTotals| -> u64 {
            let kinds = totals.kinds.iter().filter(|(kind, _)| !kind.is_idle());
            kinds.fold(0, |sum: u64, (_, all)| sum.saturating_add(all.waits))
        };
        let old = self.tasks.get(&totals.task.tid);
        let old = old.map(|old| &**old);
        let queued = queued_ns(&totals).saturating_sub(old.map_or(0, queued_ns));
        self.queued_ns = self.queued_ns.saturating_add(queued);
        let more = ended(&totals).saturating_sub(old.map_or(0, ended));
        self.ended = self.ended.saturating_add(more);
        self.tasks.insert(totals.task.tid, totals);
        if self.tasks.len() > self.limits.tasks {
            let (before, age) = (self.tasks.len(), |totals: &TaskTotals| totals.mono_ns);
            let mut is_old = oldest(self.tasks.values().map(|totals| age(totals)).collect());
            self.tasks.retain(|_, totals| !is_old(age(totals)));
            let dropped = (before - self.tasks.len()) as u64;
            self.forgotten.tasks = self.forgotten.tasks.saturating_add(dropped);
        }
    }

    fn limit_locks(&mut self) {
        if self.locks.len() > self.limits.locks {
            let (before, age) = (self.locks.len(), |lock: &Lock| lock.totals.mono_ns);
            let mut is_old = oldest(self.locks.values().map(|lock| age(lock)).collect());
            self.locks.retain(|_, lock| !is_old(age(lock)));
            let dropped = (before - self.locks.len()) as u64;
            self.forgotten.locks = self.forgotten.locks.saturating_add(dropped);
        }
    }

    fn lock_totals(&mut self, totals: LockTotals) {
        let rates = |waits: u64, total_ns: u64, since_ns: u64| {
            let elapsed_ns = (totals.mono_ns - since_ns) as f64;
            (
                waits as f64 * 1e9 / elapsed_ns,
                total_ns as f64 / elapsed_ns,
            )
        };
        let old = self.locks.get(&totals.lock.id);
        let (waits_per_s, waiting) = match old.filter(|old| old.has_totals) {
            Some(old) if totals.mono_ns > old.totals.mono_ns => rates(
                totals.waits.saturating_sub(old.totals.waits),
                totals.total_ns.saturating_sub(old.totals.total_ns),
                old.totals.mono_ns,
            ),
            Some(old) => (old.waits_per_s, old.waiting),
            None => match self.start_ns {
                Some(start) if totals.mono_ns > start => {
                    rates(totals.waits, totals.total_ns, start)
                }
                _ => (0.0, 0.0),
            },
        };
        match self.locks.entry(Arc::clone(&totals.lock.id)) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().replace_totals(totals, waits_per_s, waiting);
            }
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(Lock {
                    waits_per_s,
                    waiting,
                    ..Lock::new(totals, true)
                }));
            }
        }
        self.limit_locks();
    }

    fn goroutines_now(&mut self, goroutines: Goroutines) {
        let pid = goroutines.pid;
        Arc::make_mut(self.trends.entry(pid).or_default()).add(&goroutines);
        self.goroutines.insert(pid, Arc::new(goroutines));
        if self.goroutines.len() > self.limits.go_processes
            && let Some(pid) = self
                .goroutines
                .values()
                .min_by_key(|one| one.mono_ns)
                .map(|one| one.pid)
        {
            self.goroutines.remove(&pid);
            self.trends.remove(&pid);
        }
    }

    fn cost_now(&mut self, cost: Cost, mono_ns: u64) {
        if self.cost_at_ns != 0 && mono_ns > self.cost_at_ns {
            self.cost_rate = cost.cpu_ns.saturating_sub(self.cost.cpu_ns) as f64
                / (mono_ns - self.cost_at_ns) as f64;
        }
        self.cost = cost;
        self.cost_at_ns = mono_ns;
    }

    /// The stream's first line.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// The stream's last line, once it is there.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The newest time seen, `CLOCK_MONOTONIC` nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The wall clock at that time, by the last event.
    pub fn wall_time(&self) -> WallTime {
        self.wall_time_at(self.now_ns)
    }

    /// The wall clock at a later time.
    pub fn wall_time_at(&self, at_ns: u64) -> WallTime {
        match self.wall {
            Some((time, mono_ns)) => WallTime(time.0.saturating_add(at_ns.saturating_sub(mono_ns))),
            None => WallTime(0),
        }
    }

    /// Tasks on run queues on average, in the last interval.
    pub fn runqueue_waiting(&self) -> f64 {
        self.runqueue_waiting
    }

    /// Waits that ended in a second, those of idle kinds left out: one number for each report of the cost,
    /// oldest first.
    pub fn waits_per_s(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator {
        self.waits_per_s.iter().copied()
    }

    /// Time since the stream began.
    pub fn elapsed_ns(&self) -> u64 {
        self.now_ns
            .saturating_sub(self.start_ns.unwrap_or(self.now_ns))
    }

    /// Waits in progress, in no order.
    pub fn blocked(&self) -> impl Iterator<Item = &InProgress> {
        self.blocked.values().map(|wait| &**wait)
    }

    /// The same, each to be kept for longer without a copy of it.
    pub(crate) fn blocked_shared(&self) -> impl Iterator<Item = &Arc<InProgress>> {
        self.blocked.values()
    }

    /// The wait in progress of one task, as the system sees it.
    pub fn blocked_task(&self, tid: u32) -> Option<&InProgress> {
        self.blocked.get(&(tid, None)).map(|wait| &**wait)
    }

    /// Locks, in no order.
    pub fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.values().map(|lock| &**lock)
    }

    /// One lock.
    pub fn lock(&self, id: &str) -> Option<&Lock> {
        self.locks.get(id).map(|lock| &**lock)
    }

    /// One task's totals.
    pub fn task(&self, tid: u32) -> Option<&TaskTotals> {
        self.tasks.get(&tid).map(|totals| &**totals)
    }

    /// Tasks that waited, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskTotals> {
        self.tasks.values().map(|totals| &**totals)
    }

    /// Waits that ended, oldest first; at most [`Limits::waits`] of them.
    pub fn waits(&self) -> impl DoubleEndedIterator<Item = &Wait> + ExactSizeIterator {
        self.waits.iter().map(|wait| &**wait)
    }

    /// How many `wait` events there have been.
    pub fn long_waits(&self) -> u64 {
        self.long_waits
    }

    /// Sum of all locks' totals.
    pub fn lock_waits(&self) -> WaitTotals {
        let mut sum = WaitTotals::default();
        for lock in self.locks.values() {
            sum.waits = sum.waits.saturating_add(lock.totals.waits);
            sum.total_ns = sum.total_ns.saturating_add(lock.totals.total_ns);
            sum.max_ns = sum.max_ns.max(lock.totals.max_ns);
        }
        sum
    }

    /// Who waits for whom, as far as holders are known.
    pub fn graph(&self) -> Graph {
        self.blocked
            .values()
            .filter_map(|wait| {
                let holder = wait.event.holder.as_ref()?;
                Some(Edge {
                    from: wait.event.task.tid,
                    to: holder.tid?,
                    confidence: holder.confidence,
                })
            })
            .collect()
    }

    /// Deadlocks that were told, oldest first.
    pub fn deadlocks(&self) -> impl DoubleEndedIterator<Item = &Deadlock> + ExactSizeIterator {
        self.deadlocks.iter().map(|one| &**one)
    }

    /// The runtimes of processes, as far as these were asked for or looked at; by process.
    pub fn runtimes(&self) -> impl Iterator<Item = &RuntimeFound> {
        self.runtimes.all()
    }

    /// The latest look at the goroutines of each Go process, by process.
    pub fn goroutines(&self) -> impl Iterator<Item = &Goroutines> {
        self.goroutines.values().map(|one| &**one)
    }

    /// The latest look at the goroutines of one process.
    pub fn goroutines_of(&self, pid: u32) -> Option<&Arc<Goroutines>> {
        self.goroutines.get(&pid)
    }

    /// How many goroutines of a group ([`group_key`]) there were at the last looks, the latest last.
    pub fn trend(&self, pid: u32, group: u64) -> impl Iterator<Item = u64> {
        let trends = self.trends.get(&pid);
        trends.into_iter().flat_map(move |trends| trends.of(group))
    }

    /// Diagnoses that were made, oldest first.
    pub fn findings(&self) -> impl DoubleEndedIterator<Item = &Finding> + ExactSizeIterator {
        self.findings.iter().map(|one| &**one)
    }

    /// The latest `loss` event.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// What observing has cost.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// CPU that observer uses, in cores, between the two latest reports.
    pub fn cost_rate(&self) -> f64 {
        self.cost_rate
    }

    /// The step of the overhead budget in force, if it has taken one.
    pub fn budget(&self) -> Option<&BudgetStep> {
        self.budget.as_ref()
    }

    /// Entries that were made or changed so far: the difference to an older copy is the room that it takes.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Entries of the tables, of which a copy has tables of its own.
    pub fn entries(&self) -> usize {
        self.blocked.len() + self.locks.len() + self.tasks.len() + self.waits.len()
    }

    /// What was forgotten to stay within the limits.
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// Tasks known to wait for a lock now, longest first.
    pub fn waiters(&self, lock: &LockRef) -> Vec<&InProgress> {
        let mut waiters: Vec<_> = self
            .blocked
            .values()
            .map(|wait| &**wait)
            .filter(|wait| {
                wait.event.lock.as_ref().is_some_and(|l| l.id == lock.id)
                    || wait.event.locks.iter().any(|l| l.id == lock.id)
            })
            .collect();
        waiters.sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
        waiters
    }
}

/// Adds the newest, and drops the oldest if there are too many.
fn keep<T>(all: &mut VecDeque<T>, newest: T, limit: usize) {
    if all.len() >= limit.max(1) {
        all.pop_front();
    }
    all.push_back(newest);
}

/// Says of an age whether it is among the eighth that is to be forgotten: so much that the search is rare.
fn oldest(mut ages: Vec<u64>) -> impl FnMut(u64) -> bool {
    let eighth = ages.len() / 8;
    let limit = match ages.len() {
        0 => 0,
        _ => *ages.select_nth_unstable(eighth).1,
    };
    let mut room = eighth + 1;
    move |age| {
        let drop = room > 0 && age <= limit;
        room -= usize::from(drop);
        drop
    }
}

#[cfg(test)]
mod tests;
