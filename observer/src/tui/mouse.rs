//! The mouse: the wheel scrolls, a click selects a tab, a row or the column to sort by; a second click on a
//! row opens it.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::{
    command::{Command, Mode, View},
    list::Move,
    state::State,
};
use crate::model::Model;

/// Rows of one notch of the wheel.
const NOTCH: usize = 3;

/// What stands where.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pub(super) tabs: Vec<(Rect, View)>,
    /// Titles of columns.
    pub(super) titles: Vec<(Rect, usize)>,
    /// Rows, or lines of a text.
    pub(super) rows: Rect,
}

/// Does what the mouse asks for; false if that is nothing.
pub(super) fn apply(state: &mut State, hits: &Hits, mouse: MouseEvent, model: &Model) -> bool {
    let step = match mouse.kind {
        MouseEventKind::ScrollDown => Move::Down,
        MouseEventKind::ScrollUp => Move::Up,
        MouseEventKind::Down(MouseButton::Left) => {
            return click(state, hits, Position::new(mouse.column, mouse.row), model);
        }
        _ => return false,
    };
    state.scroll(step, NOTCH, model);
    true
}

fn click(state: &mut State, hits: &Hits, at: Position, model: &Model) -> bool {
    if let Some((_, view)) = hits.tabs.iter().find(|(area, _)| area.contains(at)) {
        state.apply(Command::View(*view), model);
        return true;
    }
    if state.mode == Mode::Browse
        && let Some((_, column)) = hits.titles.iter().find(|(area, _)| area.contains(at))
        && let Some(list) = state.list()
    {
        list.sort_by(*column);
        state.refresh(model);
        return true;
    }
    if !hits.rows.contains(at) {
        return false;
    }
    select(state, usize::from(at.y - hits.rows.y), model)
}

/// Selects a line; opens what was selected already.
fn select(state: &mut State, line: usize, model: &Model) -> bool {
    let (same, found) = match state.pager() {
        Some(pager) => {
            let before = pager.line();
            let found = pager.click(line);
            (before == pager.line(), found)
        }
        None => match state.list() {
            Some(list) => {
                let before = list.pin();
                let found = list.select(line);
                (before == list.pin(), found)
            }
            None => (false, false),
        },
    };
    if found && same {
        state.enter(model);
    }
    if found {
        state.refresh(model);
    }
    found
}
