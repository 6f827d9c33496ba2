//! The one place where text reaches the terminal: made harmless, cut to its room, and given a style.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};

use super::{
    rows::{RowId, Tone},
    text::{Glyphs, cut, width},
};

/// A piece of a line.
pub(super) struct Segment {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Segment {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Segment {
            text: text.into(),
            tone,
        }
    }
}

/// A line of a page, and what it is about: Enter opens that.
pub(super) struct Line {
    pub(super) segments: Vec<Segment>,
    pub(super) target: Option<RowId>,
}

impl Line {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        Line {
            segments,
            target: None,
        }
    }

    pub(super) fn text(&self) -> String {
        let texts: Vec<&str> = self.segments.iter().map(|s| &*s.text).collect();
        texts.join("  ").trim_end().to_owned()
    }
}

/// What can be selected among lines, and where it begins: a thing may take several lines.
pub(super) fn targets(lines: &[Line]) -> Vec<(usize, RowId)> {
    let mut before = None;
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if let Some(id) = &line.target
            && before != Some(id)
        {
            found.push((at, id.clone()));
        }
        before = line.target.as_ref();
    }
    found
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) color: bool,
    pub(super) glyphs: Glyphs,
}

impl Look {
    pub(super) fn tone(self, tone: Tone) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match tone {
            // The eighth colour is the background of many a terminal: dim is a shade of the foreground in all of them.
            Tone::Quiet if self.color => Style::new().add_modifier(Modifier::DIM),
            Tone::Normal | Tone::Quiet => Style::new(),
            Tone::Strong => bold,
            Tone::Alarm => self.colored(bold, Color::Red),
        }
    }

    /// Of the sixteen colours, red and magenta can be read on light and on dark in the usual palettes; cyan, green and
    /// yellow cannot on light, blue cannot on dark.
    pub(super) fn title(self) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.colored(bold, Color::Magenta)
    }

    fn colored(self, style: Style, color: Color) -> Style {
        if self.color { style.fg(color) } else { style }
    }
}

/// A frame that is being drawn. Whatever lies outside of it is not drawn, and no error.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    pub(super) look: Look,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, look: Look) -> Self {
        Canvas { buffer, look }
    }

    /// Writes a text into a line of `columns`; says how many it took.
    pub(super) fn put(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) -> u16 {
        let area = *self.buffer.area();
        if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
            return 0;
        }
        let columns = columns.min(area.right() - x);
        let text = self.look.glyphs.clean(text);
        let text = cut(&text, usize::from(columns), self.look.glyphs.ellipsis());
        let (end, _) = self
            .buffer
            .set_stringn(x, y, &text, usize::from(columns), style);
        end - x
    }

    /// Writes a text that ends at the right edge of its room.
    pub(super) fn put_right(&mut self, x: u16, y: u16, columns: u16, text: &str, style: Style) {
        let taken = width(&self.look.glyphs.clean(text));
        let indent = usize::from(columns).saturating_sub(taken) as u16;
        self.put(x + indent, y, columns - indent, text, style);
    }

    /// Marks what is there as selected.
    pub(super) fn select(&mut self, area: Rect) {
        let area = area.intersection(*self.buffer.area());
        let style = Style::new().add_modifier(Modifier::REVERSED);
        self.buffer.set_style(area, style);
    }

    /// Writes segments one after the other, two columns apart.
    pub(super) fn line(&mut self, area: Rect, segments: &[Segment]) {
        let mut x = area.x;
        for segment in segments {
            let style = self.look.tone(segment.tone);
            let room = area.right().saturating_sub(x);
            if room == 0 {
                return;
            }
            x = x.saturating_add(self.put(x, area.y, room, &segment.text, style) + 2);
        }
    }

    /// Draws a line across with a title in it.
    pub(super) fn rule(&mut self, area: Rect, title: &str) {
        let style = self.look.title();
        let rule = self.look.glyphs.rule().repeat(usize::from(area.width));
        self.put(area.x, area.y, area.width, &rule, style);
        if area.width > 4 {
            let title = format!(" {title} ");
            self.put(area.x + 2, area.y, area.width - 3, &title, style);
        }
    }
}
