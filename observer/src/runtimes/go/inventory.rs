//! What is known of a Go process at one moment: plain data.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::event::{Addr, GoGc, GoProcessorState};
pub use crate::event::{GoFrame, GoState as State};

/// All goroutines of a process, what they wait for, and who else has to do with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inventory {
    /// The process.
    pub pid: u32,
    /// The release of Go: `go1.24.11`.
    pub release: String,
    /// The release whose layout was used, if not this one's own: it passed the checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout_of: Option<String>,
    /// The machine that the program is for, if Go programs for it were only read where an emulator ran them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untested: Option<&'static str>,
    /// The layout is that of the program's own debug information.
    pub debug_info: bool,
    /// `CLOCK_MONOTONIC` when the look began, in nanoseconds.
    pub mono_ns: u64,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// Goroutines as `runtime.NumGoroutine` counts them: without the runtime's own. Those that were
    /// left out or torn are among them, as far as they are known to live.
    pub total: usize,
    /// Goroutines that changed while they were read, each time they were looked at: they are left out.
    pub torn: usize,
    /// Looks that had to be repeated.
    pub retried: usize,
    /// Goroutines that were left out because a limit was reached.
    pub left_out: usize,
    /// Goroutines whose stack does not lead back to its beginning.
    pub broken_stacks: usize,
    /// Words on stacks were left out of the search for who holds what: it is not complete.
    pub partial_references: bool,
    /// The goroutines, the runtime's own included, by `goid`.
    pub goroutines: Vec<Goroutine>,
    /// Channels that somebody waits for, by address.
    pub channels: Vec<Channel>,
    /// Locks that somebody waits for, by address.
    pub locks: Vec<Lock>,
    /// What the scheduler is at, if it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Which channels nobody else can reach could not be told because the process was busy: another look may
    /// tell.
    #[serde(skip)]
    pub searched_in_vain: bool,
    /// What is not known, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What the runtime's scheduler is at: numbers that were read one after the other, while it went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scheduler {
    /// Processors that have nothing to do.
    pub idle_processors: u32,
    /// Goroutines in the queue that all processors share.
    pub run_queue: u32,
    /// Threads that there are.
    pub threads: u64,
    /// Threads that are parked because there is nothing to do for them.
    pub idle_threads: u32,
    /// Threads that look for goroutines to run.
    pub spinning_threads: u32,
    /// Threads in a system call or in C.
    pub syscall_threads: u32,
    /// Everything is being stopped, or is.
    pub stopping: bool,
    /// What the garbage collector does; absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc: Option<GoGc>,
    /// The processors, by number: as many as goroutines that can run at once.
    pub processors: Vec<Processor>,
}

/// What runs goroutines on a thread (a P of the runtime).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// Its number.
    pub id: u32,
    /// What it does; absent: something that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<GoProcessorState>,
    /// Goroutines in its own queue.
    pub run_queue: u32,
    /// One more is to run next.
    pub next: bool,
    /// Its thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
}

/// A goroutine.
#[derive(Clone, Debug, Serialize)]
pub struct Goroutine {
    /// Its number; never used again in the same process.
    pub goid: u64,
    /// What it does.
    pub state: State,
    /// Why it waits, in the runtime's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_reason: Option<Arc<str>>,
    /// Where it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Arc<GoFrame>>,
    /// Who started it; it may have ended. Known from Go 1.21 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_goid: Option<u64>,
    /// The function that it began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Arc<str>>,
    /// Its calls, the innermost first; absent while it runs.
    #[serde(flatten)]
    pub stack: Arc<GoStack>,
    /// Labels (`pprof.Do`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Arc<BTreeMap<String, String>>,
    /// The thread that runs it, or that it made a system call on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// It may run on one thread only (`runtime.LockOSThread`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub locked_to_thread: bool,
    /// It belongs to the runtime.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// What it waits for; more than one in a `select`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<WaitsFor>,
    /// `CLOCK_MONOTONIC` when it was seen first, in nanoseconds: it is at least so old. A [`Tracker`]
    /// fills it in.
    ///
    /// [`Tracker`]: super::Tracker
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_ns: Option<u64>,
    /// The same, of the wait that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since_ns: Option<u64>,
}

/// Calls of a goroutine.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, Serialize)]
pub struct GoStack {
    /// The innermost first.
    #[serde(rename = "stack", skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Arc<GoFrame>>,
    /// The outermost are missing.
    #[serde(rename = "stack_cut", skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Something that a goroutine waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum WaitsFor {
    /// A channel, in [`Inventory::channels`].
    Channel {
        /// Its address.
        addr: Addr,
        /// What is to be done with it.
        #[serde(skip_serializing_if = "Option::is_none")]
        operation: Option<ChannelOperation>,
        /// One of several.
        select: bool,
    },
    /// A lock, in [`Inventory::locks`].
    Lock {
        /// Its address.
        addr: Addr,
        /// How it is asked for.
        mode: LockMode,
    },
    /// A file, socket or pipe.
    Io {
        /// Its descriptor.
        fd: u32,
        /// What for.
        operation: IoOperation,
    },
    /// A moment.
    Deadline {
        /// On `CLOCK_MONOTONIC`, in nanoseconds.
        mono_ns: u64,
    },
}

