//! Holders of the locks that PostgreSQL's probes tell of: from the server's memory.

use std::{collections::HashMap, sync::Arc};

use crate::{
    event::{Confidence, Event, Holder, LockClass},
    inspect::look::Looker,
};

/// Waits that are remembered; beyond it all are forgotten.
const MAX_KNOWN: usize = 16_384;

/// The latest holder of the lock that each backend waits for.
#[derive(Debug, Default)]
pub(super) struct Backends(HashMap<u32, (Arc<str>, Holder)>);

impl Backends {
    /// Adds holders to what probes told.
    pub(super) fn complete(&mut self, events: &mut [Event], looker: &mut Looker) {
        for event in events {
            match event {
                Event::Blocked(blocked) if blocked.probe.is_some() => {
                    let Some(lock) = blocked.lock.as_ref().filter(|lock| is_ours(lock.class))
                    else {
                        continue;
                    };
                    let (tid, id) = (blocked.task.tid, Arc::clone(&lock.id));
                    blocked.holder = looker.backend_holder(blocked.task.pid, &id).map(Box::new);
                    if self.0.len() >= MAX_KNOWN {
                        self.0.clear();
                    }
                    self.note(tid, id, blocked.holder.as_deref());
                }
                Event::Wait(wait) if wait.probe.is_some() => {
                    let lock = wait.lock.as_ref().filter(|lock| is_ours(lock.class));
                    if let Some(lock) = lock
                        && let Some((id, holder)) = self.0.remove(&wait.task.tid)
                        && *id == *lock.id
                    {
                        Arc::make_mut(wait).holder = Some(Box::new(holder));
                    }
                }
                Event::Lock(totals) if is_ours(totals.lock.class) && totals.waiters_now > 0 => {
                    let mut known = self.0.values();
                    let known = known.find(|(id, _)| *id == totals.lock.id);
                    totals.holder = known.map(|(_, holder)| Box::new(holder.clone()));
                }
                _ => {}
            }
        }
    }

    /// A look that finds the lock about to change hands does not undo who held it before: that is who was waited for.
    fn note(&mut self, tid: u32, id: Arc<str>, holder: Option<&Holder>) {
        let is_same = |(known, _): &(Arc<str>, Holder)| *known == id;
        match holder {
            Some(holder) if holder.confidence == Confidence::Unknown => {
                if !self.0.get(&tid).is_some_and(is_same) {
                    self.0.insert(tid, (id, holder.clone()));
                }
            }
            Some(holder) => {
                self.0.insert(tid, (id, holder.clone()));
            }
            None => {
                self.0.remove(&tid);
            }
        }
    }
}

fn is_ours(class: LockClass) -> bool {
    class == LockClass::PostgresLock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_waited_for_stays_known() {
        let mut backends = Backends::default();
        let holder = |tid, confidence| Holder {
            pid: tid,
            tid,
            comm: None,
            confidence,
            evidence: "the server's memory".into(),
            state: None,
            doing: None,
        };
        let (one, other): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        let known = |backends: &Backends| backends.0[&7].1.tid;
        backends.note(
            7,
            Arc::clone(&one),
            Some(&holder(Some(8), Confidence::Exact)),
        );
        backends.note(
            7,
            Arc::clone(&one),
            Some(&holder(None, Confidence::Unknown)),
        );
        assert_eq!(known(&backends), Some(8));
        backends.note(
            7,
            Arc::clone(&one),
            Some(&holder(Some(9), Confidence::Exact)),
        );
        assert_eq!(known(&backends), Some(9));
        backends.note(7, other, Some(&holder(None, Confidence::Unknown)));
        assert_eq!(known(&backends), None);
        backends.note(7, one, None);
        assert!(backends.0.is_empty());
    }
}
