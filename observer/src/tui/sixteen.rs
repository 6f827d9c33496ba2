//! Colours in the form that every terminal with colours knows: `ESC [ 31 m`. What draws the screen writes the sixteen
//! colours as the first of 256 (`ESC [ 38;5;1 m`), which a terminal with sixteen reads as blinking letters.

use std::{
    borrow::Cow,
    io::{self, Write},
};

/// A writer that changes the form of colours on their way.
#[derive(Debug)]
pub(super) struct Sixteen<W>(pub(super) W);

impl<W: Write> Write for Sixteen<W> {
    /// A colour that is split between two writes is left as it is: most terminals know that form too.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(&plain(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The bytes, with sixteen colours in their plain form.
fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    const BEGIN: &[u8] = b"\x1b[";
    let mut changed: Vec<u8> = Vec::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(found) = memchr::memmem::find(&bytes[at..], BEGIN) {
        let from = at + found + BEGIN.len();
        let is_part = |byte: &&u8| byte.is_ascii_digit() || **byte == b';';
        let end = from + bytes[from..].iter().take_while(is_part).count();
        at = end;
        if bytes.get(end) == Some(&b'm')
            && let Ok(parts) = std::str::from_utf8(&bytes[from..end])
            && let Some(parts) = attributes(parts)
        {
            changed.extend_from_slice(&bytes[kept..from]);
            changed.extend_from_slice(parts.as_bytes());
            kept = end;
        }
    }
    if kept == 0 {
        return Cow::Borrowed(bytes);
    }
    changed.extend_from_slice(&bytes[kept..]);
    Cow::Owned(changed)
}

/// `1;38;5;1` becomes `1;31`, `48;5;9` becomes `101`; `None`: there is nothing to change.
fn attributes(parts: &str) -> Option<String> {
    let all: Vec<&str> = parts.split(';').collect();
    let mut out: Vec<String> = Vec::new();
    let (mut rest, mut is_changed) = (&all[..], false);
    while let [first, more @ ..] = rest {
        rest = more;
        let (base, bright) = match *first {
            "38" => (30, 90),
            "48" => (40, 100),
            other => {
                out.push(other.to_owned());
                continue;
            }
        };
        match more {
            ["5", number, after @ ..] if let Ok(number @ 0..16) = number.parse::<u8>() => {
                let code = match number {
                    0..8 => base + number,
                    _ => bright + number - 8,
                };
                out.push(code.to_string());
                (rest, is_changed) = (after, true);
            }
            // Another form of a colour has numbers that are no attributes.
            _ => return None,
        }
    }
    is_changed.then(|| out.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_colours_are_written_plainly() {
        for (given, written) in [
            ("\x1b[38;5;1mred\x1b[39m", "\x1b[31mred\x1b[39m"),
            ("\x1b[38;5;5;49m", "\x1b[35;49m"),
            ("\x1b[1;38;5;9;48;5;15mx", "\x1b[1;91;107mx"),
            ("a\x1b[38;5;200mb", "a\x1b[38;5;200mb"),
            ("\x1b[38;2;1;38;5;1m", "\x1b[38;2;1;38;5;1m"),
            ("38;5;1m \x1b[12;5H\x1b[38;5", "38;5;1m \x1b[12;5H\x1b[38;5"),
            ("\x1b[m\x1b[", "\x1b[m\x1b["),
            ("\x1b[38;5;m\x1b[38m", "\x1b[38;5;m\x1b[38m"),
            ("", ""),
        ] {
            let mut out = Sixteen(Vec::new());
            out.write_all(given.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out.0).unwrap(), written, "{given:?}");
        }
    }
}
