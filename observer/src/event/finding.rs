//! Diagnoses.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Confidence, LockRef, Stack, TaskRef};
use crate::time::WallTime;

/// Tasks that wait for each other in a circle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deadlock {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// The tasks: each waits for the next one, the last for the first.
    pub tasks: Vec<DeadlockTask>,
    /// That of the least sure step of the circle.
    pub confidence: Confidence,
    /// For how long at least: since the youngest of the waits began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_ns: Option<u64>,
}

impl Deadlock {
    /// The tasks, each with who holds the lock that it waits for, by name.
    pub fn with_holders(&self) -> impl Iterator<Item = (&DeadlockTask, String)> {
        let next = self.tasks.iter().cycle().skip(1);
        self.tasks.iter().zip(next).map(|(one, next)| {
            // What was read from a file may be in another order.
            let holder = if next.task.tid == one.waits_for {
                next.task.to_string()
            } else {
                format!("thread {}", one.waits_for)
            };
            (one, holder)
        })
    }
}

/// One task of a deadlock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadlockTask {
    /// The task.
    pub task: Arc<TaskRef>,
    /// What it waits for.
    pub lock: Arc<LockRef>,
    /// Where it waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stack: Option<Stack>,
    /// Thread that holds the lock.
    pub waits_for: u32,
    /// How sure that is.
    pub confidence: Confidence,
    /// What says so.
    #[serde(deserialize_with = "crate::de::text")]
    pub evidence: Arc<str>,
}

super::named! {
    /// How bad it is.
    Severity {
        /// Worth knowing.
        Info = "info",
        /// Something is slower than it has to be, or will be.
        Warning = "warning",
        /// Something does not go on.
        Critical = "critical",
    }
}

/// Something that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A task.
    Task(Arc<TaskRef>),
    /// A lock.
    Lock(Arc<LockRef>),
    /// A process.
    Process(u32),
}

/// A diagnosis that a rule made, with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// The rule, as in docs/rules.md.
    #[serde(deserialize_with = "crate::de::text")]
    pub rule: Arc<str>,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// What to do.
    pub advice: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
}
