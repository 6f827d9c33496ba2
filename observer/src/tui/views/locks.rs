//! Locks: where waiting time goes.

use std::cmp::Ordering;

use super::{
    Fields, count, duration, exact, holder_cell, known, lock_cell, plain, sheet::Sheet, words,
};
use crate::{
    event::{Addr, Bucket, LockRef, LockTotals},
    model::Lock,
    time::human,
    tui::{
        canvas::{Line, Segment},
        rows::{Column, Context, Filter, Key, Record, RowId, Tone},
        text::cut,
    },
};

/// Columns of the longest bar of a histogram.
const BAR: u64 = 30;

impl Record for Lock {
    const DEFAULT_SORT: usize = 6;
    const FLEXIBLE: usize = 0;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
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
            || filter.is_in_shared(self.totals.process.as_ref())
            || filter.is_in_class(self.totals.lock.class)
            || self.totals.pid.is_some_and(|pid| filter.is_in_number(pid))
            || filter.is_in_holder(self.holder())
    }
}

pub(super) fn rate(waits_per_s: f64) -> String {
    if waits_per_s < 10.0 {
        format!("{waits_per_s:.1}")
    } else {
        count(waits_per_s as u64)
    }
}

/// The holder; where nobody waits for long enough just now, the last one that was seen.
fn holder(lock: &Lock, context: Context) -> String {
    match (lock.holder(), lock.last_holder()) {
        (None, Some((holder, _))) if words::is_busy(lock) => {
            let name = known(holder.comm.as_deref());
            let room = context.columns.saturating_sub(5);
            let name = cut(
                &context.glyphs.clean(&name),
                room,
                context.glyphs.ellipsis(),
            )
            .into_owned();
            format!("{name} last")
        }
        (holder, _) => holder_cell(holder, context),
    }
}

fn waiters_tone(lock: &Lock) -> Tone {
    if lock.waiters_now() > 0 {
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
        title: "CLASS", min: 9, want: 16, rank: 9, right: false, descending: false,
        key: |lock, _| Key::Text(lock.totals.lock.class.name()),
        cell: |lock, _| lock.totals.lock.class.name().to_owned(),
        tone: plain,
    },
    Column {
        title: "PID", min: 7, want: 7, rank: 10, right: true, descending: false,
        key: |lock, _| Key::Number(u64::from(lock.totals.pid.unwrap_or(0))),
        cell: |lock, _| lock.totals.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        tone: plain,
    },
    Column {
        title: "PROCESS", min: 10, want: 16, rank: 6, right: false, descending: false,
        key: |lock, _| Key::text(lock.totals.process.as_deref()),
        cell: |lock, _| known(lock.totals.process.as_deref()),
        tone: plain,
    },
    Column {
        title: "WAITS", min: 6, want: 8, rank: 8, right: true, descending: true,
        key: |lock, _| Key::Number(lock.totals.waits),
        cell: |lock, _| count(lock.totals.waits),
        tone: plain,
    },
    Column {
        title: "WAITS/S", min: 7, want: 8, rank: 3, right: true, descending: true,
        key: |lock, _| Key::rate(lock.waits_per_s),
        cell: |lock, _| rate(lock.waits_per_s),
        tone: plain,
    },
    Column {
        title: "TOTAL", min: 6, want: 8, rank: 1, right: true, descending: true,
        key: |lock, now_ns| Key::Number(lock.waited_ns(now_ns)),
        cell: |lock, context| human(lock.waited_ns(context.now_ns)),
        tone: plain,
    },
    Column {
        title: "P50", min: 6, want: 8, rank: 5, right: true, descending: true,
        key: |lock, _| Key::number(lock.totals.p50_ns),
        cell: |lock, _| duration(lock.totals.p50_ns),
        tone: plain,
    },
    Column {
        title: "P99", min: 6, want: 8, rank: 4, right: true, descending: true,
        key: |lock, _| Key::number(lock.totals.p99_ns),
        cell: |lock, _| duration(lock.totals.p99_ns),
        tone: plain,
    },
    Column {
        title: "MAX", min: 6, want: 8, rank: 4, right: true, descending: true,
        key: |lock, _| Key::number(longest(&lock.totals)),
        cell: |lock, _| duration(longest(&lock.totals)),
        tone: plain,
    },
    Column {
        title: "NOW", min: 4, want: 5, rank: 3, right: true, descending: true,
        key: |lock, _| Key::Number(u64::from(lock.waiters_now())),
        cell: |lock, _| lock.waiters_now().to_string(),
        tone: waiters_tone,
    },
    Column {
        title: "HOLDER", min: 17, want: 20, rank: 2, right: false, descending: false,
        key: |lock, _| Key::text(lock.holder().and_then(|holder| holder.comm.as_deref())),
        cell: holder,
        tone: |lock| words::holder_tone(lock.holder()),
    },
    Column {
        title: "HOLDER DOES", min: 12, want: 24, rank: 7, right: false, descending: false,
        key: |lock, _| Key::text(lock.holder().and_then(words::doing)),
        cell: |lock, _| known(lock.holder().and_then(words::doing)),
        tone: |lock| words::holder_tone(lock.holder()),
    },
    Column {
        title: "T/O", min: 5, want: 6, rank: 13, right: true, descending: true,
        key: |lock, _| Key::Number(lock.totals.timeouts),
        cell: |lock, _| count(lock.totals.timeouts),
        tone: plain,
    },
];

