//! What the process that serves HTTP counts, and tells the agent, whose metrics hold it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// By so much a count grows at once, at most: it is told each second, and whoever tells is not believed more.
const MOST: u64 = 1 << 32;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counts, while they are counted.
        #[derive(Debug, Default)]
        pub(in crate::agent) struct Counts {
            $($(#[$doc])* pub(in crate::agent) $name: AtomicU64,)*
        }

        /// The counts at a time, from the start of the process on.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::agent) struct Tally {
            /// Readers of the stream of events: of now.
            pub(in crate::agent) streams: u64,
            $($(#[$doc])* pub(in crate::agent) $name: u64,)*
        }

        impl Counts {
            pub(in crate::agent) fn tally(&self, streams: u64) -> Tally {
                Tally {
                    streams,
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }

        impl Tally {
            /// What is new since `before`. A count that fell says nothing.
            pub(super) fn since(&self, before: &Tally) -> Tally {
                Tally {
                    streams: self.streams,
                    $($name: self.$name.saturating_sub(before.$name).min(MOST),)*
                }
            }

            pub(super) fn add(&mut self, other: &Tally) {
                self.streams = other.streams;
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }
    };
}

counts! {
    /// Requests without the token that they needed.
    unauthorized,
    /// Lines that readers of the stream were too slow for.
    lagged,
    /// Incidents that the webhook was told of.
    webhook_told,
    /// Incidents that it was not told of.
    webhook_lost,
    /// Incidents that the cluster was told of.
    cluster_told,
    /// Incidents that it was not told of.
    cluster_lost,
    /// Log records that the receiver of OTLP took.
    otlp_records,
    /// Messages with metrics that it took.
    otlp_metrics,
    /// Tries that failed.
    otlp_failures,
    /// Log records that were lost: the queue was full, or the receiver refused them.
    otlp_lost,
}

/// Counts one more.
pub(in crate::agent) fn more(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_grow() {
        let counts = Counts::default();
        more(&counts.lagged, 3);
        let first = counts.tally(1);
        more(&counts.lagged, 2);
        let second = counts.tally(0);
        assert_eq!(second.since(&first).lagged, 2);
        // Another process, or one that lies.
        assert_eq!(first.since(&second).lagged, 0);
        let lie = Tally {
            lagged: u64::MAX,
            ..Tally::default()
        };
        let mut all = second;
        all.add(&lie.since(&second));
        assert_eq!(all.lagged, 5 + MOST);
    }
}
