//! One thing under inspection: it is followed by its identity for as long as it is there, and kept as it was
//! last seen when it is gone.

use std::{collections::HashMap, sync::Arc};

use super::{
    findings,
    goroutines::{self, GoRow, One, ResourcePage},
    groups,
    history::History,
    host::Host,
    pager::Pager,
    rows::RowId,
};
use crate::{
    event::{Finding, Holder, LockRef, Stack, TaskRef, TaskTotals, Wait},
    model::{InProgress, Lock, Model},
};

/// Waiters that are named; of the others, only how many there are.
const WAITERS: usize = 20;
/// Waits of a task that are listed.
const RECENT: usize = 200;
/// Tasks of those that come most often.
const OFTEN: usize = 3;
/// Moments that are looked back on.
const MOMENTS: usize = 120;
/// Steps of a chain that are followed.
const CHAIN: usize = 32;

/// One thing in full.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) id: RowId,
    pub(super) subject: Option<Subject>,
    /// It is no longer there: what is shown is the last that was seen of it.
    pub(super) gone: bool,
    pub(super) now_ns: u64,
    pub(super) pager: Pager,
}

/// What a detail is about.
#[derive(Debug)]
pub(super) enum Subject {
    Task(Box<Task>),
    Lock(Box<LockPage>),
    Wait(Box<Wait>),
    Finding { finding: Finding, over: bool },
    GoGroup(Box<GoRow>),
    Goroutine(Box<One>),
    GoResource(Box<ResourcePage>),
}

/// A task, blocked or not.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) tid: u32,
    pub(super) name: Option<Arc<TaskRef>>,
    /// Its wait in progress, and then those of the holders that it leads to.
    pub(super) chain: Vec<InProgress>,
    /// The chain leads back to where it was.
    pub(super) circle: bool,
    /// What others know of it, if they wait for it.
    pub(super) as_holder: Option<Box<Holder>>,
    /// Tasks that wait for it, and tasks that wait for the same lock.
    pub(super) behind: Waiters,
    pub(super) beside: Waiters,
    pub(super) totals: Option<TaskTotals>,
    /// Its waits that ended, the newest first.
    pub(super) recent: Vec<Wait>,
    /// What the host says of it, and of the memory of the lock that it waits for.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) memory: Option<String>,
}

impl Task {
    pub(super) fn wait(&self) -> Option<&InProgress> {
        self.chain.first()
    }

    /// The wait of the task that holds the lock, if it is blocked too.
    pub(super) fn holder_wait(&self) -> Option<&InProgress> {
        self.chain.get(1)
    }
}

/// A lock.
#[derive(Debug)]
pub(super) struct LockPage {
    pub(super) lock: Lock,
    pub(super) waiters: Waiters,
    /// The holder's own wait, if it is blocked too.
    pub(super) holder_wait: Option<InProgress>,
    /// A task that waits for it, or did, and where.
    pub(super) example: Option<(Arc<TaskRef>, Stack)>,
    /// Stacks of long waits for it, and how many waits had each; the most first.
    pub(super) callers: Vec<(Stack, u64)>,
    /// Tasks that waited for it and tasks that ended such waits, with how often, among the long waits that
    /// are remembered; the most first.
    pub(super) waited: Vec<(Arc<TaskRef>, usize)>,
    pub(super) released: Vec<(Arc<TaskRef>, usize)>,
    /// Tasks that held it when such waits were looked at.
    pub(super) held: Vec<(Arc<TaskRef>, usize)>,
    /// What the host says of its memory.
    pub(super) memory: Option<String>,
    /// Waits a second at the moments that are kept, the oldest first.
    pub(super) waits_per_s: Vec<f64>,
    /// From when on these are.
    pub(super) since_ns: u64,
}

/// Some tasks, longest first, and how many others there are.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) first: Vec<InProgress>,
    pub(super) more: usize,
}

impl Waiters {
    fn of<'a>(waits: impl Iterator<Item = &'a InProgress>) -> Waiters {
        let mut waits: Vec<_> = waits.collect();
        waits.sort_unstable_by_key(|wait| (wait.start_ns, wait.event.task.tid));
        Waiters {
            more: waits.len().saturating_sub(WAITERS),
            first: waits.into_iter().take(WAITERS).cloned().collect(),
        }
    }
}

