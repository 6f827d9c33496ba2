//! Totals per lock and per task: reads the tables of the kernel programs and tells what changed.

use std::{collections::HashMap, sync::Arc};

use observer_common::{LockKey, LockStat, TID_ENDED, TaskHead, TaskStat, kind};

use super::{
    callers::Callers, convert::Converter, inflight::InFlight, load::TaskStats, mapped::MappedArray,
    stacks::Stacks,
};
use crate::{
    event::{Kind, LockTotals, TaskTotals, WaitTotals},
    histogram::Histogram,
};

/// Entries that are looked at behind the last one in use: indices are given out lowest first, but two
/// CPUs may take theirs out of order.
const BEYOND: usize = 64;
/// A lock's entry may be given to another lock after it has been out of use for this long: a kernel
/// program that still holds its index has ended by then.
const QUARANTINE_NS: u64 = 100_000_000;

/// What the kernel programs keep of locks.
pub(super) struct LockTables<'a> {
    pub(super) stats: &'a MappedArray<LockStat>,
    /// Entries of each lock.
    pub(super) stripes: usize,
    pub(super) stacks: &'a Stacks,
}

/// One lock, summed over the stripes.
#[derive(Clone, Debug, Default)]
struct LockSum {
    key: LockKey,
    op: u32,
    count: u64,
    total_ns: u64,
    max_ns: u64,
    timeouts: u64,
    interrupted: u64,
    last_ns: u64,
    stack: u32,
    histogram: Histogram,
}

impl LockSum {
    fn add(&mut self, stat: &LockStat) {
        self.key = stat.key;
        self.count += stat.count;
        self.total_ns = self.total_ns.saturating_add(stat.total_ns);
        self.max_ns = self.max_ns.max(stat.max_ns);
        self.timeouts += u64::from(stat.timeouts);
        self.interrupted += u64::from(stat.interrupted);
        if stat.last_ns >= self.last_ns {
            self.last_ns = stat.last_ns;
            self.op = stat.op;
        }
        self.stack = self.stack.max(stat.stack);
        self.histogram.merge(&stat.histogram);
    }
}

/// Address in the key of an entry that was taken from its lock and is not yet free: no lock's.
const TOMBSTONE: u64 = u64::MAX;

/// What was reported of an entry last.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    key: LockKey,
    count: u64,
    waiters: u32,
    last_ns: u64,
}

/// Follows the totals from reading to reading.
#[derive(Debug, Default)]
pub(super) struct Totals {
    seen: Vec<Seen>,
    task_waits: Vec<u32>,
    /// Sum over all tasks: waits and time.
    pub(super) waits: u64,
    pub(super) total_ns: u64,
    /// What each task added to the sums.
    tasks: Vec<(u32, u64, u64)>,
    /// Entries taken from their locks, waiting to be given out again: index, time.
    quarantine: Vec<(u32, u64)>,
    pub(super) evicted: u64,
}

impl Totals {
    /// Locks whose totals or waiters changed since the last reading.
    pub(super) fn locks(
        &mut self,
        tables: &LockTables<'_>,
        callers: &mut Callers,
        inflight: &InFlight,
        converter: &mut Converter,
        now_ns: u64,
    ) -> Vec<LockTotals> {
        let mut changed = Vec::new();
        let mut shared: HashMap<Arc<str>, LockTotals> = HashMap::new();
        let entries = tables.stats.len() / tables.stripes.max(1);
        let mut index = 0;
        while index < entries && index < self.seen.len() + BEYOND {
            let sum = read(tables, index);
            if sum.key.addr != 0 {
                if self.seen.len() <= index {
                    self.seen.resize(index + 1, Seen::default());
                }
                let waiters = inflight.waiters(&sum.key);
                let now = Seen {
                    key: sum.key,
                    count: sum.count,
                    waiters,
                    last_ns: sum.last_ns,
                };
                let old = std::mem::replace(&mut self.seen[index], now);
                if sum.key.tgid == 0 && old.key != now.key {
                    let stack = tables.stacks.frames(sum.stack);
                    converter.kernel_lock(sum.key.addr, sum.op, &stack);
                }
                let is_shared = converter.lock(sum.key, sum.op).shared;
                if is_shared
                    || (old.key, old.count, old.waiters) != (now.key, now.count, now.waiters)
                {
                    let mut totals = totals_of(&sum, waiters, converter, now_ns);
                    totals.callers = callers.of(&sum.key, tables.stacks, converter);
                    if is_shared {
                        merge(&mut shared, totals);
                    } else {
                        changed.push(totals);
                    }
                }
            }
            index += 1;
        }
        changed.extend(shared.into_values());
        changed
    }

