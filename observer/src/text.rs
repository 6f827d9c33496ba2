//! Text from the observed host, made harmless and fitted to a terminal.
//!
//! A thread may call itself anything, escape sequences and right-to-left overrides included. Whatever
//! comes from a target passes [`printable`] before a terminal sees it.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// What stands for a character that must not be shown and has no picture of its own.
const REPLACEMENT: char = '\u{fffd}';
/// Combining marks that one character may carry; more of them only paint over other lines.
const MAX_MARKS: usize = 2;

/// The text without anything that moves the cursor, changes colours, reorders characters or hides:
/// control characters become their pictures (`\x1b` reads `␛`), characters for direction, format and
/// zero width become `�`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Cow::Borrowed(text);
    }
    // A mark at the very start has nothing to stand on.
    let mut marks = MAX_MARKS;
    let harmless = |c: char| {
        let width = c.width();
        let shown = match c {
            '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(REPLACEMENT),
            '\x7f' => '\u{2421}',
            _ if width.is_none() || is_deceptive(c) => REPLACEMENT,
            _ if width == Some(0) && marks >= MAX_MARKS => REPLACEMENT,
            _ => c,
        };
        marks = if width == Some(0) {
            (marks + 1).min(MAX_MARKS)
        } else {
            0
        };
        shown
    };
    Cow::Owned(text.chars().map(harmless).collect())
}

/// Characters that are not seen, or that change how others are seen: format and direction controls,
/// line separators, fillers, variation selectors, tags.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Columns of a terminal that a printable text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text, cut to a number of columns; a cut shows by `ellipsis` at the end. A wide character is
/// never cut in two.
pub fn cut<'a>(text: &'a str, columns: usize, ellipsis: &str) -> Cow<'a, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let Some(room) = columns.checked_sub(width(ellipsis)) else {
        return Cow::Borrowed("");
    };
    let mut kept = text[..fitting(text, room)].to_owned();
    kept.push_str(ellipsis);
    Cow::Owned(kept)
}

/// The end of a text, cut at its front where it is too long: what somebody types is seen at its end.
pub(crate) fn tail<'a>(text: &'a str, columns: usize, ellipsis: &str) -> Cow<'a, str> {
    let mut over = width(text).saturating_sub(columns);
    if over == 0 {
        return Cow::Borrowed(text);
    }
    over += width(ellipsis);
    let mut rest = text.chars();
    while over > 0
        && let Some(c) = rest.next()
    {
        over = over.saturating_sub(c.width().unwrap_or(0));
    }
    Cow::Owned(format!("{ellipsis}{}", rest.as_str()))
}

/// Length in bytes of the longest start of the text that fits.
fn fitting(text: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return at;
        }
    }
    text.len()
}

/// The text in lines of at most `columns`, broken at spaces where there are any.
pub fn wrap(text: &str, columns: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while width(rest) > columns {
        let mut end = fitting(rest, columns);
        if end == 0 {
            // Not even one character fits; showing nothing is better than never ending.
            return lines;
        }
        if let Some(space) = rest[..end].rfind(' ').filter(|at| *at > 0)
            && !rest[end..].starts_with(' ')
        {
            end = space;
        }
        lines.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(' ');
    }
    lines.push(rest);
    lines
}

/// The signs that are drawn, for terminals with and without Unicode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glyphs {
    /// Can the terminal show Unicode?
    pub(crate) unicode: bool,
}

impl Glyphs {
    fn pick(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    pub(crate) fn ellipsis(self) -> &'static str {
        self.pick("…", "~")
    }

