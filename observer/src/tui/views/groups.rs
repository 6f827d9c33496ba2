//! Waits in progress, put together by what they have in common.

use std::cmp::Ordering;

use super::{at_least, count, holder_cell, known, plain, runtimes, stacks, words};
use crate::tui::{
    groups::{Group, GroupKey, story},
    host::Place,
    rows::{Column, Context, Filter, Key, Record, RowId, Tone},
};

/// Functions of a stack that are named.
const FRAMES: usize = 3;

impl Record for Group {
    const DEFAULT_SORT: usize = 0;
    const FLEXIBLE: usize = 2;

    fn columns() -> &'static [Column<Self>] {
        COLUMNS
    }

    fn id(&self) -> RowId {
        RowId::Group(self.key.clone())
    }

    fn is(&self, id: &RowId) -> bool {
        matches!(id, RowId::Group(key) if *key == self.key)
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }

    fn is_idle(&self) -> bool {
        self.is_folded()
    }

    fn matches(&self, _: &Filter) -> bool {
        self.is_found()
    }
}

/// What the waits have in common, in words.
fn title(group: &Group, context: Context) -> String {
    let event = &group.oldest.event;
    match &group.key {
        GroupKey::Lock(Some(_)) => words::lock(event.lock.as_deref()),
        GroupKey::Lock(None) => "no lock".to_owned(),
        GroupKey::Runtime(key) => runtimes::what(key),
        GroupKey::Process(pid) => format!("{} {pid}", known(event.task.process.as_deref())),
        GroupKey::Stack(None) => "no stack known".to_owned(),
        GroupKey::Container(Some(place)) => place.name(),
        GroupKey::Container(None) => "control group not known".to_owned(),
        GroupKey::Stack(Some(_)) => event.stack.as_ref().map_or_else(String::new, |stack| {
            stacks::brief(&story(stack, FRAMES), context.glyphs)
        }),
    }
}

/// What a group is, for the line above its tasks.
pub(in crate::tui) fn name(key: &GroupKey) -> String {
    match key {
        GroupKey::Lock(Some(id)) => format!("only lock {id}"),
        GroupKey::Lock(None) => "only without a lock".to_owned(),
        GroupKey::Process(pid) => format!("only process {pid}"),
        GroupKey::Runtime(key) => format!("only {}", runtimes::what(key)),
        GroupKey::Stack(Some(_)) => "only with one stack".to_owned(),
        GroupKey::Stack(None) => "only without a known stack".to_owned(),
        GroupKey::Container(Some(place)) => format!("only {}", place.name()),
        GroupKey::Container(None) => "only without a known control group".to_owned(),
    }
}

#[rustfmt::skip]
static COLUMNS: &[Column<Group>] = &[
    Column {
        title: "TASKS", min: 6, want: 7, rank: 0, right: true, descending: true,
        key: |group, _| Key::Number(group.tasks),
        cell: |group, _| count(group.tasks),
        tone: plain,
    },
    Column {
        title: "OLDEST", min: 7, want: 8, rank: 2, right: true, descending: true,
        key: |group, now_ns| Key::Number(group.oldest.age_ns(now_ns)),
        cell: |group, context| {
            let wait = &group.oldest;
            at_least(wait.age_ns(context.now_ns), wait.event.at_least, context.glyphs)
        },
        tone: plain,
    },
    Column {
        title: "GROUP", min: 24, want: 32, rank: 1, right: false, descending: false,
        key: |group, _| match &group.key {
            GroupKey::Runtime(_) => Key::Unknown,
            GroupKey::Process(_) => Key::text(group.oldest.event.task.process.as_deref()),
            GroupKey::Stack(stack) => Key::number(*stack),
            GroupKey::Container(place) => Key::text(place.as_ref().map(Place::text)),
            GroupKey::Lock(_) => Key::lock(group.oldest.event.lock.as_deref()),
        },
        cell: title,
        tone: plain,
    },
    Column {
        title: "HOLDER", min: 17, want: 20, rank: 3, right: false, descending: false,
        key: |group, _| Key::text(group.holder.as_ref().and_then(|holder| holder.comm.as_deref())),
        cell: |group, context| if group.several {
            "several".to_owned()
        } else {
            holder_cell(group.holder.as_ref(), context)
        },
        tone: |group| words::holder_tone(group.holder.as_ref()),
    },
    Column {
        title: "HOLDER DOES", min: 12, want: 24, rank: 4, right: false, descending: false,
        key: |group, _| Key::text(group.holder.as_ref().and_then(words::doing)),
        cell: |group, _| {
            let holder = group.holder.as_ref().filter(|_| !group.several);
            known(holder.and_then(words::doing))
        },
        tone: |group| words::holder_tone(group.holder.as_ref()),
    },
    Column {
        title: "LONGEST WAITER", min: 14, want: 16, rank: 5, right: false, descending: false,
        key: |group, _| Key::text(group.oldest.event.task.comm.as_deref()),
        cell: |group, _| words::name(&group.oldest.event.task),
        tone: |_| Tone::Normal,
    },
    Column {
        title: "KIND", min: 8, want: 11, rank: 6, right: false, descending: false,
        key: |group, _| Key::Text(group.oldest.event.kind.name()),
        cell: |group, _| group.oldest.event.kind.name().to_owned(),
        tone: plain,
    },
];
