//! The live kernel as a source of events.
//!
//! [`Capture::start`] loads and attaches the kernel programs; [`Capture::poll`] is then called every
//! few milliseconds and appends what has happened: long waits from the ring buffer, waits in progress
//! from a scan of the tasks' table, totals at each interval. Nothing here waits.

mod bpf;
pub mod btf;
mod callers;
mod cgroup;
mod convert;
mod cost;
pub mod doctor;
mod goroutines;
pub mod host;
mod inflight;
mod iterator;
mod load;
mod mapped;
mod probes;
pub mod registers;
mod stacks;
mod suspects;
pub mod target;
mod totals;
pub mod usdt;

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use anyhow::Result;
use observer_common::{Config, WaitRecord, WaitvRecord, counter, flag, syscall};

pub(crate) use self::load::give_back_memory;
pub use self::suspects::Suspect;
use self::{
    callers::Callers,
    convert::Converter,
    cost::CostMeter,
    goroutines::Goroutines,
    host::Host,
    inflight::InFlight,
    load::{Loaded, Tunables},
    mapped::record,
    target::Targets,
    totals::{LockTables, Totals},
    usdt::Usdt,
};
use crate::{
    budget::{Budget, Step},
    event::{
        BudgetStep, CostReport, End, Event, Filters, LockTotals, Loss, Meta, Reason, SCHEMA,
        TaskTotals,
    },
    runtimes::packs::Pair,
    time::{self, Clock},
};

pub(crate) use self::load::attach_empty;

/// Records taken from the ring buffer before the caller gets to write them.
const BATCH: usize = 8_192;
/// Default size of the ring buffer: 23 000 waits.
pub const RING_BYTES: u32 = 4 << 20;
/// Default number of locks that can be told apart.
pub const LOCK_SLOTS: u32 = 16_384;

/// Default of the share of the host's CPU time that observing may use.
pub const MAX_OVERHEAD: f64 = 0.02;
/// Stacks that each CPU may take in a tenth of a second: at 3 µs each, 0.06 % of its time.
const STACK_TOKENS: u64 = 20;

/// How futex waits are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FutexMode {
    /// The cheapest way that the kernel allows.
    #[default]
    Auto,
    /// System call tracepoints.
    Tracepoint,
    /// The registers of the sleeping task.
    Sched,
}

/// What to observe, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these processes; all when empty.
    pub pids: Vec<u32>,
    /// Only tasks of these names; all when empty.
    pub comms: Vec<String>,
    /// Only tasks in these control groups; all when empty.
    pub cgroups: Vec<String>,
    /// What containers were named by the user, who chose the groups or the processes.
    pub containers: Vec<String>,
    /// Report waits at least this long one by one.
    pub min_wait: Duration,
    /// Report waits in progress from this age on.
    pub long_wait: Duration,
    /// Report totals this often.
    pub interval: Duration,
    /// How futex waits are known.
    pub futex: FutexMode,
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// Entries for tasks; by the host when `None`.
    pub task_slots: Option<u32>,
    /// Entries for locks.
    pub lock_slots: u32,
    /// Take stacks, within a budget of their own.
    pub stacks: bool,
    /// Share of the host's CPU time that observing may use before it does less; `None`: no limit.
    pub max_overhead: Option<f64>,
    /// Pairs of USDT probes that make waits.
    pub usdt: Vec<Pair>,
    /// How to attach to them.
    pub usdt_attach: usdt::Attach,
    /// Report the waits of goroutines of these processes as they happen.
    pub go_events: bool,
    /// Let the kernel programs log.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            pids: Vec::new(),
            comms: Vec::new(),
            cgroups: Vec::new(),
            containers: Vec::new(),
            min_wait: Duration::from_millis(1),
            long_wait: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            futex: FutexMode::Auto,
            ring_bytes: RING_BYTES,
            task_slots: None,
            lock_slots: LOCK_SLOTS,
            stacks: true,
            max_overhead: Some(MAX_OVERHEAD),
            usdt: Vec::new(),
            usdt_attach: usdt::Attach::default(),
            go_events: false,
            log: false,
        }
    }
}

impl Options {
    fn min_wait_ns(&self) -> u64 {
        nanos(self.min_wait)
    }

    /// Processes that are all that is observed. A container with a group is not over with the processes that it has
    /// now.
    fn whole_processes(&self) -> &[u32] {
        if self.cgroups.is_empty() || self.containers.is_empty() {
            &self.pids
        } else {
            &[]
        }
    }

