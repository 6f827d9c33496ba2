//! What a long wait was spent on: what the holder did meanwhile, looked at again and again.

use std::{collections::BTreeMap, sync::Arc};

use crate::event::{Cause, Holder, HolderState};

/// Holders are looked at this often, and less often, down to once a second, where very many waits have one: all of
/// those are gone through each time.
const SAMPLE_NS: u64 = 100_000_000;
const SLOWEST_NS: u64 = 1_000_000_000;
const MANY: u64 = 2_000;

/// When to look next.
#[derive(Debug, Default)]
pub(super) struct Samples {
    next_ns: u64,
}

impl Samples {
    /// Is it time to look at the holders again, with so many waits that have one?
    pub(super) fn are_due(&mut self, now_ns: u64, waits: usize) -> bool {
        let due = now_ns >= self.next_ns;
        if due {
            let pause_ns = SAMPLE_NS * (1 + waits as u64 / MANY);
            self.next_ns = now_ns + pause_ns.min(SLOWEST_NS);
        }
        due
    }
}

/// The parts of one wait that are known so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    until_ns: u64,
    parts: BTreeMap<Cause, u64>,
}

impl Parts {
    /// Those of a wait that is looked at for the first time.
    pub(super) fn from(now_ns: u64) -> Parts {
        Parts {
            until_ns: now_ns,
            parts: BTreeMap::new(),
        }
    }

    /// The time since the last look was spent on this.
    pub(super) fn add(&mut self, cause: Cause, now_ns: u64) {
        *self.parts.entry(cause).or_default() += now_ns.saturating_sub(self.until_ns);
        self.until_ns = self.until_ns.max(now_ns);
    }

    /// The parts of a wait of this length, which sum to it: what was not looked at is not known.
    pub(super) fn of(&self, dur_ns: u64) -> BTreeMap<Cause, u64> {
        let mut left = dur_ns;
        let mut all = BTreeMap::new();
        for (cause, ns) in &self.parts {
            // The last look may have come after the end.
            let ns = (*ns).min(left);
            left -= ns;
            if ns > 0 {
                *all.entry(*cause).or_default() += ns;
            }
        }
        if left > 0 && !all.is_empty() {
            *all.entry(Cause::Unknown).or_default() += left;
        }
        all
    }
}

/// What a holder's state says of the time that its waiters wait. `waits_for_lock`: is a thread known to wait for a
/// lock itself?
pub(super) fn cause(holder: Option<&Holder>, waits_for_lock: impl Fn(u32) -> bool) -> Cause {
    let Some(holder) = holder else {
        return Cause::Unknown;
    };
    match holder.state {
        Some(HolderState::Running) => Cause::HolderRunning,
        Some(HolderState::Runnable) => Cause::HolderRunnable,
        Some(HolderState::Throttled) => Cause::HolderThrottled,
        Some(HolderState::Stopped) => Cause::HolderStopped,
        Some(HolderState::Waiting) => {
            let in_lock = holder.tid.is_some_and(waits_for_lock);
            match &holder.doing {
                _ if in_lock => Cause::HolderWaitingForLock,
                Some(doing) if is_sleep(doing) => Cause::HolderAsleep,
                Some(doing) if is_lock(doing) => Cause::HolderWaitingForLock,
                Some(_) => Cause::HolderInIo,
                None => Cause::Unknown,
            }
        }
        Some(HolderState::Ended) | None => Cause::Unknown,
    }
}

fn is_sleep(doing: &Arc<str>) -> bool {
    ["nanosleep", "pause", "sigsuspend", "sigtimedwait", "asleep"]
        .iter()
        .any(|word| doing.contains(word))
}

fn is_lock(doing: &Arc<str>) -> bool {
    doing.starts_with("waiting for") || doing.starts_with("in futex")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Confidence;

    #[test]
    fn with_many_waits_they_are_rare() {
        let ms = |ms: u64| ms * 1_000_000;
        for (waits, pause_ns) in [
            (3, ms(100)),
            (10_000, ms(600)),
            (usize::MAX >> 32, ms(1_000)),
        ] {
            let mut samples = Samples::default();
            assert!(samples.are_due(ms(5), waits));
            assert!(!samples.are_due(ms(5) + pause_ns - 1, waits));
            assert!(samples.are_due(ms(5) + pause_ns, waits));
        }
    }

    #[test]
    fn parts_sum_to_the_whole() {
        let mut parts = Parts::from(200);
        parts.add(Cause::HolderInIo, 500);
        parts.add(Cause::HolderRunning, 900);
        let of = |dur_ns| parts.of(dur_ns);
        assert_eq!(of(1_000)[&Cause::Unknown], 300);
        for dur_ns in [1_000, 700, 350] {
            assert_eq!(of(dur_ns).values().sum::<u64>(), dur_ns);
        }
        // A wait that nobody looked at twice has no parts.
        assert!(Parts::from(1).of(100).is_empty());
    }

    #[test]
    fn what_a_holder_does() {
        let holder = |state, doing: &str| Holder {
            pid: Some(1),
            tid: Some(2),
            comm: None,
            confidence: Confidence::Exact,
            evidence: "".into(),
            state: Some(state),
            doing: Some(doing.into()),
        };
        let none = |_| false;
        for (state, doing, expected) in [
            (HolderState::Running, "running", Cause::HolderRunning),
            (HolderState::Waiting, "in fsync(/x)", Cause::HolderInIo),
            (
                HolderState::Waiting,
                "in clock_nanosleep",
                Cause::HolderAsleep,
            ),
            (
                HolderState::Waiting,
                "waiting for m for 1s",
                Cause::HolderWaitingForLock,
            ),
            (HolderState::Ended, "ended", Cause::Unknown),
        ] {
            assert_eq!(cause(Some(&holder(state, doing)), none), expected);
        }
        assert_eq!(cause(None, none), Cause::Unknown);
    }
}
