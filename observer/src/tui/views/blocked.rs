//! Waits in progress: who is blocked now, on what, and for how long.

use std::cmp::Ordering;

use super::{at_least, holder_cell, known, locks_cell, plain, words};
use crate::{
    time::human,
    tui::{
        host::Place,
        rows::{self, Column, Filter, Key, Record, RowId, Tone},
        waiting::Waiting,
    },
};

impl Record for Waiting {
    const DEFAULT_SORT: usize = 0;
    const FLEXIBLE: usize = 8;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn id(&self) -> RowId {
        match &self.goroutines {
            Some(row) => RowId::GoGroup(row.key),
            None => RowId::Task(self.event.task.tid),
        }
    }

    fn is(&self, id: &RowId) -> bool {
        match (id, &self.goroutines) {
            (RowId::Task(tid), None) => *tid == self.event.task.tid,
            (RowId::GoGroup(key), Some(row)) => *key == row.key,
            _ => false,
        }
    }

    fn tie(&self, other: &Self) -> Ordering {
        let key = |wait: &Self| wait.goroutines.as_ref().map(|row| row.key);
        rows::tie(self, other).then_with(|| key(self).cmp(&key(other)))
    }

    fn is_idle(&self) -> bool {
        rows::is_idle(self.event.kind)
    }

    fn since_ns(&self) -> Option<u64> {
        // Of goroutines it is only known for how long they have waited at least.
        self.goroutines.is_none().then_some(self.start_ns)
    }

    fn matches(&self, filter: &Filter) -> bool {
        rows::is_found(self, filter)
            || filter.is_in(kind(self))
            || self
                .place
                .as_ref()
                .is_some_and(|place| place.is_found(filter))
    }
}

/// Somebody has ended the wait, and the task waits for a CPU.
fn state(wait: &Waiting) -> String {
    match wait.event.runqueue_ns {
        Some(ns) => format!("runnable {}", human(ns)),
        None => "blocked".to_owned(),
    }
}

fn state_tone(wait: &Waiting) -> Tone {
    match wait.event.runqueue_ns {
        Some(_) => Tone::Strong,
        None => Tone::Normal,
    }
}

/// What it waits in; of goroutines, in the words of their runtime.
fn kind(wait: &Waiting) -> &str {
    let row = wait.goroutines.as_ref();
    let reason = row.and_then(|row| row.group().wait_reason.as_deref());
    reason.unwrap_or(wait.event.kind.name())
}

/// `writer/12 → flusher/13`: the holder, and whom that one waits for itself; nothing where it waits for nobody.
fn chain(wait: &Waiting) -> String {
    /// Names that there is room for.
    const NAMES: usize = 4;
    if wait.chain.len() < 2 {
        return "-".to_owned();
    }
    let names: Vec<String> = wait.chain.iter().map(words::holder_name).collect();
    if names.len() > NAMES {
        return format!("{} → …", names[..NAMES].join(" → "));
    }
    let names = names.join(" → ");
    let before = wait.chain.iter().rev().skip(1).map(|holder| holder.tid);
    let mut before = before.chain([Some(wait.event.task.tid)]);
    let last = wait.chain.last().and_then(|holder| holder.tid);
    if before.any(|tid| tid == last) {
        format!("{names}: circle")
    } else {
        names
    }
}

fn kind_tone(wait: &Waiting) -> Tone {
    if rows::is_idle(wait.event.kind) {
        Tone::Quiet
    } else {
        Tone::Normal
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<Waiting>] = &[
    Column {
        title: "AGE", min: 7, want: 8, rank: 0, right: true, descending: true,
        key: |wait, now_ns| Key::Number(wait.age_ns(now_ns)),
        cell: |wait, context| at_least(wait.age_ns(context.now_ns), wait.event.at_least, context.glyphs),
        tone: plain,
    },
    Column {
        title: "TID", min: 7, want: 7, rank: 7, right: true, descending: false,
        key: |wait, _| Key::Number(u64::from(wait.event.task.tid)),
        cell: |wait, _| match wait.event.task.tid {
            0 => "-".to_owned(),
            tid => tid.to_string(),
        },
        tone: plain,
    },
    Column {
        title: "PID", min: 7, want: 7, rank: 8, right: true, descending: false,
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
        title: "PROCESS", min: 12, want: 16, rank: 6, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.task.process.as_deref()),
        cell: |wait, _| known(wait.event.task.process.as_deref()),
        tone: plain,
    },
    Column {
        title: "KIND", min: 8, want: 16, rank: 4, right: false, descending: false,
        key: |wait, _| Key::Text(kind(wait)),
        cell: |wait, _| kind(wait).to_owned(),
        tone: kind_tone,
    },
    Column {
        title: "LOCK", min: 14, want: 20, rank: 2, right: false, descending: false,
        key: |wait, _| Key::lock(wait.event.lock.as_ref().or(wait.event.locks.first()).map(|lock| &**lock)),
        cell: |wait, context| locks_cell(wait.event.lock.as_deref(), &wait.event.locks, context),
        tone: plain,
    },
    Column {
        title: "HOLDER", min: 17, want: 20, rank: 3, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.holder.as_ref().and_then(|holder| holder.comm.as_deref())),
        cell: |wait, context| holder_cell(wait.event.holder.as_deref(), context),
        tone: |wait| words::holder_tone(wait.event.holder.as_deref()),
    },
    Column {
        title: "HOLDER DOES", min: 12, want: 24, rank: 5, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.holder.as_deref().and_then(words::doing)),
        cell: |wait, _| known(wait.event.holder.as_deref().and_then(words::doing)),
        tone: |wait| words::holder_tone(wait.event.holder.as_deref()),
    },
    Column {
        title: "SYSCALL", min: 10, want: 18, rank: 10, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.syscall.as_deref()),
        cell: |wait, _| known(wait.event.syscall.as_deref()),
        tone: plain,
    },
    Column {
        title: "STATE", min: 15, want: 16, rank: 9, right: false, descending: true,
        key: |wait, _| Key::number(wait.event.runqueue_ns),
        cell: |wait, _| state(wait),
        tone: state_tone,
    },
    Column {
        title: "CONTAINER", min: 14, want: 24, rank: 11, right: false, descending: false,
        key: |wait, _| Key::text(wait.place.as_ref().map(Place::text)),
        cell: |wait, _| wait.place.as_ref().map_or_else(|| "-".to_owned(), Place::name),
        tone: plain,
    },
    Column {
        title: "CHAIN", min: 20, want: 44, rank: 12, right: false, descending: false,
        key: |wait, _| Key::text(wait.event.holder.as_ref().and_then(|holder| holder.comm.as_deref())),
        cell: |wait, _| chain(wait),
        tone: plain,
    },
];
