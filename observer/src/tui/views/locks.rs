//! Locks: where waiting time goes.

use std::cmp::Ordering;

use super::{Fields, count, duration, exact, known, lock_cell, plain};
use crate::{
    event::{Bucket, LockRef},
    model::Lock,
    time::human,
    tui::rows::{Column, Context, Filter, Key, Record, RowId, Source, Tone},
};

/// Columns of the longest bar of a histogram.
const BAR: u64 = 30;

impl Record for Lock {
    const DEFAULT_SORT: usize = 6;
    const FLEXIBLE: usize = 0;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn all<'a>(source: Source<'a>) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        match source {
            Source::Live(model) => Box::new(model.locks()),
            Source::Frozen(frozen) => Box::new(frozen.locks.iter()),
        }
    }

    fn id(&self) -> RowId {
        RowId::Lock(self.totals.lock.id.clone())
    }

    fn is(&self, id: &RowId) -> bool {
        matches!(id, RowId::Lock(id) if *id == self.totals.lock.id)
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.totals.lock.id.cmp(&other.totals.lock.id)
    }

    fn is_idle(&self) -> bool {
        false
    }

    fn matches(&self, filter: &Filter) -> bool {
        filter.is_in_lock(&self.totals.lock)
            || filter.is_in_some(self.totals.process.as_deref())
            || filter.is_in(self.totals.lock.class.name())
            || self.totals.pid.is_some_and(|pid| filter.is_in_number(pid))
    }
}

fn rate(waits_per_s: f64) -> String {
    if waits_per_s < 10.0 {
        format!("{waits_per_s:.1}")
    } else {
        count(waits_per_s as u64)
    }
}

fn waiters_tone(lock: &Lock) -> Tone {
    if lock.totals.waiters_now > 0 {
        Tone::Strong
    } else {
        Tone::Normal
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<Lock>] = &[
    Column {
        title: "LOCK", min: 14, want: 20, rank: 0, right: false, descending: false,
        key: |lock, _| Key::lock(Some(&lock.totals.lock)),
        cell: |lock, context| lock_cell(&lock.totals.lock, "", context),
        tone: plain,
    },
    Column {
        title: "CLASS", min: 9, want: 16, rank: 10, right: false, descending: false,
        key: |lock, _| Key::Text(lock.totals.lock.class.name()),
        cell: |lock, _| lock.totals.lock.class.name().to_owned(),
        tone: plain,
    },
    Column {
        title: "PID", min: 7, want: 7, rank: 8, right: true, descending: false,
        key: |lock, _| Key::Number(u64::from(lock.totals.pid.unwrap_or(0))),
        cell: |lock, _| lock.totals.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        tone: plain,
    },
    Column {
        title: "PROCESS", min: 10, want: 16, rank: 2, right: false, descending: false,
        key: |lock, _| Key::text(lock.totals.process.as_deref()),
        cell: |lock, _| known(lock.totals.process.as_deref()),
        tone: plain,
    },
    Column {
        title: "WAITS", min: 6, want: 8, rank: 3, right: true, descending: true,
        key: |lock, _| Key::Number(lock.totals.waits),
        cell: |lock, _| count(lock.totals.waits),
        tone: plain,
    },
    Column {
        title: "WAITS/S", min: 7, want: 8, rank: 4, right: true, descending: true,
        key: |lock, _| Key::rate(lock.waits_per_s),
        cell: |lock, _| rate(lock.waits_per_s),
        tone: plain,
    },
    Column {
        title: "TOTAL", min: 6, want: 8, rank: 1, right: true, descending: true,
        key: |lock, _| Key::Number(lock.totals.total_ns),
        cell: |lock, _| human(lock.totals.total_ns),
        tone: plain,
    },
    Column {
        title: "P50", min: 6, want: 8, rank: 9, right: true, descending: true,
        key: |lock, _| Key::number(lock.totals.p50_ns),
        cell: |lock, _| duration(lock.totals.p50_ns),
        tone: plain,
    },
    Column {
        title: "P99", min: 6, want: 8, rank: 6, right: true, descending: true,
        key: |lock, _| Key::number(lock.totals.p99_ns),
        cell: |lock, _| duration(lock.totals.p99_ns),
        tone: plain,
    },
    Column {
        title: "MAX", min: 6, want: 8, rank: 7, right: true, descending: true,
        key: |lock, _| Key::Number(lock.totals.max_ns),
        cell: |lock, _| human(lock.totals.max_ns),
        tone: plain,
    },
    Column {
        title: "NOW", min: 4, want: 5, rank: 5, right: true, descending: true,
        key: |lock, _| Key::Number(u64::from(lock.totals.waiters_now)),
        cell: |lock, _| lock.totals.waiters_now.to_string(),
        tone: waiters_tone,
    },
    Column {
        title: "T/O", min: 5, want: 6, rank: 11, right: true, descending: true,
        key: |lock, _| Key::Number(lock.totals.timeouts),
        cell: |lock, _| count(lock.totals.timeouts),
        tone: plain,
    },
];

/// What a lock is.
pub(super) fn identity(lock: &LockRef) -> Fields {
    let whose = if lock.class.is_kernel() {
        "inside the kernel"
    } else if lock.shared {
        "processes may share it"
    } else {
        "private to its process"
    };
    let name = match &lock.name {
        Some(name) => format!("{name} at {}", lock.addr),
        None => lock.addr.to_string(),
    };
    vec![
        ("lock", name),
        (
            "",
            format!("{}, {whose}; id {}", lock.class.name(), lock.id),
        ),
    ]
}

/// Everything known of a lock.
pub(super) fn fields(lock: &Lock, context: Context) -> Fields {
    let totals = &lock.totals;
    let mut fields = identity(&totals.lock);
    let process = match totals.pid {
        Some(pid) => format!("{} (pid {pid})", known(totals.process.as_deref())),
        None => "any".to_owned(),
    };
    let waits = format!(
        "{}, {} a second; {} ended by their time limit, {} by a signal",
        totals.waits,
        rate(lock.waits_per_s),
        totals.timeouts,
        totals.interrupted
    );
    let (p50, p99) = (duration(totals.p50_ns), duration(totals.p99_ns));
    fields.extend([
        ("process", process),
        ("waits", waits),
        ("total", exact(totals.total_ns, context)),
        ("longest", exact(totals.max_ns, context)),
        ("median, p99", format!("{p50}, {p99}")),
        ("waiting now", totals.waiters_now.to_string()),
        ("counted at", totals.time.to_string()),
    ]);
    fields.extend(histogram(&totals.histogram, context));
    fields
}

fn histogram(buckets: &[Bucket], context: Context) -> Fields {
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    let line = |bucket: &Bucket| {
        let limit = match bucket.lt_ns {
            Some(ns) => format!("< {}", human(ns)),
            None => "longer".to_owned(),
        };
        let length = u128::from(bucket.count) * u128::from(BAR) / u128::from(most.max(1));
        let bar = context.glyphs.bar().repeat(length as usize);
        format!("{limit:>8} {:>9} {bar}", bucket.count)
    };
    let label = |n| if n == 0 { "histogram" } else { "" };
    let lines = buckets.iter().map(line).enumerate();
    lines.map(|(n, line)| (label(n), line)).collect()
}