    /// Tasks whose totals changed since the last reading.
    pub(super) fn tasks(
        &mut self,
        heads: &MappedArray<TaskHead>,
        stats: &TaskStats,
        converter: &mut Converter,
        now_ns: u64,
    ) -> Vec<TaskTotals> {
        self.task_waits.resize(heads.len(), 0);
        self.tasks.resize(heads.len(), (0, 0, 0));
        let mut changed = Vec::new();
        for index in 0..heads.len() {
            let Some(head) = heads.get(index) else { break };
            if head.waits == self.task_waits[index] {
                continue;
            }
            // One that cannot be read now is tried again with the next reading.
            let Some(stat) = stats.get(index) else {
                continue;
            };
            self.task_waits[index] = head.waits;
            if stat.tid != head.tid & !TID_ENDED {
                continue;
            }
            let totals = task_totals(&stat, converter, now_ns);
            let sum = totals.kinds.values().fold((0, 0), |(waits, ns), kind| {
                (waits + kind.waits, kind.total_ns.saturating_add(ns))
            });
            // An entry that another task took over starts from zero: both are in the sums.
            let (tid, waits, total_ns) = self.tasks[index];
            let old = if tid == stat.tid {
                (waits, total_ns)
            } else {
                (0, 0)
            };
            self.waits += sum.0.saturating_sub(old.0);
            self.total_ns += sum.1.saturating_sub(old.1);
            self.tasks[index] = (stat.tid, sum.0, sum.1);
            changed.push(totals);
        }
        changed
    }

    /// Takes entries from the locks that have been quiet for longest, when few are free; gives back
    /// those whose quarantine is over.
    pub(super) fn recycle(
        &mut self,
        stats: &mut MappedArray<LockStat>,
        stripes: usize,
        locks: &mut aya::maps::HashMap<aya::maps::MapData, [u64; 2], u32>,
        free: &mut aya::maps::Stack<aya::maps::MapData, u32>,
        callers: &mut Callers,
        now_ns: u64,
    ) {
        self.quarantine.retain(|&(index, since)| {
            if now_ns.saturating_sub(since) < QUARANTINE_NS {
                return true;
            }
            for stripe in 0..stripes {
                stats.set(index as usize * stripes + stripe, EMPTY);
            }
            // The stack has room for every index there is, so this cannot fail.
            let _ = free.push(index, 0);
            false
        });
        let entries = stats.len() / stripes.max(1);
        let used = self.seen.iter().filter(|seen| seen.key.addr != 0).count();
        if used < entries - entries / 8 || !self.quarantine.is_empty() {
            return;
        }
        let mut ages: Vec<(u64, usize)> = self
            .seen
            .iter()
            .enumerate()
            .filter(|(_, seen)| seen.key.addr != 0 && seen.waiters == 0)
            .map(|(index, seen)| (seen.last_ns, index))
            .collect();
        ages.sort_unstable();
        for &(_, index) in ages.iter().take(entries / 4) {
            let key = self.seen[index].key;
            if locks.remove(&[key.addr, u64::from(key.tgid)]).is_ok() {
                self.seen[index] = Seen::default();
                // A task that remembers the index must not count into it any more.
                for stripe in 0..stripes {
                    stats.set(index * stripes + stripe, BURIED);
                }
                self.quarantine.push((index as u32, now_ns));
                self.evicted += 1;
                callers.forget(&key);
            }
        }
    }
}

