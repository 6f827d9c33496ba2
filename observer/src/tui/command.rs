//! The words of the screen: its views, what a key, a click or a line asks for, and what keys mean at the moment.

use super::{export::Form, groups::Grouping, list::Move};

/// One of the views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Blocked,
    Locks,
    Graph,
    Waits,
    Runtimes,
    Processes,
    Containers,
    Health,
}

impl View {
    pub(super) const ALL: [View; 9] = [
        View::Overview,
        View::Blocked,
        View::Locks,
        View::Graph,
        View::Waits,
        View::Runtimes,
        View::Processes,
        View::Containers,
        View::Health,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Overview => "Overview",
            View::Blocked => "Blocked",
            View::Locks => "Locks",
            View::Graph => "Graph",
            View::Waits => "Waits",
            View::Runtimes => "Runtimes",
            View::Processes => "Processes",
            View::Containers => "Containers",
            View::Health => "Health",
        }
    }

    /// Its title where there is little room.
    pub(super) fn short(self) -> &'static str {
        match self {
            View::Runtimes => "Runt.",
            View::Processes => "Proc.",
            View::Containers => "Cont.",
            other => other.title(),
        }
    }

    pub(super) fn neighbour(self, forward: bool) -> View {
        let count = View::ALL.len();
        let at = View::ALL.iter().position(|view| *view == self);
        let step = if forward { 1 } else { count - 1 };
        View::ALL[(at.unwrap_or(0) + step) % count]
    }
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Nothing,
    Quit,
    View(View),
    Neighbour {
        forward: bool,
    },
    Go(Move),
    /// The next row or the one before, while a row's details are open.
    Step {
        forward: bool,
    },
    Sort {
        forward: bool,
    },
    SortBy(String),
    Reverse,
    Pause,
    /// To the copy of the model before the one that is shown, or several before it; or after it.
    Time {
        forward: bool,
        steps: usize,
    },
    /// A neighbouring view; while time stands still, the moment before or after.
    Arrow {
        forward: bool,
    },
    Record,
    Idle,
    Group,
    GroupBy(Grouping),
    Help,
    Details,
    /// Closes what is open, or else clears the filter.
    Close,
    EditFilter,
    Filter(String),
    Prompt,
    /// Does what was typed.
    Run,
    Type(char),
    Erase,
    EraseAll,
    KeepFilter,
    DropFilter,
    /// Asks for the form.
    Export,
    ExportAs(Form),
    Copy,
}

/// What keys mean at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    Help,
    Filter,
    Command,
    /// The form of an export is chosen.
    Export,
}
