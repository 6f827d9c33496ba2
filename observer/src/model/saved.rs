//! The model as bytes, for the snapshots in a recording.

use std::{
    hash::{BuildHasher, Hash},
    io::Write,
    sync::Arc,
};

use ahash::HashMap;
use indexmap::IndexMap;

use super::{HISTORY, InProgress, Limits, Lock, Model, WaitKey};
use crate::event::TaskTotals;

/// The form of what [`Model::save`] writes. A snapshot of another form is not used: a reader then goes through
/// the events, which tell the same. It grows when a field changes its meaning; a new one has a default instead.
pub(crate) const FORM: u32 = 1;

impl Model {
    /// Writes everything that is known.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn save(&self, out: &mut dyn Write) -> serde_json::Result<()> {
        serde_json::to_writer(out, self)
    }

    /// The reverse. The bytes may come from anywhere: none, if this can be no model.
    pub(crate) fn load(bytes: &[u8]) -> Option<Model> {
        let model: Model = serde_json::from_slice(bytes).ok()?;
        model.is_bounded().then_some(model)
    }

    /// Is there no more of anything than the limits allow? What goes by the limits takes it for granted.
    fn is_bounded(&self) -> bool {
        let limits = Limits::default();
        self.locks.len() <= limits.locks
            && self.tasks.len() <= limits.tasks
            && self.waits.len() <= limits.waits
            && self.deadlocks.len() <= limits.findings
            && self.findings.len() <= limits.findings
            && self.goroutines.len() <= limits.go_processes
            && self.trends.len() <= limits.go_processes
            && self.waits_per_s.len() <= HISTORY
            && self.trends.values().all(|trends| trends.are_bounded())
    }
}

/// What a table is ordered by is in its entries.
pub(super) trait Keyed {
    type Key: Eq + Hash;

    fn key(&self) -> Self::Key;
}

impl Keyed for InProgress {
    type Key = WaitKey;

    fn key(&self) -> WaitKey {
        (self.event.task.tid, self.event.probe.clone())
    }
}

impl Keyed for Lock {
    type Key = Arc<str>;

    fn key(&self) -> Arc<str> {
        Arc::clone(&self.totals.lock.id)
    }
}

impl Keyed for TaskTotals {
    type Key = u32;

    fn key(&self) -> u32 {
        self.task.tid
    }
}

/// A table of entries that hold their keys.
pub(super) trait Table:
    FromIterator<(<Self::Entry as Keyed>::Key, Arc<Self::Entry>)>
{
    type Entry: Keyed;

    fn entries(&self) -> impl Iterator<Item = &Arc<Self::Entry>>;
}

impl<T: Keyed> Table for HashMap<T::Key, Arc<T>> {
    type Entry = T;

    fn entries(&self) -> impl Iterator<Item = &Arc<T>> {
        self.values()
    }
}

impl<T: Keyed, S: BuildHasher + Default> Table for IndexMap<T::Key, Arc<T>, S> {
    type Entry = T;

    fn entries(&self) -> impl Iterator<Item = &Arc<T>> {
        self.values()
    }
}

/// A table as its entries.
pub(super) mod values {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Arc, Keyed, Table};

    pub(in crate::model) fn serialize<T, S>(table: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Table<Entry: Serialize>,
        S: Serializer,
    {
        serializer.collect_seq(table.entries())
    }

    pub(in crate::model) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Table<Entry: Deserialize<'de>>,
        D: Deserializer<'de>,
    {
        let entries = Vec::<Arc<T::Entry>>::deserialize(deserializer)?.into_iter();
        Ok(entries.map(|entry| (entry.key(), entry)).collect())
    }
}
