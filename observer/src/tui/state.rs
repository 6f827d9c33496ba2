//! What the screen shows: view, selection, order, filter, and whether time is paused.
//!
//! The state knows keys' meanings and the model, and no widgets. Pausing is a state of time: the rows
//! come from a copy of that moment, so sorting, filtering and moving work on as before.

use super::{
    details::Detail,
    list::{List, Move, Navigate, Query},
    rows::{Filter, Frozen, Source},
};
use crate::{
    event::Wait,
    model::{InProgress, Lock, Model},
};

/// A filter of more characters than this finds nothing that a shorter one does not.
const LONGEST_FILTER: usize = 128;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Blocked,
    Locks,
    Waits,
}

impl View {
    pub(super) const ALL: [View; 3] = [View::Blocked, View::Locks, View::Waits];

    pub(super) fn title(self) -> &'static str {
        match self {
            View::Blocked => "Blocked",
            View::Locks => "Locks",
            View::Waits => "Waits",
        }
    }

    fn neighbour(self, forward: bool) -> View {
        match (self, forward) {
            (View::Blocked, true) | (View::Waits, false) => View::Locks,
            (View::Locks, true) | (View::Blocked, false) => View::Waits,
            (View::Waits, true) | (View::Locks, false) => View::Blocked,
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    View(View),
    Neighbour {
        forward: bool,
    },
    Go(Move),
    Sort {
        forward: bool,
    },
    Reverse,
    Pause,
    Idle,
    Help,
    Details,
    /// Closes what is open, or else clears the filter.
    Close,
    EditFilter,
    Type(char),
    Erase,
    EraseAll,
    KeepFilter,
    DropFilter,
}

/// What keys mean at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    Help,
    Filter,
}

/// Everything that decides what the screen shows, beside the model.
#[derive(Debug)]
pub(super) struct State {
    pub(super) view: View,
    pub(super) query: Query,
    pub(super) mode: Mode,
    /// First line of the help that is shown.
    pub(super) help_scroll: usize,
    pub(super) detail: Option<Detail>,
    pub(super) frozen: Option<Frozen>,
    pub(super) blocked: List<InProgress>,
    pub(super) locks: List<Lock>,
    pub(super) waits: List<Wait>,
    /// Rows that the screen has room for.
    height: usize,
}

impl State {
    pub(super) fn new() -> Self {
        State {
            view: View::Blocked,
            query: Query::default(),
            mode: Mode::Browse,
            help_scroll: 0,
            detail: None,
            frozen: None,
            blocked: List::default(),
            locks: List::default(),
            waits: List::default(),
            height: 1,
        }
    }

    /// Where rows come from now.
    pub(super) fn source<'a>(&'a self, model: &'a Model) -> Source<'a> {
        source(self.frozen.as_ref(), model)
    }

    /// Takes the rows of the current view again.
    pub(super) fn refresh(&mut self, model: &Model) {
        let source = source(self.frozen.as_ref(), model);
        match self.view {
            View::Blocked => self.blocked.refresh(source, &self.query, self.height),
            View::Locks => self.locks.refresh(source, &self.query, self.height),
            View::Waits => self.waits.refresh(source, &self.query, self.height),
        }
        if let Some(detail) = &mut self.detail {
            detail.refresh(source);
        }
    }

    /// Says how many rows there is room for.
    pub(super) fn resize(&mut self, height: usize, model: &Model) {
        if self.height != height {
            self.height = height;
            self.refresh(model);
        }
    }

    fn list(&mut self) -> &mut dyn Navigate {
        match self.view {
            View::Blocked => &mut self.blocked,
            View::Locks => &mut self.locks,
            View::Waits => &mut self.waits,
        }
    }

    /// Does what a key asks for; quitting is for the caller to do.
    pub(super) fn apply(&mut self, command: Command, model: &Model) {
        match command {
            Command::Quit => return,
            Command::View(view) => self.show(view),
            Command::Neighbour { forward } => self.show(self.view.neighbour(forward)),
            Command::Go(step) => self.go(step, model),
            Command::Sort { forward } => self.list().sort_by_next(forward),
            Command::Reverse => self.list().reverse(),
            Command::Pause => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(Frozen::of(model)),
                }
            }
            Command::Idle => self.query.show_idle = !self.query.show_idle,
            Command::Help => {
                self.mode = Mode::Help;
                self.help_scroll = 0;
            }
            Command::Details => match self.detail {
                Some(_) => self.detail = None,
                None => self.open_detail(model),
            },
            Command::Close => self.close(),
            Command::EditFilter => self.mode = Mode::Filter,
            Command::Type(_) | Command::Erase | Command::EraseAll => self.edit(command),
            Command::KeepFilter => self.mode = Mode::Browse,
            Command::DropFilter => {
                self.mode = Mode::Browse;
                self.query.filter = Filter::default();
            }
        }
        self.refresh(model);
    }

    fn show(&mut self, view: View) {
        if self.view != view {
            self.view = view;
            self.detail = None;
        }
    }

    fn go(&mut self, step: Move, model: &Model) {
        if self.mode == Mode::Help {
            scroll(&mut self.help_scroll, step, self.height);
            return;
        }
        if let Some(detail) = &mut self.detail
            && matches!(step, Move::PageUp | Move::PageDown)
        {
            scroll(&mut detail.scroll, step, 5);
            return;
        }
        let height = self.height;
        self.list().go(step, height);
        if self.detail.is_some() {
            // The selection is settled first: it may have left the page.
            self.refresh(model);
            self.open_detail(model);
        }
    }

    fn open_detail(&mut self, model: &Model) {
        let id = self.list().pin();
        self.detail = id.map(|id| Detail::of(id, self.source(model)));
    }

    fn close(&mut self) {
        if self.mode == Mode::Help {
            self.mode = Mode::Browse;
        } else if self.detail.take().is_none() {
            self.query.filter = Filter::default();
        }
    }

    fn edit(&mut self, command: Command) {
        let mut text = self.query.filter.as_str().to_owned();
        match command {
            Command::Type(c) if text.chars().count() < LONGEST_FILTER => text.push(c),
            Command::Erase => drop(text.pop()),
            Command::EraseAll => text.clear(),
            _ => {}
        }
        self.query.filter = Filter::new(text);
    }
}

fn source<'a>(frozen: Option<&'a Frozen>, model: &'a Model) -> Source<'a> {
    frozen.map_or(Source::Live(model), Source::Frozen)
}

/// Scrolls a text; what is drawn limits how far.
fn scroll(line: &mut usize, step: Move, page: usize) {
    *line = match step {
        Move::Up => line.saturating_sub(1),
        Move::Down => line.saturating_add(1),
        Move::PageUp => line.saturating_sub(page),
        Move::PageDown => line.saturating_add(page),
        Move::Home => 0,
        Move::End => usize::MAX,
    };
}
