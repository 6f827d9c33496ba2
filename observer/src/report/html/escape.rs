//! Text from the observed system in a page: never markup, never a control of direction.

use std::fmt;

use crate::text::printable;

/// Characters of one text; names of templates can be longer than a page.
const MAX_CHARS: usize = 1_000;

/// Shows a text harmlessly, in an element or between double quotes.
pub(super) struct Esc<T>(pub(super) T);

impl<T: AsRef<str>> fmt::Display for Esc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let text = printable(self.0.as_ref());
        for (count, c) in text.chars().enumerate() {
            if count == MAX_CHARS {
                return f.write_char('…');
            }
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        let shown = Esc("</script><b a='x' b=\"y\">\n\u{202e}&amp;").to_string();
        assert_eq!(
            shown,
            "&lt;/script&gt;&lt;b a=&#39;x&#39; b=&quot;y&quot;&gt;␊\u{fffd}&amp;amp;"
        );
        let long = Esc("x".repeat(5_000)).to_string();
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
    }
}
