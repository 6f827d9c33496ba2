//! The help: the keys, and what this view shows.

use crate::tui::{keys::HELP, state::View, text::wrap};

/// Columns of the keys.
const KEYS: usize = 16;

/// The title of the help.
pub(in crate::tui) fn title(view: View) -> String {
    format!("help: {}", view.title())
}

/// The lines of the help, none wider than `columns`.
pub(in crate::tui) fn lines(view: View, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = wrap(about(view), columns)
        .into_iter()
        .map(str::to_owned)
        .collect();
    lines.push(String::new());
    for (keys, what) in HELP {
        let mut keys = *keys;
        for part in wrap(what, columns.saturating_sub(KEYS)) {
            lines.push(format!("{keys:<KEYS$}{part}"));
            keys = "";
        }
    }
    lines
}

fn about(view: View) -> &'static str {
    match view {
        View::Blocked => {
            "Waits in progress: which tasks are blocked now, on what, and for how long. A sign before \
             the age means that the wait began before observer did."
        }
        View::Locks => {
            "Locks and the time that tasks waited for them since the start. Short waits are counted \
             too. NOW: tasks that wait at present; T/O: waits that their time limit ended."
        }
        View::Waits => {
            "Long waits as they ended. BLOCKED: until somebody made the task runnable, the WAKER; \
             RUNQ: from then until a CPU took it. ~ before a duration: its end was not seen."
        }
    }
}
