//! Many goroutines queue for one lock or one channel.

use std::{collections::HashMap, sync::Arc};

use super::{Diagnosis, Rule, Thresholds, process_name};
use crate::{
    event::{GoChannel, GoLock, Goroutines, LockClass, LockRef, Severity, Subject},
    model::Model,
    time::human,
};

/// Looks at which receivers of a channel have to be more each time.
const GROWING: usize = 3;

/// A queue of goroutines at one place.
#[derive(Default)]
pub(super) struct BlockedGoroutines {
    /// By channel: the receivers at each of the last looks.
    receivers: HashMap<Arc<str>, Vec<(u64, u64)>>,
}

impl Rule for BlockedGoroutines {
    fn name(&self) -> &'static str {
        "blocked_goroutines"
    }

    fn advice(&self) -> &'static str {
        "A lock: hold it for less, or split it. A channel: those at its other end are too few, too slow, or gone."
    }

    fn check(&mut self, model: &Model, thresholds: &Thresholds) -> Vec<Diagnosis> {
        self.sample(model);
        let mut found = Vec::new();
        for all in model.goroutines() {
            let many = |count: u64, mean_ns: Option<u64>| {
                count > thresholds.blocked_goroutines
                    && mean_ns.is_some_and(|ns| ns > thresholds.blocked_mean_ns)
            };
            for lock in &all.locks {
                // Whoever waits for a count to be zero waits for work, not for a lock.
                let is_lock = matches!(lock.lock.class, LockClass::GoMutex | LockClass::GoRwmutex);
                if is_lock && many(lock.waiters_now, lock.mean_wait_ns) {
                    found.push(of_lock(all, lock));
                }
            }
            for channel in &all.channels {
                if many(channel.senders, channel.mean_send_ns) {
                    found.push(of_channel(all, channel, true));
                } else if many(channel.receivers, channel.mean_receive_ns)
                    && self.grows(&channel.lock)
                {
                    found.push(of_channel(all, channel, false));
                }
            }
        }
        found
    }
}

impl BlockedGoroutines {
    /// Who waits to receive is most often a pool that has no work: only one that grows is worth a word.
    fn grows(&self, channel: &LockRef) -> bool {
        self.receivers.get(&channel.id).is_some_and(|looks| {
            looks.len() == GROWING && looks.windows(2).all(|two| two[0].1 < two[1].1)
        })
    }

    fn sample(&mut self, model: &Model) {
        let mut now = HashMap::new();
        for all in model.goroutines() {
            for channel in &all.channels {
                let mut looks = self.receivers.remove(&channel.lock.id).unwrap_or_default();
                if looks.last().is_none_or(|(ns, _)| *ns != all.mono_ns) {
                    looks.push((all.mono_ns, channel.receivers));
                }
                if looks.len() > GROWING {
                    looks.remove(0);
                }
                now.insert(Arc::clone(&channel.lock.id), looks);
            }
        }
        self.receivers = now;
    }
}

fn diagnosis(all: &Goroutines, lock: &LockRef, title: String, evidence: Vec<String>) -> Diagnosis {
    Diagnosis {
        key: lock.id.to_string(),
        severity: Severity::Warning,
        title,
        evidence,
        subjects: vec![
            Subject::Process(all.pid),
            Subject::Lock(lock.clone().into()),
        ],
    }
}

fn of_lock(all: &Goroutines, lock: &GoLock) -> Diagnosis {
    let title = format!(
        "{} goroutines of {} wait for {}, for {} on average",
        lock.waiters_now,
        process_name(all),
        lock.lock,
        human(lock.mean_wait_ns.unwrap_or_default())
    );
    let holders = lock.holders.iter().map(|holder| {
        let doing = holder
            .doing
            .as_deref()
            .map_or_else(String::new, |doing| format!(", {doing}"));
        format!(
            "held by goroutine {} ({}: {}){doing}",
            holder.goid,
            holder.confidence.name(),
            holder.evidence
        )
    });
    diagnosis(all, &lock.lock, title, holders.collect())
}

fn of_channel(all: &Goroutines, channel: &GoChannel, send: bool) -> Diagnosis {
    let (count, word, mean_ns) = if send {
        (channel.senders, "send to", channel.mean_send_ns)
    } else {
        (channel.receivers, "receive from", channel.mean_receive_ns)
    };
    let title = format!(
        "{count} goroutines of {} wait to {word} {}, for {} on average",
        process_name(all),
        channel.lock,
        human(mean_ns.unwrap_or_default())
    );
    let mut evidence = vec![format!(
        "{} of {} elements in it, {} wait to receive, {} to send",
        channel.len, channel.cap, channel.receivers, channel.senders
    )];
    if !send {
        evidence.push("they became more at each of the last looks".to_owned());
    }
    diagnosis(all, &channel.lock, title, evidence)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::event::Event;

    fn channel(receivers: u64, senders: u64) -> GoChannel {
        GoChannel {
            lock: lock(1, LockClass::GoChan),
            len: 0,
            cap: 0,
            closed: false,
            timer: false,
            receivers,
            senders,
            mean_send_ns: Some(20_000_000),
            mean_receive_ns: Some(20_000_000),
            on_stacks_of: Vec::new(),
        }
    }

    fn mutex(class: LockClass, waiters_now: u64, mean_wait_ns: u64) -> GoLock {
        GoLock {
            lock: lock(2, class),
            waiters_now,
            mean_wait_ns: Some(mean_wait_ns),
            locked: Some(true),
            starving: None,
            readers: None,
            readers_pending: None,
            counter: None,
            holders: Vec::new(),
        }
    }

    fn run(looks: &[(Vec<GoLock>, Vec<GoChannel>)]) -> Vec<Diagnosis> {
        let mut rule = BlockedGoroutines::default();
        let mut found = Vec::new();
        for (i, (locks, channels)) in looks.iter().enumerate() {
            let mut all = goroutines();
            all.mono_ns += i as u64 * SECOND;
            (all.locks, all.channels) = (locks.clone(), channels.clone());
            found = rule.check(&model(&[Event::from(all)]), &Thresholds::default());
        }
        found
    }

    #[test]
    fn queues_at_a_lock_and_at_a_channel_that_nobody_empties() {
        let found = run(&[(
            vec![mutex(LockClass::GoMutex, 51, 11_000_000)],
            vec![channel(0, 60)],
        )]);
        assert_eq!(
            found[0].title,
            "51 goroutines of process 1 server wait for lock_2, for 11.0ms on average"
        );
        assert_eq!(
            found[1].title,
            "60 goroutines of process 1 server wait to send to lock_1, for 20.0ms on average"
        );
    }

    #[test]
    fn pools_without_work_are_innocent() {
        let pool = || (Vec::new(), vec![channel(500, 0)]);
        assert_eq!(run(&[pool(), pool(), pool(), pool()]), []);
        let more = |count| (Vec::new(), vec![channel(count, 0)]);
        assert_eq!(run(&[more(60), more(70)]), []);
        assert_eq!(run(&[more(60), more(70), more(80)]).len(), 1);
        assert_eq!(run(&[more(60), more(70), more(80), more(80)]), []);
    }

    #[test]
    fn short_queues_short_waits_and_wait_groups_are_innocent() {
        let alone = |lock| run(&[(vec![lock], Vec::new())]);
        assert_eq!(alone(mutex(LockClass::GoMutex, 50, 11_000_000)), []);
        assert_eq!(alone(mutex(LockClass::GoMutex, 51, 9_000_000)), []);
        assert_eq!(alone(mutex(LockClass::GoWaitgroup, 51, 11_000_000)), []);
    }
}
