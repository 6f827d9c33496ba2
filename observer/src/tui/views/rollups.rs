//! Processes, and control groups: what is known of their tasks, rolled up.

use std::cmp::Ordering;

use super::{at_least, count, known, plain, words};
use crate::{
    event::ContainerRef,
    time::human,
    tui::{
        groups::GroupKey,
        host::Place,
        rollup::{Key as Of, Rollup},
        rows::{Column, Filter, Key, Record, RowId, Tone},
    },
};

impl<const GROUPS: bool> Record for Rollup<GROUPS> {
    const DEFAULT_SORT: usize = 2;
    const FLEXIBLE: usize = 0;

    fn columns() -> &'static [Column<Self>] {
        if GROUPS {
            Columns::<GROUPS>::OF_GROUPS
        } else {
            Columns::<GROUPS>::OF_PROCESSES
        }
    }

    fn id(&self) -> RowId {
        RowId::Group(group(&self.key))
    }

    fn is(&self, id: &RowId) -> bool {
        *id == self.id()
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }

    fn is_idle(&self) -> bool {
        false
    }

    fn matches(&self, filter: &Filter) -> bool {
        filter.is_in_some(self.name.as_deref())
            || match &self.key {
                Of::Process(pid) => filter.is_in_number(*pid),
                Of::Group(place) => place.as_ref().is_some_and(|place| place.is_found(filter)),
            }
    }
}

fn group(key: &Of) -> GroupKey {
    match key {
        Of::Process(pid) => GroupKey::Process(*pid),
        Of::Group(place) => GroupKey::Container(place.clone()),
    }
}

fn name<const GROUPS: bool>(row: &Rollup<GROUPS>) -> String {
    match &row.key {
        Of::Process(_) => known(row.name.as_deref()),
        Of::Group(Some(place)) => place.name(),
        Of::Group(None) => "not known".to_owned(),
    }
}

fn key<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Key<'_> {
    match &row.key {
        Of::Process(_) => Key::text(row.name.as_deref()),
        Of::Group(place) => Key::text(place.as_ref().map(Place::text)),
    }
}

fn waits_most<const GROUPS: bool>(row: &Rollup<GROUPS>) -> String {
    let Some(wait) = &row.oldest else {
        return "-".to_owned();
    };
    let what = match &wait.event.lock {
        Some(lock) => format!("for {lock}"),
        None => format!("in {}", wait.event.kind.name()),
    };
    format!("{} {what}", words::name(&wait.event.task))
}

/// What is known of the container, or of the pod's.
fn container<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Option<&ContainerRef> {
    match &row.key {
        Of::Group(Some(place)) => place.container(),
        _ => None,
    }
}

fn pod<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Option<&str> {
    container(row)?.pod.as_deref()
}

fn namespace<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Option<&str> {
    container(row)?.namespace.as_deref()
}

/// The container's number; a pod has several.
fn number<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Option<&str> {
    match &row.key {
        Of::Group(Some(Place::Container(one))) => Some(one.short_id()),
        _ => None,
    }
}

fn held_tone<const GROUPS: bool>(row: &Rollup<GROUPS>) -> Tone {
    if row.held > 0 {
        Tone::Strong
    } else {
        Tone::Normal
    }
}

/// The columns; those of processes have the pid where those of groups have the number of processes.
struct Columns<const GROUPS: bool>;

