//! Long waits as they ended, and who ended them.

use std::cmp::Ordering;

use super::{Fields, at_least, duration, exact, kind, known, locks_cell, plain};
use crate::{
    event::{Outcome, Wait, Waker},
    time::WallTime,
    tui::{
        rows::{self, Column, Context, Filter, Key, Record, RowId, Tone},
        text::{Glyphs, width},
    },
};

impl Record for Wait {
    const DEFAULT_SORT: usize = 0;
    const FLEXIBLE: usize = 8;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn id(&self) -> RowId {
        RowId::Wait {
            tid: self.task.tid,
            end_ns: self.mono_ns,
        }
    }

    fn is(&self, id: &RowId) -> bool {
        matches!(id, RowId::Wait { tid, end_ns }
            if (*tid, *end_ns) == (self.task.tid, self.mono_ns))
    }

    fn tie(&self, other: &Self) -> Ordering {
        (other.mono_ns, self.task.tid).cmp(&(self.mono_ns, other.task.tid))
    }

    fn is_idle(&self) -> bool {
        rows::is_idle(self.kind)
    }

    fn since_ns(&self) -> Option<u64> {
        Some(self.mono_ns)
    }

    fn matches(&self, filter: &Filter) -> bool {
        filter.is_in_task(&self.task)
            || filter.is_in(self.kind.name())
            || filter.is_in_some(self.syscall.as_deref())
            || filter.is_in_holder(self.holder.as_deref())
            || self.lock.iter().any(|lock| filter.is_in_lock(lock))
            || self.locks.iter().any(|lock| filter.is_in_lock(lock))
    }
}

/// The time of day, in UTC, to the millisecond.
fn time_of_day(time: WallTime) -> String {
    let text = time.to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

fn length(wait: &Wait, glyphs: Glyphs) -> String {
    let text = at_least(wait.dur_ns, wait.at_least, glyphs);
    if wait.end_unseen {
        format!("~{text}")
    } else {
        text
    }
}

fn outcome(wait: &Wait) -> String {
    known(wait.outcome.map(Outcome::name))
}

fn outcome_tone(wait: &Wait) -> Tone {
    match wait.outcome {
        Some(Outcome::Timeout | Outcome::Interrupted) => Tone::Strong,
        _ => Tone::Normal,
    }
}

fn waker_name(waker: &Waker) -> &str {
    waker.comm.as_deref().unwrap_or("?")
}

/// Who ended the wait; without the thread where there is only room for the name.
fn waker(wait: &Wait, context: Context) -> String {
    let Some(waker) = &wait.waker else {
        return known(None);
    };
    let name = context.glyphs.clean(waker_name(waker));
    let full = format!("{name} ({})", waker.tid);
    if width(&full) > context.columns {
        name.into_owned()
    } else {
        full
    }
}

fn kind_tone(wait: &Wait) -> Tone {
    if rows::is_idle(wait.kind) {
        Tone::Quiet
    } else {
        Tone::Normal
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<Wait>] = &[
    Column {
        title: "TIME UTC", min: 12, want: 12, rank: 1, right: false, descending: true,
        key: |wait, _| Key::Number(wait.mono_ns),
        cell: |wait, _| time_of_day(wait.time),
        tone: plain,
    },
    Column {
        title: "DUR", min: 7, want: 8, rank: 0, right: true, descending: true,
        key: |wait, _| Key::Number(wait.dur_ns),
        cell: |wait, context| length(wait, context.glyphs),
        tone: plain,
    },
    Column {
        title: "BLOCKED", min: 7, want: 8, rank: 9, right: true, descending: true,
        key: |wait, _| Key::number(wait.blocked_ns),
        cell: |wait, _| duration(wait.blocked_ns),
        tone: plain,
    },
    Column {
        title: "RUNQ", min: 6, want: 8, rank: 8, right: true, descending: true,
        key: |wait, _| Key::number(wait.runqueue_ns),
        cell: |wait, _| duration(wait.runqueue_ns),
        tone: plain,
    },
    Column {
        title: "TID", min: 7, want: 7, rank: 7, right: true, descending: false,
        key: |wait, _| Key::Number(u64::from(wait.task.tid)),
        cell: |wait, _| wait.task.tid.to_string(),
        tone: plain,
    },
    Column {
        title: "TASK", min: 12, want: 16, rank: 2, right: false, descending: false,
        key: |wait, _| Key::text(wait.task.comm.as_deref()),
        cell: |wait, _| known(wait.task.comm.as_deref()),
        tone: plain,
    },
    Column {
        title: "PROCESS", min: 12, want: 16, rank: 11, right: false, descending: false,
        key: |wait, _| Key::text(wait.task.process.as_deref()),
        cell: |wait, _| known(wait.task.process.as_deref()),
        tone: plain,
    },
    Column {
        title: "KIND", min: 10, want: 11, rank: 4, right: false, descending: false,
        key: |wait, _| Key::Text(wait.kind.name()),
        cell: |wait, _| wait.kind.name().to_owned(),
        tone: kind_tone,
    },
    Column {
        title: "LOCK", min: 14, want: 20, rank: 3, right: false, descending: false,
        key: |wait, _| Key::lock(wait.lock.as_ref().or(wait.locks.first()).map(|lock| &**lock)),
        cell: |wait, context| locks_cell(wait.lock.as_deref(), &wait.locks, context),
        tone: plain,
    },
    Column {
        title: "OUTCOME", min: 7, want: 11, rank: 4, right: false, descending: false,
        key: |wait, _| Key::text(wait.outcome.map(Outcome::name)),
        cell: |wait, _| outcome(wait),
        tone: outcome_tone,
    },
    Column {
        title: "WAKER", min: 10, want: 24, rank: 5, right: false, descending: false,
        key: |wait, _| Key::text(wait.waker.as_deref().map(waker_name)),
        cell: |wait, context| waker(wait, context),
        tone: plain,
    },
    Column {
        title: "SYSCALL", min: 10, want: 18, rank: 10, right: false, descending: false,
        key: |wait, _| Key::text(wait.syscall.as_deref()),
        cell: |wait, _| known(wait.syscall.as_deref()),
        tone: plain,
    },
];

/// Everything known of a wait that ended, but its task and its locks.
pub(super) fn fields(wait: &Wait, context: Context) -> Fields {
    let mut long = exact(wait.dur_ns, context);
    if wait.at_least {
        long = format!(
            "{} {long}: it began before observer did",
            context.glyphs.at_least()
        );
    }
    if wait.end_unseen {
        long.push_str("; its end was not seen, so this is not exact");
    }
    let woken_by = wait.waker.as_ref().map(|waker| {
        let (name, tid, pid) = (waker_name(waker), waker.tid, waker.pid);
        format!("{name} (tid {tid}, pid {pid})")
    });
    let (blocked, runqueue) = (duration(wait.blocked_ns), duration(wait.runqueue_ns));
    vec![
        ("kind", kind(wait.kind, wait.syscall.as_deref())),
        ("waited", long),
        (
            "of that",
            format!("{blocked} blocked, then {runqueue} runnable"),
        ),
        ("outcome", outcome(wait)),
        ("waker", known(woken_by.as_deref())),
        ("ended", wait.time.to_string()),
    ]
}