    pub(crate) fn at_least(self) -> &'static str {
        self.pick("≥", ">=")
    }

    pub(crate) fn descending(self, yes: bool) -> &'static str {
        if yes {
            self.pick("↓", "v")
        } else {
            self.pick("↑", "^")
        }
    }

    /// Stands between a function and its caller, which is behind it.
    pub(crate) fn called_by(self) -> &'static str {
        self.pick("←", "<-")
    }

    pub(crate) fn rule(self) -> &'static str {
        self.pick("─", "-")
    }

    pub(crate) fn bar(self) -> &'static str {
        self.pick("█", "#")
    }

    /// A level from 0 to 8, as a sign one column wide.
    pub(crate) fn level(self, level: usize) -> char {
        let signs = self.pick(" ▁▂▃▄▅▆▇█", " .:-=+*%#");
        signs.chars().nth(level.min(8)).unwrap_or(' ')
    }

    /// Leads to what waits for the line above.
    pub(crate) fn branch(self) -> &'static str {
        self.pick("└ ", "` ")
    }

    pub(crate) fn circle(self) -> &'static str {
        self.pick("↺", "@")
    }

    pub(crate) fn dot(self) -> &'static str {
        self.pick("·", "|")
    }

    /// Makes any text fit for this terminal.
    pub(crate) fn clean(self, text: &str) -> Cow<'_, str> {
        let text = printable(text);
        if self.unicode || text.is_ascii() {
            return text;
        }
        let mut ascii = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                'µ' => ascii.push('u'),
                '⇄' => ascii.push_str("<>"),
                '≥' => ascii.push_str(self.at_least()),
                '→' => ascii.push_str("->"),
                '←' => ascii.push_str(self.called_by()),
                '…' => ascii.push_str("..."),
                // In names of functions that Go has in assembly.
                '·' => ascii.push('.'),
                c if c.is_ascii() => ascii.push(c),
                _ => ascii.push('?'),
            }
        }
        Cow::Owned(ascii)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_harmless() {
        for (name, shown) in [
            ("worker-3", "worker-3"),
            ("", ""),
            ("\x1b[2J\x1b]0;x\x07", "␛[2J␛]0;x␇"),
            ("a\nb\tc\r\0", "a␊b␉c␍␀"),
            ("\x7f\u{9b}31m", "␡�31m"),
            ("abc\u{202e}fed\u{2066}x", "abc�fed�x"),
            ("a\u{200b}b\u{feff}c\u{ad}", "a�b�c�"),
            ("a\u{2028}b\u{2029}", "a�b�"),
            ("日本語", "日本語"),
            ("e\u{301}", "e\u{301}"),
            ("\u{301}e", "�e"),
            ("e\u{301}\u{301}\u{301}\u{301}", "e\u{301}\u{301}��"),
            ("\u{3164}\u{e0041}\u{fe0f}", "���"),
        ] {
            assert_eq!(printable(name), shown, "{name:?}");
        }
        for c in '\0'..=char::MAX {
            let text = format!("x{c}y");
            let shown = printable(&text);
            assert!(!shown.chars().any(char::is_control), "{c:?}");
            assert_eq!(printable(&shown), shown, "{c:?} needs two rounds");
        }
    }

    #[test]
    fn plain_names_are_not_copied() {
        assert!(matches!(printable("postgres: writer"), Cow::Borrowed(_)));
    }

    #[test]
    fn cuts_by_columns_and_never_in_a_wide_character() {
        for (text, columns, expected) in [
            ("worker", 6, "worker"),
            ("worker", 5, "work…"),
            ("worker", 1, "…"),
            ("worker", 0, ""),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("e\u{301}tude", 3, "e\u{301}t…"),
        ] {
            let text = cut(text, columns, "…");
            assert_eq!(text, expected);
            assert!(width(&text) <= columns);
        }
        assert_eq!(cut("worker", 4, "~"), "wor~");
        assert_eq!(tail("worker", 4, "…"), "…ker");
        assert_eq!(tail("日本語", 5, "…"), "…本語");
        assert_eq!(tail("worker", 6, "…"), "worker");
    }

    #[test]
    fn wraps_at_spaces_and_in_long_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("日本語", 3), ["日", "本", "語"]);
        assert_eq!(wrap("日本語", 1), Vec::<&str>::new());
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn without_unicode_only_ascii_is_left() {
        let glyphs = Glyphs { unicode: false };
        assert_eq!(glyphs.clean("1.50µs \x1b[0m 日本"), "1.50us ?[0m ??");
        assert_eq!(
            glyphs.clean("a ⇄ b → c ← d, ≥2 runtime·f, …"),
            "a <> b -> c <- d, >=2 runtime.f, ..."
        );
        assert_eq!(glyphs.ellipsis(), "~");
    }
}
