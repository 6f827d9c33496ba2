//! The screen: input → state → views.
//!
//! [`Ui`] holds what the user chose and draws it; it does no I/O, so that tests and any terminal can
//! drive it. [`Screen`] is the terminal. Keys become commands ([`keys`]), commands change the state
//! ([`state`], which knows no widgets), views turn rows into text, and [`canvas`] is the one place
//! where text, made harmless, reaches the terminal.

mod canvas;
mod command;
mod details;
mod export;
mod findings;
mod folded;
mod goroutines;
mod groups;
mod history;
mod host;
mod keys;
mod lines;
mod list;
mod mouse;
mod pager;
mod plain;
mod prompt;
mod rollup;
mod rows;
mod runtimes;
mod screen;
mod settings;
mod sixteen;
mod state;
mod table;
#[cfg(test)]
mod tests;

mod views;
mod waiting;

use crossterm::event::Event;
use ratatui::{Frame, layout::Rect, style::Style};

use self::{
    canvas::{Canvas, Line, Look, Segment},
    command::{Command, Mode, View},
    mouse::Hits,
    pager::Pager,
    rows::{Context, RowId, Tone},
    state::State,
    table::GUTTER,
    text::Glyphs,
    views::{detail, graph, header, health, help, overview, status},
};
pub use self::{
    export::{Export, Form},
    host::Host,
    plain::{Plain, enter_plain},
    screen::{Screen, enter},
    settings::Settings,
};
use crate::{
    model::{Model, graph::Branch},
    text,
};

/// Columns and rows of the smallest terminal that the layout fits.
pub const MIN_SIZE: (u16, u16) = (40, 8);

/// Below this height the header has two lines at most, and three otherwise.
const LOW: u16 = 16;

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Colours; without them, bold and reverse only.
    pub color: bool,
    /// Unicode; without it, ASCII only.
    pub unicode: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            color: true,
            unicode: true,
        }
    }
}

impl Options {
    /// What the environment says: `NO_COLOR`, the terminal's name, and the locale.
    pub fn from_environment() -> Self {
        Options::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        // The first that is set decides, as in setlocale(3).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let locale = locale.unwrap_or_default().to_lowercase();
        let plain = matches!(set("TERM").as_deref(), Some("dumb" | "vt100" | "vt220"));
        Options {
            color: set("NO_COLOR").is_none() && !plain,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

/// What the caller does after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Draws the screen again.
    Redraw,
    /// Writes a file.
    Save(Export),
    /// Starts recording what is observed, or stops it.
    Record,
    /// Puts a text on the clipboard.
    Copy(String),
    /// Ends.
    Quit,
}

/// The screen's content: what the user chose, and the rows that are shown.
#[derive(Debug)]
pub struct Ui {
    state: State,
    look: Look,
    /// What stood where when the screen was last drawn, for the mouse.
    hits: Hits,
}

impl Ui {
    /// A screen that begins with what is wrong.
    pub fn new(options: Options) -> Self {
        Ui {
            state: State::new(),
            look: Look {
                color: options.color,
                glyphs: Glyphs {
                    unicode: options.unicode,
                },
            },
            hits: Hits::default(),
        }
    }

    /// Takes an event of the terminal.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an event is used up by handling it"
    )]
    pub fn on_event(&mut self, event: Event, model: &Model) -> Action {
        match event {
            Event::Key(key) => match keys::command(key, self.state.mode) {
                Some(command) => self.run(command, model),
                None => Action::None,
            },
            Event::Mouse(mouse) => {
                if mouse::apply(&mut self.state, &self.hits, mouse, model) {
                    Action::Redraw
                } else {
                    Action::None
                }
            }
            Event::Resize(..) | Event::FocusGained => Action::Redraw,
            Event::FocusLost | Event::Paste(_) => Action::None,
        }
    }

    fn run(&mut self, command: Command, model: &Model) -> Action {
        match command {
            Command::Quit => return Action::Quit,
            Command::Run => {
                self.state.mode = Mode::Browse;
                match prompt::parse(&std::mem::take(&mut self.state.typed)) {
                    Ok(command) => return self.run(command, model),
                    Err(why) => self.notice(why),
                }
            }
            Command::ExportAs(form) => return self.export(form, model),
            Command::Record => return Action::Record,
            Command::Copy => {
                let text = self.selected_text(model);
                self.notice("copied, if this terminal takes it (OSC 52)".to_owned());
                return Action::Copy(text);
            }
            command => self.state.apply(command, model),
        }
        Action::Redraw
    }

    /// Takes over what another screen was left with.
    pub fn restore(&mut self, settings: &Settings) {
        settings.apply(&mut self.state);
        let filter = self.state.query.filter.as_str();
        if !filter.is_empty() {
            self.notice(format!("filter {filter:?}, as it was left: Esc clears it"));
        }
    }

