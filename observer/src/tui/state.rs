//! What the screen shows: view, selection, order, filter, and whether time is paused.
//!
//! The state knows keys' meanings and the model, and no widgets. Pausing is a state of time: everything comes
//! from a copy of the model of that moment, so sorting, filtering and moving work on as before.

use std::sync::Arc;

use super::{
    command::{Command, Mode, View},
    details::Detail,
    goroutines::{self, GoRow},
    groups::{self, Group, GroupKey, Grouping},
    history::History,
    host::Places,
    list::{List, Move, Navigate, Query},
    pager::Pager,
    rollup::{self, Rollup},
    rows::{self, Filter, RowId},
    runtimes::{self, RuntimeRow},
    waiting::{self, Waiting},
};
use crate::{
    event::Wait,
    model::{InProgress, Lock, Model, graph::Branch},
    time::human,
};

/// What is typed is cut at this many characters: a filter of more finds nothing that a shorter one does not.
pub(super) const LONGEST: usize = 128;
/// Pages that can lie on top of each other.
const DEEPEST: usize = 32;

/// Everything that decides what the screen shows, beside the model.
#[derive(Debug)]
pub(super) struct State {
    pub(super) view: View,
    pub(super) query: Query,
    pub(super) mode: Mode,
    pub(super) help: Pager,
    /// What is under inspection: the last is in sight, those before it are what led there.
    pub(super) details: Vec<Detail>,
    pub(super) frozen: Option<Arc<Model>>,
    pub(super) history: History,
    /// Where what is observed is being recorded.
    pub(super) recording: Option<String>,
    /// It is a recording that is shown.
    pub(super) replayed: bool,
    pub(super) overview: Pager,
    pub(super) all_findings: bool,
    pub(super) grouping: Grouping,
    /// The group that Blocked shows the tasks of, and where it was opened.
    pub(super) within: Option<GroupKey>,
    opened_from: Option<(View, Vec<Detail>)>,
    pub(super) groups: List<Group>,
    pub(super) blocked: List<Waiting>,
    pub(super) locks: List<Lock>,
    pub(super) forest: Vec<Branch>,
    pub(super) graph: Pager,
    pub(super) waits: List<Wait>,
    pub(super) runtimes: List<RuntimeRow>,
    pub(super) goroutines: List<GoRow>,
    /// The Go process whose goroutines Runtimes shows: one that was opened, or the only runtime that there is.
    go_process: Option<u32>,
    only_go: Option<u32>,
    pub(super) processes: List<Rollup<false>>,
    pub(super) containers: List<Rollup<true>>,
    /// Containers shows the containers of a pod as one row.
    pub(super) by_pod: bool,
    pub(super) places: Places,
    pub(super) health: Pager,
    /// The command that is being typed.
    pub(super) typed: String,
    /// Something to say once.
    pub(super) notice: Option<String>,
    /// What the top of the screen says beside the model.
    pub(super) note: Option<String>,
    /// Rows that the screen has room for.
    height: usize,
}

impl State {
    pub(super) fn new() -> Self {
        State {
            view: View::Overview,
            query: Query::default(),
            mode: Mode::Browse,
            help: Pager::default(),
            details: Vec::new(),
            frozen: None,
            history: History::default(),
            recording: None,
            replayed: false,
            overview: Pager::default(),
            all_findings: false,
            grouping: Grouping::None,
            within: None,
            opened_from: None,
            groups: List::default(),
            blocked: List::default(),
            locks: List::default(),
            forest: Vec::new(),
            graph: Pager::default(),
            waits: List::default(),
            runtimes: List::default(),
            goroutines: List::default(),
            go_process: None,
            only_go: None,
            processes: List::default(),
            containers: List::default(),
            by_pod: false,
            places: Places::default(),
            health: Pager::default(),
            typed: String::new(),
            notice: None,
            note: None,
            height: 1,
        }
    }

    /// The model that is shown: as it is, or as it was when time was paused.
    pub(super) fn shown<'a>(&'a self, model: &'a Model) -> &'a Model {
        shown(self.frozen.as_deref(), model)
    }

