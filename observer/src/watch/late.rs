//! Reports of waits in progress: each comes with a look, if there is time.

use std::time::{Duration, Instant};

use super::{
    MAX_PENDING, Watch,
    take::{Given, take, with_kernel},
};
use crate::event::{Blocked, Event};

/// Time for looks at waits that are about to be reported, between two readings of the ring buffer, which holds the
/// longest waits of a second and more.
const REPORTING: Duration = Duration::from_millis(150);
/// A report waits for its turn this long at most; then it comes with what the look before told.
const PATIENCE: Duration = Duration::from_millis(500);
/// Looks at waits that were looked at before take this part of a core: a two-hundredth.
const AGAIN_PART: u32 = 200;
/// Time that is saved up at most: a few waits are always looked at, and ten thousand are not.
const AGAIN_SAVED: Duration = Duration::from_millis(20);
/// Time that is owed at most, where looks are taken though there is none left.
const AGAIN_OWED: Duration = Duration::from_millis(40);

/// A report of a wait that waits for its turn to be looked at.
#[derive(Debug)]
pub(super) struct Late {
    blocked: Box<Blocked>,
    since: Instant,
}

/// Time that is left for looks at waits that were looked at before.
#[derive(Debug)]
pub(super) struct Allowance {
    /// What they took and has not been earned since.
    spent: Duration,
    at: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Allowance {
            spent: Duration::ZERO,
            at: Instant::now(),
        }
    }
}

impl Allowance {
    /// Is there time for one more?
    pub(super) fn is_left(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at) / AGAIN_PART;
        self.spent = self.spent.saturating_sub(earned);
        self.at = now;
        self.spent < AGAIN_SAVED
    }

    /// One took so long.
    pub(super) fn spend(&mut self, time: Duration) {
        self.spent = (self.spent + time).min(AGAIN_OWED);
    }
}

impl Watch {
    /// Takes the reports out that are worth a look. A look takes time, and many may be due at once.
    pub(super) fn hold_back(&mut self, out: &mut Vec<Event>, from: usize) {
        let since = Instant::now();
        let late = &mut self.late;
        let (looker, probed) = (&mut self.looker, self.probed);
        let before = out.len();
        let kept = out
            .split_off(from)
            .into_iter()
            .filter_map(|event| match event {
                Event::Blocked(blocked)
                    if late.len() < MAX_PENDING
                        && blocked.probe.is_none()
                        && (blocked.lock.is_some()
                            || !blocked.kind.is_idle()
                            || (!probed
                                && looker.is_backend(
                                    blocked.task.pid,
                                    blocked.task.comm.as_deref(),
                                ))
                            || is_async(&blocked)) =>
                {
                    late.push_back(Late { blocked, since });
                    None
                }
                other => Some(other),
            });
        out.extend(kept);
        self.capture.take_back_events((before - out.len()) as u64);
    }

    /// Tells of the waits that were held back, each with a look at it, as far as there is time.
    pub(super) fn tell_late(&mut self, out: &mut Vec<Event>, began: Instant) {
        let mut registers = Given::default();
        while let Some(late) = self.late.pop_front() {
            let mut blocked = late.blocked;
            let (tid, start_ns) = (blocked.task.tid, start_of(&blocked));
            // Its end has been told meanwhile.
            if !self.capture.is_reported(tid, start_ns) {
                continue;
            }
            let now = Instant::now();
            let is_again = self.is_looked_at(tid, start_ns);
            if is_again && !self.again.is_left(now) {
                self.recall(&mut blocked);
            } else if began.elapsed() < REPORTING {
                // Its holder may be another one by now.
                if let Some(look) = self.look(&blocked, &mut registers) {
                    take(&mut blocked, &look);
                    if self.capture.is_waiting(tid, start_ns) {
                        self.remember(&blocked, start_ns, look);
                    }
                }
                if is_again {
                    self.again.spend(now.elapsed());
                }
            } else if late.since.elapsed() >= PATIENCE {
                self.recall(&mut blocked);
            } else {
                let since = late.since;
                self.late.push_front(Late { blocked, since });
                break;
            }
            out.push(Event::Blocked(blocked));
            self.capture.count_events(1);
        }
    }

    /// Tells of the waits that are held back at the end.
    pub(super) fn tell_rest(&mut self, out: &mut Vec<Event>) {
        while let Some(Late { blocked, .. }) = self.late.pop_front() {
            if self
                .capture
                .is_reported(blocked.task.tid, start_of(&blocked))
            {
                out.push(Event::Blocked(blocked));
                self.capture.count_events(1);
            }
        }
    }

    /// Puts what the look before told into the event of a wait.
    pub(super) fn recall(&self, blocked: &mut Blocked) {
        if let Some(known) = self.looks.get(blocked.task.tid)
            && known.start_ns == start_of(blocked)
        {
            blocked.stack = Some(with_kernel(&known.stack, blocked.stack.as_ref()));
            blocked.holder = known.holder(&self.looker);
            blocked.access = known.blocked.access;
            if blocked.lock.is_none() || known.told {
                blocked.lock.clone_from(&known.blocked.lock);
                blocked.kind = known.blocked.kind;
            }
        }
    }
}

fn start_of(blocked: &Blocked) -> u64 {
    blocked.mono_ns.saturating_sub(blocked.age_ns)
}

/// Is it a thread of an asynchronous runtime, by the name that it has if nobody chose another? Its sleep may be a
/// mistake.
fn is_async(blocked: &Blocked) -> bool {
    let name = blocked.task.comm.as_deref();
    name.is_some_and(|name| name.starts_with("tokio-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_two_hundredth_of_the_time_is_given() {
        let mut allowance = Allowance::default();
        let mut now = allowance.at;
        let look = Duration::from_micros(100);
        let mut looks = 0;
        for _ in 0..10_000 {
            now += Duration::from_micros(300);
            if allowance.is_left(now) {
                allowance.spend(look);
                looks += 1;
            }
        }
        // 20 ms, and a two-hundredth of 3 s.
        assert!((345..=355).contains(&looks), "{looks}");
        // What was owed is paid back within seconds.
        allowance.spend(Duration::from_mins(1));
        assert!(!allowance.is_left(now));
        assert!(allowance.is_left(now + Duration::from_millis(4_100)));
    }
}
