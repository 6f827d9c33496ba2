//! Waits in progress: who is blocked now, on what, and for how long.

use std::cmp::Ordering;

use super::{Fields, at_least, exact, kind, known, locks_cell, plain, task};
use crate::{
    model::InProgress,
    time::human,
    tui::rows::{Column, Context, Filter, Key, Record, RowId, Source, Tone},
};

impl Record for InProgress {
    const DEFAULT_SORT: usize = 0;
    const FLEXIBLE: usize = 6;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn all<'a>(source: Source<'a>) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        match source {
            Source::Live(model) => Box::new(model.blocked()),
            Source::Frozen(frozen) => Box::new(frozen.blocked.iter()),
        }
    }

    fn id(&self) -> RowId {
        RowId::Task(self.event.task.tid)
    }

    fn is(&self, id: &RowId) -> bool {
        matches!(id, RowId::Task(tid) if *tid == self.event.task.tid)
    }

    fn tie(&self, other: &Self) -> Ordering {
        (self.start_ns, self.event.task.tid).cmp(&(other.start_ns, other.event.task.tid))
    }

    fn is_idle(&self) -> bool {
        self.event.kind.is_idle()
    }

    fn matches(&self, filter: &Filter) -> bool {
        let event = &self.event;
        filter.is_in_some(event.task.comm.as_deref())
            || filter.is_in_some(event.task.process.as_deref())
            || filter.is_in(event.kind.name())
            || filter.is_in_some(event.syscall.as_deref())
            || filter.is_in_number(event.task.tid)
            || filter.is_in_number(event.task.pid)
            || event.lock.iter().any(|lock| filter.is_in_lock(lock))
            || event.locks.iter().any(|lock| filter.is_in_lock(lock))
    }
}

/// Somebody has ended the wait, and the task waits for a CPU.
fn state(wait: &InProgress) -> String {
    match wait.event.runqueue_ns {
        Some(ns) => format!("runnable {}", human(ns)),
        None => "blocked".to_owned(),
    }
}

fn state_tone(wait: &InProgress) -> Tone {
    match wait.event.runqueue_ns {
        Some(_) => Tone::Strong,
        None => Tone::Normal,
    }
}

fn kind_tone(wait: &InProgress) -> Tone {
    if wait.event.kind.is_idle() {
        Tone::Quiet
    } else {
        Tone::Normal
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<InProgress>] = &[
    Column {
        title: "AGE", min: 7, want: 8, rank: 0, right: true, descending: true,
        key: |wait, now_ns| Key::Number(wait.age_ns(now_ns)),
        cell: |wait, context| at_least(wait.age_ns(context.now_ns), wait.event.at_least, context.glyphs),
        tone: plain,
    },
    Column {
        title: "TID", min: 7, want: 7, rank: 4, right: true, descending: false,
        key: |wait, _| Key::Number(u64::from(wait.event.task.tid)),
        cell: |wait, _| wait.event.task.tid.to_string(),
        tone: plain,
    },
    Column {
        title: "PID", min: 7, want: 7, rank: 6, right: true, descending: false,
        key: |wait, _| Key::Number(u64::from(wait.event.task.pid)),
        cell: |wait, _| wait.event.task.pid.to_string(),
        tone: plain,
    },
    Column {
        title: "TASK", min: 12, want: 16, rank: 1, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.task.comm.as_deref()),
        cell: |wait, _| known(wait.event.task.comm.as_deref()),
        tone: plain,
    },
    Column {
        title: "PROCESS", min: 12, want: 16, rank: 5, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.task.process.as_deref()),
        cell: |wait, _| known(wait.event.task.process.as_deref()),
        tone: plain,
    },
    Column {
        title: "KIND", min: 10, want: 11, rank: 3, right: false, descending: false,
        key: |wait, _| Key::Text(wait.event.kind.name()),
        cell: |wait, _| wait.event.kind.name().to_owned(),
        tone: kind_tone,
    },
    Column {
        title: "LOCK", min: 14, want: 20, rank: 2, right: false, descending: false,
        key: |wait, _| Key::lock(wait.event.lock.as_ref().or(wait.event.locks.first())),
        cell: |wait, context| locks_cell(wait.event.lock.as_ref(), &wait.event.locks, context),
        tone: plain,
    },
    Column {
        title: "SYSCALL", min: 10, want: 18, rank: 8, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.syscall.as_deref()),
        cell: |wait, _| known(wait.event.syscall.as_deref()),
        tone: plain,
    },
    Column {
        title: "STATE", min: 15, want: 16, rank: 7, right: false, descending: true,
        key: |wait, _| Key::number(wait.event.runqueue_ns),
        cell: |wait, _| state(wait),
        tone: state_tone,
    },
];

/// Everything known of a wait in progress, but its locks.
pub(super) fn fields(wait: &InProgress, context: Context) -> Fields {
    let event = &wait.event;
    let age_ns = wait.age_ns(context.now_ns);
    let age = if event.at_least {
        let age = at_least(age_ns, true, context.glyphs);
        format!("{age}: it began before observer did")
    } else {
        exact(age_ns, context)
    };
    let state = match (event.runqueue_ns, event.blocked_ns) {
        (Some(_), Some(ns)) => format!("{}, after being blocked for {}", state(wait), human(ns)),
        _ => state(wait),
    };
    vec![
        ("task", task(&event.task)),
        ("kind", kind(event.kind, event.syscall.as_deref())),
        ("age", age),
        ("state", state),
        ("last seen", event.time.to_string()),
    ]
}
