//! Runtimes as rows: of each process, or of each server of PostgreSQL, what threads wait for that the runtime knows,
//! and who holds it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{findings, waiting};
use crate::{
    event::{
        Blocked, Finding, GoState, Goroutines, Holder, LockClass, LockRef, RuntimeFound, Severity,
        Subject,
    },
    model::{InProgress, Lock, Model},
};

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Runtime {
    Go,
    Jvm,
    Python,
    Postgres,
    Rust,
    Tokio,
}

impl Runtime {
    pub(super) fn name(self) -> &'static str {
        match self {
            Runtime::Go => "go",
            Runtime::Jvm => "jvm",
            Runtime::Python => "python",
            Runtime::Postgres => "postgresql",
            Runtime::Rust => "rust",
            Runtime::Tokio => "tokio",
        }
    }

    /// That of a name in events.
    fn named(name: &str) -> Option<Runtime> {
        let all = [
            Runtime::Go,
            Runtime::Jvm,
            Runtime::Python,
            Runtime::Postgres,
        ];
        all.into_iter().find(|runtime| runtime.name() == name)
    }
}

/// What goroutines, and the workers of tokio, wait for has rows of its own.
const GOROUTINES: &str = "goroutines";
const WORKERS: &str = "blocked workers";

/// The runtime that a sort of lock is of, and what is waited for there, in its own words.
fn part(class: LockClass) -> Option<(Runtime, &'static str)> {
    Some(match class {
        LockClass::PythonGil => (Runtime::Python, "interpreter lock"),
        LockClass::PythonLock => (Runtime::Python, "threading locks"),
        LockClass::PythonCondition => (Runtime::Python, "conditions, queues"),
        LockClass::PythonGc => (Runtime::Python, "garbage collector"),
        LockClass::JvmMonitor => (Runtime::Jvm, "monitors"),
        LockClass::JvmLock => (Runtime::Jvm, "concurrent locks"),
        LockClass::JvmPark => (Runtime::Jvm, "parked threads"),
        LockClass::JvmRuntime => (Runtime::Jvm, "virtual machine"),
        LockClass::PostgresLock => (Runtime::Postgres, "heavyweight locks"),
        LockClass::PostgresLwlock => (Runtime::Postgres, "lightweight locks"),
        LockClass::RustMutex
        | LockClass::RustRwlock
        | LockClass::RustOnce
        | LockClass::ParkingLot => (Runtime::Rust, "locks"),
        _ => return None,
    })
}

/// Whose runtime it is. The backends of a server of PostgreSQL are processes of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Scope {
    Process(u32),
    Server(Arc<str>),
}

impl Scope {
    fn of(runtime: Runtime, pid: u32, process: Option<&Arc<str>>) -> Scope {
        match runtime {
            Runtime::Postgres => {
                Scope::Server(process.map_or_else(|| "postgres".into(), Arc::clone))
            }
            _ => Scope::Process(pid),
        }
    }
}

/// What of which runtime; nothing of it is waited for where there is no part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RuntimeKey {
    pub(super) runtime: Runtime,
    pub(super) scope: Scope,
    pub(super) part: Option<&'static str>,
}

impl RuntimeKey {
    /// That of a wait for a lock of a runtime.
    fn of(wait: &Blocked) -> Option<RuntimeKey> {
        let (runtime, part) = part(wait.lock.as_ref()?.class)?;
        Some(RuntimeKey {
            runtime,
            scope: Scope::of(runtime, wait.task.pid, wait.task.process.as_ref()),
            part: Some(part),
        })
    }

    /// Is it what this wait is for? Without a part, and of workers: any wait of the process.
    pub(super) fn holds(&self, wait: &Blocked) -> bool {
        match (self.part, &self.scope) {
            (Some(part), _) if part != WORKERS => RuntimeKey::of(wait).as_ref() == Some(self),
            (_, Scope::Process(pid)) => wait.task.pid == *pid,
            (_, Scope::Server(name)) => wait.task.process.as_ref() == Some(name),
        }
    }

    /// The Go process whose goroutines it is about.
    pub(super) fn go_process(&self) -> Option<u32> {
        match (&self.scope, self.part) {
            (Scope::Process(pid), Some(GOROUTINES)) => Some(*pid),
            _ => None,
        }
    }
}