/// The lock of a wait and then the others, each once.
pub(super) fn locks<'a>(lock: Option<&'a LockRef>, all: &'a [Arc<LockRef>]) -> Vec<&'a LockRef> {
    let others = all.iter().map(|other| &**other);
    let others = others.filter(|other| Some(*other) != lock);
    lock.into_iter().chain(others).collect()
}

impl Detail {
    pub(super) fn of(id: RowId, model: &Model) -> Self {
        let mut detail = Detail {
            id,
            subject: None,
            gone: false,
            now_ns: 0,
            pager: Pager::default(),
        };
        detail.refresh(model);
        detail
    }

    /// Asks the host what events do not tell of a task and of a lock.
    pub(super) fn ask(&mut self, host: &dyn Host) {
        if self.gone {
            return;
        }
        match &mut self.subject {
            Some(Subject::Task(page))
                if let Some(pid) = page.name.as_ref().map(|task| task.pid) =>
            {
                page.facts = host.facts(pid, page.tid);
                let lock = page.wait().and_then(|wait| wait.event.lock.as_ref());
                page.memory = lock.and_then(|lock| host.lock_memory(pid, lock));
            }
            Some(Subject::Lock(page)) => {
                let totals = &page.lock.totals;
                let read = |pid| host.lock_memory(pid, &totals.lock);
                page.memory = totals.pid.and_then(read);
            }
            _ => {}
        }
    }

    /// Looks at how often a lock was waited for in the last minutes.
    pub(super) fn look_back(&mut self, history: &History) {
        let now_ns = self.now_ns;
        let Some(Subject::Lock(page)) = &mut self.subject else {
            return;
        };
        let id = &page.lock.totals.lock.id;
        let rate = |model: &Model| model.lock(id).map_or(0.0, |lock| lock.waits_per_s);
        page.waits_per_s = history.until(now_ns, MOMENTS).map(rate).collect();
        let first = history.until(now_ns, MOMENTS).next();
        page.since_ns = first.map_or(now_ns, Model::now_ns);
    }

    /// Looks at it again.
    pub(super) fn refresh(&mut self, model: &Model) {
        let subject = match &self.id {
            RowId::Task(tid) => Some(Subject::Task(Box::new(task(*tid, model)))),
            RowId::Lock(id) => model.lock(id).map(|lock| lock_page(lock, model)),
            RowId::Wait { tid, end_ns } => model
                .waits()
                .rev()
                .find(|wait| (wait.task.tid, wait.mono_ns) == (*tid, *end_ns))
                .map(|wait| Subject::Wait(Box::new(wait.clone()))),
            RowId::Finding { mono_ns, title } => model
                .findings()
                .find(|found| found.mono_ns == *mono_ns && found.title == *title)
                .map(|found| Subject::Finding {
                    finding: found.clone(),
                    over: findings::is_over(found, model),
                }),
            RowId::GoGroup(_) | RowId::Goroutine { .. } | RowId::GoResource { .. } => {
                goroutines::subject(&self.id, model)
            }
            RowId::MoreFindings | RowId::Group(_) => None,
        };
        self.gone = match (&self.subject, &subject) {
            (_, None) => true,
            // A task that was blocked goes on: what it waited for stays in sight, and is said to be over.
            (Some(Subject::Task(old)), Some(Subject::Task(new))) => {
                old.wait().is_some() && new.wait().is_none()
            }
            _ => false,
        };
        if !self.gone {
            self.subject = subject;
            self.now_ns = model.now_ns();
        }
    }
}

fn task(tid: u32, model: &Model) -> Task {
    let (chain, circle) = chain(tid, model);
    let holder = |wait: &InProgress| wait.event.holder.clone().filter(|h| h.tid == Some(tid));
    let is_behind = |wait: &&InProgress| {
        let holder = wait.event.holder.as_ref();
        holder.is_some_and(|holder| holder.tid == Some(tid))
    };
    let behind = Waiters::of(model.blocked().filter(is_behind));
    let as_holder = behind.first.iter().max_by_key(|wait| wait.event.mono_ns);
    let as_holder = as_holder.and_then(holder);
    let beside = match chain.first().map(|wait| &wait.event) {
        Some(event) => {
            let wanted = locks(event.lock.as_deref(), &event.locks);
            let wants = |lock: &Arc<LockRef>| wanted.iter().any(|other| other.id == lock.id);
            Waiters::of(model.blocked().filter(|other| {
                let event = &other.event;
                event.task.tid != tid && event.lock.iter().chain(&event.locks).any(wants)
            }))
        }
        None => Waiters::default(),
    };
    let recent = model.waits().rev().filter(|wait| wait.task.tid == tid);
    let recent: Vec<Wait> = recent.take(RECENT).cloned().collect();
    let totals = model.task(tid).cloned();
    let named = chain.first().map(|wait| &wait.event.task);
    let named = named.or(totals.as_ref().map(|totals| &totals.task));
    Task {
        tid,
        name: named.or(recent.first().map(|wait| &wait.task)).cloned(),
        chain,
        circle,
        as_holder,
        behind,
        beside,
        totals,
        recent,
        facts: Vec::new(),
        memory: None,
    }
}

