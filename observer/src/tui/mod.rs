//! The screen: input → state → views.
//!
//! [`Ui`] holds what the user chose and draws it; it does no I/O, so that tests and any terminal can
//! drive it. [`Screen`] is the terminal. Keys become commands ([`keys`]), commands change the state
//! ([`state`], which knows no widgets), views turn rows into text, and [`canvas`] is the one place
//! where text, made harmless, reaches the terminal.

mod canvas;
mod details;
mod keys;
mod list;
mod rows;
mod screen;
mod state;
mod table;
#[cfg(test)]
mod tests;

mod views;

use crossterm::event::Event;
use ratatui::{Frame, layout::Rect, style::Style};

pub use self::screen::{Screen, enter};
use self::{
    canvas::{Canvas, Look, Segment},
    rows::Tone,
    state::{Command, Mode, State, View},
    text::Glyphs,
    views::{detail, header, help, status},
};
use crate::{model::Model, text};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Draws the screen again.
    Redraw,
    /// Ends.
    Quit,
}

/// The screen's content: what the user chose, and the rows that are shown.
#[derive(Debug)]
pub struct Ui {
    state: State,
    look: Look,
}

impl Ui {
    /// A screen that shows tasks that are blocked now.
    pub fn new(options: Options) -> Self {
        Ui {
            state: State::new(),
            look: Look {
                color: options.color,
                glyphs: Glyphs {
                    unicode: options.unicode,
                },
            },
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
                Some(Command::Quit) => Action::Quit,
                Some(command) => {
                    self.state.apply(command, model);
                    Action::Redraw
                }
                None => Action::None,
            },
            Event::Resize(..) | Event::FocusGained => Action::Redraw,
            Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => Action::None,
        }
    }

    /// Takes fresh rows, unless time is paused. To be called a few times a second.
    pub fn tick(&mut self, model: &Model) {
        if self.state.frozen.is_none() {
            self.state.refresh(model);
        }
    }

    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>, model: &Model) {
        let area = frame.area();
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
        if self.state.mode == Mode::Help {
            self.draw_help(&mut canvas, body);
        } else {
            self.draw_view(&mut canvas, body, model);
        }
        self.draw_footer(&mut canvas, footer);
    }

    fn draw_view(&mut self, canvas: &mut Canvas<'_>, area: Rect, model: &Model) {
        let glyphs = self.look.glyphs;
        let (tabs, rest) = split(area, 1);
        let (status_line, rest) = split(rest, 1);
        let columns = usize::from(area.width);
        let detail = self.state.detail.as_ref();
        let detail_lines = detail.map(|detail| detail::lines(detail, columns, glyphs));
        let panel = detail_lines.as_ref().map_or(0, |lines| {
            let most = (rest.height * 2 / 3).max(3).min(rest.height);
            (lines.len() as u16).saturating_add(1).min(most)
        });
        let (table, panel) = split(rest, rest.height - panel);
        self.state
            .resize(usize::from(table.height.saturating_sub(1)), model);
        canvas.line(tabs, &status::tabs(&self.state));
        self.draw_status(canvas, status_line, model);
        match self.state.view {
            View::Blocked => table::draw(canvas, table, &self.state.blocked),
            View::Locks => table::draw(canvas, table, &self.state.locks),
            View::Waits => table::draw(canvas, table, &self.state.waits),
        }
        if let Some(meaning) = status::empty(&self.state, model) {
            let lines = text::wrap(&meaning, columns.saturating_sub(2));
            for (y, line) in (table.y + 1..table.bottom()).zip(lines) {
                canvas.put(area.x + 2, y, area.width - 2, line, Style::new());
            }
        }
        if let (Some(detail), Some(lines)) = (&mut self.state.detail, detail_lines) {
            draw_text(
                canvas,
                panel,
                &detail::title(detail),
                &lines,
                &mut detail.scroll,
            );
        }
    }

    fn draw_status(&self, canvas: &mut Canvas<'_>, area: Rect, model: &Model) {
        let position = status::position(&self.state);
        let taken = (position.len() as u16).min(area.width);
        let left = Rect::new(area.x, area.y, area.width.saturating_sub(taken + 1), 1);
        canvas.line(left, &status::status(&self.state, model, self.look.glyphs));
        canvas.put_right(area.x, area.y, area.width, &position, Style::new());
    }

    fn draw_help(&mut self, canvas: &mut Canvas<'_>, area: Rect) {
        let view = self.state.view;
        let lines = help::lines(view, usize::from(area.width));
        let scroll = &mut self.state.help_scroll;
        draw_text(canvas, area, &help::title(view), &lines, scroll);
    }

    fn draw_footer(&self, canvas: &mut Canvas<'_>, area: Rect) {
        let state = &self.state;
        let mut x = area.x;
        if state.mode == Mode::Filter {
            let glyphs = self.look.glyphs;
            let room = area.width.saturating_sub(24);
            let typed = glyphs.clean(state.query.filter.as_str());
            let typed = text::tail(&typed, usize::from(room) - 2, glyphs.ellipsis());
            let prompt = format!("/{typed}_");
            x += canvas.put(x, area.y, room, &prompt, self.look.tone(Tone::Strong)) + 2;
        }
        for (key, what) in keys::footer(state.mode, state.detail.is_some(), state.frozen.is_some())
        {
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

/// Draws a text below a title, from line `scroll` on, and says how much of it is not in sight.
fn draw_text(
    canvas: &mut Canvas<'_>,
    area: Rect,
    title: &str,
    lines: &[String],
    scroll: &mut usize,
) {
    let (rule, rest) = split(area, 1);
    if rule.height == 0 {
        return;
    }
    let room = usize::from(rest.height);
    *scroll = (*scroll).min(lines.len().saturating_sub(room));
    canvas.rule(rule, title);
    for (y, line) in (rest.y..rest.bottom()).zip(&lines[*scroll..]) {
        canvas.put(rest.x, y, rest.width, line, Style::new());
    }
    let below = lines.len().saturating_sub(room + *scroll);
    if *scroll > 0 || below > 0 {
        let hidden = format!(" {} above, {below} below ", *scroll);
        let style = canvas.look.title();
        canvas.put_right(rule.x, rule.y, rule.width, &hidden, style);
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