const EMPTY: LockStat = LockStat {
    count: 0,
    total_ns: 0,
    max_ns: 0,
    timeouts: 0,
    interrupted: 0,
    op: 0,
    pad0: 0,
    last_ns: 0,
    key: LockKey {
        addr: 0,
        tgid: 0,
        pad: 0,
    },
    stack: 0,
    waker_tid: 0,
    histogram: [0; observer_common::BUCKETS],
};

const BURIED: LockStat = LockStat {
    key: LockKey {
        addr: TOMBSTONE,
        tgid: 0,
        pad: 0,
    },
    ..EMPTY
};

fn read(tables: &LockTables<'_>, index: usize) -> LockSum {
    let mut sum = LockSum::default();
    for stripe in 0..tables.stripes {
        if let Some(stat) = tables.stats.get(index * tables.stripes + stripe)
            && stat.key.addr != 0
            && stat.key.addr != TOMBSTONE
        {
            sum.add(&stat);
        }
    }
    sum
}

fn totals_of(sum: &LockSum, waiters: u32, converter: &mut Converter, now_ns: u64) -> LockTotals {
    LockTotals {
        time: converter.clock.wall(now_ns),
        mono_ns: now_ns,
        lock: converter.lock(sum.key, sum.op),
        pid: (sum.key.tgid != 0).then_some(sum.key.tgid),
        process: (sum.key.tgid != 0)
            .then(|| converter.names.of(sum.key.tgid))
            .flatten(),
        waits: sum.count,
        total_ns: sum.total_ns,
        max_ns: sum.max_ns,
        p50_ns: sum.histogram.quantile(0.5, sum.max_ns),
        p99_ns: sum.histogram.quantile(0.99, sum.max_ns),
        timeouts: sum.timeouts,
        interrupted: sum.interrupted,
        waiters_now: waiters,
        holder: None,
        histogram: sum.histogram.buckets(),
        callers: Vec::new(),
        estimated: false,
    }
}

/// Joins the totals of one shared lock from several processes.
fn merge(shared: &mut HashMap<Arc<str>, LockTotals>, other: LockTotals) {
    let Some(sum) = shared.get_mut(&other.lock.id) else {
        shared.insert(Arc::clone(&other.lock.id), other);
        return;
    };
    let mut histogram = Histogram::default();
    for bucket in sum.histogram.iter().chain(&other.histogram) {
        let last = bucket.lt_ns.map_or(u64::MAX, |end| end - 1);
        histogram.0[observer_common::bucket(last) as usize] += bucket.count;
    }
    sum.waits += other.waits;
    sum.total_ns = sum.total_ns.saturating_add(other.total_ns);
    sum.max_ns = sum.max_ns.max(other.max_ns);
    sum.timeouts += other.timeouts;
    sum.interrupted += other.interrupted;
    sum.waiters_now += other.waiters_now;
    sum.p50_ns = histogram.quantile(0.5, sum.max_ns);
    sum.p99_ns = histogram.quantile(0.99, sum.max_ns);
    sum.histogram = histogram.buckets();
}

fn task_totals(stat: &TaskStat, converter: &mut Converter, now_ns: u64) -> TaskTotals {
    let mut totals = TaskTotals {
        time: converter.clock.wall(now_ns),
        mono_ns: now_ns,
        task: converter.task(stat.tgid, stat.tid, Some(&stat.comm)),
        kinds: std::collections::BTreeMap::new(),
        runqueue: None,
        estimated: false,
    };
    for (number, kind) in stat
        .kinds
        .iter()
        .enumerate()
        .filter(|(_, kind)| kind.count > 0)
    {
        if number == usize::from(kind::RUNQUEUE) {
            totals.runqueue = Some(WaitTotals {
                waits: kind.count,
                total_ns: kind.total_ns,
                max_ns: kind.max_ns,
            });
            continue;
        }
        let sum = totals.kinds.entry(Kind::of(number as u8)).or_default();
        sum.waits += kind.count;
        sum.total_ns = sum.total_ns.saturating_add(kind.total_ns);
        sum.max_ns = sum.max_ns.max(kind.max_ns);
    }
    totals
}
