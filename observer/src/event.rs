//! The public event: what observer says about a host, and its JSON form.
//!
//! One JSON object a line. Names are snake_case, durations are integers in nanoseconds (`_ns`),
//! `time` is RFC 3339 with nanoseconds, `mono_ns` is `CLOCK_MONOTONIC`, addresses are `"0x…"` strings.
//! A field that is not known is absent, never 0 or "". Fields are only ever added; readers ignore
//! fields and event types they do not know. docs/events.md describes each for users.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::budget::Step;
use crate::time::WallTime;

/// Version of the event format, in [`Meta::schema`].
pub const SCHEMA: u32 = 1;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// First line: what was observed, and how.
    Meta(Meta),
    /// A wait at least as long as the threshold ended.
    Wait(Wait),
    /// A wait is in progress and has passed `--long-wait`; again at each doubling of its age.
    Blocked(Blocked),
    /// Totals of one lock since the start.
    Lock(LockTotals),
    /// Totals of one task since the start.
    Task(TaskTotals),
    /// What was lost, cumulative.
    Loss(Loss),
    /// What observing has cost so far; each `--interval`.
    Cost(CostReport),
    /// The overhead budget makes observer do less, or more again.
    Budget(BudgetStep),
    /// Last line: totals and observer's own cost.
    End(End),
}

impl Event {
    /// `CLOCK_MONOTONIC` nanoseconds of the event.
    pub fn mono_ns(&self) -> u64 {
        match self {
            Event::Meta(e) => e.mono_ns,
            Event::Wait(e) => e.mono_ns,
            Event::Blocked(e) => e.mono_ns,
            Event::Lock(e) => e.mono_ns,
            Event::Task(e) => e.mono_ns,
            Event::Loss(e) => e.mono_ns,
            Event::Cost(e) => e.mono_ns,
            Event::Budget(e) => e.mono_ns,
            Event::End(e) => e.mono_ns,
        }
    }
}

/// The first line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Meta {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// Version of the event format.
    pub schema: u32,
    /// Version of observer.
    pub observer: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// CPUs that can be online.
    pub cpus: u32,
    /// What was asked for.
    pub filters: Filters,
    /// What was attached, how, and what is missing.
    pub capture: Capture,
}

/// Which tasks and waits are observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Filters {
    /// Processes; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    /// Task names; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comms: Vec<String>,
    /// Control groups, their descendants included; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// Waits at least this long are reported one by one.
    pub min_wait_ns: u64,
    /// Waits in progress at least this old are reported before they end.
    pub long_wait_ns: u64,
    /// Totals are reported this often.
    pub interval_ns: u64,
}

/// How the kernel is observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capture {
    /// How futex waits are known: `tracepoint` (system call tracepoints) or `sched` (the registers
    /// of the sleeping task).
    pub futex: String,
    /// Hooks in use.
    pub attached: Vec<String>,
    /// What this kernel or these privileges do not give, and what follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Tasks that can be followed at the same time.
    pub task_slots: u32,
    /// Locks that can be told apart at the same time.
    pub lock_slots: u32,
    /// Size of the ring buffer.
    pub ring_bytes: u32,
}

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// What.
    pub feature: String,
    /// Why, and what follows from it.
    pub why: String,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRef {
    /// Process (thread group).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Name of the thread.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comm: Option<Arc<str>>,
    /// Name of the process: that of its first thread.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Arc<str>>,
}

/// What a task waits in or for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A lock.
    Lock,
    /// A condition variable.
    Condvar,
    /// A semaphore.
    Semaphore,
    /// A barrier.
    Barrier,
    /// The end of another thread.
    Join,
    /// A futex whose type is not known.
    Futex,
    /// A file or a block device.
    Io,
    /// A socket.
    Socket,
    /// A pipe or a message queue.
    Pipe,
    /// One of several events: `poll`, `select`, `epoll_wait`.
    Poll,
    /// Time to pass, or a signal.
    Sleep,
    /// A child process.
    Child,
    /// A page to be read or made.
    PageFault,
    /// A CPU.
    Runqueue,
    /// A lock inside the kernel.
    KernelLock,
    /// None of the others.
    Other,
}

impl Kind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lock => "lock",
            Kind::Condvar => "condvar",
            Kind::Semaphore => "semaphore",
            Kind::Barrier => "barrier",
            Kind::Join => "join",
            Kind::Futex => "futex",
            Kind::Io => "io",
            Kind::Socket => "socket",
            Kind::Pipe => "pipe",
            Kind::Poll => "poll",
            Kind::Sleep => "sleep",
            Kind::Child => "child",
            Kind::PageFault => "page_fault",
            Kind::Runqueue => "runqueue",
            Kind::KernelLock => "kernel_lock",
            Kind::Other => "other",
        }
    }

    /// Is a task that waits like this most often idle, and not held up? A view may fold these away;
    /// no rule may accuse them.
    pub fn is_idle(self) -> bool {
        matches!(self, Kind::Poll | Kind::Sleep | Kind::Child)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What the task waited for came about.
    Woken,
    /// The time limit passed.
    Timeout,
    /// A signal ended the wait.
    Interrupted,
}

