//! The first line of a stream: what is observed, how, and what is missing; and the runtimes that are found later.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::WallTime;

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
    /// Containers, as they were named; all tasks when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Waits at least this long are reported one by one.
    pub min_wait_ns: u64,
    /// Waits in progress at least this old are reported before they end.
    pub long_wait_ns: u64,
    /// Totals are reported this often.
    pub interval_ns: u64,
    /// Thresholds of rules that are not as they are by default; durations in nanoseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thresholds: BTreeMap<String, f64>,
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
    /// Runtimes that the processes asked for have, and what can be told of their waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<RuntimeOf>,
    /// Tasks that can be followed at the same time.
    pub task_slots: u32,
    /// Locks that can be told apart at the same time.
    pub lock_slots: u32,
    /// Size of the ring buffer.
    pub ring_bytes: u32,
}

impl Capture {
    /// Hooks, and things that are missing, that are remembered of those that came after the start.
    const MOST: usize = 4_096;

    /// Takes what was attached to later. That nothing was, at the start, is not so any more.
    pub fn add(&mut self, later: Attached) {
        if !later.attached.is_empty() {
            self.missing.retain(|one| one.feature != "usdt");
        }
        let room = |taken: usize| Capture::MOST.saturating_sub(taken);
        let (hooks, missing) = (room(self.attached.len()), room(self.missing.len()));
        self.attached.extend(later.attached.into_iter().take(hooks));
        self.missing.extend(later.missing.into_iter().take(missing));
    }
}

/// A runtime of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeOf {
    /// The process.
    pub pid: u32,
    /// The runtime, or the library of locks.
    pub runtime: String,
    /// Its release, where that is known, and what can be told of its waits.
    pub detail: String,
}

/// A runtime was recognised in a process that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeFound {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// Name of the process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Arc<str>>,
    /// Which runtime, of which process.
    #[serde(flatten)]
    pub found: RuntimeOf,
}

/// What was attached to after the start: a file with probes that were asked for, which nobody mapped then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attached {
    /// Wall-clock time.
    pub time: WallTime,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub mono_ns: u64,
    /// Hooks that are in use from now on, beside those of [`Capture::attached`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<String>,
    /// What could not be attached to, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// What.
    pub feature: String,
    /// Why, and what follows from it.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(feature: &str) -> Missing {
        Missing {
            feature: feature.to_owned(),
            why: String::new(),
        }
    }

    #[test]
    fn what_comes_later_is_added_and_never_too_much() {
        let mut capture = Capture {
            attached: vec!["first".to_owned()],
            missing: vec![missing("usdt"), missing("usdt/a:b in /c")],
            ..Capture::default()
        };
        capture.add(Attached {
            time: WallTime(0),
            mono_ns: 0,
            attached: Vec::new(),
            missing: Vec::new(),
        });
        assert_eq!(capture.missing.len(), 2);
        for number in 0..Capture::MOST {
            capture.add(Attached {
                time: WallTime(0),
                mono_ns: 0,
                attached: vec!["one".to_owned(), "two".to_owned()],
                missing: vec![missing(&number.to_string())],
            });
        }
        assert_eq!(capture.attached[..3], ["first", "one", "two"]);
        assert_eq!(capture.attached.len(), Capture::MOST);
        assert_eq!(capture.missing.len(), Capture::MOST);
        // That nothing was attached to is not so any more; that a probe was refused is.
        assert_eq!(capture.missing[0], missing("usdt/a:b in /c"));
        assert!(capture.missing.iter().all(|one| one.feature != "usdt"));
    }
}
