//! How many goroutines there were in each group at the last looks.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use crate::event::{GoroutineGroup, Goroutines};

/// Looks that are remembered.
const LOOKS: usize = 60;
/// Groups of a process that are followed.
const MAX_GROUPS: usize = 1_024;

/// What tells a group from the others of its process, at every look.
pub fn group_key(group: &GoroutineGroup) -> u64 {
    let mut hasher = DefaultHasher::new();
    (group.state, group.system).hash(&mut hasher);
    group.wait_reason.hash(&mut hasher);
    group.created_by.hash(&mut hasher);
    group.stack.hash(&mut hasher);
    hasher.finish()
}

/// The groups of one process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Trends {
    counts: HashMap<u64, VecDeque<u64>>,
}

impl Trends {
    pub(super) fn add(&mut self, look: &Goroutines) {
        let mut now: HashMap<u64, u64> = HashMap::new();
        for group in look.groups.iter().take(MAX_GROUPS) {
            *now.entry(group_key(group)).or_default() += group.count;
        }
        // A group that has gone may come back; it is forgotten when nothing of it is left in sight.
        self.counts.retain(|key, counts| {
            super::keep(counts, now.remove(key).unwrap_or(0), LOOKS);
            counts.iter().any(|count| *count > 0)
        });
        let room = MAX_GROUPS.saturating_sub(self.counts.len());
        for (key, count) in now.into_iter().take(room) {
            self.counts.insert(key, VecDeque::from([count]));
        }
    }

    /// Are these as many as there can be?
    pub(super) fn are_bounded(&self) -> bool {
        self.counts.len() <= MAX_GROUPS && self.counts.values().all(|counts| counts.len() <= LOOKS)
    }

    pub(super) fn of(&self, key: u64) -> impl Iterator<Item = u64> {
        self.counts.get(&key).into_iter().flatten().copied()
    }
}
