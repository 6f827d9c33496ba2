//! The state of a page of text: which line is the first on the screen, and which of the things that the text
//! names is selected. The text itself is made anew for each frame, to the width that there is.

use super::{list::Move, rows::RowId};

/// A page's place and selection.
#[derive(Debug, Default)]
pub(super) struct Pager {
    /// First line on the screen.
    first: usize,
    /// What is selected, and the line it begins at.
    selected: Option<(usize, RowId)>,
    /// Has the user moved? Until then the page starts at its top, with the first thing selected.
    moved: bool,
    /// The end is asked for, which only the next frame knows.
    to_end: bool,
    /// The page as it was last drawn.
    total: usize,
    height: usize,
    targets: Vec<(usize, RowId)>,
}

impl Pager {
    /// Takes the page as it is now: its lines, what can be selected and at which line, and the room.
    pub(super) fn settle(&mut self, total: usize, targets: Vec<(usize, RowId)>, height: usize) {
        (self.total, self.targets, self.height) = (total, targets, height.max(1));
        if self.moved {
            self.follow();
        } else {
            self.first = 0;
            self.selected = self.targets.first().cloned();
        }
        self.first = self.first.min(self.last_first());
        if std::mem::take(&mut self.to_end) {
            self.first = self.last_first();
            self.select_last(|_| true);
        }
    }

    /// Finds the selected thing again; it keeps its line on the screen.
    fn follow(&mut self) {
        let Some((old, id)) = &self.selected else {
            return;
        };
        let old = *old;
        let distance = |(line, _): &&(usize, RowId)| line.abs_diff(old);
        let same = self.targets.iter().filter(|(_, other)| other == id);
        let found = same.min_by_key(distance);
        let was_visible = (self.first..self.first + self.height).contains(&old);
        if let Some((line, _)) = found
            && was_visible
        {
            self.first = (self.first + line).saturating_sub(old);
        }
        let nearest = || self.targets.iter().min_by_key(distance);
        self.selected = found.or_else(nearest).cloned();
    }

    /// First line on the screen when the last line is the last on it.
    fn last_first(&self) -> usize {
        self.total.saturating_sub(self.height)
    }

    fn is_visible(&self, line: usize) -> bool {
        (self.first..self.first + self.height).contains(&line)
    }

    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Lines above the screen and below it.
    pub(super) fn hidden(&self) -> (usize, usize) {
        let below = self.total.saturating_sub(self.first + self.height);
        (self.first, below)
    }

    /// Which of the things that can be selected is, and how many there are.
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        let selected = self.selected.as_ref()?;
        let at = self.targets.iter().position(|target| target == selected)?;
        Some((at + 1, self.targets.len()))
    }

    /// The line at which what is selected begins.
    pub(super) fn line(&self) -> Option<usize> {
        self.selected.as_ref().map(|(line, _)| *line)
    }

    /// What is selected, as long as it is in sight.
    pub(super) fn target(&self) -> Option<&RowId> {
        let (line, id) = self.selected.as_ref()?;
        self.is_visible(*line).then_some(id)
    }

    /// Goes to the next thing in sight, or else scrolls.
    pub(super) fn go(&mut self, step: Move) {
        self.moved = true;
        let at = self.line();
        match step {
            Move::Down => {
                let next = |line: usize| at.is_none_or(|at| line > at);
                if !self.select_first(next) {
                    self.first = (self.first + 1).min(self.last_first());
                    self.select_first(next);
                }
            }
            Move::Up => {
                let before = |line: usize| at.is_none_or(|at| line < at);
                if !self.select_last(before) {
                    self.first = self.first.saturating_sub(1);
                    self.select_last(before);
                }
            }
            Move::PageDown => {
                self.first = (self.first + self.height).min(self.last_first());
                self.select_first(|_| true);
            }
            Move::PageUp => {
                self.first = self.first.saturating_sub(self.height);
                self.select_first(|_| true);
            }
            Move::Home => self.moved = false,
            Move::End => self.to_end = true,
        }
        if !self.moved {
            self.first = 0;
            self.selected = self.targets.first().cloned();
        }
    }

    fn select_first(&mut self, wanted: impl Fn(usize) -> bool) -> bool {
        let is_it = |(line, _): &&(usize, RowId)| self.is_visible(*line) && wanted(*line);
        let found = self.targets.iter().find(is_it).cloned();
        self.select(found)
    }

    fn select_last(&mut self, wanted: impl Fn(usize) -> bool) -> bool {
        let is_it = |(line, _): &&(usize, RowId)| self.is_visible(*line) && wanted(*line);
        let found = self.targets.iter().rev().find(is_it).cloned();
        self.select(found)
    }

    fn select(&mut self, found: Option<(usize, RowId)>) -> bool {
        let is_some = found.is_some();
        if is_some {
            self.selected = found;
        }
        is_some
    }

    /// Selects what a line of the screen belongs to; false if that is nothing.
    pub(super) fn click(&mut self, line: usize) -> bool {
        let line = self.first + line;
        if line >= self.total {
            return false;
        }
        let found = self.targets.iter().rev().find(|(at, _)| *at <= line);
        // Further down it is another thing's text, or nobody's.
        let found = found.filter(|(at, _)| line - at <= 2).cloned();
        self.moved = true;
        self.select(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(pager: &mut Pager, lines: &[(usize, u32)]) {
        let targets = lines.iter().map(|&(line, tid)| (line, RowId::Task(tid)));
        pager.settle(50, targets.collect(), 10);
    }

    #[test]
    fn goes_from_one_thing_to_the_next_and_scrolls_between() {
        let mut pager = Pager::default();
        let lines = [(2, 1), (4, 2), (12, 3)];
        page(&mut pager, &lines);
        assert_eq!(pager.target(), Some(&RowId::Task(1)));
        pager.go(Move::Down);
        assert_eq!(pager.target(), Some(&RowId::Task(2)));
        for _ in 0..3 {
            pager.go(Move::Down);
        }
        assert_eq!((pager.first(), pager.target()), (3, Some(&RowId::Task(3))));
        pager.go(Move::End);
        page(&mut pager, &lines);
        assert_eq!((pager.hidden(), pager.target()), ((40, 0), None));
        pager.go(Move::Home);
        assert_eq!((pager.hidden(), pager.line()), ((0, 40), Some(2)));
    }

    #[test]
    fn what_is_selected_keeps_its_line() {
        let mut pager = Pager::default();
        page(&mut pager, &[(2, 1), (4, 2)]);
        pager.go(Move::Down);
        page(&mut pager, &[(2, 1), (3, 7), (9, 2)]);
        assert_eq!((pager.first(), pager.line()), (5, Some(9)));
        page(&mut pager, &[(2, 1), (3, 7)]);
        assert_eq!(pager.line(), Some(3));
        page(&mut pager, &[]);
        assert_eq!(pager.target(), None);
    }
}
