//! A live run: what the capture tells, what a look at blocked threads adds, what the rules make of it.
//!
//! Short waits are counted by the kernel programs and pass through as they are. Long ones are inspected: a
//! thread that has waited for a futex for a fifth of a second is looked at once, which tells the lock's class
//! and name, its holder and the stack; all later events about that lock have the name. Looks are rationed: a
//! few milliseconds at a time, the likeliest locks first.

mod backends;
mod causes;
pub(crate) mod circles;
mod goroutines;
mod hot;
mod late;
mod looks;
mod owners;
mod pieces;
mod take;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;

pub(crate) use self::take::take;
use self::{
    backends::Backends,
    causes::{Parts, Samples},
    circles::Circles,
    goroutines::GoProcesses,
    hot::{Hot, Plain},
    late::{Allowance, Late},
    looks::Looks,
    owners::Known,
    pieces::Pieces,
    take::{Given, call, with_kernel},
};
use crate::{
    capture::{self, Capture, Options, Suspect},
    digest,
    event::{Blocked, Event, Holder, HolderState, Kind, LockClass, Outcome, Reason, RuntimeFound},
    inspect::{
        container::pods::Pods,
        look::{Look, Looker},
        process,
    },
    model::Model,
    rules::{Rules, Thresholds},
    time::human,
};

/// Time for looks at waits that are not reported yet, between two readings of the ring buffer.
const LOOKING: Duration = Duration::from_millis(20);
/// Go processes that are looked at when none was asked for.
const GO_PROCESSES: usize = 8;
/// Looks that wait for their turn.
const MAX_PENDING: usize = 16_384;
/// Room for so many is kept when all have been looked at.
const KEPT_PENDING: usize = 1_024;

/// The source of a live run's events, with the model that they make.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each tells of another part, and all of them may be true at the same time"
)]
pub struct Watch {
    capture: Capture,
    long_wait: Duration,
    looker: Looker,
    rules: Rules,
    thresholds: Thresholds,
    model: Model,
    inspect: bool,
    pending: VecDeque<Suspect>,
    looks: Looks,
    late: VecDeque<Late>,
    again: Allowance,
    hot: Vec<Hot>,
    plain: Plain,
    circles: Circles,
    pieces: Pieces,
    samples: Samples,
    /// Has a look told anything since circles were looked for?
    changed: bool,
    go: GoProcesses,
    backends: Backends,
    /// Do probes tell what backends of PostgreSQL wait for?
    probed: bool,
    /// Processes whose memory may not be read.
    closed: HashMap<u32, Instant>,
    symbol_budget: Option<u64>,
    /// Nobody wants the events: the model is all that is asked for.
    silent: bool,
    /// When free memory was given back to the system last.
    trimmed: Instant,
}

/// Free memory is given back this often, and after a burst of looks: it takes a millisecond or two.
const TRIM: Duration = Duration::from_secs(10);
const TRIM_AFTER_BURST: Duration = Duration::from_secs(1);

/// A process that could not be looked at is tried again after this long.
const CLOSED_FOR: Duration = Duration::from_secs(10);

impl Watch {
    /// Starts the capture. `inspect`: look at blocked threads, and at the goroutines of the processes named.
    ///
    /// # Errors
    /// Those of [`Capture::start`].
    pub fn start(options: Options, inspect: bool) -> Result<Watch> {
        let pids = options.pids.clone();
        let interval = options.interval;
        let is_postgres =
            |class| matches!(class, LockClass::PostgresLock | LockClass::PostgresLwlock);
        let probed = options.usdt.iter().any(|pair| is_postgres(pair.class));
        let long_wait = options.long_wait;
        let capture = Capture::start(options)?;
        Ok(Watch {
            capture,
            long_wait,
            go: if inspect {
                GoProcesses::open(&pids, interval)
            } else {
                GoProcesses::default()
            },
            looker: Looker::default(),
            rules: Rules::default(),
            thresholds: Thresholds::default(),
            model: Model::default(),
            inspect,
            pending: VecDeque::new(),
            looks: Looks::default(),
            late: VecDeque::new(),
            again: Allowance::default(),
            hot: Vec::new(),
            plain: Plain::default(),
            circles: Circles::default(),
            pieces: Pieces::default(),
            samples: Samples::default(),
            changed: false,
            backends: Backends::default(),
            probed,
            closed: HashMap::new(),
            symbol_budget: None,
            silent: false,
            trimmed: Instant::now(),
        })
    }

