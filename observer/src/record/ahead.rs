//! Reads a recording ahead of who asks for its events: one thread reads the file, others make events of its lines.
//!
//! To make an event of a line takes longer than anything that is done with it, so it is done on as many CPUs as there
//! are. Memory is bounded by the number of chunks under way. On a single CPU there is nothing to be won by that, and
//! lines and events would be put away only to be fetched again: there they are read when they are asked for.

use std::{
    collections::VecDeque,
    fs::File,
    io, mem,
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use super::{
    Reader, Unread,
    lines::{Lines, Missing},
    parse,
    read::Tally,
};
use crate::event::Event;

/// Bytes of lines that are made events of at once.
const CHUNK: usize = 64 << 10;
/// Most lines are longer.
const SHORT: usize = 200;
/// Threads that make events, at most: what takes them has no more than one.
const MAX_THREADS: usize = 4;
/// Chunks under way for each of them.
const DEPTH: usize = 3;

/// Lines, and where the events of them are to go.
struct Chunk {
    lines: Vec<u8>,
    missing: Missing,
    reply: SyncSender<Events>,
}

/// The events of a chunk.
#[derive(Default)]
struct Events {
    all: VecDeque<Event>,
    tally: Tally,
    missing: Missing,
}

/// Chunks in the order of the file, or why it cannot be read on.
type Order = io::Result<Receiver<Events>>;

/// Where events come from.
enum Source {
    /// Other threads.
    Threads(Receiver<Order>),
    /// This one, on a single CPU.
    Here(Box<Reader<File>>),
}

/// A reader that works ahead.
pub(super) struct Ahead {
    source: Source,
    now: Events,
    tally: Tally,
    whole: bool,
}

impl Ahead {
    /// Reads on where a reader stands.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn of(reader: Reader<File>) -> io::Result<Ahead> {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        if cpus == 1 {
            return Ok(Ahead::here(reader));
        }
        let threads = cpus.min(MAX_THREADS);
        let depth = threads * DEPTH;
        let (send_order, order) = mpsc::sync_channel(depth);
        let (send_work, work) = mpsc::sync_channel(depth);
        let work = Arc::new(Mutex::new(work));
        for _ in 0..threads {
            let work = Arc::clone(&work);
            thread::Builder::new()
                .name("events".to_owned())
                .spawn(move || make(&work))?;
        }
        let missing = reader.lines.missing();
        let lines = reader.lines;
        thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || read(lines, &send_work, &send_order))?;
        Ok(Ahead {
            source: Source::Threads(order),
            now: Events {
                all: reader.first.into_iter().collect(),
                missing,
                ..Events::default()
            },
            tally: reader.tally,
            whole: reader.whole,
        })
    }

    /// Reads when it is asked.
    pub(super) fn here(reader: Reader<File>) -> Ahead {
        Ahead {
            now: Events::default(),
            tally: Tally::default(),
            whole: reader.whole,
            source: Source::Here(Box::new(reader)),
        }
    }

    /// Waits until the next event is there, if there is one.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        while self.now.all.is_empty() {
            let order = match &mut self.source {
                Source::Threads(order) => order,
                Source::Here(reader) => {
                    self.now.all.extend(reader.next_event()?);
                    return Ok(());
                }
            };
            // The thread that reads has ended: so has the file.
            let Ok(next) = order.recv() else {
                return Ok(());
            };
            let gone = |_| io::Error::other("a thread that reads the recording has ended");
            self.now = next?.recv().map_err(gone)?;
            self.tally.add(mem::take(&mut self.now.tally));
        }
        Ok(())
    }

    /// The next event, after [`Ahead::fill`]; none at the end. It stays the next one.
    pub(super) fn next(&self) -> Option<&Event> {
        self.now.all.front()
    }

    /// The same, and it is the next one no more.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.now.all.pop_front()
    }

    /// What could not be read, up to the chunk with the last event.
    pub(super) fn unread(&self) -> Unread {
        match &self.source {
            Source::Threads(_) => self.tally.unread(self.now.missing, self.whole),
            Source::Here(reader) => reader.unread(),
        }
    }
}

/// Reads the file into chunks. It ends with the file, or when nobody waits for them any more.
fn read(mut lines: Lines<File>, work: &SyncSender<Chunk>, order: &SyncSender<Order>) {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK + CHUNK / 4);
        let more = loop {
            match lines.next() {
                Ok(Some(line)) => {
                    bytes.extend_from_slice(line);
                    bytes.push(b'\n');
                }
                Ok(None) => break false,
                Err(error) => {
                    // Whoever asks will be told; if nobody does, nobody is.
                    let _ = order.send(Err(error));
                    return;
                }
            }
            if bytes.len() >= CHUNK {
                break true;
            }
        };
        let (reply, events) = mpsc::sync_channel(1);
        let chunk = Chunk {
            lines: bytes,
            missing: lines.missing(),
            reply,
        };
        if order.send(Ok(events)).is_err() || work.send(chunk).is_err() || !more {
            return;
        }
    }
}

/// Makes events of chunks until there are no more.
fn make(work: &Mutex<Receiver<Chunk>>) {
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(chunk) = next else { return };
        let Chunk {
            mut lines,
            missing,
            reply,
        } = chunk;
        let mut made = Events {
            all: VecDeque::with_capacity(lines.len() / SHORT),
            missing,
            ..Events::default()
        };
        let length = lines.len();
        let mut begin = 0;
        while let Some(found) = lines
            .get(begin..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let end = begin + found;
            if let Some(line) = lines.get_mut(begin..end) {
                let is_last = end + 1 == length;
                let line = parse::line(line);
                if let Some(event) = made.tally.take(line, missing.unfinished && is_last) {
                    made.all.push_back(event);
                }
            }
            begin = end + 1;
        }
        // Who does not wait any more does not miss it.
        let _ = reply.send(made);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Folder, events, frames, lines},
        *,
    };

    /// All events, and what could not be read.
    fn all(mut ahead: Ahead) -> (Vec<Event>, Unread) {
        let mut all = Vec::new();
        loop {
            ahead.fill().unwrap();
            let next = ahead.next().cloned();
            assert_eq!(next, ahead.pop());
            match next {
                Some(event) => all.push(event),
                None => return (all, ahead.unread()),
            }
        }
    }

    #[test]
    fn with_threads_and_without_the_same_is_read() {
        let folder = Folder::new();
        let events = events(2_000);
        let mut plain = lines(&events);
        plain.extend(b"no event\n{\"type\":\"safepoint\"}\n{\"type\":\"wai");
        for (name, bytes) in [("a.jsonl", plain), ("a.jsonl.zst", frames(&events, 300))] {
            let path = folder.file(name);
            std::fs::write(&path, bytes).unwrap();
            let open = || Reader::open(&path).unwrap();
            let (alone, unread) = all(Ahead::here(open()));
            assert_eq!(alone, events, "{name}");
            assert_eq!(unread.cut, name == "a.jsonl", "{unread:?}");
            assert_eq!((alone, unread), all(Ahead::of(open()).unwrap()), "{name}");
        }
    }
}
