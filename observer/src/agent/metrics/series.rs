//! Sets of labels of processes, as many as there may be.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use prometheus_client::metrics::counter::Counter;

use super::labels::Who;
use crate::{agent::nanos, event::ContainerRef};

/// What sets of labels beyond the limit are counted as.
const OTHER: &str = "_other";

/// A set of labels in use.
#[derive(Default)]
struct One {
    kinds: BTreeSet<&'static str>,
    seen_ns: u64,
}

/// Those in use.
#[derive(Default)]
pub(super) struct Series {
    max: usize,
    forget_ns: u64,
    known: HashMap<Who, One>,
    /// How often one was beyond the limit.
    pub(super) cut: Counter,
}

impl Series {
    /// Takes the limits of a configuration.
    pub(super) fn set_limits(&mut self, config: &crate::agent::config::Metrics) {
        self.max = config.max_series;
        self.forget_ns = nanos(config.forget_after);
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The labels of a process, within the limit.
    pub(super) fn admit(
        &mut self,
        process: Option<&str>,
        container: Option<&ContainerRef>,
        now_ns: u64,
    ) -> Who {
        let text = |text: Option<&Arc<str>>| text.cloned().unwrap_or_default();
        let who = Who {
            process: process.unwrap_or_default().into(),
            container: container.map_or_else(Arc::default, |container| {
                container
                    .name
                    .clone()
                    .unwrap_or_else(|| container.short_id().into())
            }),
            pod: text(container.and_then(|container| container.pod.as_ref())),
            namespace: text(container.and_then(|container| container.namespace.as_ref())),
        };
        if let Some(one) = self.known.get_mut(&who) {
            one.seen_ns = now_ns;
            return who;
        }
        let who = if self.known.len() < self.max {
            who
        } else {
            self.cut.inc();
            Who {
                process: OTHER.into(),
                container: Arc::default(),
                pod: Arc::default(),
                namespace: Arc::default(),
            }
        };
        self.known.entry(who.clone()).or_default().seen_ns = now_ns;
        who
    }

    /// Something of this kind was counted.
    pub(super) fn count(&mut self, who: &Who, kind: &'static str) {
        if let Some(one) = self.known.get_mut(who) {
            one.kinds.insert(kind);
        }
    }

    /// Forgets those of which nothing was seen for long: they, and the kinds that were counted.
    pub(super) fn forget(&mut self, now_ns: u64) -> Vec<(Who, BTreeSet<&'static str>)> {
        let limit_ns = now_ns.saturating_sub(self.forget_ns);
        let gone = self.known.extract_if(|_, one| one.seen_ns < limit_ns);
        gone.map(|(who, one)| (who, one.kinds)).collect()
    }
}
