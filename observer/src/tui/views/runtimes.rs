//! Runtimes: what threads of each wait for in the runtime's own words, who holds it, and what is wrong there.

use std::cmp::Ordering;

use super::{count, duration, holder_cell, known, lock_cell, locks, plain, words};
use crate::{
    event::Severity,
    time::human,
    tui::{
        groups::GroupKey,
        rows::{Column, Filter, Key, Record, RowId, Tone},
        runtimes::{RuntimeKey, RuntimeRow, Scope},
    },
};

impl Record for RuntimeRow {
    const DEFAULT_SORT: usize = 10;
    const FLEXIBLE: usize = 10;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn id(&self) -> RowId {
        RowId::Group(GroupKey::Runtime(self.key.clone()))
    }

    fn is(&self, id: &RowId) -> bool {
        matches!(id, RowId::Group(GroupKey::Runtime(key)) if *key == self.key)
    }

    /// Where most is waited for comes first.
    fn tie(&self, other: &Self) -> Ordering {
        let key = |row: &Self| (row.now, row.waited_ns);
        key(other)
            .cmp(&key(self))
            .then_with(|| self.key.cmp(&other.key))
    }

    fn is_idle(&self) -> bool {
        false
    }

    fn matches(&self, filter: &Filter) -> bool {
        filter.is_in(self.key.runtime.name())
            || filter.is_in_some(self.key.part)
            || filter.is_in_some(self.name.as_deref())
            || matches!(self.key.scope, Scope::Process(pid) if filter.is_in_number(pid))
            || self
                .lock
                .as_ref()
                .is_some_and(|lock| filter.is_in_lock(lock))
            || filter.is_in_holder(self.holder.as_deref())
            || self
                .finding
                .as_ref()
                .is_some_and(|(_, title)| filter.is_in(title))
    }
}

/// What of which runtime, in words.
pub(super) fn what(key: &RuntimeKey) -> String {
    let whose = match &key.scope {
        Scope::Process(pid) => format!("process {pid}"),
        Scope::Server(name) => name.to_string(),
    };
    match key.part {
        Some(part) => format!("{part} of {}, {whose}", key.runtime.name()),
        None => whose,
    }
}

/// A process by name and number; a server by its name, and of how many processes it is.
fn process(row: &RuntimeRow) -> String {
    match &row.key.scope {
        Scope::Process(pid) => format!("{} {pid}", known(row.name.as_deref())),
        Scope::Server(name) => format!("{name} ({})", row.processes),
    }
}

fn finding(row: &RuntimeRow) -> String {
    match (&row.finding, row.findings) {
        (None, _) => "-".to_owned(),
        (Some((severity, title)), 0 | 1) => format!("{}: {title}", severity.name()),
        (Some((severity, title)), several) => {
            format!("{}: {title} (+{})", severity.name(), several - 1)
        }
    }
}

fn finding_tone(row: &RuntimeRow) -> Tone {
    match row.finding {
        Some((Severity::Critical, _)) => Tone::Alarm,
        Some(_) => Tone::Strong,
        None => Tone::Normal,
    }
}

/// Nothing of it is waited for.
fn part_tone(row: &RuntimeRow) -> Tone {
    match row.key.part {
        Some(_) => Tone::Normal,
        None => Tone::Quiet,
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<RuntimeRow>] = &[
    Column {
        title: "RUNTIME", min: 10, want: 10, rank: 2, right: false, descending: false,
        key: |row, _| Key::Text(row.key.runtime.name()),
        cell: |row, _| row.key.runtime.name().to_owned(),
        tone: plain,
    },
    Column {
        title: "PROCESS", min: 12, want: 20, rank: 3, right: false, descending: false,
        key: |row, _| Key::text(row.name.as_deref()),
        cell: |row, _| process(row),
        tone: plain,
    },
    Column {
        title: "WAITS FOR", min: 12, want: 18, rank: 0, right: false, descending: false,
        key: |row, _| Key::text(row.key.part),
        cell: |row, _| row.key.part.unwrap_or("nothing now").to_owned(),
        tone: part_tone,
    },
    Column {
        title: "NOW", min: 5, want: 6, rank: 1, right: true, descending: true,
        key: |row, _| Key::Number(row.now),
        cell: |row, _| count(row.now),
        tone: plain,
    },
    Column {
        title: "OLDEST", min: 7, want: 8, rank: 6, right: true, descending: true,
        key: |row, _| Key::number(row.oldest_ns),
        cell: |row, _| duration(row.oldest_ns),
        tone: plain,
    },
    Column {
        title: "LOCK", min: 14, want: 24, rank: 5, right: false, descending: false,
        key: |row, _| Key::lock(row.lock.as_deref()),
        cell: |row, context| row.lock.as_ref().map_or_else(|| "-".to_owned(), |lock| lock_cell(lock, "", context)),
        tone: plain,
    },
    Column {
        title: "HOLDER", min: 17, want: 20, rank: 4, right: false, descending: false,
        key: |row, _| Key::text(row.holder.as_ref().and_then(|holder| holder.comm.as_deref())),
        cell: |row, context| holder_cell(row.holder.as_deref(), context),
        tone: |row| words::holder_tone(row.holder.as_deref()),
    },
    Column {
        title: "HOLDER DOES", min: 12, want: 24, rank: 7, right: false, descending: false,
        key: |row, _| Key::text(row.holder.as_deref().and_then(words::doing)),
        cell: |row, _| known(row.holder.as_deref().and_then(words::doing)),
        tone: |row| words::holder_tone(row.holder.as_deref()),
    },
    Column {
        title: "WAITS/S", min: 8, want: 8, rank: 8, right: true, descending: true,
        key: |row, _| Key::rate(row.waits_per_s),
        cell: |row, _| locks::rate(row.waits_per_s),
        tone: plain,
    },
    Column {
        title: "WAITED", min: 7, want: 8, rank: 9, right: true, descending: true,
        key: |row, _| Key::Number(row.waited_ns),
        cell: |row, _| human(row.waited_ns),
        tone: plain,
    },
    Column {
        title: "FINDING", min: 16, want: 32, rank: 4, right: false, descending: true,
        key: |row, _| row.finding.as_ref().map_or(Key::Unknown, |(severity, _)| Key::Number(*severity as u64)),
        cell: |row, _| finding(row),
        tone: finding_tone,
    },
    Column {
        title: "RECOGNISED", min: 16, want: 32, rank: 10, right: false, descending: false,
        key: |row, _| Key::text(row.detail.as_deref()),
        cell: |row, _| known(row.detail.as_deref()),
        tone: plain,
    },
];
