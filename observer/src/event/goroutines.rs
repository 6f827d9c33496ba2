//! Goroutines of a Go process.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Addr, Confidence, ContainerRef, LockRef};
use crate::time::WallTime;

super::named! {
    /// What a goroutine does.
    GoState {
        /// Waits for a thread.
        Runnable = "runnable",
        /// Runs.
        Running = "running",
        /// In a system call, or in C.
        Syscall = "syscall",
        /// Waits for something.
        Waiting = "waiting",
        /// Was stopped so that others may run, or its stack looked at.
        Preempted = "preempted",
        /// Waits for something that nobody can reach; the garbage collector found so (Go 1.26 on).
        Leaked = "leaked",
        /// Its stack is being moved.
        Copying = "copying",
    }
}

super::named! {
    /// What Go's garbage collector does.
    GoGc {
        /// Nothing, or it sweeps.
        Off = "off",
        /// It looks for what is in use, while the program runs.
        Mark = "mark",
        /// It finishes that, while the program stands still.
        MarkTermination = "mark_termination",
    }
}

super::named! {
    /// What a processor of Go's scheduler does.
    GoProcessorState {
        /// Nothing.
        Idle = "idle",
        /// It runs goroutines, or looks for some.
        Running = "running",
        /// Its thread is in a system call (before Go 1.26).
        Syscall = "syscall",
        /// It was stopped.
        Stopped = "stopped",
    }
}

/// A call of a goroutine.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoFrame {
    /// The function, with its package.
    pub function: String,
    /// The file, as the compiler was given it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// The line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// It was inlined into the next frame.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub inlined: bool,
    /// The address of the instruction behind the call.
    pub addr: Addr,
}

impl GoFrame {
    /// Is it the program's own, and not the runtime's or that of a package that locks and polls?
    pub fn is_program(&self) -> bool {
        let others = ["runtime.", "sync.", "internal/", "syscall.", "time.Sleep"];
        !others.iter().any(|other| self.function.starts_with(other))
    }
}

/// `main.serve (server.go:42)`.
impl std::fmt::Display for GoFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.function)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})"),
            _ => Ok(()),
        }
    }
}

/// The goroutines of a process at one moment, in groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Goroutines {
    /// Wall-clock time of the look.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds of the look.
    pub mono_ns: u64,
    /// Process.
    pub pid: u32,
    /// Its name.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub process: Option<Arc<str>>,
    /// The container that it runs in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Arc<ContainerRef>>,
    /// Release of Go.
    pub release: String,
    /// Release whose layout was used, if not this one's own: it passed the checks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layout_of: Option<String>,
    /// The machine that the program is for, if what is said of Go programs for it is untested: `arm64`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub untested: Option<String>,
    /// How long the look took.
    pub took_ns: u64,
    /// Goroutines as `runtime.NumGoroutine` counts them: without the runtime's own.
    pub total: u64,
    /// Of them, how many are in each state; those that are torn or left out are in none.
    pub by_state: BTreeMap<GoState, u64>,
    /// Those that are alike, the largest group first.
    pub groups: Vec<GoroutineGroup>,
    /// What the scheduler is at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scheduler: Option<GoScheduler>,
    /// Groups that are not listed: the smallest.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub groups_left_out: u64,
    /// The places that start goroutines, those with the most first.
    pub sites: Vec<GoroutineSite>,
    /// Locks that are waited for, those with the most waiters first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub locks: Vec<GoLock>,
    /// Channels that are waited for, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub channels: Vec<GoChannel>,
    /// Goroutines that wait for each other in a circle, at two looks.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub deadlocks: Vec<GoroutineDeadlock>,
    /// Writers that readers keep waiting.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub starved_writers: Vec<GoStarvedWriter>,
    /// Channels that nobody else can reach, at two searches.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lost_channels: Vec<GoLostChannel>,
    /// Goroutines that changed while they were read, each time that was tried: they are left out.
    pub torn: u64,
    /// Goroutines that were left out because a limit was reached.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub left_out: u64,
    /// What is not known, and why.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
}

impl Goroutines {
    /// The release for people: with the machine, if what is said of programs for it is untested.
    pub fn told_release(&self) -> Cow<'_, str> {
        match &self.untested {
            Some(machine) => format!("{} for {machine}, untested", self.release).into(),
            None => self.release.as_str().into(),
        }
    }
}

