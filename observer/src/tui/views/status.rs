//! The lines around a table: the tabs, how many rows there are and how many are not shown, and what
//! an empty table means.

use super::{counted, groups, health, overview, whole_seconds};
use crate::{
    model::Model,
    time::human,
    tui::{
        canvas::Segment,
        command::{Mode, View},
        list::{List, Page},
        pager::Pager,
        rows::{Record, Tone},
        state::State,
        text::Glyphs,
    },
};

/// The views, the current one in brackets.
pub(in crate::tui) fn tabs(state: &State, columns: u16) -> Vec<Segment> {
    let tab = |(view, number): (&View, usize)| {
        let title = if columns >= WIDE_TABS {
            view.title()
        } else {
            view.short()
        };
        match (*view == state.view, columns) {
            (true, _) => Segment::new(format!("[{number} {title}]"), Tone::Strong),
            (false, WIDE_TABS..) => Segment::new(format!(" {number} {title} "), Tone::Normal),
            (false, SHORT_TABS..) => Segment::new(format!("{number} {title}"), Tone::Normal),
            (false, _) => Segment::new(number.to_string(), Tone::Normal),
        }
    };
    View::ALL.iter().zip(1..).map(tab).collect()
}

/// Columns from which on all tabs have their titles, and from which on they have short ones.
pub(in crate::tui) const WIDE_TABS: u16 = 116;
const SHORT_TABS: u16 = 80;

/// What the table is, in numbers.
struct Numbers {
    listed: usize,
    idle: usize,
    total: usize,
    cursor: usize,
}

fn numbers<R: Record>(list: &List<R>) -> Numbers {
    let Page {
        listed,
        idle,
        total,
        ..
    } = *list.page();
    Numbers {
        listed,
        idle,
        total,
        cursor: list.cursor(),
    }
}

fn current(state: &State) -> Numbers {
    match state.view {
        View::Blocked if state.is_grouped() => numbers(&state.groups),
        View::Blocked => numbers(&state.blocked),
        View::Locks => numbers(&state.locks),
        View::Waits => numbers(&state.waits),
        View::Runtimes if state.goroutines_of().is_some() => numbers(&state.goroutines),
        View::Runtimes => numbers(&state.runtimes),
        View::Processes => numbers(&state.processes),
        View::Containers => numbers(&state.containers),
        View::Overview | View::Graph | View::Health => Numbers {
            listed: 0,
            idle: 0,
            total: 0,
            cursor: 0,
        },
    }
}

/// How many rows there are, and how many of them are hidden and why.
pub(in crate::tui) fn status(state: &State, model: &Model, glyphs: Glyphs) -> Vec<Segment> {
    let n = current(state);
    let mut segments = vec![Segment::new(what(state, model, &n), Tone::Normal)];
    if let (View::Blocked, Some(group)) = (state.view, &state.within) {
        let text = format!("{}, Esc goes back", groups::name(group));
        segments.push(Segment::new(text, Tone::Strong));
    }
    if state.is_go_opened() {
        segments.push(Segment::new("Esc goes back", Tone::Strong));
    }
    if n.idle > 0 {
        let text = format!("{} idle hidden, i shows them", n.idle);
        segments.push(Segment::new(text, Tone::Quiet));
    }
    let filter = state.query.filter.as_str();
    if !filter.is_empty() || state.mode == Mode::Filter {
        let text = if is_table(state.view) {
            format!("filter {filter:?}: {} of {}", n.listed + n.idle, n.total)
        } else {
            format!("filter {filter:?}")
        };
        segments.push(Segment::new(text, Tone::Strong));
    }
    for segment in segments.iter_mut().skip(1) {
        segment.text = format!("{} {}", glyphs.dot(), segment.text);
    }
    segments
}

fn is_table(view: View) -> bool {
    !matches!(view, View::Overview | View::Graph | View::Health)
}