impl Outcome {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Woken => "woken",
            Outcome::Timeout => "timeout",
            Outcome::Interrupted => "interrupted",
        }
    }
}

/// What sort of lock it is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LockClass {
    /// A futex whose user is not known.
    Futex,
    /// A futex with priority inheritance.
    FutexPi,
    /// A mutex inside the kernel.
    KernelMutex,
    /// A reader-writer semaphore inside the kernel.
    KernelRwsem,
    /// The same with a counter on each CPU.
    KernelPercpuRwsem,
    /// A spinlock inside the kernel.
    KernelSpinlock,
    /// A reader-writer spinlock inside the kernel.
    KernelRwlock,
    /// A mutex with priority inheritance inside the kernel.
    KernelRtmutex,
    /// Another lock inside the kernel.
    KernelLock,
}

impl LockClass {
    /// Is it a lock inside the kernel?
    pub fn is_kernel(self) -> bool {
        matches!(
            self,
            LockClass::KernelMutex
                | LockClass::KernelRwsem
                | LockClass::KernelPercpuRwsem
                | LockClass::KernelSpinlock
                | LockClass::KernelRwlock
                | LockClass::KernelRtmutex
                | LockClass::KernelLock
        )
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            LockClass::Futex => "futex",
            LockClass::FutexPi => "futex_pi",
            LockClass::KernelMutex => "kernel_mutex",
            LockClass::KernelRwsem => "kernel_rwsem",
            LockClass::KernelPercpuRwsem => "kernel_percpu_rwsem",
            LockClass::KernelSpinlock => "kernel_spinlock",
            LockClass::KernelRwlock => "kernel_rwlock",
            LockClass::KernelRtmutex => "kernel_rtmutex",
            LockClass::KernelLock => "kernel_lock",
        }
    }
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockRef {
    /// Identity, stable within a run: `PID:0xADDRESS` for a private futex, `DEVICE:INODE+0xOFFSET` for
    /// a shared one, `kernel:0xADDRESS` for a lock inside the kernel.
    pub id: Arc<str>,
    /// What sort of lock it is.
    pub class: LockClass,
    /// Name, where one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Arc<str>>,
    /// Address in the waiting process, or in the kernel.
    pub addr: Addr,
    /// Can several processes share it?
    pub shared: bool,
}

/// One frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Address of the instruction.
    pub addr: Addr,
    /// Function.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Arc<str>>,
    /// Distance from the function's start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// File of the program or library.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub module: Option<Arc<str>>,
}

/// Where a task sleeps, innermost frames first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// User code, by frame pointers: frames of code that keeps none are missing.
    #[serde(skip_serializing_if = "no_frames", default = "empty_frames")]
    pub user: Arc<[Frame]>,
    /// Kernel code.
    #[serde(skip_serializing_if = "no_frames", default = "empty_frames")]
    pub kernel: Arc<[Frame]>,
}

fn no_frames(frames: &Arc<[Frame]>) -> bool {
    frames.is_empty()
}

fn empty_frames() -> Arc<[Frame]> {
    Arc::new([])
}

/// One of the places that a lock was waited for from, by the stacks that were sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caller {
    /// The stack.
    pub stack: Stack,
    /// Waits whose stack was taken and was this one.
    pub samples: u64,
    /// Their durations' sum.
    pub total_ns: u64,
}

/// The task that made another one runnable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waker {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Name of the thread.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comm: Option<Arc<str>>,
}

/// A wait that ended. `mono_ns` is its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wait {
    /// Wall-clock time of the end.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds of the end.
    pub mono_ns: u64,
    /// Who waited.
    pub task: TaskRef,
    /// In what.
    pub kind: Kind,
    /// For how long: `blocked_ns + runqueue_ns`.
    pub dur_ns: u64,
    /// Until somebody made the task runnable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blocked_ns: Option<u64>,
    /// From then until a CPU took it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runqueue_ns: Option<u64>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
    /// The lock; of several, the one that ended the wait.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<LockRef>,
    /// All locks of a wait for several (`futex_waitv`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub locks: Vec<LockRef>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waker: Option<Waker>,
    /// System call the task waited in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub syscall: Option<Cow<'static, str>>,
    /// Where it waited, if its stack was within the budget.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stack: Option<Stack>,
    /// True when the start was before observer's: the wait is at least this long.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub at_least: bool,
    /// True when the record of the end was lost: the wait ended within one scan of this duration.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub end_unseen: bool,
}