/// What Go's scheduler is at: what `GODEBUG=schedtrace` prints. The numbers are read one after the other while
/// it goes on, so they may be of slightly different moments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoScheduler {
    /// Goroutines that can run at once (`GOMAXPROCS`).
    pub processors: u64,
    /// Processors that have nothing to do.
    pub idle_processors: u64,
    /// Goroutines in the queue that all processors share.
    pub run_queue: u64,
    /// Goroutines in the processors' own queues, in the order of their numbers: at most 256 processors.
    pub run_queues: Vec<u64>,
    /// Goroutines that wait for a processor: all queues, and those that a processor runs next.
    pub queued: u64,
    /// Threads that there are.
    pub threads: u64,
    /// Threads that are parked because there is nothing to do for them.
    pub idle_threads: u64,
    /// Threads that look for goroutines to run.
    pub spinning_threads: u64,
    /// Threads in a system call or in C.
    pub syscall_threads: u64,
    /// What the garbage collector does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gc: Option<GoGc>,
    /// Everything is being stopped, or is.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub stopping: bool,
    /// Processors that do not stand idle.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub busy: Vec<GoProcessor>,
}

/// A processor of Go's scheduler that does not stand idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoProcessor {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub state: GoProcessorState,
    /// Its thread.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tid: Option<u32>,
}

/// Goroutines with the same state, reason, origin and calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoroutineGroup {
    /// How many.
    pub count: u64,
    /// What they do.
    pub state: GoState,
    /// Why they wait, in the runtime's words.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub wait_reason: Option<Arc<str>>,
    /// Where they were started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_by: Option<Arc<GoFrame>>,
    /// Their calls, the innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stack: Vec<Arc<GoFrame>>,
    /// True when the outermost calls are missing.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub stack_cut: bool,
    /// True when they belong to the runtime: they are not in `total`.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub system: bool,
    /// Age of the oldest, at least. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_ns: Option<u64>,
    /// The longest of their waits, at least. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub longest_wait_ns: Option<u64>,
    /// Goroutines more per minute from the place that started these. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub growth: Option<f64>,
    /// Some of them, those with the lowest numbers.
    pub goids: Vec<u64>,
    /// What they wait for, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waits_for: Vec<GoWaitsFor>,
    /// Other things that they wait for and that are not listed.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub waits_left_out: u64,
    /// Labels that the program gave them (`pprof.Do`), the most frequent first: at most a few.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub labels: Vec<GoLabel>,
    /// Threads that they run on, or are in a system call on: at most a few.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tids: Vec<u32>,
    /// Of them, how many may run on one thread only (`runtime.LockOSThread`).
    #[serde(skip_serializing_if = "is_zero", default)]
    pub locked_to_thread: u64,
    /// Until the first of those that sleep goes on; 0: it should have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wakes_in_ns: Option<u64>,
}

/// A label of goroutines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoLabel {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// How many of the group have it.
    pub count: u64,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SocketRef {
    /// `tcp`, `udp` or `unix`.
    pub protocol: Box<str>,
    /// Its own address and port, or path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub local: Option<Box<str>>,
    /// The address and port that it is connected to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<Box<str>>,
    /// It waits for connections.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub listening: bool,
}

/// `tcp 127.0.0.1:41000 → 127.0.0.1:80`
impl std::fmt::Display for SocketRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.protocol)?;
        if self.listening {
            f.write_str(" listening on")?;
        }
        if let Some(local) = &self.local {
            write!(f, " {local}")?;
        }
        self.peer
            .as_ref()
            .map_or(Ok(()), |peer| write!(f, " → {peer}"))
    }
}

super::named! {
    /// What a goroutine wants of what it waits for.
    GoOperation {
        /// To send to a channel.
        Send = "send",
        /// To receive from a channel.
        Receive = "receive",
        /// To have a lock for itself.
        Exclusive = "exclusive",
        /// To have a lock together with other readers.
        Shared = "shared",
        /// To go on when a count is zero, or a semaphore lets it pass.
        Pass = "pass",
        /// To read a file, or to accept a connection.
        Read = "read",
        /// To write a file, or to finish a connect.
        Write = "write",
    }
}

