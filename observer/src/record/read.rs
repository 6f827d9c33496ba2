//! Reads a recording: what can be read, and what could not.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::{
    frames::MAGIC,
    is_compressed,
    lines::{Lines, Missing},
    parse::{self, Line},
};
use crate::{
    event::{Event, SCHEMA},
    text::printable,
};

/// Unknown types that are told apart.
const MAX_TYPES: usize = 16;

/// What could not be read of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Lines that are no events.
    pub bad: u64,
    /// What is wrong with the first of them.
    pub first_error: Option<String>,
    /// Lines beyond the limit of length.
    pub too_long: u64,
    /// Lines whose rest is missing.
    pub torn: u64,
    /// Events of types that this version does not know, by type.
    pub unknown: BTreeMap<String, u64>,
    /// Events with a name that this version does not know, which were read as what is nearest.
    pub adapted: u64,
    /// Compressed frames that are damaged.
    pub frames: u64,
    /// The file ends within a frame or a line.
    pub cut: bool,
    /// So much is damaged that the rest was not read.
    pub gave_up: bool,
    /// The recording's schema, if it is newer than this version's.
    pub newer_schema: Option<u32>,
    /// There was no `meta` event.
    pub no_meta: bool,
}

impl Unread {
    /// Lines that were left out, as far as they can be counted.
    pub fn lines(&self) -> u64 {
        self.bad + self.too_long + self.torn + self.unknown.values().sum::<u64>()
    }

    /// What to tell people, one sentence each; nothing if all was read.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(schema) = self.newer_schema {
            notes.push(format!(
                "the recording has schema {schema}, and this version knows {SCHEMA}: what it does not know is left out"
            ));
        }
        if self.cut {
            notes.push("the recording is cut: it ends within a frame or a line".to_owned());
        }
        if self.frames > 0 {
            notes.push(format!("damaged frames left out: {}", self.frames));
        }
        if self.gave_up {
            notes.push("so many frames are damaged that the rest was not read".to_owned());
        }
        if self.bad > 0 {
            let first = self.first_error.as_deref().unwrap_or_default();
            notes.push(format!(
                "lines that are no events: {} (the first: {first})",
                self.bad
            ));
        }
        if self.too_long > 0 {
            notes.push(format!("lines that are too long: {}", self.too_long));
        }
        if self.torn > 0 {
            notes.push(format!("lines whose rest is missing: {}", self.torn));
        }
        for (name, count) in &self.unknown {
            notes.push(format!(
                "events of a type that this version does not know: {count} of {}",
                printable(name)
            ));
        }
        if self.adapted > 0 {
            notes.push(format!(
                "events with a name that this version does not know, read as the nearest one: {}",
                self.adapted
            ));
        }
        if self.no_meta {
            notes.push(
                "the first line is missing: host, filters and what was attached are not known"
                    .to_owned(),
            );
        }
        notes
    }
}

/// What lines turned out to be.
#[derive(Debug, Default)]
struct Tally {
    bad: u64,
    first_error: Option<String>,
    unknown: BTreeMap<String, u64>,
    adapted: u64,
    cut: bool,
    /// That of the last `meta` event.
    schema: Option<u32>,
}

impl Tally {
    /// The event of a line, if it is one. `unfinished`: the line has no end.
    fn take(&mut self, line: Line, unfinished: bool) -> Option<Event> {
        match line {
            Line::Event(event) => return Some(self.note(event)),
            Line::Adapted(event) => {
                self.adapted += 1;
                return Some(self.note(event));
            }
            Line::Unknown(name) => self.unknown(name),
            // The end of a file that was cut is told as such.
            Line::Bad(_) if unfinished => self.cut = true,
            Line::Bad(error) => {
                self.bad += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
        None
    }

    fn note(&mut self, event: Event) -> Event {
        if let Event::Meta(meta) = &event {
            self.schema = Some(meta.schema);
        }
        event
    }

    fn unknown(&mut self, name: String) {
        let name = if self.unknown.len() < MAX_TYPES || self.unknown.contains_key(&name) {
            name
        } else {
            "others".to_owned()
        };
        *self.unknown.entry(name).or_default() += 1;
    }

    /// All that could not be read. `whole`: the file was read from its beginning.
    fn unread(&self, lines: Missing, whole: bool) -> Unread {
        Unread {
            bad: self.bad,
            first_error: self.first_error.clone(),
            too_long: lines.too_long,
            torn: lines.torn,
            unknown: self.unknown.clone(),
            adapted: self.adapted,
            frames: lines.damage.frames,
            cut: lines.damage.cut || self.cut,
            gave_up: lines.damage.gave_up,
            newer_schema: self.schema.filter(|schema| *schema > SCHEMA),
            no_meta: whole && self.schema.is_none(),
        }
    }
}

/// Reads events from a recording, compressed or not.
pub struct Reader<R = File> {
    pub(super) lines: Lines<R>,
    tally: Tally,
    first: Option<Event>,
    /// From the beginning of the file on.
    whole: bool,
}

impl Reader<File> {
    /// Opens a file and reads its first event.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no event.
    pub fn open(path: &Path) -> Result<Reader> {
        let name = path.display();
        let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let mut head = Vec::new();
        (&mut file)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut head)
            .and_then(|_| file.seek(SeekFrom::Start(0)))
            .with_context(|| format!("cannot read {name}: a recording is a file that can be read from its start again"))?;
        let mut reader = Reader::new(file, head == MAGIC || is_compressed(path))
            .with_context(|| format!("cannot read {name}"))?;
        reader.first = reader
            .next_event()
            .with_context(|| format!("cannot read {name}"))?;
        if reader.first.is_none() {
            let unread = Unread {
                no_meta: false,
                ..reader.unread()
            };
            let notes = unread.notes();
            let why = if notes.is_empty() {
                "it is empty".to_owned()
            } else {
                notes.join("; ")
            };
            bail!(
                "{name} is no recording, it holds no event: {why}. `observer record -o FILE` makes one"
            );
        }
        Ok(reader)
    }

    /// Reads on behind a mark.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn resume(path: &Path, at: u64) -> std::io::Result<Reader> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        Ok(Reader {
            lines: Lines::resume(file, at)?,
            tally: Tally::default(),
            first: None,
            whole: false,
        })
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads from anything that can be read again.
    ///
    /// # Errors
    /// When there is no memory for the decompression.
    pub fn new(input: R, compressed: bool) -> std::io::Result<Reader<R>> {
        Ok(Reader {
            lines: Lines::new(input, compressed)?,
            tally: Tally::default(),
            first: None,
            whole: true,
        })
    }

    /// The next event; `None` at the end. What is no event is left out and counted.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn next_event(&mut self) -> std::io::Result<Option<Event>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(line) = self.lines.next()? {
            let line = parse::line(line);
            if let Some(event) = self.tally.take(line, self.lines.missing.unfinished) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// What could not be read so far.
    pub fn unread(&self) -> Unread {
        self.tally.unread(self.lines.missing(), self.whole)
    }
}