/// Waits for one part of a runtime.
#[derive(Clone, Debug)]
pub(super) struct RuntimeRow {
    pub(super) key: RuntimeKey,
    /// Name of the process.
    pub(super) name: Option<Arc<str>>,
    /// Processes that the runtime was seen in: of a server several.
    pub(super) processes: usize,
    /// What was recognised.
    pub(super) detail: Option<String>,
    /// Threads, or goroutines, that wait now.
    pub(super) now: u64,
    /// For how long the oldest of them has waited.
    pub(super) oldest_ns: Option<u64>,
    pub(super) waits_per_s: f64,
    pub(super) waited_ns: u64,
    /// What most time was waited for, and who holds it.
    pub(super) lock: Option<Arc<LockRef>>,
    pub(super) holder: Option<Box<Holder>>,
    /// The worst finding about the process, and how many there are.
    pub(super) finding: Option<(Severity, String)>,
    pub(super) findings: usize,
}

/// What is being added up.
#[derive(Default)]
struct Sum<'a> {
    blocked: u64,
    waiters: u64,
    oldest: Option<&'a InProgress>,
    waits_per_s: f64,
    waited_ns: u64,
    hottest: Option<(&'a Lock, u64)>,
    goroutines: Option<&'a Goroutines>,
}

/// A process or a server, and what is known of it as a whole.
#[derive(Default)]
struct Whole<'a> {
    name: Option<&'a Arc<str>>,
    pids: HashSet<u32>,
    detail: Option<&'a RuntimeFound>,
    finding: Option<&'a Finding>,
    findings: usize,
}

#[derive(Default)]
struct Gathering<'a> {
    sums: BTreeMap<RuntimeKey, Sum<'a>>,
    wholes: BTreeMap<(Runtime, Scope), Whole<'a>>,
    /// The scopes that a process belongs to.
    scopes: HashMap<u32, Vec<(Runtime, Scope)>>,
}

impl<'a> Gathering<'a> {
    fn whole(
        &mut self,
        runtime: Runtime,
        pid: u32,
        name: Option<&'a Arc<str>>,
    ) -> (Scope, &mut Whole<'a>) {
        let scope = Scope::of(runtime, pid, name);
        let whole = self.wholes.entry((runtime, scope.clone())).or_default();
        if whole.pids.insert(pid) {
            let scopes = self.scopes.entry(pid).or_default();
            scopes.push((runtime, scope.clone()));
        }
        whole.name = whole.name.or(name);
        (scope, whole)
    }

    fn sum(
        &mut self,
        runtime: Runtime,
        part: &'static str,
        pid: u32,
        name: Option<&'a Arc<str>>,
    ) -> &mut Sum<'a> {
        let (scope, _) = self.whole(runtime, pid, name);
        let key = RuntimeKey {
            runtime,
            scope,
            part: Some(part),
        };
        self.sums.entry(key).or_default()
    }

    fn waits(&mut self, model: &'a Model) {
        for wait in model.blocked() {
            let task = &wait.event.task;
            let class = wait.event.lock.as_ref().map(|lock| lock.class);
            let Some((runtime, part)) = class.and_then(part) else {
                continue;
            };
            let sum = self.sum(runtime, part, task.pid, task.process.as_ref());
            sum.blocked += 1;
            if sum.oldest.is_none_or(|old| wait.start_ns < old.start_ns) {
                sum.oldest = Some(wait);
            }
        }
        for lock in model.locks() {
            let totals = &lock.totals;
            let (Some((runtime, part)), Some(pid)) = (part(totals.lock.class), totals.pid) else {
                continue;
            };
            let waited_ns = lock.waited_ns(model.now_ns());
            let sum = self.sum(runtime, part, pid, totals.process.as_ref());
            sum.waiters += u64::from(lock.waiters_now());
            sum.waits_per_s += lock.waits_per_s;
            sum.waited_ns = sum.waited_ns.saturating_add(waited_ns);
            // Whoever waits now matters more than what is over.
            let weight = (lock.waiters_now() > 0, waited_ns);
            let lightest = |(old, old_ns): (&Lock, u64)| {
                let old_weight = (old.waiters_now() > 0, old_ns);
                (old_weight, &old.totals.lock.id) < (weight, &totals.lock.id)
            };
            if sum.hottest.is_none_or(lightest) {
                sum.hottest = Some((lock, waited_ns));
            }
        }
        for all in model.goroutines() {
            let sum = self.sum(Runtime::Go, GOROUTINES, all.pid, all.process.as_ref());
            sum.goroutines = Some(all);
        }
    }

    fn findings(&mut self, model: &'a Model) {
        let findings = model.findings();
        for found in findings.filter(|found| !findings::is_over(found, model)) {
            let mut pids: Vec<u32> = Vec::new();
            for subject in &found.subjects {
                match subject {
                    Subject::Task(task) => {
                        pids.push(task.pid);
                        if &*found.rule == "blocked_async_worker" {
                            self.sum(Runtime::Tokio, WORKERS, task.pid, task.process.as_ref());
                        }
                    }
                    Subject::Process(pid) => pids.push(*pid),
                    Subject::Lock(lock) => {
                        pids.extend(model.lock(&lock.id).and_then(|lock| lock.totals.pid));
                    }
                }
            }
            let of_pid = |pid| self.scopes.get(pid).into_iter().flatten();
            let mut scopes: Vec<_> = pids.iter().flat_map(of_pid).cloned().collect();
            scopes.sort_unstable();
            scopes.dedup();
            for scope in scopes {
                let whole = self.wholes.entry(scope).or_default();
                whole.findings += 1;
                let rank = |found: &Finding| (found.severity, found.mono_ns);
                if whole.finding.is_none_or(|old| rank(old) < rank(found)) {
                    whole.finding = Some(found);
                }
            }
        }
    }
}

