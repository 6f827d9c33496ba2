//! The public event: what observer says about a host, and its JSON form.
//!
//! One JSON object a line. Names are snake_case, durations are integers in nanoseconds (`_ns`),
//! `time` is RFC 3339 with nanoseconds, `mono_ns` is `CLOCK_MONOTONIC`, addresses are `"0x…"` strings.
//! A field that is not known is absent, never 0 or "". Fields are only ever added; readers ignore
//! fields and event types they do not know. docs/events.md describes each for users.

mod container;
mod end;
mod finding;
mod goroutines;
mod kind;
mod lock;
mod meta;
mod stack;

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::stack::{Frame, Stack, StackEnd};
pub use self::{
    container::{ContainerRef, ContainerRuntime},
    end::{BudgetStep, Cost, CostReport, End, Loss, Reason},
    finding::{Deadlock, DeadlockTask, Finding, Severity, Subject},
    goroutines::{
        GoChannel, GoFrame, GoGc, GoHolder, GoLabel, GoLock, GoLostChannel, GoOperation,
        GoProcessor, GoProcessorState, GoScheduler, GoStarvedWriter, GoState, GoWaitsFor,
        GoroutineDeadlock, GoroutineGroup, GoroutineSite, GoroutineStep, Goroutines, SocketRef,
    },
    kind::{Kind, Outcome},
    lock::{Access, Cause, Confidence, Holder, HolderState, LockClass, LockRef},
    meta::{Attached, Capture, Filters, Meta, Missing, RuntimeFound, RuntimeOf},
};
pub use crate::budget::Step;
use crate::time::WallTime;

/// An enumeration whose values have the same names in JSON and in the program.
macro_rules! named {
    (
        $(#[$attribute:meta])*
        $name:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)* }
    ) => {
        $(#[$attribute])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize,
            serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $value,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [$name] = &[$($name::$value,)*];

            /// The name in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$value => $text,)*
                }
            }

            /// That of a name in JSON.
            pub fn of_name(name: &str) -> Option<$name> {
                match name {
                    $($text => Some($name::$value),)*
                    _ => None,
                }
            }
        }
    };
}
use named;

/// Version of the event format, in [`Meta::schema`].
pub const SCHEMA: u32 = 1;

/// One line of the stream.
///
/// Each kind lies in memory of its own, so that an event is two words where it is handed on from room to room; what the
/// model keeps as it is, it shares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// First line: what was observed, and how.
    Meta(Box<Meta>),
    /// A wait at least as long as the threshold ended.
    Wait(Arc<Wait>),
    /// A wait is in progress and has passed `--long-wait`; again at each doubling of its age.
    Blocked(Box<Blocked>),
    /// Totals of one lock since the start.
    Lock(Box<LockTotals>),
    /// Totals of one task since the start.
    Task(Arc<TaskTotals>),
    /// Tasks that wait for each other in a circle; once each.
    Deadlock(Arc<Deadlock>),
    /// A process has a runtime that observer knows; once each.
    Runtime(Box<RuntimeFound>),
    /// Probes of a file that nobody mapped at the start are attached to.
    Attached(Box<Attached>),
    /// The goroutines of a Go process at one moment.
    Goroutines(Box<Goroutines>),
    /// A rule made a diagnosis.
    Finding(Arc<Finding>),
    /// What was lost, cumulative.
    Loss(Box<Loss>),
    /// What observing has cost so far; each `--interval`.
    Cost(Box<CostReport>),
    /// The overhead budget makes observer do less, or more again.
    Budget(Box<BudgetStep>),
    /// Last line: totals and observer's own cost.
    End(Box<End>),
}

const _: () = assert!(size_of::<Event>() == 2 * size_of::<usize>());

impl Event {
    /// Wall-clock time and `CLOCK_MONOTONIC` nanoseconds of the event.
    pub fn when(&self) -> (WallTime, u64) {
        macro_rules! of {
            ($($kind:ident)*) => {
                match self {
                    $(Event::$kind(event) => (event.time, event.mono_ns),)*
                }
            };
        }
        of!(Meta Wait Blocked Lock Task Deadlock Runtime Attached Goroutines Finding Loss Cost Budget End)
    }

    /// `CLOCK_MONOTONIC` nanoseconds of the event.
    pub fn mono_ns(&self) -> u64 {
        self.when().1
    }
}

/// Events of what lies in memory of its own.
macro_rules! made_of {
    ($($kind:ident($type:ident),)*) => {
        $(
            impl From<$type> for Event {
                fn from(event: $type) -> Event {
                    Event::$kind(event.into())
                }
            }
        )*
    };
}

