//! What the `goroutines` event says of an inventory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    groups::Group,
    inventory::{
        ChannelOperation, Goroutine, Inventory, IoOperation, Lock, LockMode, LockState, Scheduler,
        WaitsFor,
    },
    stuck::{self, Orphan},
    tracker::{Site, Tracker},
};
use crate::{
    event::{
        Addr, Confidence, GoChannel, GoFrame, GoHolder, GoLabel, GoLock, GoLostChannel,
        GoOperation, GoProcessor, GoProcessorState, GoScheduler, GoStarvedWriter, GoWaitsFor,
        GoroutineDeadlock, GoroutineGroup, GoroutineSite, GoroutineStep, Goroutines, LockClass,
        LockRef,
    },
    time::WallTime,
};

/// Groups, places, locks and channels told of.
const MAX_TOLD: usize = 256;
/// Things told of that a group waits for, and goroutines named.
const MAX_NAMED: usize = 8;

/// What is said beside the inventory.
pub(super) struct Beside<'a> {
    pub(super) process: Option<Arc<str>>,
    pub(super) time: WallTime,
    pub(super) tracker: &'a Tracker,
    pub(super) cycles: &'a [stuck::Cycle],
    pub(super) orphans: &'a [Orphan],
}

pub(super) fn told(inventory: &Inventory, beside: Beside<'_>) -> Goroutines {
    let (pid, tracker) = (inventory.pid, beside.tracker);
    let waits = Means::of(inventory, tracker.looks() > 1);
    let growth = growth(tracker);
    let mut groups = inventory.groups();
    let groups_left_out = groups.len().saturating_sub(MAX_TOLD) as u64;
    groups.truncate(MAX_TOLD);
    let groups = groups
        .into_iter()
        .map(|group| self::group(inventory, group, tracker, &growth));
    Goroutines {
        time: beside.time,
        mono_ns: inventory.mono_ns,
        pid,
        process: beside.process,
        container: None,
        release: inventory.release.clone(),
        layout_of: inventory.layout_of.clone(),
        untested: inventory.untested.map(str::to_owned),
        took_ns: inventory.took_ns,
        total: inventory.total as u64,
        by_state: inventory
            .by_state()
            .into_iter()
            .map(|(state, count)| (state, count as u64))
            .collect(),
        groups: groups.collect(),
        scheduler: inventory.scheduler.as_ref().map(scheduler),
        groups_left_out,
        sites: sites(inventory, tracker),
        locks: locks(inventory, &waits),
        channels: channels(inventory, &waits),
        deadlocks: beside
            .cycles
            .iter()
            .map(|cycle| deadlock(inventory, cycle))
            .collect(),
        starved_writers: starved(inventory, tracker.looks() > 1),
        lost_channels: beside
            .orphans
            .iter()
            .take(MAX_TOLD)
            .map(|orphan| lost(inventory, orphan))
            .collect(),
        torn: inventory.torn as u64,
        left_out: inventory.left_out as u64,
        notes: inventory.notes.clone(),
    }
}

fn lock_ref(pid: u32, addr: Addr, class: LockClass) -> LockRef {
    LockRef {
        id: format!("{pid}:{addr}").into(),
        class,
        name: None,
        addr,
        shared: false,
    }
}

fn class(state: &LockState) -> LockClass {
    match state {
        LockState::Mutex(_) => LockClass::GoMutex,
        LockState::RwMutex { .. } => LockClass::GoRwmutex,
        LockState::WaitGroup { .. } => LockClass::GoWaitgroup,
        LockState::Semaphore => LockClass::GoRuntime,
    }
}

fn lock_at(inventory: &Inventory, addr: Addr) -> LockRef {
    let known = inventory.lock(addr).map(|lock| class(&lock.state));
    lock_ref(inventory.pid, addr, known.unwrap_or(LockClass::GoRuntime))
}

fn scheduler(all: &Scheduler) -> GoScheduler {
    let processors = || all.processors.iter();
    let own: u64 = processors()
        .map(|one| u64::from(one.run_queue) + u64::from(one.next))
        .sum();
    let queues = processors().map(|one| one.run_queue.into());
    let busy = processors().filter_map(|one| {
        let state = one.state.filter(|state| *state != GoProcessorState::Idle)?;
        Some(GoProcessor {
            id: one.id.into(),
            state,
            tid: one.tid,
        })
    });
    GoScheduler {
        processors: all.processors.len() as u64,
        idle_processors: all.idle_processors.into(),
        run_queue: all.run_queue.into(),
        run_queues: queues.take(MAX_TOLD).collect(),
        queued: own + u64::from(all.run_queue),
        threads: all.threads,
        idle_threads: all.idle_threads.into(),
        spinning_threads: all.spinning_threads.into(),
        syscall_threads: all.syscall_threads.into(),
        gc: all.gc,
        stopping: all.stopping,
        busy: busy.take(MAX_TOLD).collect(),
    }
}

