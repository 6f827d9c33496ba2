//! A row of zstd frames, read one by one: what is damaged is left out, and the next good frame is found.

use std::io::{self, Read, Seek, SeekFrom};

use zstd::{
    stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer},
    zstd_safe::get_frame_content_size,
};

/// What every frame begins with.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The greatest window that every decoder has to support, 8 MiB: a frame cannot ask for more memory.
pub(super) const WINDOW_LOG: u32 = 23;
/// Of a frame this much is held back until its checksum has been seen. observer writes frames of about 1 MB;
/// those of other tools may be of any length, and what is beyond this passes unchecked.
const HELD: usize = 16 << 20;
/// A frame may become this many times as long, beside what is held back. Lines of events become ten to
/// thirty times as long; what becomes more is made to fill a disk or a memory.
const RATIO: u64 = 200;
/// Damaged frames after which the rest is given up.
const MAX_DAMAGED: u64 = 10_000;
/// Bytes read at once: several frames of those that observer writes.
const CHUNK: usize = 512 << 10;
/// A frame begins with so much of it read, if there is so much: then most are whole.
const AHEAD: usize = 256 << 10;
/// Room for what comes out of a frame.
const ROOM: usize = 128 << 10;
/// A whole frame that says that it is no longer than this is put where it belongs at once, and not through a window:
/// observer writes no longer ones.
pub(super) const AT_ONCE: u64 = 4 << 20;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes that follow those before.
    Data,
    /// Something is missing here: a line that was begun will not be continued.
    Gap,
    /// Nothing.
    End,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) frames: u64,
    /// The file ends within a frame.
    pub(super) cut: bool,
    /// There were so many damaged frames that the rest was not read.
    pub(super) gave_up: bool,
}

/// The frame that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    start: u64,
    compressed: u64,
    decompressed: u64,
}

/// Reads the frames of a file.
pub(super) struct Frames<R> {
    input: R,
    decoder: Decoder<'static>,
    chunk: Vec<u8>,
    /// What of the chunk has been used.
    at: usize,
    /// Where the chunk ends in the file.
    chunk_end: u64,
    current: Option<Current>,
    pub(super) damage: Damage,
    over: bool,
}

impl<R: Read + Seek> Frames<R> {
    /// Reads on from where the file stands, which is `at`.
    pub(super) fn new(input: R, at: u64) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Frames {
            input,
            decoder,
            chunk: Vec::with_capacity(CHUNK),
            at: 0,
            chunk_end: at,
            current: None,
            damage: Damage::default(),
            over: false,
        })
    }

    fn position(&self) -> u64 {
        self.chunk_end - (self.chunk.len() - self.at) as u64
    }

    /// Reads on in the file; false at its end.
    fn refill(&mut self) -> io::Result<bool> {
        if self.at < self.chunk.len() {
            return Ok(true);
        }
        self.chunk.clear();
        self.at = 0;
        let read = (&mut self.input)
            .take(CHUNK as u64)
            .read_to_end(&mut self.chunk)?;
        self.chunk_end += read as u64;
        Ok(read > 0)
    }

    /// Reads on before a frame; false at the end of the file.
    fn read_ahead(&mut self) -> io::Result<bool> {
        let left = self.chunk.len() - self.at;
        if left < AHEAD {
            self.chunk.drain(..self.at);
            self.at = 0;
            let read = (&mut self.input)
                .take((CHUNK - left) as u64)
                .read_to_end(&mut self.chunk)?;
            self.chunk_end += read as u64;
        }
        Ok(!self.chunk.is_empty())
    }

    /// How much room the frame gets that begins here.
    fn room(&self) -> usize {
        let frame = self.chunk.get(self.at..).unwrap_or_default();
        let length = get_frame_content_size(frame).ok().flatten();
        let whole = length.filter(|length| *length <= AT_ONCE);
        whole.map_or(ROOM, |length| ROOM.max(length as usize))
    }

    /// Appends the next bytes. After [`Step::Gap`] and [`Step::End`] there may be some too.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> io::Result<Step> {
        if self.over {
            return Ok(Step::End);
        }
        let begin = out.len();
        let mut current = if let Some(current) = self.current.take() {
            current
        } else {
            if !self.read_ahead()? {
                self.over = true;
                return Ok(Step::End);
            }
            self.decoder.reinit()?;
            Current {
                start: self.position(),
                ..Current::default()
            }
        };
        let (mut room, mut full) = (self.room(), false);
        loop {
            if !self.refill()? && !full {
                return self.cut(current, begin, out);
            }
            let length = out.len();
            out.reserve(room);
            room = ROOM;
            let mut input = InBuffer::around(self.chunk.get(self.at..).unwrap_or_default());
            let mut output = OutBuffer::around_pos(out, length);
            let Ok(remaining) = self.decoder.run(&mut input, &mut output) else {
                return self.damaged(current, begin, out);
            };
            let (read, end) = (input.pos(), output.pos());
            // There may be more to come of what was read already.
            full = end == output.capacity();
            self.at += read;
            current.compressed += read as u64;
            current.decompressed += (end - length) as u64;
            if current.decompressed > HELD as u64 + current.compressed.saturating_mul(RATIO) {
                return self.damaged(current, begin, out);
            }
            if remaining == 0 {
                return Ok(Step::Data);
            }
            if out.len() - begin > HELD {
                self.current = Some(current);
                return Ok(Step::Data);
            }
        }
    }

    /// The file ends within the frame, or a damaged frame swallowed those behind it.
    fn cut(&mut self, current: Current, begin: usize, out: &mut Vec<u8>) -> io::Result<Step> {
        if self.find(current.start + 1)? {
            out.truncate(begin);
            self.damage.frames += 1;
            return Ok(self.limit());
        }
        self.damage.cut = true;
        self.over = true;
        Ok(Step::End)
    }

    fn damaged(&mut self, current: Current, begin: usize, out: &mut Vec<u8>) -> io::Result<Step> {
        out.truncate(begin);
        self.damage.frames += 1;
        if !self.find(current.start + 1)? {
            self.over = true;
            return Ok(Step::End);
        }
        Ok(self.limit())
    }

    fn limit(&mut self) -> Step {
        if self.damage.frames >= MAX_DAMAGED {
            self.damage.gave_up = true;
            self.over = true;
            return Step::End;
        }
        Step::Gap
    }

    /// Goes to the first frame at or after a place; false if there is none.
    fn find(&mut self, from: u64) -> io::Result<bool> {
        self.input.seek(SeekFrom::Start(from))?;
        self.chunk.clear();
        self.at = 0;
        self.chunk_end = from;
        let finder = memchr::memmem::Finder::new(&MAGIC);
        loop {
            // The last bytes stay: the beginning of a frame may be split.
            let kept = self.chunk.len().min(MAGIC.len() - 1);
            self.chunk.drain(..self.chunk.len() - kept);
            let read = (&mut self.input)
                .take(CHUNK as u64)
                .read_to_end(&mut self.chunk)?;
            self.chunk_end += read as u64;
            if let Some(at) = finder.find(&self.chunk) {
                self.at = at;
                return Ok(true);
            }
            if read == 0 {
                self.at = self.chunk.len();
                return Ok(false);
            }
        }
    }
}
