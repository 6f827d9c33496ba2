//! One look at every thread and goroutine: what it waits for, who holds it, where it is, and who waits in circles.
//!
//! No kernel program is needed: `/proc` and the memory of one's own processes are enough. Where the kernel
//! allows its iterator, the registers of all threads come from it in one read, with ages.

mod collect;
pub(crate) mod goroutines;
mod java;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

pub use self::collect::{Options, take};
use crate::{
    event::{
        Access, Deadlock, Finding, Goroutines, Holder, HolderState, Kind, LockRef, Loss, Meta,
        Stack, TaskRef,
    },
    model::Model,
};

/// Everything that one look told. Each element has the fields of its event.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Dump {
    /// What was asked for, and how it was looked at.
    pub meta: Meta,
    /// Threads.
    pub tasks: Vec<Task>,
    /// Goroutines of the Go processes that were asked for.
    pub goroutines: Vec<Goroutines>,
    /// Locks that are waited for.
    pub locks: Vec<Lock>,
    /// Circles.
    pub deadlocks: Vec<Deadlock>,
    /// Diagnoses.
    pub findings: Vec<Finding>,
    /// Threads that could not be looked at, by cause.
    pub loss: Loss,
    /// The same as a model.
    #[serde(skip)]
    pub model: Model,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Task {
    /// Which.
    pub task: Arc<TaskRef>,
    /// Is it able to go on?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<HolderState>,
    /// What it waits in; absent: it does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// For how long, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ns: Option<u64>,
    /// True when the age is a lower bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// The lock it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<Arc<LockRef>>,
    /// What it wants with the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// The same in the words of the runtime that the lock belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Arc<str>>,
    /// Who must act before the wait can end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Box<Holder>>,
    /// The threads from this one to the one that all depends on; absent where there is only the holder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<u32>,
    /// System call it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<Arc<str>>,
    /// What the descriptor refers to that the call was made on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Stack>,
}

/// A lock that is waited for.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Lock {
    /// Which.
    pub lock: Arc<LockRef>,
    /// Process that waits.
    pub pid: u32,
    /// Threads that wait for it.
    pub waiters_now: u32,
    /// Who holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Box<Holder>>,
}