    /// What this screen is left with.
    pub fn settings(&mut self) -> Settings {
        Settings::of(&mut self.state)
    }

    /// Says at the top of the screen that what is observed is recorded, and where; or that it is not.
    pub fn set_recording(&mut self, file: Option<String>) {
        self.state.recording = file;
    }

    /// What a file of what is observed now is called, without its ending.
    pub fn file_name(&self, model: &Model) -> String {
        export::file_name("recording", model)
    }

    /// Says something in the last line, until the next key.
    pub fn notice(&mut self, text: String) {
        self.state.notice = Some(text);
    }

    /// Takes back what was said: a key was pressed that is none of the screen's.
    pub fn answered(&mut self) {
        self.state.notice = None;
    }

    /// What was said last, if no key was pressed since.
    pub fn said(&self) -> Option<&str> {
        self.state.notice.as_deref()
    }

    /// Do letters go into a text that is being typed?
    pub fn takes_text(&self) -> bool {
        matches!(self.state.mode, Mode::Filter | Mode::Command | Mode::Export)
    }

    /// A recording is shown: it has keys of its own, which the help lists.
    pub fn set_replayed(&mut self) {
        self.state.replayed = true;
    }

    /// Who answers what the model does not know; a recording has nobody.
    pub fn set_host(&mut self, host: Box<dyn Host>) {
        self.state.places.host = Some(host);
    }

    /// What the top of the screen says beside the model: where a replay is.
    pub fn set_note(&mut self, note: Option<String>) {
        self.state.note = note;
    }

    /// Takes fresh rows, unless time is paused. To be called a few times a second.
    pub fn tick(&mut self, model: &Model) {
        self.state.history.keep(model);
        if self.state.frozen.is_none() {
            self.state.refresh(model);
        }
    }

