//! The overhead budget: when observing costs more than it may, it does less, in named steps, and says so.
//!
//! Pure: fed with measurements, it answers with a step. The cost is the share of the host's CPU time,
//! all CPUs together, that the kernel programs and this process use.

use observer_common::Config;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Measurements above the limit, one a second, before a step is taken.
const PATIENCE: u32 = 2;
/// Measurements below half of the limit before one is taken back.
const CAUTION: u32 = 10;

/// How much is done. Each step includes those before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Everything.
    #[default]
    Full,
    /// A tenth of the stacks.
    FewerStacks,
    /// No stacks of short waits; totals of short waits are estimated from one in 16.
    Sampling,
    /// Single waits are reported from ten times the threshold on.
    HigherThreshold,
}

impl Step {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Step::Full => "full",
            Step::FewerStacks => "fewer_stacks",
            Step::Sampling => "sampling",
            Step::HigherThreshold => "higher_threshold",
        }
    }

    fn next(self) -> Step {
        match self {
            Step::Full => Step::FewerStacks,
            Step::FewerStacks => Step::Sampling,
            Step::Sampling | Step::HigherThreshold => Step::HigherThreshold,
        }
    }

    fn previous(self) -> Step {
        match self {
            Step::Full | Step::FewerStacks => Step::Full,
            Step::Sampling => Step::FewerStacks,
            Step::HigherThreshold => Step::Sampling,
        }
    }

    /// What the kernel programs are told; `full` is what they were told at the start.
    pub fn config(self, full: Config) -> Config {
        let mut config = full;
        if self >= Step::FewerStacks {
            config.stack_tokens = full.stack_tokens.div_ceil(10);
        }
        if self >= Step::Sampling {
            config.stack_tokens = full.stack_tokens.min(1);
            config.sample_shift = 4;
        }
        if self >= Step::HigherThreshold {
            config.min_wait_ns = full.min_wait_ns.saturating_mul(10).max(10_000_000);
        }
        config
    }
}

/// Decides on steps.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Share of the host's CPU time that may be used; `None`: no limit.
    limit: Option<f64>,
    step: Step,
    over: u32,
    under: u32,
}

impl Budget {
    /// Starts with everything.
    pub fn new(limit: Option<f64>) -> Budget {
        Budget {
            limit,
            step: Step::Full,
            over: 0,
            under: 0,
        }
    }

    /// The step in force.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The limit.
    pub fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// Takes a measurement; the new step, if it changes.
    pub fn measure(&mut self, share: f64) -> Option<Step> {
        let limit = self.limit?;
        self.over = if share > limit { self.over + 1 } else { 0 };
        self.under = if share < limit / 2.0 {
            self.under + 1
        } else {
            0
        };
        let next = match () {
            () if self.over >= PATIENCE => self.step.next(),
            () if self.under >= CAUTION => self.step.previous(),
            () => return None,
        };
        (self.over, self.under) = (0, 0);
        let changed = next != self.step;
        self.step = next;
        changed.then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_one_by_one_and_taken_back_slowly() {
        let mut budget = Budget::new(Some(0.02));
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.extend(budget.measure(0.1));
        }
        assert_eq!(
            taken,
            [Step::FewerStacks, Step::Sampling, Step::HigherThreshold]
        );
        for _ in 0..CAUTION {
            assert_eq!(budget.measure(0.015), None);
        }
        let back: Vec<Step> = (0..100).filter_map(|_| budget.measure(0.001)).collect();
        assert_eq!(back, [Step::Sampling, Step::FewerStacks, Step::Full]);
    }

    #[test]
    fn one_peak_changes_nothing_and_no_limit_never_does() {
        let mut budget = Budget::new(Some(0.02));
        for share in [0.5, 0.01, 0.5, 0.01] {
            assert_eq!(budget.measure(share), None);
        }
        let mut unlimited = Budget::new(None);
        assert!((0..100).all(|_| unlimited.measure(1.0).is_none()));
    }

    #[test]
    fn each_step_asks_for_less() {
        let full = Config {
            min_wait_ns: 1_000_000,
            stack_tokens: 20,
            sample_shift: 0,
        };
        assert_eq!(Step::Full.config(full), full);
        assert_eq!(Step::FewerStacks.config(full).stack_tokens, 2);
        assert_eq!(Step::Sampling.config(full).sample_shift, 4);
        assert_eq!(Step::Sampling.config(full).min_wait_ns, 1_000_000);
        assert_eq!(Step::HigherThreshold.config(full).min_wait_ns, 10_000_000);
    }
}
