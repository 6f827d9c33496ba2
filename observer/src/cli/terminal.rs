//! The user's terminal, as the screen or as plain lines, and what leaves the screen: files, the clipboard.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    event::{Event, LockRef},
    inspect::{lockwords, sched},
    model::Model,
    record::{Limits, Writer, snapshot},
    tui::{self, Export, Host, Ui},
};

/// What is drawn on.
pub(super) enum Terminal {
    Screen(tui::Screen),
    Plain(tui::Plain),
}

impl Terminal {
    pub(super) fn take(plain: bool) -> Result<Terminal> {
        let taken = if plain {
            tui::enter_plain().map(Terminal::Plain)
        } else {
            tui::enter().map(Terminal::Screen)
        };
        taken.context("cannot take over the terminal")
    }

    /// `asked`: a key asked for it.
    pub(super) fn draw(&mut self, ui: &mut Ui, model: &Model, asked: bool) -> Result<()> {
        let drawn = match self {
            Terminal::Screen(screen) => screen.draw(ui, model),
            Terminal::Plain(plain) => plain.write(ui, model, asked),
        };
        drawn.context("cannot write to the terminal")
    }

    pub(super) fn copy(&mut self, text: &str) -> Result<()> {
        let copied = match self {
            Terminal::Screen(screen) => screen.copy(text),
            Terminal::Plain(plain) => plain.copy(text),
        };
        copied.context("cannot write to the terminal")
    }
}

/// Time between two redraws that nobody asked for: five a second. On a host that takes long to draw there are fewer,
/// so that they take a hundredth of a core, but one a second at least.
const REDRAW: Duration = Duration::from_millis(200);
const SHARE: u32 = 100;
const SLOWEST: Duration = Duration::from_secs(1);

/// When the screen is drawn again without a key.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// It was drawn, and took so long.
    pub(super) fn drawn(&mut self, begun: Instant, took: Duration) {
        self.due = Some(begun + (took * SHARE).clamp(REDRAW, SLOWEST));
    }
}

/// Writes an export; says where, or why not.
pub(super) fn save(export: &Export) -> String {
    match export.save(Path::new(".")) {
        Ok(name) => format!("written to {name} in the current directory"),
        Err(error) => format!(
            "cannot write {}.{}: {error}",
            export.name,
            export.form.extension()
        ),
    }
}

/// The live host, as far as the screen asks for it.
#[derive(Debug)]
pub(super) struct Live;

impl Host for Live {
    fn cgroup(&self, pid: u32) -> Option<String> {
        sched::cgroup(pid)
    }

    fn facts(&self, pid: u32, tid: u32) -> Vec<(&'static str, String)> {
        sched::facts(pid, tid)
    }

    fn lock_memory(&self, pid: u32, lock: &LockRef) -> Option<String> {
        lockwords::words(pid, lock.class, lock.addr.0)
    }
}

/// A recording that `r` started.
pub(super) struct Recording {
    writer: Writer,
    name: String,
}

impl Recording {
    /// Begins a new file with all that is known.
    pub(super) fn start(name: &str, model: &Model) -> Result<Recording> {
        let name = format!("{name}.jsonl.zst");
        let mut writer = Writer::create(Path::new(&name), false, Limits::default())?;
        for event in snapshot(model) {
            writer.write(&event)?;
        }
        writer.flush()?;
        Ok(Recording { writer, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `model`: what the events make.
    pub(super) fn take(&mut self, events: &[Event], model: &Model) -> Result<()> {
        for event in events {
            self.writer.write(event)?;
        }
        self.writer.tick()?;
        self.writer.mark(model)
    }

    /// Ends the file; says what is in it.
    pub(super) fn stop(mut self) -> Result<String> {
        self.writer.flush()?;
        Ok(format!(
            "recorded {} events to {} in the current directory",
            self.writer.events(),
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_drawn_less_often() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.is_due(now));
        for (took_ms, next_ms) in [(0, 200), (1, 200), (4, 400), (90, 1_000)] {
            pace.drawn(now, Duration::from_millis(took_ms));
            assert!(!pace.is_due(now + Duration::from_millis(next_ms - 1)));
            assert!(pace.is_due(now + Duration::from_millis(next_ms)));
        }
    }
}
