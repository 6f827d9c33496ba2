//! Lines of a recording, compressed or not, of bounded length.

use std::{
    fs::File,
    io::{self, Read, Seek},
};

use super::{
    ahead::Ahead,
    frames::{Damage, Frames, Step},
};

/// The longest line. That of a deadlock with the stacks of a hundred threads is far below.
const MAX_LINE: usize = 8 << 20;
/// Bytes read at once from a file that is not compressed.
const CHUNK: usize = 256 << 10;

enum Source<R> {
    Plain(R),
    Frames(Box<Frames<R>>),
    /// Frames of a file.
    Ahead(Ahead),
}

/// Reads lines.
pub(super) struct Lines<R> {
    source: Source<R>,
    data: Vec<u8>,
    at: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    /// The rest of a line that was too long is being left out.
    skipping: bool,
    over: bool,
    pub(super) missing: Missing,
}

/// What was left out, and why.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Missing {
    pub(super) too_long: u64,
    /// Lines whose rest is missing, because the frame with it is damaged.
    pub(super) torn: u64,
    /// The last line has no end.
    pub(super) unfinished: bool,
    pub(super) damage: Damage,
}

impl Lines<File> {
    /// Has frames decompressed by a thread of their own.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn read_ahead(self) -> io::Result<Self> {
        let source = match self.source {
            Source::Frames(frames) => Source::Ahead(Ahead::of(*frames)?),
            other => other,
        };
        Ok(Lines { source, ..self })
    }
}

impl<R: Read + Seek> Lines<R> {
    pub(super) fn new(input: R, compressed: bool) -> io::Result<Self> {
        Ok(Lines::from(if compressed {
            Source::Frames(Box::new(Frames::new(input, 0)?))
        } else {
            Source::Plain(input)
        }))
    }

    /// Those of a compressed file from the frame on at which it stands, which is `at`.
    pub(super) fn resume(input: R, at: u64) -> io::Result<Self> {
        Ok(Lines::from(Source::Frames(Box::new(Frames::new(
            input, at,
        )?))))
    }

    fn from(source: Source<R>) -> Self {
        Lines {
            source,
            data: Vec::new(),
            at: 0,
            searched: 0,
            skipping: false,
            over: false,
            missing: Missing::default(),
        }
    }

    pub(super) fn missing(&self) -> Missing {
        let damage = match &self.source {
            Source::Plain(_) => Damage::default(),
            Source::Frames(frames) => frames.damage,
            Source::Ahead(ahead) => ahead.damage,
        };
        Missing {
            damage,
            ..self.missing
        }
    }

    /// The next line, without its end. It may be changed by its reader.
    pub(super) fn next(&mut self) -> io::Result<Option<&mut [u8]>> {
        loop {
            let rest = self.data.get(self.searched..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', rest) {
                let (begin, end) = (self.at, self.searched + found);
                self.at = end + 1;
                self.searched = self.at;
                if std::mem::take(&mut self.skipping) || begin == end {
                    continue;
                }
                return Ok(self.data.get_mut(begin..end));
            }
            self.searched = self.data.len();
            if self.searched - self.at > MAX_LINE {
                self.missing.too_long += u64::from(!self.skipping);
                self.skipping = true;
                self.at = self.searched;
            }
            if self.over {
                let (begin, end) = (self.at, self.searched);
                self.at = end;
                if begin == end || self.skipping {
                    return Ok(None);
                }
                self.missing.unfinished = true;
                return Ok(self.data.get_mut(begin..end));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.data.drain(..self.at);
        self.at = 0;
        self.searched = self.data.len();
        let step = match &mut self.source {
            Source::Plain(input) => {
                let read = input.take(CHUNK as u64).read_to_end(&mut self.data)?;
                if read == 0 { Step::End } else { Step::Data }
            }
            Source::Frames(frames) => frames.next(&mut self.data)?,
            Source::Ahead(ahead) => ahead.next(&mut self.data)?,
        };
        match step {
            Step::Data => {}
            Step::Gap => {
                self.missing.torn += u64::from(!self.data.is_empty() && !self.skipping);
                self.data.clear();
                self.searched = 0;
                self.skipping = false;
            }
            Step::End => self.over = true,
        }
        Ok(())
    }
}
