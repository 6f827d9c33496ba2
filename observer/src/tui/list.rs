//! One table's state: its order, its selection, and the page of rows that is on the screen.
//!
//! A host may have 100 000 locks. Rows outside the page are looked at, never copied, sorted or
//! formatted: finding the page takes time in proportion to the rows, not to their sorting.

use std::cmp::Ordering;

use super::rows::{Column, Filter, Key, Record, RowId};

/// Which rows are wanted.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) show_idle: bool,
}

/// A movement of the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// What the selection holds on to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Anchor {
    /// The first row, whichever it is: how a view starts, so that it follows what is newest.
    Top,
    /// A record, wherever it goes.
    Row(RowId),
    /// A place, until the next page is taken; then the record found there.
    Index(usize),
    /// The last row, likewise.
    Last,
}

/// The rows on the screen, and how many there are beside them.
#[derive(Debug)]
pub(super) struct Page<R> {
    pub(super) rows: Vec<R>,
    /// Index of the first of them among those that are listed.
    pub(super) first: usize,
    /// Rows that are listed: those that match and are not folded away.
    pub(super) listed: usize,
    /// Rows that match and are folded away as idle.
    pub(super) idle: usize,
    /// Rows in all.
    pub(super) total: usize,
    /// The moment that the rows show.
    pub(super) now_ns: u64,
}

/// A table's order, selection and page.
#[derive(Debug)]
pub(super) struct List<R> {
    sort: usize,
    reversed: bool,
    anchor: Anchor,
    cursor: usize,
    /// Which of the rows that are listed, in no order, the selected one was when it was last looked for.
    seen_at: usize,
    page: Page<R>,
}

/// A row that may be on the page.
struct Candidate<'a, R> {
    key: Key<'a>,
    row: &'a R,
}

impl<R: Record> Default for List<R> {
    fn default() -> Self {
        List {
            sort: R::DEFAULT_SORT,
            reversed: false,
            anchor: Anchor::Top,
            cursor: 0,
            seen_at: 0,
            page: Page {
                rows: Vec::new(),
                first: 0,
                listed: 0,
                idle: 0,
                total: 0,
                now_ns: 0,
            },
        }
    }
}

impl<R: Record> List<R> {
    pub(super) fn page(&self) -> &Page<R> {
        &self.page
    }

    /// Index of the selected row among those that are listed.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Index of the column that sorts.
    pub(super) fn sort(&self) -> usize {
        self.sort
    }

    pub(super) fn descending(&self) -> bool {
        R::columns()[self.sort].descending != self.reversed
    }