/// The waits from a task's own to that of the last holder that is blocked; true if it is a circle.
fn chain(tid: u32, model: &Model) -> (Vec<InProgress>, bool) {
    let mut waits: Vec<InProgress> = Vec::new();
    let mut next = Some(tid);
    while let Some(tid) = next
        && waits.len() < CHAIN
        && let Some(wait) = model.blocked_task(tid)
    {
        if waits.iter().any(|seen| seen.event.task.tid == tid) {
            return (waits, true);
        }
        waits.push(wait.clone());
        next = wait.event.holder.as_ref().and_then(|holder| holder.tid);
    }
    (waits, false)
}

/// The tasks that come most often, and how often they do.
fn most(tasks: impl Iterator<Item = Arc<TaskRef>>) -> Vec<(Arc<TaskRef>, usize)> {
    let mut counts: HashMap<u32, (Arc<TaskRef>, usize)> = HashMap::new();
    for task in tasks {
        counts.entry(task.tid).or_insert((task, 0)).1 += 1;
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_by_key(|(task, count)| (std::cmp::Reverse(*count), task.tid));
    counts.truncate(OFTEN);
    counts
}

fn callers(stacks: impl Iterator<Item = Stack>) -> Vec<(Stack, u64)> {
    let mut counts: HashMap<u64, (Stack, u64)> = HashMap::new();
    for stack in stacks {
        if let Some(hash) = groups::hash(&stack) {
            counts.entry(hash).or_insert((stack, 0)).1 += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(hash, (_, count))| (std::cmp::Reverse(*count), *hash));
    counts.into_iter().map(|(_, caller)| caller).collect()
}

fn lock_page(lock: &Lock, model: &Model) -> Subject {
    let id = &lock.totals.lock.id;
    let is_it = |other: &Arc<LockRef>| other.id == *id;
    let waiters = Waiters::of(model.blocked().filter(|wait| {
        let event = &wait.event;
        event.lock.iter().chain(&event.locks).any(is_it)
    }));
    let holder = lock.holder().and_then(|holder| holder.tid);
    let ended = || {
        let of_it = |wait: &&Wait| wait.lock.as_ref().is_some_and(is_it);
        model.waits().rev().filter(of_it)
    };
    let unwound = |stack: Option<&Stack>| stack.filter(|stack| stack.end.is_some()).cloned();
    let now = waiters
        .first
        .iter()
        .find_map(|wait| Some((wait.event.task.clone(), unwound(wait.event.stack.as_ref())?)));
    let before =
        || ended().find_map(|wait| Some((wait.task.clone(), unwound(wait.stack.as_deref())?)));
    let released = ended().filter_map(|wait| {
        let waker = wait.waker.as_ref()?;
        Some(Arc::new(TaskRef {
            comm: waker.comm.clone(),
            ..TaskRef::new(waker.pid, waker.tid)
        }))
    });
    let held = ended().filter_map(|wait| {
        let holder = wait.holder.as_ref()?;
        Some(Arc::new(TaskRef {
            comm: holder.comm.clone(),
            ..TaskRef::new(holder.pid?, holder.tid?)
        }))
    });
    Subject::Lock(Box::new(LockPage {
        lock: lock.clone(),
        example: now.or_else(before),
        callers: callers(ended().filter_map(|wait| unwound(wait.stack.as_deref()))),
        waited: most(ended().map(|wait| wait.task.clone())),
        released: most(released),
        held: most(held),
        waiters,
        memory: None,
        waits_per_s: Vec::new(),
        since_ns: model.now_ns(),
        holder_wait: holder.and_then(|tid| model.blocked_task(tid)).cloned(),
    }))
}