    /// The same with other thresholds of the rules. Where there are no filters, goroutines of some of the host's Go
    /// processes are looked at too.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn start_wide(options: Options, inspect: bool, thresholds: Thresholds) -> Result<Watch> {
        let mut watch = Watch::start(options, inspect)?;
        watch.set_thresholds(thresholds);
        if !watch.capture.is_filtered() {
            watch.look_for_go(GO_PROCESSES);
        }
        Ok(watch)
    }

    /// Has the rules go by other thresholds. To be called before [`Watch::meta`], which tells them.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.rules = Rules::new(thresholds);
        self.thresholds = thresholds;
    }

    /// The first event.
    pub fn meta(&mut self) -> Event {
        let mut meta = self.capture.meta();
        if let Event::Meta(meta) = &mut meta {
            meta.capture.missing.extend_from_slice(self.go.missing());
            if self.inspect {
                meta.capture.runtimes = process::runtimes(&meta.filters.pids);
            }
            meta.filters.thresholds = self.thresholds.changed();
        }
        self.model.apply(meta.clone());
        meta
    }

    /// Appends no events any more, for who wants the model only: with ten thousand waits they are a lot to copy. Or
    /// appends them again.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// Looks at goroutines of the host's Go processes as well from now on, of so many at most.
    pub fn look_for_go(&mut self, most: usize) {
        self.go.look_for(most);
    }

    /// Completes containers with what a cluster says of their pods.
    pub fn set_pods(&mut self, pods: Arc<Pods>) {
        self.capture.set_pods(pods);
    }

    /// Forgets symbols and what looks told: they are read anew when they are needed.
    pub fn forget(&mut self) {
        self.looker = Looker::default();
        self.capture.forget_symbols();
        self.set_symbol_budget(self.symbol_budget);
    }

    /// Reads files of this size at most at the same time for names.
    pub fn set_symbol_budget(&mut self, bytes: Option<u64>) {
        self.symbol_budget = bytes;
        if let Some(bytes) = bytes {
            // Two readers: the one with source lines, of long waits, takes most.
            self.looker.set_budget(bytes / 4 * 3);
            self.capture.set_budget(bytes / 4);
        }
    }

    /// Sizes of the files that were read for names, and are not given back yet.
    pub fn symbol_bytes(&self) -> u64 {
        self.looker.bytes() + self.capture.symbol_bytes()
    }

    /// What was lost so far.
    pub fn loss(&self) -> Event {
        Event::from(self.capture.loss_now())
    }

    /// What is known by now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Moves the model's time forward.
    pub fn advance(&mut self) {
        self.model.advance(crate::time::mono_ns());
    }

    /// Have all processes that were asked for ended?
    pub fn targets_ended(&self) -> bool {
        self.capture.targets_ended()
    }

    /// Appends what happened since the last call. True: there is more right now.
    pub fn poll(&mut self, out: &mut Vec<Event>) -> bool {
        let from = out.len();
        let more = self.capture.poll(out);
        // A burst of looks leaves the heap full of holes, which the allocator keeps by itself.
        let mut much_freed =
            self.capture.rest() | self.looker.rest() | (self.trimmed.elapsed() > TRIM);
        if self.inspect {
            let began = Instant::now();
            let new = self.capture.suspects();
            if !new.is_empty() {
                self.queue(new);
            }
            self.look_at_pending(began);
            much_freed |= self.give_back_queue() && self.trimmed.elapsed() > TRIM_AFTER_BURST;
            self.look_at_hot_again();
            self.hold_back(out, from);
            self.complete(&mut out[from..]);
            self.backends.complete(&mut out[from..], &mut self.looker);
            self.tell_pieces(out);
            self.sample();
            self.forget_ended();
            // Before the reports, which take their time, and after them: a circle needs two looks.
            self.find_deadlocks(out);
            self.tell_late(out, Instant::now());
            self.find_deadlocks(out);
            self.tell_runtimes(out);
            let model = &self.model;
            if let Some(mut event) = self.go.poll(|mono_ns| model.wall_time_at(mono_ns)) {
                if let Event::Goroutines(goroutines) = &mut event {
                    goroutines.container = self.capture.container_of(goroutines.pid);
                }
                self.capture.count_events(1);
                out.push(event);
            }
        }
        self.digest(out, from);
        if much_freed {
            self.trimmed = Instant::now();
            capture::give_back_memory();
        }
        more
    }

    /// Forgets the looks at waits that are over.
    fn forget_ended(&mut self) {
        let over = self.capture.no_longer_waiting();
        let capture = &self.capture;
        let is_waiting = |tid, known: &Known| capture.is_waiting(tid, known.start_ns);
        self.looks.forget(over, is_waiting);
    }

    /// Tells of the runtimes of the processes that were looked at.
    fn tell_runtimes(&mut self, out: &mut Vec<Event>) {
        let mono_ns = crate::time::mono_ns();
        let time = self.model.wall_time_at(mono_ns);
        for (process, found) in self.looker.new_runtimes() {
            out.push(Event::from(RuntimeFound {
                time,
                mono_ns,
                process: Some(process),
                found,
            }));
            self.capture.count_events(1);
        }
    }

    /// Appends the last events.
    pub fn finish(&mut self, reason: Reason, out: &mut Vec<Event>) {
        let from = out.len();
        self.tell_rest(out);
        self.capture.finish(reason, out);
        for event in &mut out[from..] {
            if let Event::Blocked(blocked) = event {
                self.recall(blocked);
            }
        }
        self.complete(&mut out[from..]);
        self.backends.complete(&mut out[from..], &mut self.looker);
        let found = self.digest(out, from);
        if let Some(Event::End(end)) = out.last_mut() {
            end.events += found;
        }
    }

    /// Feeds the model and the rules; returns how many findings there are.
    fn digest(&mut self, out: &mut Vec<Event>, from: usize) -> u64 {
        let mut found = 0;
        for event in out.split_off(from) {
            found += if self.silent {
                digest::absorb(&mut self.model, &mut self.rules, event)
            } else {
                digest::feed(&mut self.model, &mut self.rules, event, out)
            };
        }
        self.capture.count_events(found);
        found
    }

    /// Queues waits for a look: first those that look like waits for a lock that somebody holds.
    fn queue(&mut self, new: Vec<Suspect>) {
        for suspect in new {
            if self.pending.len() >= MAX_PENDING {
                break;
            }
            if suspect.timed {
                self.pending.push_back(suspect);
            } else {
                self.pending.push_front(suspect);
            }
        }
    }

    /// Gives the queue's memory back when it is empty. True: it was long.
    fn give_back_queue(&mut self) -> bool {
        let was_long = self.pending.is_empty() && self.pending.capacity() > KEPT_PENDING;
        if was_long {
            self.pending.shrink_to(KEPT_PENDING);
        }
        was_long
    }

    fn look_at_pending(&mut self, began: Instant) {
        let mut registers = Given::default();
        while began.elapsed() < LOOKING
            && let Some(suspect) = self.pending.pop_front()
        {
            let tid = suspect.blocked.task.tid;
            if !self.capture.is_waiting(tid, suspect.start_ns) {
                continue;
            }
            // Its report came first, and with a look.
            if self.is_looked_at(tid, suspect.start_ns) {
                continue;
            }
            if let Some(look) = self.look(&suspect.blocked, &mut registers) {
                let mut blocked = suspect.blocked;
                take(&mut blocked, &look);
                self.remember(&blocked, suspect.start_ns, look);
            }
        }
    }

    /// Has there been a look at this wait?
    fn is_looked_at(&self, tid: u32, start_ns: u64) -> bool {
        let known = self.looks.get(tid);
        known.is_some_and(|known| known.start_ns == start_ns)
    }

    fn remember(&mut self, blocked: &Blocked, start_ns: u64, look: Look) {
        let tid = blocked.task.tid;
        let parts = match self.looks.remove(tid) {
            Some(known) if known.start_ns == start_ns => known.parts,
            _ => Parts::from(crate::time::mono_ns()),
        };
        let told = look.told.as_ref();
        let known = Known {
            start_ns,
            since_ns: told.map_or(start_ns, |told| {
                let holder = told.holder.as_ref().and_then(|holder| holder.tid);
                self.pieces.since(tid, &told.lock.id, holder, start_ns)
            }),
            blocked: blocked.clone(),
            told: look.told.is_some(),
            stack: look.stack,
            parts,
            asked: Instant::now(),
        };
        self.looks.insert(tid, known);
        self.changed = true;
    }

    /// One look; `None`: the thread is gone, has moved, or may not be looked at.
    fn look(&mut self, blocked: &Blocked, registers: &mut Given) -> Option<Look> {
        let (pid, tid) = (blocked.task.pid, blocked.task.tid);
        if self
            .closed
            .get(&pid)
            .is_some_and(|since| since.elapsed() < CLOSED_FOR)
        {
            return None;
        }
        let given = registers.of(&mut self.capture, pid, tid);
        let capture = &self.capture;
        let waker = |futex| capture.waker(pid, futex);
        match self.looker.look(pid, tid, given, Some(&waker)) {
            Ok(mut look) => {
                if let Some(told) = &mut look.told {
                    if told.kind == Kind::PostgresLock {
                        if self.probed {
                            look.told = None;
                        }
                    } else if let Some(holder) = &mut told.holder {
                        self.describe_holder(holder);
                    }
                }
                let by_java = look
                    .told
                    .as_ref()
                    .is_some_and(|told| told.kind != Kind::PostgresLock);
                if let Some(lock) = &mut look.lock {
                    // A Java thread waits for everything with a futex of its own.
                    let (class, name) = if by_java {
                        (LockClass::JvmRuntime, None)
                    } else {
                        (lock.class, lock.name.as_ref())
                    };
                    self.capture.learn(pid, lock.futex, class, name);
                    if let Some(holder) = &mut lock.holder {
                        self.describe_holder(holder);
                    }
                }
                if let Some(file) = &mut look.file {
                    self.describe_holder(&mut file.holder);
                }
                Some(look)
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.closed.retain(|_, since| since.elapsed() < CLOSED_FOR);
                self.closed.insert(pid, Instant::now());
                None
            }
            Err(_) => None,
        }
    }

    /// Says which lock a holder waits for itself, and for how long, where that is known.
    fn describe_holder(&self, holder: &mut Holder) {
        if holder.state != Some(HolderState::Waiting) {
            return;
        }
        let Some(tid) = holder.tid else { return };
        let known = self.looks.get(tid).map(|known| &known.blocked);
        let blocked = self.model.blocked_task(tid).map(|wait| &wait.event);
        let Some(wait) = known.or(blocked) else {
            return;
        };
        // That wait may be over, and the thread in another call: it may have been for this very lock.
        let call = wait.syscall.as_deref();
        let still = holder
            .doing
            .as_deref()
            .and_then(|doing| doing.strip_prefix("in "))
            .is_none_or(|doing| call.is_none_or(|call| doing.starts_with(call)));
        if !still {
            return;
        }
        let lock = wait.lock.as_ref().filter(|_| wait.kind != Kind::Futex);
        let what = match (lock, &holder.doing) {
            (Some(lock), _) => format!("waiting for {lock}"),
            (None, Some(doing)) => doing.to_string(),
            (None, None) => return,
        };
        let start_ns = wait.mono_ns.saturating_sub(wait.age_ns);
        let age_ns = crate::time::mono_ns().saturating_sub(start_ns);
        holder.doing = Some(format!("{what} for {}", human(age_ns)).into());
    }

    /// Adds to events what looks told.
    fn complete(&mut self, events: &mut [Event]) {
        let mut hot = Vec::new();
        let began = Instant::now();
        let mut registers = Given::default();
        for event in events.iter_mut() {
            match event {
                Event::Wait(wait) => {
                    let start_ns = wait.mono_ns.saturating_sub(wait.dur_ns);
                    if let Some(known) = self.looks.get(wait.task.tid)
                        && known.start_ns.abs_diff(start_ns) < 1_000_000
                    {
                        let wait = Arc::make_mut(wait);
                        wait.holder.clone_from(&known.blocked.holder);
                        // A file's lock is known by a look only.
                        if wait.lock.is_none() || known.told {
                            wait.lock.clone_from(&known.blocked.lock);
                        }
                        if known.told {
                            wait.kind = known.blocked.kind;
                            call(&mut wait.task, known.blocked.task.comm.as_ref());
                            if wait.outcome != Some(Outcome::Woken) {
                                self.pieces.ended(known, wait.mono_ns);
                            }
                        }
                        wait.causes = known.parts.of(wait.dur_ns);
                        wait.stack =
                            Some(Box::new(with_kernel(&known.stack, wait.stack.as_deref())));
                    }
                }
                Event::Lock(totals) => {
                    if let Some(tid) = self.looks.latest(&totals.lock.id) {
                        totals.holder = self.holder_now(tid, began, &mut registers);
                    }
                    if hot::is_open(totals) {
                        hot.push(&mut **totals);
                    }
                }
                _ => {}
            }
        }
        self.look_at_hot(hot);
    }
}