/// What is waited for of all runtimes that are known, and those of which nothing is.
pub(super) fn collect(model: &Model) -> Vec<RuntimeRow> {
    let mut all = Gathering::default();
    for one in model.runtimes() {
        if let Some(runtime) = Runtime::named(&one.found.runtime) {
            let (_, whole) = all.whole(runtime, one.found.pid, one.process.as_ref());
            whole.detail = Some(one);
        }
    }
    all.waits(model);
    all.findings(model);
    let Gathering {
        mut sums, wholes, ..
    } = all;
    for (runtime, scope) in wholes.keys() {
        let of_it = |key: &RuntimeKey| (key.runtime, &key.scope) == (*runtime, scope);
        if !sums.keys().any(of_it) {
            let key = RuntimeKey {
                runtime: *runtime,
                scope: scope.clone(),
                part: None,
            };
            sums.insert(key, Sum::default());
        }
    }
    let rows = sums.into_iter().map(|(key, sum)| {
        let whole = wholes.get(&(key.runtime, key.scope.clone()));
        row(key, &sum, whole, model)
    });
    rows.collect()
}

fn row(key: RuntimeKey, sum: &Sum<'_>, whole: Option<&Whole<'_>>, model: &Model) -> RuntimeRow {
    let mut row = RuntimeRow {
        key,
        name: whole.and_then(|whole| whole.name).cloned(),
        processes: whole.map_or(1, |whole| whole.pids.len()),
        detail: whole
            .and_then(|whole| whole.detail)
            .map(|one| one.found.detail.clone()),
        now: sum.blocked.max(sum.waiters),
        oldest_ns: sum.oldest.map(|wait| wait.age_ns(model.now_ns())),
        waits_per_s: sum.waits_per_s,
        waited_ns: sum.waited_ns,
        lock: None,
        holder: None,
        finding: whole
            .and_then(|whole| whole.finding)
            .map(|found| (found.severity, found.title.clone())),
        findings: whole.map_or(0, |whole| whole.findings),
    };
    if let Some(all) = sum.goroutines {
        goroutines(&mut row, all);
    } else if let Some((lock, _)) = sum.hottest {
        row.lock = Some(lock.totals.lock.clone());
        row.holder = lock.known_holder().cloned().map(Box::new);
    } else if let Some(wait) = sum.oldest {
        row.lock.clone_from(&wait.event.lock);
        row.holder.clone_from(&wait.event.holder);
    }
    row
}

/// How many of them wait, the longest of their waits, and the lock that most of them wait for.
fn goroutines(row: &mut RuntimeRow, all: &Goroutines) {
    let waits = |state: GoState| matches!(state, GoState::Waiting | GoState::Leaked);
    let waiting = all
        .groups
        .iter()
        .filter(|group| waits(group.state) && !group.system);
    for group in waiting {
        row.now = row.now.saturating_add(group.count);
        row.oldest_ns = row.oldest_ns.max(group.longest_wait_ns);
    }
    row.detail
        .get_or_insert_with(|| all.told_release().into_owned());
    let lock = all.locks.iter().max_by_key(|lock| lock.waiters_now);
    if let Some(lock) = lock.filter(|lock| lock.waiters_now > 0) {
        row.lock = Some(lock.lock.clone().into());
        row.holder = waiting::holder(all, &lock.lock).map(Box::new);
        row.waited_ns = 0;
    }
}