/// What a lock is, in two lines.
pub(super) fn identity(lock: &LockRef) -> [String; 2] {
    let whose = if lock.class.is_kernel() {
        "inside the kernel"
    } else if lock.shared {
        "processes may share it"
    } else {
        "private to its process"
    };
    let name = match &lock.name {
        Some(name) if lock.addr == Addr::NONE => name.to_string(),
        Some(name) => format!("{name} at {}", lock.addr),
        None => lock.addr.to_string(),
    };
    [
        name,
        format!("{}, {whose}; id {}", lock.class.name(), lock.id),
    ]
}

/// The numbers that are known of a lock.
pub(super) fn fields(lock: &Lock, context: Context) -> Fields {
    let totals = &lock.totals;
    let process = match totals.pid {
        Some(pid) => format!("{} (pid {pid})", known(totals.process.as_deref())),
        None => "any".to_owned(),
    };
    let estimated = if totals.estimated {
        "; estimates: short waits were sampled"
    } else {
        ""
    };
    let waits = format!(
        "{}, {} a second; {} ended by their time limit, {} by a signal{estimated}",
        totals.waits,
        rate(lock.waits_per_s),
        totals.timeouts,
        totals.interrupted
    );
    let waited = format!(
        "{} in waits that ended, {} in those in progress",
        human(totals.total_ns),
        human(lock.pending_ns(context.now_ns))
    );
    let (p50, p99) = (duration(totals.p50_ns), duration(totals.p99_ns));
    vec![
        ("process", process),
        ("waits", waits),
        ("waited", waited),
        ("median, p99", format!("{p50}, {p99}")),
        (
            "longest",
            longest(totals).map_or_else(|| "-".to_owned(), |ns| exact(ns, context)),
        ),
        ("waiting now", lock.waiters_now().to_string()),
    ]
}

/// The longest wait, once one has ended.
fn longest(totals: &LockTotals) -> Option<u64> {
    (totals.waits > 0).then_some(totals.max_ns)
}

/// The durations of waits that ended, as bars.
pub(super) fn histogram(sheet: &mut Sheet, buckets: &[Bucket]) {
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    sheet.heading("how long waits took");
    for bucket in buckets {
        let limit = match bucket.lt_ns {
            Some(ns) => format!("< {}", human(ns)),
            None => "longer".to_owned(),
        };
        let length = u128::from(bucket.count) * u128::from(BAR) / u128::from(most);
        // What is not nothing is seen.
        let length = (length as usize).max(usize::from(bucket.count > 0));
        let bar = sheet.glyphs.bar().repeat(length);
        let text = format!("{limit:>9} {:>9} {bar}", bucket.count);
        sheet
            .lines
            .push(Line::new(vec![Segment::new(text, Tone::Normal)]));
    }
}
