//! A recording as a source of events, with the model that they make and the rules asked anew.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};

use super::{
    Reader, Unread,
    ahead::Ahead,
    marks::{self, Mark},
};
use crate::{
    digest,
    event::{Event, Finding},
    model::Model,
    rules::{Rules, Thresholds},
};

/// Findings kept for the comparison.
const MAX_FINDINGS: usize = 10_000;

/// Whose findings the model gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Findings {
    /// The recording's. The rules are asked too, and what they say is kept apart.
    Compared,
    /// The recording's, and the rules are not asked.
    Recorded,
    /// Those of the rules.
    Anew,
}

/// Plays a recording.
pub struct Replay {
    path: PathBuf,
    reader: Reader,
    /// What is taken next.
    next: Option<Event>,
    model: Model,
    findings: Findings,
    rules: Rules,
    /// Other thresholds than those of the live run.
    thresholds: Option<Thresholds>,
    recorded: Vec<Finding>,
    found: Vec<Finding>,
    events: u64,
    /// Where the recording has snapshots of the model, once that was asked.
    marks: Option<Vec<Mark>>,
}

impl Replay {
    /// Opens a recording, and stands before its first event.
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    pub fn open(path: &Path) -> Result<Replay> {
        let at = || format!("cannot read {}", path.display());
        let (reader, next) = begin(Reader::open(path)?).with_context(at)?;
        Ok(Replay {
            path: path.to_owned(),
            reader,
            next,
            model: Model::default(),
            findings: Findings::Compared,
            rules: Rules::default(),
            thresholds: None,
            recorded: Vec::new(),
            found: Vec::new(),
            events: 0,
            marks: None,
        })
    }

    /// The findings are those of the recording, and nothing else is wanted. To be called before the first step.
    pub fn as_recorded(&mut self) {
        self.findings = Findings::Recorded;
    }

    /// The findings are those of the rules by these thresholds, and not the recording's. To be called before the
    /// first step.
    pub fn judge_anew(&mut self, thresholds: Thresholds) {
        self.findings = Findings::Anew;
        self.set_thresholds(thresholds);
    }