    /// Does Blocked show groups now?
    pub(super) fn is_grouped(&self) -> bool {
        self.view == View::Blocked && self.grouping != Grouping::None && self.within.is_none()
    }

    /// The Go process whose goroutines Runtimes shows instead of all runtimes.
    pub(super) fn goroutines_of(&self) -> Option<u32> {
        self.go_process.or(self.only_go)
    }

    /// Was it opened, so that Esc goes back to all runtimes?
    pub(super) fn is_go_opened(&self) -> bool {
        self.view == View::Runtimes && self.go_process.is_some()
    }

    /// Takes the rows of the current view again.
    pub(super) fn refresh(&mut self, model: &Model) {
        let model = shown(self.frozen.as_deref(), model);
        let (now_ns, query, height) = (model.now_ns(), &self.query, self.height);
        match self.view {
            View::Overview | View::Health => {}
            View::Blocked if self.grouping != Grouping::None && self.within.is_none() => {
                self.places.learn(model);
                let all = groups::collect(model, self.grouping, query, &self.places);
                self.groups.refresh(all.iter(), now_ns, query, height);
            }
            View::Blocked => {
                self.places.learn(model);
                let (within, places) = (self.within.as_ref(), &self.places);
                let all = waiting::collect(model, places);
                let rows = all.iter().filter(|wait| is_within(within, wait, places));
                self.blocked.refresh(rows, now_ns, query, height);
                self.blocked.complete(|wait| wait.follow(model));
            }
            View::Locks => self.locks.refresh(model.locks(), now_ns, query, height),
            View::Graph => self.forest = forest(model, &query.filter),
            View::Waits => self.waits.refresh(model.waits(), now_ns, query, height),
            View::Runtimes => {
                let all = runtimes::collect(model);
                self.only_go = match &*all {
                    [one] => one.key.go_process(),
                    _ => None,
                };
                match self.go_process.or(self.only_go) {
                    Some(pid) => {
                        let all: Vec<_> = goroutines::collect(model, pid).collect();
                        self.goroutines.refresh(all.iter(), now_ns, query, height);
                    }
                    None => self.runtimes.refresh(all.iter(), now_ns, query, height),
                }
            }
            View::Processes => {
                let all = rollup::collect(model, &self.places, false);
                self.processes.refresh(all.iter(), now_ns, query, height);
            }
            View::Containers => {
                self.places.learn(model);
                let all = rollup::collect(model, &self.places, self.by_pod);
                self.containers.refresh(all.iter(), now_ns, query, height);
            }
        }
        if let Some(detail) = self.details.last_mut() {
            detail.refresh(model);
            detail.look_back(&self.history);
            // What the host says now is not of the moment that stands still.
            if let (None, Some(host)) = (&self.frozen, &self.places.host) {
                detail.ask(&**host);
            }
        }
    }

    /// Says how many rows there is room for.
    pub(super) fn resize(&mut self, height: usize, model: &Model) {
        if self.height != height {
            self.height = height;
            self.refresh(model);
        }
    }

    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// The table in sight, if it is one.
    pub(super) fn list(&mut self) -> Option<&mut dyn Navigate> {
        match self.view {
            View::Blocked if self.is_grouped() => Some(&mut self.groups),
            View::Blocked => Some(&mut self.blocked),
            View::Locks => Some(&mut self.locks),
            View::Waits => Some(&mut self.waits),
            View::Runtimes if self.goroutines_of().is_some() => Some(&mut self.goroutines),
            View::Runtimes => Some(&mut self.runtimes),
            View::Processes => Some(&mut self.processes),
            View::Containers => Some(&mut self.containers),
            View::Overview | View::Graph | View::Health => None,
        }
    }

    /// The page of text in sight, if it is one.
    pub(super) fn pager(&mut self) -> Option<&mut Pager> {
        if self.mode == Mode::Help {
            return Some(&mut self.help);
        }
        match (self.details.last_mut(), self.view) {
            (Some(detail), _) => Some(&mut detail.pager),
            (None, View::Overview) => Some(&mut self.overview),
            (None, View::Graph) => Some(&mut self.graph),
            (None, View::Health) => Some(&mut self.health),
            (None, _) => None,
        }
    }