/// Means of the waits for each lock, and for each channel by operation.
struct Means(HashMap<(Addr, Option<ChannelOperation>), (u64, u64)>);

impl Means {
    fn of(inventory: &Inventory, are_known: bool) -> Means {
        let mut sums: HashMap<_, (u64, u64)> = HashMap::new();
        for goroutine in inventory.goroutines.iter().filter(|_| are_known) {
            let Some(since_ns) = goroutine.waiting_since_ns else {
                continue;
            };
            let key = match goroutine.waits_for.first() {
                Some(WaitsFor::Lock { addr, .. }) => (*addr, None),
                Some(WaitsFor::Channel {
                    addr,
                    operation: Some(operation),
                    select: false,
                }) => (*addr, Some(*operation)),
                _ => continue,
            };
            let (sum, count) = sums.entry(key).or_default();
            *sum = sum.saturating_add(inventory.mono_ns.saturating_sub(since_ns));
            *count += 1;
        }
        Means(sums)
    }

    fn get(&self, addr: Addr, operation: Option<ChannelOperation>) -> Option<u64> {
        let (sum, count) = self.0.get(&(addr, operation))?;
        sum.checked_div(*count)
    }
}

/// Growth of each place that starts goroutines.
fn growth(tracker: &Tracker) -> HashMap<&GoFrame, f64> {
    let sites = tracker.sites().into_iter();
    sites
        .filter_map(|site| Some((site.created_by.as_deref()?, site.growth_per_minute()?)))
        .collect()
}

fn group(
    inventory: &Inventory,
    group: Group,
    tracker: &Tracker,
    growth: &HashMap<&GoFrame, f64>,
) -> GoroutineGroup {
    let again = tracker.looks() > 1;
    let members = || group.members.iter().map(|i| &inventory.goroutines[*i]);
    let since_ns = members().filter_map(|g| g.waiting_since_ns).min();
    let mut counts: HashMap<WaitKey, u64> = HashMap::new();
    for what in members().flat_map(|goroutine| &goroutine.waits_for) {
        if let Some(key) = WaitKey::of(what) {
            *counts.entry(key).or_default() += 1;
        }
    }
    let mut counts: Vec<(WaitKey, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(key, count)| (std::cmp::Reverse(*count), key.addr, key.fd));
    let wakes_at = members().flat_map(|goroutine| &goroutine.waits_for);
    let wakes_at = wakes_at.filter_map(|what| match what {
        WaitsFor::Deadline { mono_ns } => Some(*mono_ns),
        _ => None,
    });
    let waits_left_out = counts.len().saturating_sub(MAX_NAMED) as u64;
    counts.truncate(MAX_NAMED);
    GoroutineGroup {
        count: group.count as u64,
        state: group.state,
        wait_reason: group.wait_reason,
        growth: group
            .created_by
            .as_deref()
            .and_then(|place| growth.get(place).copied()),
        created_by: group.created_by,
        stack: group.stack.frames.clone(),
        stack_cut: group.stack.cut,
        system: group.system,
        oldest_ns: group.oldest_ns.filter(|_| again),
        longest_wait_ns: since_ns
            .filter(|_| again)
            .map(|since_ns| inventory.mono_ns.saturating_sub(since_ns)),
        goids: group.goids,
        waits_for: counts
            .into_iter()
            .map(|(key, count)| key.told(inventory, count))
            .collect(),
        waits_left_out,
        labels: labels(members()),
        tids: members().filter_map(|g| g.tid).take(MAX_NAMED).collect(),
        locked_to_thread: members().filter(|g| g.locked_to_thread).count() as u64,
        wakes_in_ns: wakes_at
            .min()
            .map(|at_ns| at_ns.saturating_sub(inventory.mono_ns)),
    }
}

/// Labels of one goroutine, and of those that it started.
type Labels = BTreeMap<String, String>;