/// Something that goroutines of a group wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoWaitsFor {
    /// How many of the group.
    pub count: u64,
    /// The lock or channel; `locks` and `channels` have its state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<LockRef>,
    /// The descriptor.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fd: Option<u32>,
    /// What the descriptor refers to: a path, `socket:[123]`, `pipe:[123]`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<Box<str>>,
    /// The socket that it is, and what that is connected to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socket: Option<SocketRef>,
    /// What they want of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation: Option<GoOperation>,
    /// One of several in a `select`.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub select: bool,
}

/// A place that starts goroutines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoroutineSite {
    /// The place.
    pub created_by: Arc<GoFrame>,
    /// Goroutines from there.
    pub count: u64,
    /// Those of them that wait for a channel or a lock.
    pub blocked: u64,
    /// Goroutines that appeared since the look before.
    pub births: u64,
    /// Goroutines that ended since the look before.
    pub deaths: u64,
    /// Goroutines more per minute. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub growth: Option<f64>,
    /// Age of the oldest, at least. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_ns: Option<u64>,
}

/// A lock that goroutines wait for. What its class does not have is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoLock {
    /// Which.
    pub lock: LockRef,
    /// Goroutines that were found waiting.
    pub waiters_now: u64,
    /// Mean of their waits so far, at least. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_wait_ns: Option<u64>,
    /// Somebody has it; of a reader-writer lock: a writer has it, or is the next to have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locked: Option<bool>,
    /// Somebody waits for more than 1 ms and is given it next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub starving: Option<bool>,
    /// Readers that have it, or wait for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub readers: Option<u32>,
    /// Readers that a writer waits for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub readers_pending: Option<u32>,
    /// Calls of `Done` that are missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counter: Option<u32>,
    /// Who probably holds it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub holders: Vec<GoHolder>,
}

/// Somebody who may hold a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoHolder {
    /// The goroutine.
    pub goid: u64,
    /// How sure that is. Go records no owners: it is never more than `likely`.
    pub confidence: Confidence,
    /// What says so, in words.
    pub evidence: String,
    /// What it does, or what it waits in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub doing: Option<String>,
}

/// A channel that goroutines wait for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoChannel {
    /// Which.
    pub lock: LockRef,
    /// Elements in it.
    pub len: u64,
    /// Elements that fit in.
    pub cap: u64,
    /// It is closed.
    pub closed: bool,
    /// The runtime sends to it at a time (`time.After`).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub timer: bool,
    /// Goroutines that wait to receive.
    pub receivers: u64,
    /// Goroutines that wait to send.
    pub senders: u64,
    /// Mean of the waits so far of those that do nothing but send to it, at least. Known after a second
    /// look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_send_ns: Option<u64>,
    /// The same of those that do nothing but receive from it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_receive_ns: Option<u64>,
    /// Other goroutines that have its address on their stack: at most a few.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub on_stacks_of: Vec<u64>,
}

/// Goroutines that wait for each other in a circle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoroutineDeadlock {
    /// Each waits for the next one, the last for the first.
    pub goroutines: Vec<GoroutineStep>,
    /// That of the least sure step.
    pub confidence: Confidence,
    /// Goroutines outside of the circle that wait for a lock in it, at once or behind others.
    pub behind: u64,
}

/// One goroutine of a circle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoroutineStep {
    /// The goroutine.
    pub goid: u64,
    /// What it waits for.
    pub lock: LockRef,
    /// The goroutine that probably holds it.
    pub waits_for: u64,
    /// What says so.
    pub evidence: String,
    /// Its calls, the innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stack: Vec<Arc<GoFrame>>,
}

/// A reader-writer lock whose writer waits for readers to leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoStarvedWriter {
    /// The lock.
    pub lock: LockRef,
    /// Writers that wait.
    pub writers: Vec<u64>,
    /// Readers that wait behind the writer.
    pub readers_behind: u64,
    /// Readers that have to leave first.
    pub readers_pending: u32,
    /// Who they probably are.
    pub holders: Vec<u64>,
    /// How long the first writer waits, at least. Known after a second look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits_ns: Option<u64>,
}

/// A channel that only those can reach who wait for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoLostChannel {
    /// The channel.
    pub lock: LockRef,
    /// Who waits for it: at most a few.
    pub goids: Vec<u64>,
    /// How many wait for it.
    pub waiters_now: u64,
    /// Where the first of them was started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_by: Option<Arc<GoFrame>>,
    /// How sure that is.
    pub confidence: Confidence,
    /// Where was looked.
    pub evidence: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the serializer passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