/// What a goroutine wants of a channel.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOperation {
    /// To send.
    Send,
    /// To receive.
    Receive,
}

/// What a goroutine wants of a file.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IoOperation {
    /// To read, or to accept a connection.
    Read,
    /// To write, or to finish a connect.
    Write,
}

/// How a goroutine wants a lock.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// For itself.
    Exclusive,
    /// Together with other readers.
    Shared,
    /// Until a count is zero (`WaitGroup.Wait`), or a semaphore lets it pass.
    Pass,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// Its address.
    pub addr: Addr,
    /// Elements in it.
    pub len: u64,
    /// Elements that fit in.
    pub cap: u64,
    /// Bytes of an element.
    pub elem_size: u16,
    /// It is closed.
    pub closed: bool,
    /// The runtime sends to it at a time (`time.After`). Known from Go 1.23 on.
    pub timer: bool,
    /// Goroutines that wait to receive.
    pub receivers: usize,
    /// Goroutines that wait to send.
    pub senders: usize,
    /// Other goroutines that have its address on their stack: at most a few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_stacks_of: Vec<u64>,
    /// Can anybody get at it who may ever go on? Absent: not looked for, or not known, as the notes say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// Its address.
    pub addr: Addr,
    /// What it is, and its state.
    #[serde(flatten)]
    pub state: LockState,
    /// Goroutines that were found waiting.
    pub waiting: usize,
    /// Who probably holds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

/// A lock's class and what its words say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "class")]
pub enum LockState {
    /// `sync.Mutex`
    #[serde(rename = "go_mutex")]
    Mutex(MutexState),
    /// `sync.RWMutex`
    #[serde(rename = "go_rwmutex")]
    RwMutex {
        /// The lock that writers take first.
        writers: MutexState,
        /// A writer has it, or waits for readers to leave.
        writer: bool,
        /// Readers that have it, or wait for it.
        readers: u32,
        /// Readers that a writer waits for.
        readers_pending: u32,
    },
    /// `sync.WaitGroup`
    #[serde(rename = "go_waitgroup")]
    WaitGroup {
        /// Calls of `Done` that are missing.
        counter: u32,
        /// Goroutines in `Wait`.
        waiters: u32,
    },
    /// A semaphore of the runtime, or one that is in no class.
    #[serde(rename = "go_runtime")]
    Semaphore,
}

/// The state of a `sync.Mutex`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MutexState {
    /// Somebody has it.
    pub locked: bool,
    /// Somebody waits for more than 1 ms and is given it next.
    pub starving: bool,
    /// Goroutines that it counts as waiting.
    pub waiters: u32,
}

/// Somebody who may have a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The goroutine.
    pub goid: u64,
    /// How sure: Go does not record owners, so it is never more than `likely`.
    pub confidence: &'static str,
    /// What speaks for it.
    pub evidence: String,
}

impl Goroutine {
    /// Does it wait for something, without end in sight?
    pub fn is_blocked(&self) -> bool {
        matches!(self.state, State::Waiting | State::Leaked)
    }

    /// The channels that it waits for.
    pub fn channels(&self) -> impl Iterator<Item = Addr> {
        self.waits_for.iter().filter_map(|what| match what {
            WaitsFor::Channel { addr, .. } => Some(*addr),
            _ => None,
        })
    }

    /// The lock that it waits for, and how.
    pub fn lock(&self) -> Option<(Addr, LockMode)> {
        self.waits_for.iter().find_map(|what| match what {
            WaitsFor::Lock { addr, mode } => Some((*addr, *mode)),
            _ => None,
        })
    }
}

impl Inventory {
    /// The goroutine of this number.
    pub fn goroutine(&self, goid: u64) -> Option<&Goroutine> {
        let at = self.goroutines.binary_search_by_key(&goid, |g| g.goid);
        self.goroutines.get(at.ok()?)
    }

    /// The channel at this address.
    pub fn channel(&self, addr: Addr) -> Option<&Channel> {
        let at = self.channels.binary_search_by_key(&addr.0, |c| c.addr.0);
        self.channels.get(at.ok()?)
    }

    /// The lock at this address.
    pub fn lock(&self, addr: Addr) -> Option<&Lock> {
        let at = self.locks.binary_search_by_key(&addr.0, |l| l.addr.0);
        self.locks.get(at.ok()?)
    }

    /// How many of the program's own goroutines are in each state.
    pub fn by_state(&self) -> BTreeMap<State, usize> {
        let mut counts = BTreeMap::new();
        for goroutine in self.goroutines.iter().filter(|g| !g.system) {
            *counts.entry(goroutine.state).or_default() += 1;
        }
        counts
    }
}
