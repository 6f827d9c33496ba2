//! The screen's content as lines of text: for a file, and for who reads lines and no screen.

use super::{
    Action, Export, Form, Ui,
    canvas::{self, Line, Segment},
    command::{Mode, View},
    export, folded, plain,
    rows::Context,
    table,
    text::Glyphs,
    views::{detail, graph, header, health, help, status},
};
use crate::model::Model;

impl Ui {
    /// What is in sight, as a file; or why there is none.
    pub(super) fn export(&mut self, form: Form, model: &Model) -> Action {
        self.state.mode = Mode::Browse;
        let text = match form {
            Form::Json => return Action::Save(export::json(&self.state, model)),
            Form::Folded => folded::stacks(&self.state, model),
            Form::Text => self.lines(model, true).join("\n") + "\n",
        };
        if text.is_empty() {
            self.notice("no stack is known of what is shown here: j and t export it".to_owned());
            return Action::Redraw;
        }
        let shown = self.state.shown(model);
        Action::Save(Export {
            name: export::file_name(export::subject(&self.state), shown),
            text,
            form,
        })
    }

    /// Everything as harmless lines, without columns.
    pub(super) fn plain(&mut self, model: &Model) -> Vec<String> {
        // Which signs are to be said in words can be told from their Unicode alone.
        let glyphs = std::mem::replace(&mut self.look.glyphs, Glyphs { unicode: true });
        let lines = self.unspoken(model);
        self.look.glyphs = glyphs;
        let clean = |line: &String| glyphs.clean(&plain::spoken(line)).into_owned();
        lines.iter().map(clean).collect()
    }

    fn unspoken(&mut self, model: &Model) -> Vec<String> {
        /// Rows of a table that are read out.
        const ROWS: usize = 20;
        self.state.resize(ROWS, model);
        let glyphs = self.look.glyphs;
        let mut lines = Vec::new();
        let joined = |segments: &[Segment]| {
            let texts: Vec<&str> = segments.iter().map(|one| &*one.text).collect();
            texts.join(", ")
        };
        let header = header::lines(&self.state, model, u16::MAX, 1, glyphs);
        lines.extend(header.iter().map(|line| joined(line)));
        let view = self.state.view;
        let at = View::ALL.iter().position(|one| *one == view).unwrap_or(0) + 1;
        let state = joined(&status::status(&self.state, model, glyphs));
        lines.push(format!(
            "view {at} of {}, {}: {state}",
            View::ALL.len(),
            view.title()
        ));
        if self.state.mode == Mode::Help {
            let help = help::lines(view, usize::MAX, self.state.replayed);
            lines.extend(help.iter().map(Line::text));
        } else {
            lines.extend(self.lines(model, false));
        }
        match self.state.mode {
            Mode::Filter => lines.push(format!("filter: {}", self.state.query.filter.as_str())),
            Mode::Command => lines.push(format!("command: {}", self.state.typed)),
            Mode::Export => lines.push("export as: j JSON, f folded stacks, t text".to_owned()),
            Mode::Browse | Mode::Help => {}
        }
        lines.extend(self.state.notice.clone());
        lines
    }

    /// What is in sight as harmless lines: a page, or a table. `all`: all rows that are listed, and none marked.
    fn lines(&mut self, model: &Model, all: bool) -> Vec<String> {
        let shown = self.state.frozen.clone();
        let model = shown.as_deref().unwrap_or(model);
        if self.state.details.is_empty() && self.state.list().is_some() {
            self.rows(model, all)
        } else {
            self.page(model, all)
        }
    }

    fn rows(&mut self, model: &Model, all: bool) -> Vec<String> {
        let context = Context {
            now_ns: model.now_ns(),
            glyphs: self.look.glyphs,
            columns: usize::MAX,
        };
        let state = &mut self.state;
        let height = state.height();
        if all {
            state.resize(usize::MAX, model);
        }
        let lines = match state.view {
            View::Blocked if state.is_grouped() => table::lines(&state.groups, context, !all),
            View::Blocked => table::lines(&state.blocked, context, !all),
            View::Locks => table::lines(&state.locks, context, !all),
            View::Runtimes if state.goroutines_of().is_some() => {
                table::lines(&state.goroutines, context, !all)
            }
            View::Runtimes => table::lines(&state.runtimes, context, !all),
            View::Processes => table::lines(&state.processes, context, !all),
            View::Containers => table::lines(&state.containers, context, !all),
            _ => table::lines(&state.waits, context, !all),
        };
        state.resize(height, model);
        match status::empty(state, model) {
            Some(meaning) => vec![meaning],
            None => lines,
        }
    }

    fn page(&mut self, model: &Model, all: bool) -> Vec<String> {
        const COLUMNS: usize = 160;
        let glyphs = self.look.glyphs;
        let lines = match (self.state.details.last(), self.state.view) {
            (Some(detail), _) => detail::lines(detail, COLUMNS, glyphs),
            (None, View::Overview) => self.overview(model, COLUMNS, 60),
            (None, View::Graph) if self.state.forest.is_empty() => {
                graph::empty(model, COLUMNS, glyphs)
            }
            (None, View::Graph) => {
                let forest = &self.state.forest;
                let rows = if all { forest.len() } else { 200 };
                graph::lines(forest, 0, rows, model, glyphs)
            }
            (None, _) => health::lines(model, COLUMNS, glyphs),
        };
        let title = self.state.details.last().map(detail::title);
        let mut text: Vec<String> = title.into_iter().collect();
        let (targets, total) = (canvas::targets(&lines), lines.len());
        let mut selected = None;
        if let Some(pager) = self.state.pager().filter(|_| !all) {
            pager.settle(total, targets, total);
            selected = pager.line();
        }
        for (at, line) in lines.iter().enumerate() {
            let mark = if selected == Some(at) {
                "selected: "
            } else {
                ""
            };
            text.push(format!("{mark}{}", glyphs.clean(&line.text())));
        }
        text
    }
}
