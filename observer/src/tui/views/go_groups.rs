//! The goroutines of Go processes, in groups that do the same.

use std::cmp::Ordering;

use super::{count, duration, known, plain, stacks};
use crate::{
    event::{GoFrame, GoState, GoWaitsFor, GoroutineGroup},
    tui::{
        goroutines::GoRow,
        rows::{Column, Filter, Key, Record, RowId, Tone},
        text::Glyphs,
    },
};

/// Looks that the strip shows.
const STRIP: usize = 16;

impl Record for GoRow {
    const DEFAULT_SORT: usize = 0;
    const FLEXIBLE: usize = 6;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn id(&self) -> RowId {
        RowId::GoGroup(self.key)
    }

    fn is(&self, id: &RowId) -> bool {
        *id == RowId::GoGroup(self.key)
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }

    fn is_idle(&self) -> bool {
        self.group().system
    }

    fn matches(&self, filter: &Filter) -> bool {
        let group = self.group();
        filter.is_in_some(self.all.process.as_deref())
            || filter.is_in_number(self.key.pid)
            || filter.is_in(&reason(group))
            || filter.is_in(&place(group))
            || filter.is_in(&origin(group))
            || group
                .stack
                .iter()
                .any(|frame| filter.is_in(&frame.function))
            || group
                .waits_for
                .iter()
                .filter_map(|one| one.lock.as_ref())
                .any(|lock| filter.is_in_lock(lock))
    }
}

/// Why they wait, or what they do.
pub(super) fn reason(group: &GoroutineGroup) -> String {
    match &group.wait_reason {
        Some(reason) => reason.to_string(),
        None => group.state.name().to_owned(),
    }
}

/// The program's own call that they are in.
pub(super) fn place(group: &GoroutineGroup) -> String {
    let own = group.stack.iter().find(|frame| frame.is_program());
    let frame = own.or(group.stack.first());
    frame.map_or_else(|| "no calls known".to_owned(), |frame| call(frame))
}

pub(super) fn origin(group: &GoroutineGroup) -> String {
    match &group.created_by {
        Some(frame) => call(frame),
        None => "-".to_owned(),
    }
}

/// A function, with the end of the path to its source.
pub(super) fn call(frame: &GoFrame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            format!("{} ({}:{line})", frame.function, stacks::last(file, 2))
        }
        _ => frame.function.clone(),
    }
}

/// What they wait for, in a few words.
pub(super) fn wanted(one: &GoWaitsFor) -> String {
    let what = match (&one.lock, one.fd) {
        (Some(lock), _) => lock.to_string(),
        (None, Some(fd)) => format!("descriptor {fd}"),
        (None, None) => "something unknown".to_owned(),
    };
    let operation = one
        .operation
        .map_or_else(String::new, |operation| format!(" ({})", operation.name()));
    let select = if one.select { ", in a select" } else { "" };
    format!("{what}{operation}{select}")
}

/// How many there were at the last looks, as a strip.
pub(super) fn strip(row: &GoRow, looks: usize, glyphs: Glyphs) -> String {
    let skip = row.trend.len().saturating_sub(looks);
    let counts = &row.trend[skip..];
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let level = |count: &u64| {
        let level = u128::from(*count) * 8 / u128::from(most);
        // What is not nothing is seen.
        glyphs.level((level as usize).max(usize::from(*count > 0)))
    };
    counts.iter().map(level).collect()
}

pub(super) fn growth(group: &GoroutineGroup) -> String {
    group
        .growth
        .map_or_else(|| "-".to_owned(), |growth| format!("{growth:+.0}"))
}

fn growth_tone(row: &GoRow) -> Tone {
    match row.group().growth {
        Some(growth) if growth >= 1.0 => Tone::Strong,
        _ => Tone::Normal,
    }
}

fn state_tone(row: &GoRow) -> Tone {
    match row.group().state {
        GoState::Leaked => Tone::Alarm,
        _ if row.group().system => Tone::Quiet,
        _ => Tone::Normal,
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<GoRow>] = &[
    Column {
        title: "COUNT", min: 6, want: 7, rank: 0, right: true, descending: true,
        key: |row, _| Key::Number(row.group().count),
        cell: |row, _| count(row.group().count),
        tone: plain,
    },
    Column {
        title: "/MIN", min: 6, want: 7, rank: 2, right: true, descending: true,
        // Above zero for those that grow, so that the order of the bits is that of the values.
        key: |row, _| row.group().growth.map_or(Key::Unknown, Key::rate),
        cell: |row, _| growth(row.group()),
        tone: growth_tone,
    },
    Column {
        title: "TREND", min: 8, want: 16, rank: 5, right: true, descending: true,
        key: |row, _| {
            let (first, last) = (row.trend.first(), row.trend.last());
            Key::Number(last.unwrap_or(&0).saturating_sub(*first.unwrap_or(&0)))
        },
        cell: |row, context| strip(row, STRIP.min(context.columns), context.glyphs),
        tone: growth_tone,
    },
    Column {
        title: "OLDEST", min: 7, want: 8, rank: 3, right: true, descending: true,
        key: |row, _| Key::number(row.group().oldest_ns),
        cell: |row, _| duration(row.group().oldest_ns),
        tone: plain,
    },
    Column {
        title: "WAITING", min: 8, want: 8, rank: 7, right: true, descending: true,
        key: |row, _| Key::number(row.group().longest_wait_ns),
        cell: |row, _| duration(row.group().longest_wait_ns),
        tone: plain,
    },
    Column {
        title: "STATE", min: 12, want: 20, rank: 4, right: false, descending: false,
        key: |row, _| Key::text(row.group().wait_reason.as_deref().or(Some(row.group().state.name()))),
        cell: |row, _| reason(row.group()),
        tone: state_tone,
    },
    Column {
        title: "STARTED BY", min: 20, want: 32, rank: 1, right: false, descending: false,
        key: |row, _| Key::text(row.group().created_by.as_ref().map(|frame| &*frame.function)),
        cell: |row, _| origin(row.group()),
        tone: plain,
    },
    Column {
        title: "NOW IN", min: 16, want: 32, rank: 6, right: false, descending: false,
        key: |row, _| Key::text(row.group().stack.iter().find(|frame| frame.is_program()).map(|frame| &*frame.function)),
        cell: |row, _| place(row.group()),
        tone: plain,
    },
    Column {
        title: "WAITS FOR", min: 16, want: 28, rank: 8, right: false, descending: false,
        key: |row, _| Key::lock(row.group().waits_for.first().and_then(|one| one.lock.as_ref())),
        cell: |row, _| row.group().waits_for.first().map_or_else(|| "-".to_owned(), wanted),
        tone: plain,
    },
    Column {
        title: "PROCESS", min: 10, want: 14, rank: 9, right: false, descending: false,
        key: |row, _| Key::text(row.all.process.as_deref()),
        cell: |row, _| known(row.all.process.as_deref()),
        tone: plain,
    },
    Column {
        title: "PID", min: 7, want: 7, rank: 10, right: true, descending: false,
        key: |row, _| Key::Number(u64::from(row.key.pid)),
        cell: |row, _| row.key.pid.to_string(),
        tone: plain,
    },
];
