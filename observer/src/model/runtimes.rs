//! Which runtimes processes have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Meta, RuntimeFound};

/// Runtimes that are remembered: those that were told last.
const MOST: usize = 4_096;

/// By process and name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<RuntimeFound>", into = "Vec<RuntimeFound>")]
pub(super) struct Runtimes(BTreeMap<(u32, String), RuntimeFound>);

impl From<Vec<RuntimeFound>> for Runtimes {
    fn from(all: Vec<RuntimeFound>) -> Runtimes {
        let mut runtimes = Runtimes::default();
        for one in all {
            runtimes.add(one);
        }
        runtimes
    }
}

impl From<Runtimes> for Vec<RuntimeFound> {
    fn from(runtimes: Runtimes) -> Vec<RuntimeFound> {
        runtimes.0.into_values().collect()
    }
}

impl Runtimes {
    pub(super) fn add(&mut self, new: RuntimeFound) {
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.values().min_by_key(|one| one.mono_ns)
        {
            let key = (oldest.found.pid, oldest.found.runtime.clone());
            self.0.remove(&key);
        }
        let key = (new.found.pid, new.found.runtime.clone());
        self.0.insert(key, new);
    }

    /// Those of the processes that were asked for.
    pub(super) fn add_all(&mut self, meta: &Meta) {
        for found in &meta.capture.runtimes {
            self.add(RuntimeFound {
                time: meta.time,
                mono_ns: meta.mono_ns,
                process: None,
                found: found.clone(),
            });
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &RuntimeFound> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::RuntimeOf, time::WallTime};

    fn found(pid: u32, detail: &str) -> RuntimeFound {
        RuntimeFound {
            time: WallTime(u64::from(pid)),
            mono_ns: u64::from(pid),
            process: None,
            found: RuntimeOf {
                pid,
                runtime: "python".to_owned(),
                detail: detail.to_owned(),
            },
        }
    }

    #[test]
    fn the_latest_counts_and_there_are_never_too_many() {
        let mut all = Runtimes::default();
        all.add(found(1, "3.11"));
        all.add(found(1, "3.12"));
        assert_eq!(all.all().count(), 1);
        assert_eq!(all.all().next().map(|one| &*one.found.detail), Some("3.12"));
        for pid in 2..10_000 {
            all.add(found(pid, ""));
        }
        assert_eq!(all.all().count(), MOST);
        assert!(all.all().all(|one| one.found.pid > 5_000));
    }
}
