//! The last minutes, to step back to: copies of the model, which share what has not changed between them.

use std::{collections::VecDeque, sync::Arc};

use crate::model::Model;

/// Time between two copies. Of a large host they are taken less often.
const EVERY_NS: u64 = 1_000_000_000;
/// Entries of a model from which on it is.
const LARGE: u64 = 20_000;
/// Copies that are kept: ten minutes of a small host.
const MOST: usize = 600;
/// Room for all of them together, in entries of the model: some 20 MiB. An entry that changes from one copy to
/// the next takes its own room, and each entry a little of the table that it is in.
const ROOM: u64 = 40_000;
const TABLE: u64 = 16;

/// Copies of the model, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    copies: VecDeque<Copy>,
    used: u64,
}

#[derive(Debug)]
struct Copy {
    model: Arc<Model>,
    weight: u64,
}

impl History {
    /// Takes a copy, if it is time for one.
    pub(super) fn keep(&mut self, model: &Model) {
        let entries = model.entries() as u64;
        let mut changed = entries;
        if let Some(last) = self.copies.back() {
            let last = &last.model;
            if model.now_ns() < last.now_ns() {
                // A recording that is played from its beginning again.
                *self = History::default();
            } else if model.now_ns() - last.now_ns() < EVERY_NS * (1 + entries / LARGE) {
                return;
            } else {
                changed = model.changes().saturating_sub(last.changes());
            }
        }
        let weight = 1 + changed.min(entries) + entries / TABLE;
        self.used += weight;
        self.copies.push_back(Copy {
            model: Arc::new(model.clone()),
            weight,
        });
        while self.copies.len() > 1 && (self.used > ROOM || self.copies.len() > MOST) {
            self.used -= self.copies.pop_front().map_or(0, |copy| copy.weight);
        }
    }

    /// The copy `steps` before a time; the oldest, if there are not as many.
    pub(super) fn before(&self, at_ns: u64, steps: usize) -> Option<Arc<Model>> {
        let older = self
            .copies
            .partition_point(|copy| copy.model.now_ns() < at_ns);
        let at = older.checked_sub(1)?;
        let copy = self.copies.get(at.saturating_sub(steps - 1))?;
        Some(Arc::clone(&copy.model))
    }

    /// The copy `steps` after a time; the newest, if there are not as many.
    pub(super) fn after(&self, at_ns: u64, steps: usize) -> Option<Arc<Model>> {
        let first = self
            .copies
            .partition_point(|copy| copy.model.now_ns() <= at_ns);
        let last = self.copies.len().checked_sub(1)?;
        let at = (first <= last).then_some((first + steps - 1).min(last))?;
        Some(Arc::clone(&self.copies.get(at)?.model))
    }

    /// The newest copies up to a time, the oldest of them first.
    pub(super) fn until(&self, at_ns: u64, most: usize) -> impl Iterator<Item = &Model> {
        let end = self
            .copies
            .partition_point(|copy| copy.model.now_ns() <= at_ns);
        let copies = self.copies.range(end.saturating_sub(most)..end);
        copies.map(|copy| &*copy.model)
    }

    /// How long ago the oldest copy was.
    pub(super) fn reach_ns(&self, now_ns: u64) -> u64 {
        let oldest = self.copies.front();
        oldest.map_or(0, |copy| now_ns.saturating_sub(copy.model.now_ns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn steps_lead_from_copy_to_copy() {
        let (mut history, mut model) = (History::default(), Model::default());
        for tenth in 10..100 {
            model.advance(tenth * SECOND / 10);
            history.keep(&model);
        }
        let at = |model: Option<Arc<Model>>| model.map(|model| model.now_ns() / SECOND);
        assert_eq!(at(history.before(5 * SECOND, 1)), Some(4));
        assert_eq!(at(history.before(5 * SECOND, 3)), Some(2));
        assert_eq!(at(history.before(5 * SECOND, 30)), Some(1));
        assert_eq!(at(history.before(SECOND, 1)), None);
        assert_eq!(at(history.after(5 * SECOND, 1)), Some(6));
        assert_eq!(at(history.after(5 * SECOND, 30)), Some(9));
        assert_eq!(at(history.after(9 * SECOND, 1)), None);
        assert_eq!(history.reach_ns(9 * SECOND), 8 * SECOND);
        let until = history.until(5 * SECOND, 3);
        let until: Vec<u64> = until.map(|model| model.now_ns() / SECOND).collect();
        assert_eq!(until, [3, 4, 5]);
        assert_eq!(history.until(0, 3).count(), 0);
        // A recording from its beginning again.
        history.keep(&Model::default());
        assert_eq!(history.copies.len(), 1);
    }

    #[test]
    fn the_room_is_limited() {
        let (mut history, mut model) = (History::default(), Model::default());
        for second in 1..5_000 {
            model.advance(second * SECOND);
            history.keep(&model);
        }
        assert_eq!(history.copies.len(), MOST);
    }
}
