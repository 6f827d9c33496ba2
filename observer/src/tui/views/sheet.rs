//! A page of text that is being written: labels and values, lists and stacks, wrapped to its width.

use crate::tui::{
    canvas::{Line, Segment},
    rows::{RowId, Tone},
    text::{Glyphs, cut, width, wrap},
};

/// Columns of the labels, with the gap behind them.
pub(super) const LABEL: usize = 15;
/// Columns between two segments of a line.
const GAP: usize = 2;

pub(super) struct Sheet {
    pub(super) lines: Vec<Line>,
    pub(super) columns: usize,
    pub(super) glyphs: Glyphs,
}

impl Sheet {
    pub(super) fn new(columns: usize, glyphs: Glyphs) -> Sheet {
        Sheet {
            lines: Vec::new(),
            columns,
            glyphs,
        }
    }

    pub(super) fn blank(&mut self) {
        if !self.lines.is_empty() {
            self.lines.push(Line::new(Vec::new()));
        }
    }

    /// A title, with an empty line before it.
    pub(super) fn heading(&mut self, text: &str) {
        self.blank();
        let segment = Segment::new(text.to_uppercase(), Tone::Strong);
        self.lines.push(Line::new(vec![segment]));
    }

    pub(super) fn text(&mut self, text: &str, tone: Tone) {
        self.hanging("", text, tone, None);
    }

    pub(super) fn field(&mut self, label: &str, value: &str) {
        self.labelled(label, value, Tone::Normal, None);
    }

    /// A value that Enter opens.
    pub(super) fn link(&mut self, label: &str, value: &str, target: Option<RowId>) {
        self.labelled(label, value, Tone::Normal, target);
    }

    pub(super) fn labelled(&mut self, label: &str, value: &str, tone: Tone, target: Option<RowId>) {
        let label = format!("{label:<width$}", width = LABEL - GAP);
        self.hanging(&label, value, tone, target);
    }

    /// A value whose spaces mean something: wrapping would eat them.
    pub(super) fn unwrapped(&mut self, label: &str, value: String) {
        let label = format!("{label:<width$}", width = LABEL - GAP);
        self.lines.push(Line::new(vec![
            Segment::new(label, Tone::Quiet),
            Segment::new(value, Tone::Normal),
        ]));
    }

    /// A text whose further lines stand below the first one's text.
    pub(super) fn hanging(&mut self, lead: &str, text: &str, tone: Tone, target: Option<RowId>) {
        self.wrapped(Segment::new(lead, Tone::Quiet), text, tone, target);
    }

    pub(super) fn wrapped(&mut self, lead: Segment, text: &str, tone: Tone, target: Option<RowId>) {
        let indent = width(&lead.text);
        let gap = if indent == 0 { 0 } else { GAP };
        let text = self.glyphs.clean(text);
        let mut lead = Some(lead);
        let parts = wrap(&text, self.columns.saturating_sub(indent + gap));
        let targets = std::iter::repeat_n(target, parts.len());
        for (part, target) in parts.into_iter().zip(targets) {
            let lead = lead
                .take()
                .unwrap_or_else(|| Segment::new(" ".repeat(indent), Tone::Quiet));
            let mut segments = vec![Segment::new(part, tone)];
            if indent > 0 {
                segments.insert(0, lead);
            }
            self.lines.push(Line { segments, target });
        }
    }

    /// Two columns of lines beside each other where there is room for that, one below the other elsewhere.
    pub(super) fn beside(&mut self, left: Sheet, right: Sheet) {
        if right.lines.is_empty() || left.columns == self.columns {
            self.lines.extend(left.lines);
            if !right.lines.is_empty() {
                self.blank();
            }
            self.lines.extend(right.lines);
            return;
        }
        let half = left.columns;
        let ellipsis = self.glyphs.ellipsis();
        let mut left = left.lines.into_iter();
        let mut right = right.lines.into_iter();
        loop {
            let pair = (left.next(), right.next());
            if let (None, None) = pair {
                return;
            }
            let (tone, text) = pair.0.map_or((Tone::Normal, String::new()), |line| {
                let tone = line.segments.first().map_or(Tone::Normal, |s| s.tone);
                (tone, line.text())
            });
            let text = cut(&text, half, ellipsis).into_owned();
            let pad = " ".repeat(half.saturating_sub(width(&text)));
            let mut segments = vec![Segment::new(text + &pad, tone)];
            segments.extend(pair.1.into_iter().flat_map(|line| line.segments));
            self.lines.push(Line::new(segments));
        }
    }

    /// A sheet for one of two columns: half as wide from 120 columns of the terminal on.
    pub(super) fn half(&self) -> Sheet {
        const WIDE: usize = 116;
        let columns = if self.columns >= WIDE {
            (self.columns - 2 * GAP) / 2
        } else {
            self.columns
        };
        Sheet::new(columns, self.glyphs)
    }
}
