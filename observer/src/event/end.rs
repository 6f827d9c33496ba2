//! What a run says of itself: losses, cost, steps of the budget, and its end.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Step;
use crate::time::WallTime;

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
