//! The screen as plain lines, for a screen reader or a terminal that cannot move its cursor: nothing is drawn
//! over, there are no boxes and no columns, and lines come only when something has changed.

use std::{
    collections::HashMap,
    io::{self, Stdout, Write},
};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use super::Ui;
use crate::model::Model;

/// What is said once.
const KEYS: &str =
    "keys: 1 to 9 views, up and down select, Enter opens, Esc goes back, / filters, ? help, q quit";
/// Times for which a line is no news, though it has been away: what comes and goes is not said each time.
const REMEMBERED: u64 = 150;

/// The terminal, written line by line. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct Plain {
    output: Stdout,
    /// The lines of the last times, without their numbers, and when each was there last.
    seen: HashMap<String, u64>,
    times: u64,
}

/// Takes the terminal over, for its keys only.
///
/// # Errors
/// When standard input is not a terminal.
pub fn enter_plain() -> io::Result<Plain> {
    enable_raw_mode()?;
    Ok(Plain {
        output: io::stdout(),
        seen: HashMap::new(),
        times: 0,
    })
}

impl Plain {
    /// Asks the terminal to put a text on the clipboard, as the screen does.
    ///
    /// # Errors
    /// When writing to the terminal fails.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        write!(self.output, "{}", super::screen::clipboard(text))?;
        self.output.flush()
    }

    /// Writes all lines if a key asked for them, and else those that say something new.
    ///
    /// # Errors
    /// When writing to the terminal fails.
    pub fn write(&mut self, ui: &mut Ui, model: &Model, all: bool) -> io::Result<()> {
        let mut lines = ui.plain(model);
        if self.times == 0 {
            lines.push(KEYS.to_owned());
        }
        let mut text = String::new();
        self.times += 1;
        for line in lines {
            let said = without_numbers(&line);
            let known = self.seen.insert(said, self.times).is_some();
            if (all || !known) && !line.is_empty() {
                // Raw mode: the cursor does not go back by itself.
                text.push_str(&line);
                text.push_str("\r\n");
            }
        }
        let times = self.times;
        self.seen.retain(|_, at| *at + REMEMBERED > times);
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
    }
}

/// The words of a line: what is a number changes all the time and is no news.
fn without_numbers(line: &str) -> String {
    let is_number = |word: &&str| {
        let word = word.trim_start_matches(['≥', '>', '=', '~', '(', '+', '-', '"']);
        word.starts_with(|c: char| c.is_ascii_digit())
    };
    let words = line.split_whitespace().filter(|word| !is_number(word));
    words.collect::<Vec<_>>().join(" ")
}

/// A text without the signs that only draw.
pub(super) fn spoken(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{2500}'..='\u{259f}' | '·' | '…' | '↺' => words.push(' '),
            '≥' => words.push_str(" at least "),
            '⇄' => words.push_str(" and "),
            '→' => words.push_str(" to "),
            '←' => words.push_str(" called by "),
            c => words.push(c),
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_are_news() {
        let (a, b) = ("AGE ≥41.0s, TASK x-1/4101", "AGE 1m02s, TASK x-1/4101");
        assert_eq!(without_numbers(a), without_numbers(b));
        assert_ne!(
            without_numbers(a),
            without_numbers("AGE 1m02s, TASK x-2/4102")
        );
        assert_eq!(spoken("waits/s  ▁▂█ 12 now · └ x"), "waits/s 12 now x");
        assert_eq!(
            spoken("AGE ≥41.0s, x-1 ⇄ x-2"),
            "AGE at least 41.0s, x-1 and x-2"
        );
        assert_eq!(
            spoken("read ← main, tcp a:1 → b:80"),
            "read called by main, tcp a:1 to b:80"
        );
    }
}
