//! What a workload measures about its own waits, by the clock that the kernel stamps with.

use std::io;

use serde_json::{Value, json};

use super::futex::Outcome;
use super::sys::now_ns;

/// From this length on a wait is long: observer's own default for `--min-wait`.
const LONG_NS: u64 = 1_000_000;

/// How often a call was made and how long it took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    calls: u64,
    sum_ns: u64,
    max_ns: u64,
    long_calls: u64,
    long_sum_ns: u64,
    long_max_ns: u64,
}

impl Tally {
    /// Makes the call and counts it; a failed one is not counted.
    pub(crate) fn time<T>(&mut self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let start = now_ns();
        let result = call()?;
        self.add(now_ns() - start);
        Ok(result)
    }

    /// The number of calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    fn add(&mut self, ns: u64) {
        self.calls += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
        if ns >= LONG_NS {
            self.long_calls += 1;
            self.long_sum_ns += ns;
            self.long_max_ns = self.long_max_ns.max(ns);
        }
    }

    /// The tally as it appears in the truth line.
    pub(crate) fn to_json(self) -> Value {
        json!({
            "calls": self.calls,
            "sum_ns": self.sum_ns,
            "max_ns": self.max_ns,
            "long_calls": self.long_calls,
            "long_sum_ns": self.long_sum_ns,
            "long_max_ns": self.long_max_ns,
        })
    }
}

/// Futex calls by their outcome; the times are those of real waits only.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits {
    times: Tally,
    pub(crate) woken: u64,
    pub(crate) timed_out: u64,
    pub(crate) interrupted: u64,
    pub(crate) would_block: u64,
}

impl Waits {
    /// Makes a waiting call and counts it.
    pub(crate) fn time(
        &mut self,
        call: impl FnOnce() -> io::Result<Outcome>,
    ) -> io::Result<Outcome> {
        let start = now_ns();
        let outcome = call()?;
        let ns = now_ns() - start;
        self.count(outcome);
        if outcome != Outcome::WouldBlock {
            self.times.add(ns);
        }
        Ok(outcome)
    }

    /// Counts a call by its outcome without timing it.
    pub(crate) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Woken => self.woken += 1,
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Interrupted => self.interrupted += 1,
            Outcome::WouldBlock => self.would_block += 1,
        }
    }

    /// The counts as they appear in the truth line; `calls` are the real waits.
    pub(crate) fn to_json(self) -> Value {
        let mut value = self.times.to_json();
        value["woken"] = json!(self.woken);
        value["timed_out"] = json!(self.timed_out);
        value["interrupted"] = json!(self.interrupted);
        value["would_block"] = json!(self.would_block);
        value
    }
}
