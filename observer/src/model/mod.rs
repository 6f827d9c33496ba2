//! What is known of a host: tasks, locks, waits in progress, waits that ended, losses and cost.
//!
//! The model is plain data. It is fed events, in the order of the stream, and asked questions; it
//! reads no file, knows no kernel and has no clock of its own, so a recording and a live host give the
//! same answers. Its memory is bounded by [`Limits`]; what it forgets it counts.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::event::{
    Blocked, BudgetStep, Cost, End, Event, LockRef, LockTotals, Loss, Meta, TaskTotals, Wait,
    WaitTotals,
};

/// How much the model keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Waits that ended, the newest.
    pub waits: usize,
    /// Locks, those that changed last.
    pub locks: usize,
    /// Tasks, those that changed last.
    pub tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            waits: 10_000,
            locks: 100_000,
            tasks: 100_000,
        }
    }
}

/// A lock and what is known of it.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The latest totals.
    pub totals: LockTotals,
    /// Waits per second between the two latest totals.
    pub waits_per_s: f64,
}

/// A wait in progress.
#[derive(Clone, Debug)]
pub struct InProgress {
    /// The latest observation.
    pub event: Blocked,
    /// Start of the wait, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
}

impl InProgress {
    /// Age at a time.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.start_ns).max(self.event.age_ns)
    }
}

/// What the model had to forget to stay within its [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Locks.
    pub locks: u64,
    /// Tasks.
    pub tasks: u64,
}