    /// Takes the page again: `height` rows around the selection.
    pub(super) fn refresh<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a R>,
        now_ns: u64,
        query: &Query,
        height: usize,
    ) {
        let height = height.max(1);
        let key = R::columns()[self.sort].key;
        let (mut total, mut idle) = (0, 0);
        let mut found = Vec::new();
        for row in rows {
            total += 1;
            if !query.filter.is_empty() && !row.matches(&query.filter) {
                continue;
            }
            if !query.show_idle && row.is_idle() {
                idle += 1;
                continue;
            }
            let key = key(row, now_ns);
            found.push(Candidate { key, row });
        }
        let first = self.settle(&found, height);
        let descending = self.descending();
        let rows = window(&mut found, first, height, |a, b| order(a, b, descending));
        if let Anchor::Index(_) | Anchor::Last = self.anchor
            && let Some(row) = rows.get(self.cursor - first)
        {
            self.anchor = Anchor::Row(row.id());
        }
        self.page = Page {
            rows,
            first,
            listed: found.len(),
            idle,
            total,
            now_ns,
        };
    }

    /// Adds to the rows of the page what takes too long for all rows that there are.
    pub(super) fn complete(&mut self, complete: impl FnMut(&mut R)) {
        self.page.rows.iter_mut().for_each(complete);
    }

    /// All rows that are listed, in their order.
    pub(super) fn listed<'a>(
        &self,
        rows: impl Iterator<Item = &'a R>,
        now_ns: u64,
        query: &Query,
    ) -> Vec<&'a R> {
        let key = R::columns()[self.sort].key;
        let mut found: Vec<_> = rows
            .filter(|row| query.filter.is_empty() || row.matches(&query.filter))
            .filter(|row| query.show_idle || !row.is_idle())
            .map(|row| Candidate {
                key: key(row, now_ns),
                row,
            })
            .collect();
        let descending = self.descending();
        found.sort_unstable_by(|a, b| order(a, b, descending));
        found.into_iter().map(|candidate| candidate.row).collect()
    }

    /// The selected row, if there is one.
    pub(super) fn selected(&self) -> Option<&R> {
        self.page
            .rows
            .get(self.cursor.checked_sub(self.page.first)?)
    }

    /// Puts the cursor where its anchor is now; says with which row the page starts.
    fn settle(&mut self, found: &[Candidate<'_, R>], height: usize) -> usize {
        let last = found.len().saturating_sub(1);
        let mut first = self.page.first;
        match &self.anchor {
            Anchor::Top => (self.cursor, first) = (0, 0),
            Anchor::Index(index) => self.cursor = *index,
            Anchor::Last => self.cursor = last,
            Anchor::Row(id) => match self.position(found, id) {
                // The selected row keeps its line on the screen: what is around it stays still.
                Some((index, at)) => {
                    self.seen_at = at;
                    first = (first + index).saturating_sub(self.cursor);
                    self.cursor = index;
                }
                None => self.anchor = Anchor::Index(self.cursor),
            },
        }
        self.cursor = self.cursor.min(last);
        first
            .min(self.cursor)
            .max((self.cursor + 1).saturating_sub(height))
            .min(found.len().saturating_sub(height))
    }

    /// The place of a row in their order, and among those that are listed.
    fn position(&self, found: &[Candidate<'_, R>], id: &RowId) -> Option<(usize, usize)> {
        // Rows mostly come as they did before.
        let is_it = |at: &usize| found.get(*at).is_some_and(|one| one.row.is(id));
        let at = Some(self.seen_at).filter(is_it);
        let at = at.or_else(|| found.iter().position(|one| one.row.is(id)))?;
        let selected = &found[at];
        let descending = self.descending();
        let before = |other: &&Candidate<'_, R>| order(other, selected, descending).is_lt();
        Some((found.iter().filter(before).count(), at))
    }
}

fn order<R: Record>(a: &Candidate<'_, R>, b: &Candidate<'_, R>, descending: bool) -> Ordering {
    a.key
        .order(b.key, descending)
        .then_with(|| a.row.tie(b.row))
}

/// Copies of the rows `first..first + height` in their order, without sorting the others.
fn window<R: Record>(
    found: &mut [Candidate<'_, R>],
    first: usize,
    height: usize,
    order: impl Fn(&Candidate<'_, R>, &Candidate<'_, R>) -> Ordering,
) -> Vec<R> {
    let end = first.saturating_add(height).min(found.len());
    if first >= end {
        return Vec::new();
    }
    if end < found.len() {
        found.select_nth_unstable_by(end, &order);
    }
    let mut page = &mut found[..end];
    if first > 0 {
        page.select_nth_unstable_by(first, &order);
        page = &mut page[first..];
    }
    page.sort_unstable_by(&order);
    page.iter().map(|candidate| candidate.row.clone()).collect()
}

/// What keys do to a list, whatever its records are.
pub(super) trait Navigate {
    fn go(&mut self, step: Move, height: usize);
    /// Sorts by the next column, or by the one before.
    fn sort_by_next(&mut self, forward: bool);
    fn reverse(&mut self);
    /// Sorts by a column; the other way round if it does already.
    fn sort_by(&mut self, column: usize);
    /// The column with this title, in small or large letters.
    fn column(&self, title: &str) -> Option<usize>;
    /// The title of the column that sorts, and whether the other way round.
    fn order(&self) -> (&'static str, bool);
    fn set_order(&mut self, column: usize, reversed: bool);
    /// Selects a line of the page; false if there is none.
    fn select(&mut self, line: usize) -> bool;
    /// Holds on to the selected row from now on; says which it is.
    fn pin(&mut self) -> Option<RowId>;
}

impl<R: Record> Navigate for List<R> {
    fn go(&mut self, step: Move, height: usize) {
        let page = height.max(1);
        let target = match step {
            Move::Up => self.cursor.saturating_sub(1),
            Move::Down => self.cursor + 1,
            Move::PageUp => self.cursor.saturating_sub(page),
            Move::PageDown => self.cursor + page,
            Move::Home => {
                self.anchor = Anchor::Top;
                return;
            }
            Move::End => {
                self.anchor = Anchor::Last;
                return;
            }
        };
        let target = target.min(self.page.listed.saturating_sub(1));
        // What the user sees is what is selected, even if the rows have changed places since.
        let seen = target
            .checked_sub(self.page.first)
            .and_then(|line| self.page.rows.get(line));
        self.anchor = match seen {
            Some(row) => Anchor::Row(row.id()),
            None => Anchor::Index(target),
        };
        self.cursor = target;
    }

    fn sort_by_next(&mut self, forward: bool) {
        let columns = R::columns().len();
        self.sort = (self.sort + if forward { 1 } else { columns - 1 }) % columns;
        self.reversed = false;
    }

    fn reverse(&mut self) {
        self.reversed = !self.reversed;
    }

    fn sort_by(&mut self, column: usize) {
        if self.sort == column {
            self.reversed = !self.reversed;
        } else if column < R::columns().len() {
            (self.sort, self.reversed) = (column, false);
        }
    }

    fn column(&self, title: &str) -> Option<usize> {
        let is_it = |column: &Column<R>| column.title.eq_ignore_ascii_case(title);
        R::columns().iter().position(is_it)
    }

    fn order(&self) -> (&'static str, bool) {
        (R::columns()[self.sort].title, self.reversed)
    }

    fn set_order(&mut self, column: usize, reversed: bool) {
        if column < R::columns().len() {
            (self.sort, self.reversed) = (column, reversed);
        }
    }

    fn select(&mut self, line: usize) -> bool {
        let Some(row) = self.page.rows.get(line) else {
            return false;
        };
        self.anchor = Anchor::Row(row.id());
        self.cursor = self.page.first + line;
        true
    }

    fn pin(&mut self) -> Option<RowId> {
        let id = self.selected()?.id();
        self.anchor = Anchor::Row(id.clone());
        Some(id)
    }
}