/// A wait in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blocked {
    /// Wall-clock time of the observation.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds of the observation.
    pub mono_ns: u64,
    /// Who waits.
    pub task: TaskRef,
    /// In what.
    pub kind: Kind,
    /// For how long so far.
    pub age_ns: u64,
    /// Time until somebody made the task runnable, if somebody has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blocked_ns: Option<u64>,
    /// Time on the run queue since then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runqueue_ns: Option<u64>,
    /// The lock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<LockRef>,
    /// All locks of a wait for several (`futex_waitv`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub locks: Vec<LockRef>,
    /// System call the task waits in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub syscall: Option<Cow<'static, str>>,
    /// Where it waits, if its stack was within the budget.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stack: Option<Stack>,
    /// True when the start was before observer's: the wait is at least this old.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub at_least: bool,
}

/// Count, sum and maximum of waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitTotals {
    /// Waits that ended.
    pub waits: u64,
    /// Their durations' sum.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// One bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// Durations below this are in the bucket (and not below the previous one's); absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lt_ns: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Totals of one lock since the start of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LockTotals {
    /// Wall-clock time of the reading.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds of the reading.
    pub mono_ns: u64,
    /// Which lock.
    pub lock: LockRef,
    /// Process that waits (a shared lock may have several: the first seen); absent for a lock inside the
    /// kernel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Arc<str>>,
    /// Waits that ended.
    pub waits: u64,
    /// Their durations' sum.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Median, interpolated within a bucket of the histogram.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p50_ns: Option<u64>,
    /// 99th percentile, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_ns: Option<u64>,
    /// Of them, ended by their time limit.
    pub timeouts: u64,
    /// Of them, ended by a signal.
    pub interrupted: u64,
    /// Tasks that wait for it now.
    pub waiters_now: u32,
    /// Durations, empty buckets left out.
    pub histogram: Vec<Bucket>,
    /// Where it is waited for from, the most frequent of the sampled stacks first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub callers: Vec<Caller>,
    /// True once short waits were sampled to keep to the overhead budget: the totals are estimates.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub estimated: bool,
}

/// Totals of one task since the start of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskTotals {
    /// Wall-clock time of the reading.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds of the reading.
    pub mono_ns: u64,
    /// Which task.
    pub task: TaskRef,
    /// By kind of wait.
    pub kinds: BTreeMap<Kind, WaitTotals>,
    /// Waits for a CPU, from runnable to running.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runqueue: Option<WaitTotals>,
    /// True once short waits were sampled to keep to the overhead budget: the totals are estimates.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub estimated: bool,
}

/// What was lost since the start, by cause; causes that are zero are listed too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// Sum of the counters.
    pub total: u64,
    /// By cause.
    pub counters: BTreeMap<Cow<'static, str>, u64>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The duration asked for was over.
    Duration,
    /// A signal, Ctrl-C or the user.
    Stopped,
    /// Every process that was watched has ended.
    TargetEnded,
}

/// What observing cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPU time of observer's process.
    pub cpu_ns: u64,
    /// Resident memory of observer's process.
    pub rss_bytes: u64,
    /// Run time of the kernel programs, estimated from samples of the kernel's statistics.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bpf_run_ns: Option<u64>,
}

/// What observing has cost so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CostReport {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// The cost.
    #[serde(flatten)]
    pub cost: Cost,
}

/// A step that the overhead budget took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetStep {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// What is done from now on.
    pub step: Step,
    /// Share of the host's CPU time that observing used, in percent.
    pub overhead_percent: f64,
    /// What it may use.
    pub limit_percent: f64,
}

/// The last line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// Why the run ended.
    pub reason: Reason,
    /// How long it was.
    pub dur_ns: u64,
    /// Events before this one.
    pub events: u64,
    /// Waits that ended, those below the threshold included.
    pub waits: u64,
    /// Their durations' sum.
    pub total_ns: u64,
    /// True once short waits were sampled to keep to the overhead budget: the totals are estimates.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub estimated: bool,
    /// What observing cost.
    #[serde(flatten)]
    pub cost: Cost,
}

/// An address in a process, `"0x…"` in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub u64);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Addr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Addr)
            .ok_or_else(|| serde::de::Error::custom("an address is \"0x\" and hexadecimal digits"))
    }
}

impl JsonSchema for Addr {
    fn schema_name() -> Cow<'static, str> {
        "Addr".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^0x[0-9a-f]{1,16}$",
            "description": "An address in a process."
        })
    }
}

/// The JSON Schema of one line, as in docs/events.schema.json.
pub fn schema() -> schemars::Schema {
    let mut schema = schemars::schema_for!(Event);
    schema.insert("title".into(), "One line of observer's event stream".into());
    schema
}