/// Everything known.
#[derive(Debug, Default)]
pub struct Model {
    limits: Limits,
    meta: Option<Meta>,
    now_ns: u64,
    start_ns: Option<u64>,
    blocked: HashMap<u32, InProgress>,
    locks: HashMap<Arc<str>, Lock>,
    tasks: HashMap<u32, TaskTotals>,
    waits: VecDeque<Wait>,
    long_waits: u64,
    loss: Option<Loss>,
    cost: Cost,
    cost_rate: f64,
    cost_at_ns: u64,
    budget: Option<BudgetStep>,
    end: Option<End>,
    forgotten: Forgotten,
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
        self.advance(event.mono_ns());
        match event {
            Event::Meta(meta) => {
                self.start_ns.get_or_insert(meta.mono_ns);
                self.meta = Some(meta);
            }
            Event::Wait(wait) => self.wait(wait),
            Event::Blocked(blocked) => self.blocked_now(blocked),
            Event::Lock(totals) => self.lock_totals(totals),
            Event::Task(totals) => {
                self.tasks.insert(totals.task.tid, totals);
                if self.tasks.len() > self.limits.tasks {
                    self.forgotten.tasks +=
                        forget_oldest(&mut self.tasks, |totals| totals.mono_ns) as u64;
                }
            }
            Event::Loss(loss) => self.loss = Some(loss),
            Event::Cost(report) => self.cost_now(report.cost, report.mono_ns),
            Event::Budget(step) => self.budget = Some(step),
            Event::End(end) => {
                self.cost_now(end.cost, end.mono_ns);
                self.end = Some(end);
            }
        }
    }

    /// Moves the model's time forward; it never goes back.
    pub fn advance(&mut self, mono_ns: u64) {
        self.now_ns = self.now_ns.max(mono_ns);
    }

    fn wait(&mut self, wait: Wait) {
        let start_ns = wait.mono_ns.saturating_sub(wait.dur_ns);
        // Records of different CPUs may be out of order: only a wait that began no earlier than the one
        // in progress ends it.
        if let Some(current) = self.blocked.get(&wait.task.tid)
            && current.start_ns <= wait.mono_ns
            && (start_ns >= current.start_ns || wait.at_least || current.event.at_least)
        {
            self.blocked.remove(&wait.task.tid);
        }
        self.long_waits += 1;
        if self.waits.len() >= self.limits.waits.max(1) {
            self.waits.pop_front();
        }
        self.waits.push_back(wait);
    }

    fn blocked_now(&mut self, event: Blocked) {
        let start_ns = event.mono_ns.saturating_sub(event.age_ns);
        self.blocked
            .insert(event.task.tid, InProgress { event, start_ns });
    }

    fn lock_totals(&mut self, totals: LockTotals) {
        let waits_per_s = match self.locks.get(&totals.lock.id) {
            Some(old) if totals.mono_ns > old.totals.mono_ns => {
                let waits = totals.waits.saturating_sub(old.totals.waits) as f64;
                waits * 1e9 / (totals.mono_ns - old.totals.mono_ns) as f64
            }
            Some(old) => old.waits_per_s,
            None => match self.start_ns {
                Some(start) if totals.mono_ns > start => {
                    totals.waits as f64 * 1e9 / (totals.mono_ns - start) as f64
                }
                _ => 0.0,
            },
        };
        let id = Arc::clone(&totals.lock.id);
        self.locks.insert(
            id,
            Lock {
                totals,
                waits_per_s,
            },
        );
        if self.locks.len() > self.limits.locks {
            self.forgotten.locks +=
                forget_oldest(&mut self.locks, |lock| lock.totals.mono_ns) as u64;
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

    /// Time since the stream began.
    pub fn elapsed_ns(&self) -> u64 {
        self.now_ns
            .saturating_sub(self.start_ns.unwrap_or(self.now_ns))
    }

    /// Waits in progress, in no order.
    pub fn blocked(&self) -> impl Iterator<Item = &InProgress> {
        self.blocked.values()
    }

    /// The wait in progress of one task.
    pub fn blocked_task(&self, tid: u32) -> Option<&InProgress> {
        self.blocked.get(&tid)
    }

    /// Locks, in no order.
    pub fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.values()
    }

    /// One lock.
    pub fn lock(&self, id: &str) -> Option<&Lock> {
        self.locks.get(id)
    }

    /// Tasks that waited, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskTotals> {
        self.tasks.values()
    }

    /// Waits that ended, oldest first; at most [`Limits::waits`] of them.
    pub fn waits(&self) -> impl DoubleEndedIterator<Item = &Wait> + ExactSizeIterator {
        self.waits.iter()
    }

    /// How many `wait` events there have been.
    pub fn long_waits(&self) -> u64 {
        self.long_waits
    }

    /// Sum of all locks' totals.
    pub fn lock_waits(&self) -> WaitTotals {
        let mut sum = WaitTotals::default();
        for lock in self.locks.values() {
            sum.waits += lock.totals.waits;
            sum.total_ns = sum.total_ns.saturating_add(lock.totals.total_ns);
            sum.max_ns = sum.max_ns.max(lock.totals.max_ns);
        }
        sum
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

    /// What was forgotten to stay within the limits.
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// Tasks known to wait for a lock now, longest first.
    pub fn waiters(&self, lock: &LockRef) -> Vec<&InProgress> {
        let mut waiters: Vec<_> = self
            .blocked
            .values()
            .filter(|wait| {
                wait.event.lock.as_ref().is_some_and(|l| l.id == lock.id)
                    || wait.event.locks.iter().any(|l| l.id == lock.id)
            })
            .collect();
        waiters.sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
        waiters
    }
}

/// Drops the eighth of the entries that is the oldest, so that the search is rare; says how many.
fn forget_oldest<K, V>(map: &mut HashMap<K, V>, age: impl Fn(&V) -> u64) -> usize {
    let mut ages: Vec<u64> = map.values().map(&age).collect();
    let before = ages.len();
    let (_, &mut limit, _) = ages.select_nth_unstable(before / 8);
    let mut room = before / 8 + 1;
    map.retain(|_, value| {
        let drop = room > 0 && age(value) <= limit;
        room -= usize::from(drop);
        !drop
    });
    before - map.len()
}

#[cfg(test)]
mod tests;