/// Which of the rows is selected.
pub(in crate::tui) fn position(state: &State) -> String {
    let n = current(state);
    let pager = match state.view {
        View::Overview => Some(&state.overview),
        View::Graph => Some(&state.graph),
        _ => None,
    };
    if let Some((at, all)) = pager.and_then(Pager::position) {
        return format!("{at}/{all}");
    }
    if n.listed == 0 {
        return String::new();
    }
    format!("{}/{}", n.cursor + 1, n.listed)
}

fn what(state: &State, model: &Model, n: &Numbers) -> String {
    let shown = state.shown(model);
    match state.view {
        View::Overview => overview::status(shown, &state.query.filter),
        View::Blocked if state.is_grouped() => {
            let groups = counted(n.listed, "group", "groups");
            format!("{groups} of blocked tasks, by {}", state.grouping.name())
        }
        View::Blocked => format!("{} blocked", n.listed),
        View::Locks => counted(n.listed, "lock", "locks"),
        View::Graph => {
            let roots = state.forest.iter().filter(|line| line.depth == 0);
            let circles = roots.clone().filter(|line| line.in_cycle).count();
            let others = roots.count() - circles;
            format!(
                "{} up others, {}",
                counted(others, "task holds", "tasks hold"),
                counted(circles, "circle", "circles")
            )
        }
        View::Waits => {
            let all = shown.long_waits();
            let kept = n.total as u64;
            let waits = counted(n.listed, "long wait", "long waits");
            if all > kept {
                format!("{waits}, of the newest {kept} of {all}")
            } else {
                waits
            }
        }
        View::Runtimes => match state.goroutines_of() {
            Some(pid) => {
                let all = shown.goroutines_of(pid);
                let process = all.and_then(|all| all.process.as_deref());
                format!(
                    "{} goroutines of {} {pid} in {}",
                    all.map_or(0, |all| all.total),
                    process.unwrap_or("process"),
                    counted(n.listed, "group", "groups")
                )
            }
            None => format!(
                "what runtimes wait for: {}",
                counted(n.listed, "row", "rows")
            ),
        },
        View::Processes => counted(n.listed, "process", "processes"),
        View::Containers if state.by_pod => {
            counted(n.listed, "pod or other group", "pods and other groups")
        }
        View::Containers => counted(n.listed, "container or group", "containers and groups"),
        View::Health => health::status(shown),
    }
}

/// What an empty table means; nothing when it is not empty.
pub(in crate::tui) fn empty(state: &State, model: &Model) -> Option<String> {
    let n = current(state);
    if n.listed > 0 || !is_table(state.view) {
        return None;
    }
    let filter = state.query.filter.as_str();
    if n.idle > 0 {
        let rows = if filter.is_empty() {
            "rows".to_owned()
        } else {
            format!("rows that match {filter:?}")
        };
        return Some(format!(
            "All {} {rows} are idle: poll, sleep, child, condvar. i shows them.",
            n.idle
        ));
    }
    if n.total > 0 {
        return Some(format!(
            "None of {} rows matches {filter:?}. Esc clears the filter.",
            n.total
        ));
    }
    let Some(meta) = model.meta() else {
        return Some("Nothing has been observed yet.".to_owned());
    };
    let since = whole_seconds(model.elapsed_ns());
    Some(match state.view {
        View::Blocked => {
            let limit = human(meta.filters.long_wait_ns);
            format!("No task is blocked for longer than {limit} at this moment.")
        }
        View::Locks => format!("No task has waited for a lock since the start, {since} ago."),
        View::Waits => {
            let limit = human(meta.filters.min_wait_ns);
            format!("No wait of {limit} or longer has ended since the start, {since} ago.")
        }
        View::Runtimes if !meta.filters.pids.is_empty() => "No runtime that observer knows has been recognised in what \
                           is observed. Locks of C are in 3 Locks; a runtime is recognised when one of its threads \
                           is blocked for long enough."
            .to_owned(),
        View::Runtimes => "No runtime is known of any process: one is recognised when a thread of it has been blocked \
                           for long enough to be looked at, or at once with `observer -p PID`. Go processes are looked \
                           for every few seconds."
            .to_owned(),
        View::Processes | View::Containers => {
            format!("No task has waited since the start, {since} ago.")
        }
        View::Overview | View::Graph | View::Health => return None,
    })
}