    /// What the kernel programs are told as long as the budget allows everything.
    fn tunables(&self) -> Config {
        Config {
            min_wait_ns: self.min_wait_ns(),
            stack_tokens: if self.stacks { STACK_TOKENS } else { 0 },
            sample_shift: 0,
        }
    }

    /// Never below `min_wait`: the end of a shorter wait is not reported, so its beginning must not be.
    fn long_wait_ns(&self) -> u64 {
        nanos(self.long_wait).max(self.min_wait_ns())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The kernel or the privileges do not allow what was asked for: exit code 3.
#[derive(Debug)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// A running observation.
pub struct Capture {
    options: Options,
    host: Host,
    loaded: Loaded,
    converter: Converter,
    inflight: InFlight,
    totals: Totals,
    cost: CostMeter,
    budget: Budget,
    /// Have totals been sampled at any time?
    estimated: bool,
    callers: Callers,
    targets: Targets,
    start_ns: u64,
    next_scan_ns: u64,
    next_totals_ns: u64,
    events: u64,
    /// Records of the ring buffer that had an impossible size.
    malformed: u64,
    lost: BTreeMap<Cow<'static, str>, u64>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("options", &self.options)
            .field("capture", &self.loaded.capture)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Loads and attaches.
    ///
    /// # Errors
    /// [`Unsupported`] where privileges or the kernel do not allow it; others name what is wrong with
    /// the options.
    pub fn start(options: Options) -> Result<Capture> {
        let targets = Targets::open(options.whole_processes())?;
        let host = Host::look()?;
        let loaded = load::load(&options, &host)?;
        let now = time::mono_ns();
        Ok(Capture {
            cost: CostMeter::new(&loaded.ebpf, now),
            budget: Budget::new(options.max_overhead),
            estimated: false,
            callers: Callers::default(),
            next_totals_ns: now.saturating_add(nanos(options.interval)),
            options,
            host,
            loaded,
            converter: Converter::new(),
            inflight: InFlight::default(),
            totals: Totals::default(),
            targets,
            start_ns: now,
            next_scan_ns: now,
            events: 0,
            malformed: 0,
            lost: BTreeMap::new(),
        })
    }

    /// The first event.
    pub fn meta(&mut self) -> Event {
        self.events += 1;
        Event::from(Meta {
            time: self.converter.clock.wall(self.start_ns),
            mono_ns: self.start_ns,
            schema: SCHEMA,
            observer: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.host.name.clone(),
            kernel: self.host.kernel.clone(),
            cpus: self.host.cpus,
            filters: Filters {
                pids: self.options.pids.clone(),
                comms: self.options.comms.clone(),
                cgroups: self.options.cgroups.clone(),
                containers: self.options.containers.clone(),
                min_wait_ns: self.options.min_wait_ns(),
                long_wait_ns: self.options.long_wait_ns(),
                interval_ns: nanos(self.options.interval),
                ..Filters::default()
            },
            capture: self.loaded.capture.clone(),
        })
    }

    /// Appends what happened since the last call. True: there is more right now, call again once the
    /// events are written.
    pub fn poll(&mut self, out: &mut Vec<Event>) -> bool {
        let before = out.len();
        if let Some(logger) = &mut self.loaded.logger {
            logger.flush();
        }
        // The scan comes before the ring: each wait that was over by then has its record in there.
        let now = time::mono_ns();
        let due = (now >= self.next_scan_ns).then(|| {
            let config = self.budget.step().config(self.options.tunables());
            let long_ns = self.options.long_wait_ns().max(config.min_wait_ns);
            if let Some(usdt) = &mut self.loaded.usdt {
                usdt.scan(long_ns, now);
            }
            let (heads, slots) = (&self.loaded.heads, &self.loaded.slots);
            let due = self.inflight.scan(heads, slots, long_ns, now);
            let cost_ns = time::mono_ns().saturating_sub(now);
            self.next_scan_ns = now + inflight::until_next_scan(long_ns, cost_ns);
            due
        });
        let more = self.drain(out);
        if !more {
            for slot in self.inflight.unseen_ends() {
                out.push(Event::from(self.converter.unseen_end(&slot, now)));
            }
        }
        self.report_usdt(more, now, out);
        self.attach_later(now, out);
        for slot in due.into_iter().flatten() {
            // Its record may have come with this very batch.
            if !self.inflight.is_reported(slot.tid, slot.start_ns) {
                continue;
            }
            let mut blocked = self.converter.blocked(&slot, now);
            if slot.nr == syscall::FUTEX_WAITV {
                // The kernel's lock totals go to the first futex; in progress none stands out.
                blocked.lock = None;
                if let Ok(vector) = self.loaded.vectors.get(&slot.tid, 0) {
                    blocked.locks = self.converter.locks_of(slot.tgid, &vector.0);
                }
            }
            blocked.stack = callers::stack(
                slot.tgid,
                slot.user_stack,
                slot.kernel_stack,
                &self.loaded.stacks,
                &mut self.converter,
            );
            out.push(Event::from(blocked));
        }
        let (usdt, goroutines) = (&self.loaded.usdt, &self.loaded.goroutines);
        let other = || {
            let usdt = usdt.as_ref().map_or(0, Usdt::run_time_ns);
            usdt + goroutines.as_ref().map_or(0, Goroutines::cost_ns)
        };
        if let Some(used_ns) = self.cost.poll(&self.loaded.ebpf, other, now) {
            self.keep_to_budget(used_ns, now, out);
        }
        if now >= self.next_totals_ns {
            self.next_totals_ns = now.saturating_add(nanos(self.options.interval));
            self.converter.clock = Clock::now();
            self.report_totals(now, out);
        }
        self.events += (out.len() - before) as u64;
        more
    }

    /// Does less if observing uses too much of the host's CPU time: `used_per_s` in one second.
    fn keep_to_budget(&mut self, used_per_s: f64, now: u64, out: &mut Vec<Event>) {
        let share = used_per_s / f64::from(self.host.cpus);
        let Some(step) = self.budget.measure(share) else {
            return;
        };
        let config = step.config(self.options.tunables());
        self.estimated |= config.sample_shift > 0;
        if self.loaded.config.set(0, Tunables(config), 0).is_err() {
            return;
        }
        if let Some(goroutines) = &mut self.loaded.goroutines {
            goroutines.allow(step == Step::Full);
        }
        if let Some(usdt) = &mut self.loaded.usdt {
            usdt.allow(step == Step::Full);
        }
        out.push(Event::from(BudgetStep {
            time: self.converter.clock.wall(now),
            mono_ns: now,
            step,
            overhead_percent: share * 100.0,
            limit_percent: self.budget.limit().unwrap_or(1.0) * 100.0,
        }));
    }

    /// Takes a batch of records from the ring buffer.
    fn drain(&mut self, out: &mut Vec<Event>) -> bool {
        for _ in 0..BATCH {
            let Some(item) = self.loaded.ring.next() else {
                return false;
            };
            let (record, vector) = match (record::<WaitRecord>(&item), record::<WaitvRecord>(&item))
            {
                (Some(record), _) => (record, None),
                (None, Some(record)) => (record.wait, Some(record.vector)),
                (None, None) => {
                    let (probed, goroutine) = (record(&item), record(&item));
                    drop(item);
                    self.take_other(probed, goroutine, out);
                    continue;
                }
            };
            let slot = &record.slot;
            if let Some(key) = convert::key_of(slot) {
                self.callers.add(key, &record);
            }
            if slot.flags & flag::SAMPLE != 0 {
                continue;
            }
            self.inflight.ended(slot.tid, slot.start_ns);
            let mut wait = match &vector {
                Some(vector) => self.converter.waitv(&record, vector),
                None => self.converter.wait(&record),
            };
            wait.stack = callers::stack(
                slot.tgid,
                slot.user_stack,
                slot.kernel_stack,
                &self.loaded.stacks,
                &mut self.converter,
            )
            .map(Box::new);
            out.push(Event::from(wait));
        }
        true
    }

    fn report_totals(&mut self, now: u64, out: &mut Vec<Event>) {
        let loaded = &mut self.loaded;
        let locks = self.totals.locks(
            &LockTables {
                stats: &loaded.lock_stats,
                stripes: loaded.stripes,
                stacks: &loaded.stacks,
            },
            &mut self.callers,
            &self.inflight,
            &mut self.converter,
            now,
        );
        let estimated = self.estimated;
        out.extend(locks.into_iter().map(|totals| {
            Event::from(LockTotals {
                estimated,
                ..totals
            })
        }));
        let tasks = self
            .totals
            .tasks(&loaded.heads, &loaded.task_stats, &mut self.converter, now);
        out.extend(tasks.into_iter().map(|totals| {
            Event::from(TaskTotals {
                estimated,
                ..totals
            })
        }));
        if let Some(usdt) = &mut loaded.usdt {
            let locks = usdt.totals(now, &mut self.converter);
            out.extend(locks.into_iter().map(Event::from));
        }
        self.totals.recycle(
            &mut loaded.lock_stats,
            loaded.stripes,
            &mut loaded.locks,
            &mut loaded.free,
            &mut self.callers,
            now,
        );
        let loss = self.loss(now);
        if loss.counters != self.lost {
            self.lost.clone_from(&loss.counters);
            if loss.total > 0 {
                out.push(Event::from(loss));
            }
        }
        out.push(Event::from(CostReport {
            time: self.converter.clock.wall(now),
            mono_ns: now,
            cost: self.cost.read(),
        }));
    }

    /// Forgets the symbols of programs and of the kernel: they are read anew when they are needed.
    pub fn forget_symbols(&mut self) {
        self.converter.symbols.forget();
    }

    /// What was lost so far.
    pub fn loss_now(&self) -> Loss {
        self.loss(time::mono_ns())
    }

    fn loss(&self, now: u64) -> Loss {
        let mut counters: BTreeMap<Cow<'static, str>, u64> = counter::NAMES
            .iter()
            .map(|name| (Cow::Borrowed(*name), 0))
            .collect();
        match self.loaded.counters.get(&0, 0) {
            Ok(cpus) => {
                for cpu in cpus.iter() {
                    for (name, count) in counter::NAMES.iter().zip(cpu) {
                        *counters.entry(Cow::Borrowed(name)).or_default() += count;
                    }
                }
            }
            Err(_) => *counters.entry("counters_unreadable".into()).or_default() += 1,
        }
        counters.insert("malformed_record".into(), self.malformed);
        let no_loss = counter::NO_LOSS.map(|cause| counter::NAMES[cause as usize]);
        let evicted = self.loaded.usdt.as_ref().map_or(0, |usdt| usdt.evicted);
        let evicted = self.totals.evicted + evicted;
        counters.insert("locks_evicted".into(), evicted);
        Loss {
            time: self.converter.clock.wall(now),
            mono_ns: now,
            total: counters
                .iter()
                .filter(|(cause, _)| !no_loss.contains(&cause.as_ref()))
                .map(|(_, count)| count)
                .sum(),
            counters,
        }
    }

    /// Are only some tasks of the host observed?
    pub fn is_filtered(&self) -> bool {
        let Options {
            pids,
            comms,
            cgroups,
            containers,
            ..
        } = &self.options;
        !(pids.is_empty() && comms.is_empty() && cgroups.is_empty() && containers.is_empty())
    }

    /// Completes containers with what a cluster says of their pods.
    pub fn set_pods(&mut self, pods: std::sync::Arc<crate::inspect::container::pods::Pods>) {
        self.converter.containers.set_pods(pods);
    }

    /// The container that a process runs in.
    pub fn container_of(&mut self, pid: u32) -> Option<std::sync::Arc<crate::event::ContainerRef>> {
        self.converter.containers.of(pid)
    }

    /// Counts events that were made of this run's elsewhere.
    pub fn count_events(&mut self, events: u64) {
        self.events += events;
    }

    /// Have all processes that were asked for ended? Never, when none was.
    pub fn targets_ended(&self) -> bool {
        self.targets.ended()
    }

    /// Appends the last events: what is left in the ring buffer, all totals, losses, `end`.
    pub fn finish(&mut self, reason: Reason, out: &mut Vec<Event>) {
        self.next_totals_ns = 0;
        self.next_scan_ns = 0;
        // A flood never runs dry: what comes after the end was asked for is no longer wanted.
        let batches = self.loaded.capture.ring_bytes as usize / size_of::<WaitRecord>() / BATCH;
        for _ in 0..=batches {
            if !self.poll(out) {
                break;
            }
        }
        let now = time::mono_ns();
        out.push(Event::from(self.loss(now)));
        self.events += 1;
        out.push(Event::from(End {
            time: self.converter.clock.wall(now),
            mono_ns: now,
            reason,
            dur_ns: now.saturating_sub(self.start_ns),
            events: self.events,
            waits: self.totals.waits,
            total_ns: self.totals.total_ns,
            estimated: self.estimated,
            cost: self.cost.read(),
        }));
    }
}