    /// Has the rules go by other thresholds than those of the live run. To be called before the first step.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.rules = Rules::new(thresholds);
        self.thresholds = Some(thresholds);
    }

    /// Goes as near before a time as can be had at once: where it stands, the last snapshot of the model, or the
    /// beginning. With [`Replay::step`] it is reached from there.
    ///
    /// # Errors
    /// As [`Replay::open`].
    pub fn seek(&mut self, mono_ns: u64) -> Result<()> {
        let now_ns = self.model.now_ns();
        let back = mono_ns < now_ns;
        // What the rules remember is in no snapshot.
        let marks = match self.findings {
            Findings::Recorded => self.marks()?,
            Findings::Compared | Findings::Anew => Vec::new(),
        };
        let near = |mark: &&Mark| mark.mono_ns <= mono_ns && (back || mark.mono_ns > now_ns);
        for mark in marks.iter().rev().filter(near) {
            if self.go_to(*mark)? {
                return Ok(());
            }
        }
        if back { self.restart() } else { Ok(()) }
    }

    fn marks(&mut self) -> Result<Vec<Mark>> {
        if self.marks.is_none() {
            let found = File::open(&self.path).and_then(marks::find);
            let found = found.with_context(|| format!("cannot read {}", self.path.display()))?;
            self.marks = Some(found);
        }
        Ok(self.marks.clone().unwrap_or_default())
    }

    /// False: what is there is no snapshot that can be used.
    fn go_to(&mut self, mark: Mark) -> Result<bool> {
        let path = self.path.display();
        let at = || format!("cannot read {path}");
        let file = File::open(&self.path).with_context(at)?;
        let Some(model) = mark.load(file).with_context(at)? else {
            return Ok(false);
        };
        let reader = Reader::resume(&self.path, mark.end).with_context(at)?;
        (self.reader, self.next) = begin(reader).with_context(at)?;
        self.model = model;
        Ok(true)
    }

    /// Stands before the first event again.
    fn restart(&mut self) -> Result<()> {
        let (findings, thresholds, marks) = (self.findings, self.thresholds, self.marks.take());
        *self = Replay::open(&self.path)?;
        if let Some(thresholds) = thresholds {
            self.set_thresholds(thresholds);
        }
        (self.findings, self.marks) = (findings, marks);
        Ok(())
    }

    /// What is known by now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Moves the model's time forward.
    pub fn advance(&mut self, mono_ns: u64) {
        self.model.advance(mono_ns);
    }

    /// When the next event comes, `CLOCK_MONOTONIC` nanoseconds; `None`: there is none.
    pub fn next_ns(&self) -> Option<u64> {
        self.next.as_ref().map(Event::mono_ns)
    }

    /// Takes the next event; `None` at the end. True: there is a finding that was not there before.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn step(&mut self) -> Result<Option<bool>> {
        self.step_to(&mut |_| {})
    }

    /// The same, and shows the event.
    ///
    /// # Errors
    /// As [`Replay::step`].
    pub fn step_to(&mut self, see: &mut dyn FnMut(&Event)) -> Result<Option<bool>> {
        let next = self.reader.next_event();
        let next = next.with_context(|| format!("cannot read {}", self.path.display()))?;
        let Some(event) = std::mem::replace(&mut self.next, next) else {
            return Ok(None);
        };
        see(&event);
        self.events += 1;
        Ok(Some(self.take(event)))
    }

    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Finding(finding) => self.take_recorded(finding),
            event if self.findings == Findings::Recorded => {
                self.model.apply(event);
                false
            }
            event => self.take_judged(event),
        }
    }

    fn take_recorded(&mut self, finding: Arc<Finding>) -> bool {
        if self.findings == Findings::Anew {
            return false;
        }
        if self.findings == Findings::Compared && self.recorded.len() < MAX_FINDINGS {
            self.recorded.push(Finding::clone(&finding));
        }
        self.model.apply(Event::Finding(finding));
        true
    }

    /// The rules are asked where they were asked in the live run. Beside the recording's findings, what they say is
    /// kept apart, so that no finding stands in the model twice.
    fn take_judged(&mut self, event: Event) -> bool {
        // The rules of the live run, unless others are asked for.
        if let Event::Meta(meta) = &event
            && self.thresholds.is_none()
            && self.model.meta().is_none()
        {
            let thresholds = Thresholds::of_changed(&meta.filters.thresholds);
            self.rules = Rules::new(thresholds);
        }
        if self.findings == Findings::Anew {
            return digest::absorb(&mut self.model, &mut self.rules, event) > 0;
        }
        let found = digest::ask(&mut self.model, &mut self.rules, event);
        let room = MAX_FINDINGS.saturating_sub(self.found.len());
        self.found.extend(found.into_iter().take(room));
        false
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// As [`Replay::step`].
    pub fn finish(&mut self, see: &mut dyn FnMut(&Event)) -> Result<()> {
        while self.step_to(see)?.is_some() {}
        Ok(())
    }

    /// Puts what the rules of this version find, and the recording does not say, into the model; returns how
    /// many these are.
    pub fn add_new_findings(&mut self) -> usize {
        let (new, _) = self.differences();
        for finding in &new {
            self.model.apply(Event::from(finding.clone()));
        }
        new.len()
    }

    /// Findings that only the replay has, and those that only the recording has.
    pub fn differences(&self) -> (Vec<Finding>, Vec<Finding>) {
        let only = |these: &[Finding], those: &[Finding]| {
            let known: std::collections::HashSet<_> = those.iter().map(key).collect();
            these
                .iter()
                .filter(|finding| !known.contains(&key(finding)))
                .cloned()
                .collect()
        };
        (
            only(&self.found, &self.recorded),
            only(&self.recorded, &self.found),
        )
    }

    /// Events that were taken.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What could not be read so far.
    pub fn unread(&self) -> Unread {
        self.reader.unread()
    }
}

/// A reader, ahead of who asks where that is worth it, and its first event.
fn begin(mut reader: Reader) -> std::io::Result<(Reader, Option<Event>)> {
    if Ahead::is_worth_it() {
        reader.lines = reader.lines.read_ahead()?;
    }
    let first = reader.next_event()?;
    Ok((reader, first))
}

/// What makes two findings the same.
fn key(finding: &Finding) -> (&str, &str, u64) {
    (&finding.rule, &finding.title, finding.mono_ns)
}