    /// The page that is open, or the selected row, as harmless text.
    fn selected_text(&self, model: &Model) -> String {
        /// Columns of a page that is copied.
        const COLUMNS: usize = 116;
        let (state, glyphs) = (&self.state, self.look.glyphs);
        let shown = state.shown(model);
        let context = Context {
            now_ns: shown.now_ns(),
            glyphs,
            columns: usize::MAX,
        };
        let text = |lines: &[Line]| {
            let lines: Vec<String> = lines.iter().map(Line::text).collect();
            lines.join("\n")
        };
        let of_page = |lines: &[Line], pager: &Pager| {
            let Some(target) = pager.target() else {
                return text(lines);
            };
            let of_it = lines
                .iter()
                .filter(|line| line.target.as_ref() == Some(target));
            let of_it: Vec<String> = of_it.map(Line::text).collect();
            of_it.join("\n")
        };
        let found = match (state.details.last(), state.view) {
            (Some(detail), _) => {
                let lines = text(&detail::lines(detail, COLUMNS, glyphs));
                format!("{}\n\n{lines}", detail::title(detail))
            }
            (None, View::Overview) => of_page(&self.overview(shown, COLUMNS, 0), &state.overview),
            (None, View::Graph) => {
                let all = state.forest.len();
                of_page(
                    &graph::lines(&state.forest, 0, all, shown, glyphs),
                    &state.graph,
                )
            }
            (None, View::Health) => text(&health::lines(shown, COLUMNS, glyphs)),
            (None, View::Blocked) if state.is_grouped() => table::text(&state.groups, context),
            (None, View::Blocked) => table::text(&state.blocked, context),
            (None, View::Locks) => table::text(&state.locks, context),
            (None, View::Waits) => table::text(&state.waits, context),
            (None, View::Runtimes) if state.goroutines_of().is_some() => {
                table::text(&state.goroutines, context)
            }
            (None, View::Runtimes) => table::text(&state.runtimes, context),
            (None, View::Processes) => table::text(&state.processes, context),
            (None, View::Containers) => table::text(&state.containers, context),
        };
        found
            .split('\n')
            .map(|line| glyphs.clean(line))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn overview(&self, model: &Model, columns: usize, rows: usize) -> Vec<Line> {
        let room = overview::Room {
            columns,
            rows,
            glyphs: self.look.glyphs,
            filter: &self.state.query.filter,
            all: self.state.all_findings,
        };
        overview::lines(model, room)
    }

    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>, model: &Model) {
        let area = frame.area();
        self.hits = Hits::default();
        let mut canvas = Canvas::new(frame.buffer_mut(), self.look);
        if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
            draw_too_small(&mut canvas, area);
            return;
        }
        let most = if area.height < LOW { 2 } else { 3 };
        let header = header::lines(&self.state, model, area.width, most, self.look.glyphs);
        let (top, rest) = split(area, header.len() as u16);
        for (y, line) in (top.y..top.bottom()).zip(&header) {
            canvas.line(Rect::new(top.x, y, top.width, 1), line);
        }
        let (body, footer) = split(rest, rest.height.saturating_sub(1));
        let (tabs, body) = split(body, 1);
        self.draw_tabs(&mut canvas, tabs);
        if self.state.mode == Mode::Help {
            let view = self.state.view;
            let lines = help::lines(view, usize::from(area.width - GUTTER), self.state.replayed);
            let pager = &mut self.state.help;
            self.hits.rows = draw_titled(&mut canvas, body, &help::title(view), &lines, pager);
        } else if self.state.details.is_empty() {
            self.draw_view(&mut canvas, body, model);
        } else {
            self.draw_detail(&mut canvas, body);
        }
        self.draw_footer(&mut canvas, footer);
    }

    fn draw_tabs(&mut self, canvas: &mut Canvas<'_>, area: Rect) {
        let tabs = status::tabs(&self.state, area.width);
        let gap = if area.width >= status::WIDE_TABS {
            2
        } else {
            1
        };
        let mut x = area.x;
        for (tab, view) in tabs.iter().zip(View::ALL) {
            let room = area.right().saturating_sub(x);
            let style = canvas.look.tone(tab.tone);
            let columns = canvas.put(x, area.y, room, &tab.text, style);
            self.hits
                .tabs
                .push((Rect::new(x, area.y, columns, 1), view));
            x = x.saturating_add(columns + gap);
        }
    }

    fn draw_detail(&mut self, canvas: &mut Canvas<'_>, area: Rect) {
        if let Some(detail) = self.state.details.last_mut() {
            let columns = usize::from(area.width - GUTTER);
            let lines = detail::lines(detail, columns, self.look.glyphs);
            let title = detail::title(detail);
            self.hits.rows = draw_titled(canvas, area, &title, &lines, &mut detail.pager);
        }
    }

    fn draw_view(&mut self, canvas: &mut Canvas<'_>, area: Rect, model: &Model) {
        let (status_line, rest) = split(area, 1);
        self.state
            .resize(usize::from(rest.height.saturating_sub(1)), model);
        let (columns, rows) = (usize::from(area.width - GUTTER), usize::from(rest.height));
        let glyphs = self.look.glyphs;
        let shown = self.state.shown(model);
        match self.state.view {
            View::Overview => {
                let lines = self.overview(shown, columns, rows);
                draw_page(canvas, rest, &lines, &mut self.state.overview);
            }
            View::Health => {
                let lines = health::lines(shown, columns, glyphs);
                draw_page(canvas, rest, &lines, &mut self.state.health);
            }
            View::Graph if self.state.forest.is_empty() => {
                let lines = graph::empty(shown, columns, glyphs);
                draw_page(canvas, rest, &lines, &mut self.state.graph);
            }
            View::Graph => self.draw_graph(canvas, rest, model),
            _ => self.draw_table(canvas, rest, model),
        }
        if self.hits.rows == Rect::ZERO {
            self.hits.rows = rest;
        }
        self.draw_status(canvas, status_line, model);
    }

    /// Only the branches in sight become text.
    fn draw_graph(&mut self, canvas: &mut Canvas<'_>, area: Rect, model: &Model) {
        let forest = &self.state.forest;
        let id = |(at, line): (usize, &Branch)| (at, RowId::Task(line.tid));
        let targets = forest.iter().enumerate().map(id).collect();
        let rows = usize::from(area.height);
        self.state.graph.settle(forest.len(), targets, rows);
        let (first, shown) = (self.state.graph.first(), self.state.shown(model));
        let lines = graph::lines(forest, first, rows, shown, self.look.glyphs);
        draw_lines(canvas, area, &lines, first, &self.state.graph);
    }

    fn draw_table(&mut self, canvas: &mut Canvas<'_>, area: Rect, model: &Model) {
        let state = &self.state;
        self.hits.titles = match state.view {
            View::Blocked if state.is_grouped() => table::draw(canvas, area, &state.groups),
            View::Blocked => table::draw(canvas, area, &state.blocked),
            View::Locks => table::draw(canvas, area, &state.locks),
            View::Runtimes if state.goroutines_of().is_some() => {
                table::draw(canvas, area, &state.goroutines)
            }
            View::Runtimes => table::draw(canvas, area, &state.runtimes),
            View::Processes => table::draw(canvas, area, &state.processes),
            View::Containers => table::draw(canvas, area, &state.containers),
            _ => table::draw(canvas, area, &state.waits),
        };
        self.hits.rows = split(area, 1).1;
        if let Some(meaning) = status::empty(state, model) {
            let lines = text::wrap(&meaning, usize::from(area.width - GUTTER));
            for (y, line) in (area.y + 1..area.bottom()).zip(lines) {
                canvas.put(area.x + GUTTER, y, area.width - GUTTER, line, Style::new());
            }
        }
    }

    fn draw_status(&self, canvas: &mut Canvas<'_>, area: Rect, model: &Model) {
        let position = status::position(&self.state);
        let taken = (position.len() as u16).min(area.width);
        let left = Rect::new(area.x, area.y, area.width.saturating_sub(taken + 1), 1);
        canvas.line(left, &status::status(&self.state, model, self.look.glyphs));
        canvas.put_right(area.x, area.y, area.width, &position, Style::new());
    }

    fn draw_footer(&self, canvas: &mut Canvas<'_>, area: Rect) {
        let state = &self.state;
        let mut x = area.x;
        let glyphs = self.look.glyphs;
        let typed = match state.mode {
            Mode::Filter => Some(('/', state.query.filter.as_str())),
            Mode::Command => Some((':', &*state.typed)),
            Mode::Browse | Mode::Help | Mode::Export => None,
        };
        if let Some((sign, typed)) = typed {
            let room = area.width.saturating_sub(24);
            let typed = glyphs.clean(typed);
            let typed = text::tail(&typed, usize::from(room) - 2, glyphs.ellipsis());
            let prompt = format!("{sign}{typed}_");
            x += canvas.put(x, area.y, room, &prompt, self.look.tone(Tone::Strong)) + 2;
        } else if let Some(notice) = &state.notice {
            let style = self.look.tone(Tone::Strong);
            canvas.put(area.x, area.y, area.width, notice, style);
            return;
        }
        for (key, what) in keys::footer(state) {
            let needs = (key.len() + 1 + what.len()) as u16;
            if x + needs > area.right() {
                return;
            }
            x += canvas.put(x, area.y, needs, key, self.look.title()) + 1;
            x += canvas.put(x, area.y, needs, what, Style::new()) + 2;
        }
    }
}

