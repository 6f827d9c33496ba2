//! The help: the keys, and what this view shows.

use crate::tui::{
    canvas::{Line, Segment},
    command::View,
    keys::{HELP, REPLAY},
    prompt,
    rows::Tone,
    text::wrap,
};

/// Columns of the keys.
const KEYS: usize = 16;

/// The title of the help.
pub(in crate::tui) fn title(view: View) -> String {
    format!("help: {}", view.title())
}

/// The lines of the help, none wider than `columns`.
pub(in crate::tui) fn lines(view: View, columns: usize, replayed: bool) -> Vec<Line> {
    let mut lines: Vec<String> = wrap(about(view), columns)
        .into_iter()
        .map(str::to_owned)
        .collect();
    lines.push(String::new());
    let own = if replayed { REPLAY } else { &[] };
    for (keys, what) in own.iter().chain(HELP).chain(prompt::HELP) {
        let mut keys = *keys;
        for part in wrap(what, columns.saturating_sub(KEYS)) {
            lines.push(format!("{keys:<KEYS$}{part}"));
            keys = "";
        }
    }
    let line = |text| Line::new(vec![Segment::new(text, Tone::Normal)]);
    lines.into_iter().map(line).collect()
}

fn about(view: View) -> &'static str {
    match view {
        View::Overview => {
            "What is wrong, the worst first, with how long ago it was found; Enter shows the evidence and what \
             to do. Findings whose waits have ended since are marked: over. Below: how loaded the host is, and \
             the locks in which most time is lost, with who holds them and what the holder does."
        }
        View::Blocked => {
            "Waits in progress: which tasks are blocked now, on what, for how long, and who holds it. exact: \
             the owner is recorded in the lock or the kernel; likely: inferred, the details say from what; \
             unknown: it is never guessed. A sign before the age: it began before observer did; + before a row: just now."
        }
        View::Locks => {
            "Locks and the time that tasks waited for them since the start, waits in progress included. Short \
             waits are counted too. NOW: tasks that wait at present; T/O: waits that their time limit ended."
        }
        View::Graph => {
            "Who waits for whom: at the left the tasks that hold up others and wait for nobody known, those that \
             hold up most first; below each, those that wait for it. Circles come first: none of their tasks \
             can go on. Enter opens a task."
        }
        View::Waits => {
            "Long waits as they ended. BLOCKED: until somebody made the task runnable, the WAKER; \
             RUNQ: from then until a CPU took it. ~ before a duration: its end was not seen; + before a row: it \
             ended in the last two seconds."
        }
        View::Runtimes => {
            "What runtimes say of the waits of their processes: interpreter lock and threading locks of Python, \
             monitors and parked threads of Java, heavyweight and lightweight locks of PostgreSQL, locks of Rust, \
             workers of tokio, goroutines. NOW: how many wait; LOCK: the one that most time was waited for, and who \
             has it; FINDING: the worst about the process. Enter shows the blocked tasks, of Go the goroutines: \
             those that do the same as one row, COUNT: how many; /MIN: how many more a minute from the place that \
             starts them; TREND: how many at the last looks. A leak is a row that grows and never shrinks: sort \
             by /MIN. Where one Go process is all there is, its goroutines are shown at once."
        }
        View::Processes => {
            "What is known of the tasks of each process, rolled up: blocked now, of them by locks that somebody \
             holds, the oldest such wait, time in waits that ended (WAITED) and on run queues (FOR CPU) since the \
             start. Idle waits do not count but in IDLE. Enter shows its blocked tasks."
        }
        View::Containers => {
            "The same for each container, with its pod and its namespace, and for each control group that is no \
             container: a service, a session. g puts the containers of a pod together. Control groups are read from \
             the live host: a recording has containers only."
        }
        View::Health => {
            "Whether what the other views say can be relied on: what was lost and by what cause, what observing \
             costs, what this kernel and these privileges do not give, and what is attached."
        }
    }
}
