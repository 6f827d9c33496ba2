//! Snapshots of the model within a compressed recording, so that a seek need not begin at the start.
//!
//! A mark is a skippable frame of zstd between two frames of events: other readers leave it out, and so the lines
//! are events and nothing else. It holds the model as it is after all events before it. There is no index that a cut
//! could take away: marks are found by their head, by searching the file once, a gigabyte in a fraction of a second.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use anyhow::Result;
use memchr::memmem::Finder;

use super::{frames, write::LEVEL};
use crate::model::{FORM, Model};

/// A skippable frame of zstd; sixteen numbers are free to take.
const SKIPPED: [u8; 4] = [0x5b, 0x2a, 0x4d, 0x18];
/// What a mark is told by.
const IDENT: &[u8; 16] = b"observer's model";
/// Number of the frame, its length, the ident, form of the model, its time.
const HEAD: usize = 4 + 4 + IDENT.len() + 4 + 8;
/// Time between two marks, at least.
const EVERY_NS: u64 = 10_000_000_000;
/// Events take this many times as much room between two marks as the later one: a recording grows by a tenth at most.
const SHARE: u64 = 10;
/// Events up to this size are read in a few milliseconds: a mark is not worth it.
const LEAST: u64 = 256 << 10;
/// The longest model that is written and read, before its compression.
const MAX_MODEL: u64 = 64 << 20;
/// Marks of a file that are remembered: years of it.
const MAX_MARKS: usize = 1 << 18;
/// Bytes searched at once.
const CHUNK: usize = 1 << 20;

/// When the next mark is due.
#[derive(Debug)]
pub(super) struct Pace {
    last_ns: Option<u64>,
    /// Where the last mark ended.
    end: u64,
    /// So much has to follow before the next one.
    least: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            last_ns: None,
            end: 0,
            least: LEAST,
        }
    }
}

impl Pace {
    /// Is it time for a mark? `written`: bytes of the file so far.
    pub(super) fn is_due(&mut self, now_ns: u64, written: u64) -> bool {
        let last_ns = *self.last_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(last_ns) >= EVERY_NS && written.saturating_sub(self.end) >= self.least
    }

    /// The mark, if it is small beside the events since the last one.
    pub(super) fn make(&mut self, model: &Model, written: u64) -> Result<Option<Vec<u8>>> {
        let mark = make(model)?;
        let length = mark.as_ref().map_or(MAX_MODEL, |mark| mark.len() as u64);
        self.least = LEAST.max(length.saturating_mul(SHARE));
        if written.saturating_sub(self.end) < self.least {
            return Ok(None);
        }
        self.last_ns = Some(model.now_ns());
        self.end = written + length;
        Ok(mark)
    }
}

/// A mark; none if the model is too large for one.
fn make(model: &Model) -> Result<Option<Vec<u8>>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    let mut out = BufWriter::with_capacity(
        1 << 16,
        Bounded {
            out: encoder,
            room: MAX_MODEL,
        },
    );
    if let Err(error) = model.save(&mut out) {
        return if error.is_io() {
            Ok(None)
        } else {
            Err(error.into())
        };
    }
    let Ok(bounded) = out.into_inner() else {
        return Ok(None);
    };
    let frame = bounded.out.finish()?;
    // Without its first bytes no reader who looks for the next frame of events takes it for one.
    let Some(body) = frame.strip_prefix(&frames::MAGIC) else {
        return Ok(None);
    };
    let mut mark = Vec::with_capacity(HEAD + body.len());
    mark.extend(SKIPPED);
    let length = (HEAD - 8 + body.len()) as u32;
    mark.extend(length.to_le_bytes());
    mark.extend(IDENT);
    mark.extend(FORM.to_le_bytes());
    mark.extend(model.now_ns().to_le_bytes());
    mark.extend(body);
    Ok(Some(mark))
}

/// Takes so many bytes and no more.
struct Bounded<W> {
    out: W,
    room: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self
            .room
            .checked_sub(bytes.len() as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A mark of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The model's time.
    pub(super) mono_ns: u64,
    /// Where the compressed model begins, without the first bytes of its frame.
    body: u64,
    /// Where the events go on.
    pub(super) end: u64,
}

impl Mark {
    /// Reads a head that lies at a place in the file; none if it is none of this version's.
    fn read(head: &[u8], at: u64) -> Option<Mark> {
        let (number, rest) = head.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let rest = rest.strip_prefix(IDENT)?;
        let (form, rest) = rest.split_first_chunk::<4>()?;
        let mono_ns = rest.first_chunk::<8>()?;
        if *number != SKIPPED || u32::from_le_bytes(*form) != FORM {
            return None;
        }
        let (body, end) = (
            at + HEAD as u64,
            at + 8 + u64::from(u32::from_le_bytes(*length)),
        );
        (body < end).then_some(Mark {
            mono_ns: u64::from_le_bytes(*mono_ns),
            body,
            end,
        })
    }

    /// Bytes of the file.
    #[cfg(test)]
    pub(super) fn length(self) -> u64 {
        self.end - self.body + HEAD as u64
    }

    /// The model; none if it is damaged.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn load(self, mut file: impl Read + Seek) -> io::Result<Option<Model>> {
        file.seek(SeekFrom::Start(self.body))?;
        let body = (&frames::MAGIC[..]).chain(file.take(self.end - self.body));
        let mut decoder = zstd::stream::read::Decoder::new(body)?.single_frame();
        decoder.window_log_max(frames::WINDOW_LOG)?;
        let mut bytes = Vec::new();
        let read = decoder.take(MAX_MODEL + 1).read_to_end(&mut bytes);
        // What is damaged, and what cannot be read, is told when the events are read that it stands for.
        if read.is_err() || bytes.len() as u64 > MAX_MODEL {
            return Ok(None);
        }
        Ok(Model::load(&bytes).filter(|model| model.now_ns() == self.mono_ns))
    }
}

/// The marks of a file, in its order.
///
/// # Errors
/// Those of the file system.
pub(super) fn find(mut file: impl Read + Seek) -> io::Result<Vec<Mark>> {
    file.seek(SeekFrom::Start(0))?;
    let finder = Finder::new(IDENT);
    let (mut marks, mut chunk) = (Vec::new(), Vec::with_capacity(CHUNK + HEAD));
    // Where the chunk begins in the file.
    let mut start = 0u64;
    loop {
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk)?;
        for ident in finder.find_iter(&chunk) {
            let Some(head) = ident.checked_sub(8) else {
                continue;
            };
            if let Some(mark) = chunk
                .get(head..head + HEAD)
                .and_then(|bytes| Mark::read(bytes, start + head as u64))
                && marks.len() < MAX_MARKS
            {
                marks.push(mark);
            }
        }
        if read == 0 {
            return Ok(marks);
        }
        // A head may be split; one that was whole is not seen again.
        let done = chunk.len().saturating_sub(HEAD - 1);
        chunk.drain(..done);
        start += done as u64;
    }
}