    /// Does what a key asks for, but for what leaves the screen.
    pub(super) fn apply(&mut self, command: Command, model: &Model) {
        self.notice = None;
        match command {
            Command::Nothing
            | Command::Quit
            | Command::Run
            | Command::ExportAs(_)
            | Command::Record
            | Command::Copy => {}
            Command::Export => self.mode = Mode::Export,
            Command::Time { forward, steps } => self.travel(forward, steps, model),
            Command::Arrow { forward } if self.frozen.is_some() => self.travel(forward, 1, model),
            Command::View(view) => self.show(view),
            Command::Neighbour { forward } | Command::Arrow { forward } => {
                self.show(self.view.neighbour(forward));
            }
            Command::Go(step) => self.go(step),
            Command::Step { forward } => self.step(forward, model),
            Command::Pause => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(Arc::new(model.clone())),
                }
            }
            Command::Idle => self.query.show_idle = !self.query.show_idle,
            Command::Help => {
                self.mode = Mode::Help;
                self.help = Pager::default();
            }
            Command::Details => self.enter(model),
            Command::Close => self.close(),
            Command::Sort { .. }
            | Command::SortBy(_)
            | Command::Reverse
            | Command::Group
            | Command::GroupBy(_) => self.arrange(command),
            _ => self.edit(command),
        }
        self.refresh(model);
    }

    /// Stops time, at a moment before or after the one that is shown.
    fn travel(&mut self, forward: bool, steps: usize, model: &Model) {
        let at_ns = self.shown(model).now_ns();
        let found = if forward {
            self.history.after(at_ns, steps)
        } else {
            self.history.before(at_ns, steps)
        };
        let now_ns = model.now_ns();
        let reach = human(self.history.reach_ns(now_ns));
        self.notice = Some(match &found {
            Some(copy) => {
                let ago = human(now_ns.saturating_sub(copy.now_ns()));
                format!("{ago} ago; the last {reach} are kept, [ ] or the arrows step, p goes on")
            }
            None if forward => "this is the newest; p goes on".to_owned(),
            None => format!("nothing older is kept than {reach}"),
        });
        if found.is_some() {
            self.frozen = found;
        }
    }

    fn show(&mut self, view: View) {
        self.mode = Mode::Browse;
        self.details.clear();
        if self.view != view {
            self.view = view;
            (self.within, self.opened_from, self.go_process) = (None, None, None);
        }
    }

    /// Several steps at once, as the wheel of a mouse asks for them.
    pub(super) fn scroll(&mut self, step: Move, times: usize, model: &Model) {
        self.notice = None;
        for _ in 0..times {
            self.go(step);
        }
        self.refresh(model);
    }

    fn go(&mut self, step: Move) {
        let height = self.height;
        if let Some(pager) = self.pager() {
            pager.go(step);
        } else if let Some(list) = self.list() {
            list.go(step, height);
        }
    }

    /// Opens the next row's details instead of this one's.
    fn step(&mut self, forward: bool, model: &Model) {
        let height = self.height;
        let step = if forward { Move::Down } else { Move::Up };
        if self.details.len() != 1 {
            return;
        }
        if let Some(list) = self.list() {
            list.go(step, height);
            // The selection is settled first: it may have left the page.
            self.refresh(model);
            self.details.clear();
            self.enter(model);
        }
    }

    /// Sorts and groups.
    fn arrange(&mut self, command: Command) {
        if command == Command::Group && self.view == View::Containers {
            self.by_pod = !self.by_pod && self.places.has_pods();
            if !self.places.has_pods() {
                self.notice = Some("no pod is known of any process".to_owned());
            }
            return;
        }
        if let Command::Group | Command::GroupBy(_) = command {
            self.show(View::Blocked);
            self.within = None;
            self.grouping = match command {
                Command::GroupBy(grouping) => grouping,
                _ => self.grouping.next(self.places.has_pods()),
            };
            return;
        }
        let view = self.view.title();
        let Some(list) = self.list() else {
            self.notice = Some(format!("{view} has an order of its own"));
            return;
        };
        match command {
            Command::Sort { forward } => list.sort_by_next(forward),
            Command::SortBy(title) => match list.column(&title) {
                Some(column) => list.sort_by(column),
                None => self.notice = Some(format!("{view} has no column {title:?}")),
            },
            _ => list.reverse(),
        }
    }

    /// Opens what is selected.
    pub(super) fn enter(&mut self, model: &Model) {
        let id = match self.pager() {
            Some(pager) => pager.target().cloned(),
            None => self.list().and_then(Navigate::pin),
        };
        match id {
            None => {}
            Some(RowId::MoreFindings) => self.all_findings = true,
            Some(RowId::Group(GroupKey::Runtime(key))) if key.go_process().is_some() => {
                self.go_process = key.go_process();
            }
            Some(RowId::Group(key)) => {
                let details = std::mem::take(&mut self.details);
                self.opened_from = Some((self.view, details));
                self.view = View::Blocked;
                self.within = Some(key);
                self.blocked = List::default();
            }
            Some(id) if self.details.len() < DEEPEST => {
                let detail = Detail::of(id, self.shown(model));
                self.details.push(detail);
            }
            Some(_) => self.notice = Some("Esc goes back".to_owned()),
        }
    }

    fn close(&mut self) {
        if matches!(self.mode, Mode::Help | Mode::Export) {
            self.mode = Mode::Browse;
            return;
        }
        if self.details.pop().is_some() {
            return;
        }
        if self.within.take().is_some() {
            if let Some((view, details)) = self.opened_from.take() {
                (self.view, self.details) = (view, details);
            }
            return;
        }
        if self.go_process.take().is_none() && !std::mem::take(&mut self.all_findings) {
            self.query.filter = Filter::default();
        }
    }

    /// What is typed, and what becomes of it.
    fn edit(&mut self, command: Command) {
        match command {
            Command::EditFilter => {
                self.details.clear();
                self.mode = Mode::Filter;
            }
            Command::Prompt => {
                self.typed.clear();
                self.mode = Mode::Command;
            }
            Command::Filter(text) => self.query.filter = Filter::new(text),
            Command::KeepFilter => self.mode = Mode::Browse,
            Command::DropFilter if self.mode == Mode::Command => self.mode = Mode::Browse,
            Command::DropFilter => {
                self.mode = Mode::Browse;
                self.query.filter = Filter::default();
            }
            command if self.mode == Mode::Command => change(&mut self.typed, &command),
            command => {
                let mut text = self.query.filter.as_str().to_owned();
                change(&mut text, &command);
                self.query.filter = Filter::new(text);
            }
        }
    }
}

fn change(text: &mut String, command: &Command) {
    match command {
        Command::Type(c) if text.chars().count() < LONGEST => text.push(*c),
        Command::Erase => drop(text.pop()),
        Command::EraseAll => text.clear(),
        _ => {}
    }
}

fn shown<'a>(frozen: Option<&'a Model>, model: &'a Model) -> &'a Model {
    frozen.unwrap_or(model)
}

pub(super) fn is_within(group: Option<&GroupKey>, wait: &InProgress, places: &Places) -> bool {
    group.is_none_or(|group| group.holds(wait, places))
}

/// Who waits for whom, of the trees in which a task or a lock is looked for.
pub(super) fn forest(model: &Model, filter: &Filter) -> Vec<Branch> {
    let all = model.graph().forest();
    if filter.is_empty() {
        return all;
    }
    let found = |line: &Branch| {
        let wait = model.blocked_task(line.tid);
        wait.is_some_and(|wait| rows::is_found(wait, filter)) || filter.is_in_number(line.tid)
    };
    let trees = all.chunk_by(|_, next| next.depth > 0);
    let trees = trees.filter(|tree| tree.iter().any(found));
    trees.flatten().copied().collect()
}
