//! The lines around a table: the tabs, how many rows there are and how many are not shown, and what
//! an empty table means.

use super::{counted, whole_seconds};
use crate::{
    model::Model,
    time::human,
    tui::{
        canvas::Segment,
        list::{List, Page},
        rows::{Record, Tone},
        state::{Mode, State, View},
        text::Glyphs,
    },
};

/// The views, the current one in brackets.
pub(in crate::tui) fn tabs(state: &State) -> Vec<Segment> {
    let tab = |(view, number): (&View, usize)| {
        let title = view.title();
        if *view == state.view {
            Segment::new(format!("[{number} {title}]"), Tone::Strong)
        } else {
            Segment::new(format!(" {number} {title} "), Tone::Normal)
        }
    };
    View::ALL.iter().zip(1..).map(tab).collect()
}

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
        View::Blocked => numbers(&state.blocked),
        View::Locks => numbers(&state.locks),
        View::Waits => numbers(&state.waits),
    }
}

/// How many rows there are, and how many of them are hidden and why.
pub(in crate::tui) fn status(state: &State, model: &Model, glyphs: Glyphs) -> Vec<Segment> {
    let n = current(state);
    let mut segments = vec![Segment::new(what(state, model, &n), Tone::Normal)];
    if n.idle > 0 {
        let text = format!("{} idle hidden, i shows them", n.idle);
        segments.push(Segment::new(text, Tone::Quiet));
    }
    let filter = state.query.filter.as_str();
    if !filter.is_empty() || state.mode == Mode::Filter {
        let text = format!("filter {filter:?}: {} of {}", n.listed + n.idle, n.total);
        segments.push(Segment::new(text, Tone::Strong));
    }
    for segment in segments.iter_mut().skip(1) {
        segment.text = format!("{} {}", glyphs.dot(), segment.text);
    }
    segments
}

/// Which of the rows is selected.
pub(in crate::tui) fn position(state: &State) -> String {
    let n = current(state);
    if n.listed == 0 {
        return String::new();
    }
    format!("{}/{}", n.cursor + 1, n.listed)
}

fn what(state: &State, model: &Model, n: &Numbers) -> String {
    match state.view {
        View::Blocked => format!("{} blocked", n.listed),
        View::Locks => counted(n.listed, "lock", "locks"),
        View::Waits => {
            let all = state.source(model).long_waits();
            let kept = n.total as u64;
            let waits = counted(n.listed, "long wait", "long waits");
            if all > kept {
                format!("{waits}, of the newest {kept} of {all}")
            } else {
                waits
            }
        }
    }
}

/// What an empty table means; nothing when it is not empty.
pub(in crate::tui) fn empty(state: &State, model: &Model) -> Option<String> {
    let n = current(state);
    if n.listed > 0 {
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
            "All {} {rows} are idle: poll, sleep, child. i shows them.",
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
    })
}