made_of! {
    Meta(Meta), Wait(Wait), Blocked(Blocked), Lock(LockTotals), Task(TaskTotals), Deadlock(Deadlock),
    Runtime(RuntimeFound), Attached(Attached), Goroutines(Goroutines), Finding(Finding), Loss(Loss), Cost(CostReport),
    Budget(BudgetStep), End(End),
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRef {
    /// Process (thread group).
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Name of the thread.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub comm: Option<Arc<str>>,
    /// Name of the process: that of its first thread.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub process: Option<Arc<str>>,
    /// The container that the process runs in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Arc<ContainerRef>>,
    /// The process's number in its own namespace, where that is another one than observer's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ns_pid: Option<u32>,
    /// The thread's number there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ns_tid: Option<u32>,
    /// The goroutine that waited, of waits that a Go runtime told of (`--go-events`): the thread is the one that ran
    /// it before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub goid: Option<u64>,
}

impl TaskRef {
    /// One of which only the numbers are known.
    pub fn new(pid: u32, tid: u32) -> TaskRef {
        TaskRef {
            pid,
            tid,
            comm: None,
            process: None,
            container: None,
            ns_pid: None,
            ns_tid: None,
            goid: None,
        }
    }
}

/// Name and number of the thread.
impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(goid) = self.goid {
            write!(f, "goroutine {goid} on ")?;
        }
        write!(f, "{}/{}", self.comm.as_deref().unwrap_or("?"), self.tid)
    }
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
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub comm: Option<Arc<str>>,
    /// The goroutine, of waits of goroutines; absent where the runtime itself did it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub goid: Option<u64>,
}

/// A wait that ended. `mono_ns` is its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wait {
    /// Wall-clock time of the end.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds of the end.
    pub mono_ns: u64,
    /// Who waited.
    pub task: Arc<TaskRef>,
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
    pub lock: Option<Arc<LockRef>>,
    /// All locks of a wait for several (`futex_waitv`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub locks: Vec<Arc<LockRef>>,
    /// How the task wanted the lock, in the words of the runtime that the lock belongs to.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub mode: Option<Arc<str>>,
    /// Who held the lock, where the wait was looked at while it lasted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<Box<Holder>>,
    /// What the time was spent on, by what the holder did when it was looked at; sums to `dur_ns`. Only for
    /// waits that were looked at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub causes: BTreeMap<Cause, u64>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waker: Option<Arc<Waker>>,
    /// System call the task waited in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub syscall: Option<Cow<'static, str>>,
    /// The USDT probe that began it, `PROVIDER:NAME`. What the system sees of the same wait is reported too,
    /// as waits of their own.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub probe: Option<Arc<str>>,
    /// The USDT probe that ended it, `PROVIDER:NAME`, if it was not the usual one of its pair.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub ended_by: Option<Arc<str>>,
    /// Where it waited, if its stack was within the budget.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stack: Option<Box<Stack>>,
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
    pub task: Arc<TaskRef>,
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
    pub lock: Option<Arc<LockRef>>,
    /// All locks of a wait for several (`futex_waitv`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub locks: Vec<Arc<LockRef>>,
    /// What the task wants with the lock, where it matters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<Access>,
    /// The same in the words of the runtime that the lock belongs to.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub mode: Option<Arc<str>>,
    /// Who must act before the wait can end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<Box<Holder>>,
    /// System call the task waits in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub syscall: Option<Cow<'static, str>>,
    /// The USDT probe that began it, `PROVIDER:NAME`. What the system sees of the same wait is reported too,
    /// as waits of their own.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub probe: Option<Arc<str>>,
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
    pub lock: Arc<LockRef>,
    /// Process that waits (a shared lock may have several: the first seen); absent for a lock inside the
    /// kernel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
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
    /// Who holds it, as far as the latest look at a task that waits for it told.
    // Boxed: of a hundred thousand locks hardly any has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holder: Option<Box<Holder>>,
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
    pub task: Arc<TaskRef>,
    /// By kind of wait.
    pub kinds: BTreeMap<Kind, WaitTotals>,
    /// Waits for a CPU, from runnable to running.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runqueue: Option<WaitTotals>,
    /// True once short waits were sampled to keep to the overhead budget: the totals are estimates.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub estimated: bool,
}

/// An address in a process, `"0x…"` in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub u64);

impl Addr {
    /// No address at all: what it would be of has none.
    pub const NONE: Addr = Addr(0);

    /// Is this no address?
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the serializer passes a reference"
    )]
    pub(crate) fn is_none(&self) -> bool {
        *self == Addr::NONE
    }
}

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
        let expected = "an address: \"0x\" and hexadecimal digits";
        crate::de::by(deserializer, expected, |text| {
            let digits = text.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok().map(Addr)
        })
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