/// The labels of goroutines, the most frequent first.
fn labels<'a>(goroutines: impl Iterator<Item = &'a Goroutine>) -> Vec<GoLabel> {
    let mut sets: HashMap<*const Labels, (&Labels, u64)> = HashMap::new();
    // Goroutines that inherited their labels share them.
    for goroutine in goroutines.filter(|goroutine| !goroutine.labels.is_empty()) {
        let set = sets.entry(Arc::as_ptr(&goroutine.labels));
        set.or_insert((&goroutine.labels, 0)).1 += 1;
    }
    let mut counts: HashMap<(&str, &str), u64> = HashMap::new();
    for (set, count) in sets.into_values() {
        for (key, value) in set {
            *counts.entry((key, value)).or_default() += count;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|(label, count)| (std::cmp::Reverse(*count), *label));
    let told = counts.into_iter().map(|((key, value), count)| GoLabel {
        key: key.to_owned(),
        value: value.to_owned(),
        count,
    });
    told.take(MAX_NAMED).collect()
}

/// What goroutines of one group may have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct WaitKey {
    addr: Option<Addr>,
    fd: Option<u32>,
    operation: Option<GoOperation>,
    select: bool,
}

impl WaitKey {
    fn of(what: &WaitsFor) -> Option<WaitKey> {
        let key = |addr, fd, operation, select| WaitKey {
            addr,
            fd,
            operation,
            select,
        };
        Some(match what {
            WaitsFor::Channel {
                addr,
                operation,
                select,
            } => {
                let operation = operation.map(|operation| match operation {
                    ChannelOperation::Send => GoOperation::Send,
                    ChannelOperation::Receive => GoOperation::Receive,
                });
                key(Some(*addr), None, operation, *select)
            }
            WaitsFor::Lock { addr, mode } => {
                let operation = match mode {
                    LockMode::Exclusive => GoOperation::Exclusive,
                    LockMode::Shared => GoOperation::Shared,
                    LockMode::Pass => GoOperation::Pass,
                };
                key(Some(*addr), None, Some(operation), false)
            }
            WaitsFor::Io { fd, operation } => {
                let operation = match operation {
                    IoOperation::Read => GoOperation::Read,
                    IoOperation::Write => GoOperation::Write,
                };
                key(None, Some(*fd), Some(operation), false)
            }
            WaitsFor::Deadline { .. } => return None,
        })
    }

    fn told(self, inventory: &Inventory, count: u64) -> GoWaitsFor {
        GoWaitsFor {
            count,
            lock: self.addr.map(|addr| match self.operation {
                Some(GoOperation::Exclusive | GoOperation::Shared | GoOperation::Pass) => {
                    lock_at(inventory, addr)
                }
                _ => lock_ref(inventory.pid, addr, LockClass::GoChan),
            }),
            fd: self.fd,
            file: None,
            socket: None,
            operation: self.operation,
            select: self.select,
        }
    }
}

fn sites(inventory: &Inventory, tracker: &Tracker) -> Vec<GoroutineSite> {
    let mut blocked: HashMap<*const GoFrame, (&GoFrame, u64)> = HashMap::new();
    for goroutine in &inventory.goroutines {
        if let Some(place) = &goroutine.created_by
            && !goroutine.system
            && waits_for_others(goroutine)
        {
            blocked.entry(Arc::as_ptr(place)).or_insert((place, 0)).1 += 1;
        }
    }
    // The same place may have come at two addresses.
    let mut by_place: HashMap<&GoFrame, u64> = HashMap::new();
    for (place, count) in blocked.into_values() {
        *by_place.entry(place).or_default() += count;
    }
    let again = tracker.looks() > 1;
    let told = |site: &Site| {
        let created_by = site.created_by.clone()?;
        Some(GoroutineSite {
            count: site.samples.back().map_or(0, |sample| sample.count as u64),
            blocked: by_place.get(&*created_by).copied().unwrap_or_default(),
            births: site.births as u64,
            deaths: site.deaths as u64,
            growth: site.growth_per_minute(),
            oldest_ns: site
                .oldest_seen_ns
                .filter(|_| again)
                .map(|first_ns| inventory.mono_ns.saturating_sub(first_ns)),
            created_by,
        })
    };
    tracker
        .sites()
        .into_iter()
        .filter_map(told)
        .take(MAX_TOLD)
        .collect()
}

/// Must another goroutine do something before it goes on? Not so when it sleeps or waits for a file.
fn waits_for_others(goroutine: &Goroutine) -> bool {
    let alone = |what: &WaitsFor| matches!(what, WaitsFor::Io { .. } | WaitsFor::Deadline { .. });
    let reason = goroutine.wait_reason.as_deref().unwrap_or_default();
    goroutine.is_blocked()
        && !goroutine.waits_for.iter().any(alone)
        && !matches!(reason, "IO wait" | "sleep")
}