/// Cuts an area below its first `height` lines.
fn split(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let (x, y, width) = (area.x, area.y, area.width);
    (
        Rect::new(x, y, width, height),
        Rect::new(x, y + height, width, area.height - height),
    )
}

/// Draws a page below a title, and says how much of it is not in sight. Returns where its lines are.
fn draw_titled(
    canvas: &mut Canvas<'_>,
    area: Rect,
    title: &str,
    lines: &[Line],
    pager: &mut Pager,
) -> Rect {
    let (rule, rest) = split(area, 1);
    if rule.height == 0 {
        return rest;
    }
    canvas.rule(rule, title);
    draw_page(canvas, rest, lines, pager);
    let (above, below) = pager.hidden();
    if above > 0 || below > 0 {
        let hidden = format!(" {above} above, {below} below ");
        let style = canvas.look.title();
        canvas.put_right(rule.x, rule.y, rule.width, &hidden, style);
    }
    rest
}

/// Draws a page from the line on that is the first in sight.
fn draw_page(canvas: &mut Canvas<'_>, area: Rect, lines: &[Line], pager: &mut Pager) {
    pager.settle(
        lines.len(),
        canvas::targets(lines),
        usize::from(area.height),
    );
    let first = pager.first();
    draw_lines(canvas, area, &lines[first.min(lines.len())..], first, pager);
}

/// Draws lines of which the first is line `first` of its page.
fn draw_lines(canvas: &mut Canvas<'_>, area: Rect, lines: &[Line], first: usize, pager: &Pager) {
    let selected = pager.target();
    let mut in_selected = false;
    for ((y, line), at) in (area.y..area.bottom()).zip(lines).zip(first..) {
        // What is selected ends where something else begins, or the same once more.
        let begins = pager.line() == Some(at);
        in_selected =
            selected.is_some() && (begins || in_selected && line.target.as_ref() == selected);
        let row = Rect::new(area.x, y, area.width, 1);
        let text = Rect::new(area.x + GUTTER, y, area.width.saturating_sub(GUTTER), 1);
        if begins && in_selected {
            canvas.put(area.x, y, GUTTER, ">", Style::new());
        }
        canvas.line(text, &line.segments);
        if in_selected {
            canvas.select(row);
        }
    }
}

/// Says that there is no room, as far as there is room for that.
fn draw_too_small(canvas: &mut Canvas<'_>, area: Rect) {
    let (columns, rows) = MIN_SIZE;
    let (width, height) = (area.width, area.height);
    let message = format!("terminal too small: {width}x{height}, need {columns}x{rows}");
    let lines = text::wrap(&message, usize::from(width));
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        let segment = Segment::new(line, Tone::Strong);
        canvas.line(Rect::new(area.x, y, width, 1), &[segment]);
    }
}