macro_rules! columns {
    ($name:literal, $want:literal, $second:expr $(, $more:expr)*) => {
        &[
            Column {
                title: $name,
                min: 14,
                want: $want,
                rank: 0,
                right: false,
                descending: false,
                key: |row, _| key(row),
                cell: |row, _| name(row),
                tone: plain,
            },
            $second,
            Column {
                title: "BLOCKED",
                min: 8,
                want: 9,
                rank: 1,
                right: true,
                descending: true,
                key: |row, _| Key::Number(row.blocked),
                cell: |row, _| count(row.blocked),
                tone: plain,
            },
            Column {
                title: "BY LOCKS",
                min: 8,
                want: 9,
                rank: 3,
                right: true,
                descending: true,
                key: |row, _| Key::Number(row.held),
                cell: |row, _| count(row.held),
                tone: held_tone,
            },
            Column {
                title: "OLDEST",
                min: 7,
                want: 8,
                rank: 2,
                right: true,
                descending: true,
                key: |row, now_ns| Key::number(row.oldest.as_ref().map(|wait| wait.age_ns(now_ns))),
                cell: |row, context| {
                    row.oldest.as_ref().map_or_else(
                        || "-".to_owned(),
                        |wait| {
                            at_least(
                                wait.age_ns(context.now_ns),
                                wait.event.at_least,
                                context.glyphs,
                            )
                        },
                    )
                },
                tone: plain,
            },
            Column {
                title: "WAITED",
                min: 7,
                want: 8,
                rank: 5,
                right: true,
                descending: true,
                key: |row, _| Key::Number(row.waited_ns),
                cell: |row, _| human(row.waited_ns),
                tone: plain,
            },
            Column {
                title: "FOR CPU",
                min: 8,
                want: 8,
                rank: 6,
                right: true,
                descending: true,
                key: |row, _| Key::Number(row.runqueue_ns),
                cell: |row, _| human(row.runqueue_ns),
                tone: plain,
            },
            Column {
                title: "IDLE",
                min: 5,
                want: 6,
                rank: 8,
                right: true,
                descending: true,
                key: |row, _| Key::Number(row.idle),
                cell: |row, _| count(row.idle),
                tone: plain,
            },
            Column {
                title: "GOROUTINES",
                min: 11,
                want: 11,
                rank: 7,
                right: true,
                descending: true,
                key: |row, _| Key::Number(row.goroutines),
                cell: |row, _| {
                    if row.goroutines == 0 {
                        "-".to_owned()
                    } else {
                        count(row.goroutines)
                    }
                },
                tone: plain,
            },
            Column {
                title: "WAITS LONGEST",
                min: 16,
                want: 40,
                rank: 4,
                right: false,
                descending: false,
                key: |row, _| {
                    Key::text(
                        row.oldest
                            .as_ref()
                            .and_then(|wait| wait.event.task.comm.as_deref()),
                    )
                },
                cell: |row, _| waits_most(row),
                tone: plain,
            },
            $($more,)*
        ]
    };
}

#[rustfmt::skip]
impl<const GROUPS: bool> Columns<GROUPS> {
    const OF_PROCESSES: &'static [Column<Rollup<GROUPS>>] = columns!("PROCESS", 28, Column {
        title: "PID", min: 7, want: 7, rank: 2, right: true, descending: false,
        key: |row, _| match row.key {
            Of::Process(pid) => Key::Number(u64::from(pid)),
            Of::Group(_) => Key::Unknown,
        },
        cell: |row, _| match row.key {
            Of::Process(pid) => pid.to_string(),
            Of::Group(_) => "-".to_owned(),
        },
        tone: plain,
    });
    const OF_GROUPS: &'static [Column<Rollup<GROUPS>>] = columns!("CONTAINER OR GROUP", 40, Column {
        title: "PROCS", min: 6, want: 6, rank: 2, right: true, descending: true,
        key: |row, _| Key::Number(row.processes),
        cell: |row, _| count(row.processes),
        tone: plain,
    }, Column {
        title: "POD", min: 12, want: 24, rank: 9, right: false, descending: false,
        key: |row, _| Key::text(pod(row)),
        cell: |row, _| known(pod(row)),
        tone: plain,
    }, Column {
        title: "NAMESPACE", min: 10, want: 16, rank: 10, right: false, descending: false,
        key: |row, _| Key::text(namespace(row)),
        cell: |row, _| known(namespace(row)),
        tone: plain,
    }, Column {
        title: "ID", min: 12, want: 12, rank: 11, right: false, descending: false,
        key: |row, _| Key::text(number(row)),
        cell: |row, _| known(number(row)),
        tone: plain,
    });
}