fn locks(inventory: &Inventory, means: &Means) -> Vec<GoLock> {
    let mut most: Vec<&Lock> = inventory.locks.iter().collect();
    most.sort_by_key(|lock| (std::cmp::Reverse(lock.waiting), lock.addr));
    let told = |lock: &Lock| {
        let mut told = GoLock {
            lock: lock_at(inventory, lock.addr),
            waiters_now: lock.waiting as u64,
            mean_wait_ns: means.get(lock.addr, None),
            locked: None,
            starving: None,
            readers: None,
            readers_pending: None,
            counter: None,
            holders: lock
                .holders
                .iter()
                .map(|one| holder(inventory, one))
                .collect(),
        };
        match lock.state {
            LockState::Mutex(mutex) => {
                told.locked = Some(mutex.locked);
                told.starving = Some(mutex.starving);
            }
            LockState::RwMutex {
                writer,
                readers,
                readers_pending,
                ..
            } => {
                told.locked = Some(writer);
                told.readers = Some(readers);
                told.readers_pending = Some(readers_pending);
            }
            LockState::WaitGroup { counter, .. } => told.counter = Some(counter),
            LockState::Semaphore => {}
        }
        told
    };
    most.into_iter().take(MAX_TOLD).map(told).collect()
}

fn holder(inventory: &Inventory, holder: &super::inventory::Holder) -> GoHolder {
    let doing = inventory.goroutine(holder.goid).map(|goroutine| {
        let place = goroutine.stack.frames.iter().find(|f| f.is_program());
        let place = place.map_or_else(String::new, |frame| format!(" in {}", frame.function));
        match &goroutine.wait_reason {
            Some(reason) if goroutine.is_blocked() => format!("waiting ({reason}){place}"),
            _ => format!("{}{place}", goroutine.state.name()),
        }
    });
    GoHolder {
        goid: holder.goid,
        confidence: Confidence::Likely,
        evidence: holder.evidence.clone(),
        doing,
    }
}

fn channels(inventory: &Inventory, means: &Means) -> Vec<GoChannel> {
    let mut most: Vec<_> = inventory.channels.iter().collect();
    most.sort_by_key(|one| (std::cmp::Reverse(one.receivers + one.senders), one.addr));
    let told = |channel: &super::inventory::Channel| GoChannel {
        lock: lock_ref(inventory.pid, channel.addr, LockClass::GoChan),
        len: channel.len,
        cap: channel.cap,
        closed: channel.closed,
        timer: channel.timer,
        receivers: channel.receivers as u64,
        senders: channel.senders as u64,
        mean_send_ns: means.get(channel.addr, Some(ChannelOperation::Send)),
        mean_receive_ns: means.get(channel.addr, Some(ChannelOperation::Receive)),
        on_stacks_of: channel.on_stacks_of.clone(),
    };
    most.into_iter().take(MAX_TOLD).map(told).collect()
}

fn deadlock(inventory: &Inventory, cycle: &stuck::Cycle) -> GoroutineDeadlock {
    let step = |step: &stuck::Step| GoroutineStep {
        goid: step.goid,
        lock: lock_at(inventory, step.lock),
        waits_for: step.holder,
        evidence: step.evidence.clone(),
        stack: inventory
            .goroutine(step.goid)
            .map(|goroutine| goroutine.stack.frames.clone())
            .unwrap_or_default(),
    };
    GoroutineDeadlock {
        goroutines: cycle.steps.iter().map(step).collect(),
        confidence: Confidence::Likely,
        behind: cycle.behind as u64,
    }
}

fn starved(inventory: &Inventory, again: bool) -> Vec<GoStarvedWriter> {
    let starved = stuck::writer_starvation(inventory).into_iter();
    let told = starved.map(|one| GoStarvedWriter {
        lock: lock_at(inventory, one.lock),
        writers: one.writers.into_iter().take(MAX_NAMED).collect(),
        readers_behind: one.readers_behind.len() as u64,
        readers_pending: one.readers_pending,
        holders: one.holders,
        waits_ns: one.waits_ns.filter(|_| again),
    });
    told.take(MAX_TOLD).collect()
}

fn lost(inventory: &Inventory, orphan: &Orphan) -> GoLostChannel {
    let first = orphan.goids.first();
    GoLostChannel {
        lock: lock_ref(inventory.pid, orphan.channel, LockClass::GoChan),
        goids: orphan.goids.iter().copied().take(MAX_NAMED).collect(),
        waiters_now: orphan.goids.len() as u64,
        created_by: first.and_then(|goid| inventory.goroutine(*goid)?.created_by.clone()),
        confidence: Confidence::Likely,
        evidence: orphan.evidence.clone(),
    }
}
