//! What waits to be told to the process that serves HTTP. Bounded for each sort, so that one that does not read, or
//! does not run, costs no more than that; what finds no room is counted by who puts it in.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use super::{
    frame::{Sort, put},
    message,
    messages::ToServing,
};

/// Bytes of lines of the stream.
const LINES: usize = 4 << 20;
/// Bytes of one of them: readers take no longer ones.
const LINE: usize = 4 << 20;
/// Bytes of answers, all of them together.
const ANSWERS: usize = 64 << 20;
/// Bytes of one piece of an answer.
const PIECE: usize = 64 << 10;
/// Messages, and incidents.
const MESSAGES: usize = 1_024;
const INCIDENTS: usize = 16;
/// Bytes that are written at once.
const BATCH: usize = 64 << 10;

#[derive(Default)]
struct Waiting {
    frames: VecDeque<(Sort, Bytes)>,
    /// How many there are of each sort, and their bytes.
    of: [(usize, usize); Sort::ALL.len()],
    /// What the files of a configuration hold by now, which always has room: the latest only.
    material: Option<Bytes>,
    /// Lines that had no room, of which readers are not told yet.
    missed: u64,
    /// Is there somebody to be told?
    open: bool,
    closed: bool,
}

/// Frames to be written at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: BytesMut,
    pub(super) records: u64,
    pub(super) incidents: u64,
}

/// The queue.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
    /// Log records that wait.
    records: usize,
}

impl Waiting {
    fn push(&mut self, sort: Sort, payload: Bytes) {
        let (count, bytes) = &mut self.of[sort as usize];
        *count += 1;
        *bytes += payload.len();
        self.frames.push_back((sort, payload));
    }

    fn pop(&mut self) -> Option<(Sort, Bytes)> {
        let (sort, payload) = self.frames.pop_front()?;
        let (count, bytes) = &mut self.of[sort as usize];
        *count -= 1;
        *bytes -= payload.len();
        Some((sort, payload))
    }

    fn count(&self, sort: Sort) -> usize {
        self.of[sort as usize].0
    }

    fn bytes(&self, sort: Sort) -> usize {
        self.of[sort as usize].1
    }
}

impl Queue {
    pub(super) fn new(records: usize) -> Queue {
        Queue {
            waiting: Mutex::default(),
            more: Notify::new(),
            records,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes something if `fits`. False: it does not.
    fn take(
        &self,
        sort: Sort,
        payload: Bytes,
        fits: impl FnOnce(&Waiting, &Bytes) -> bool,
    ) -> bool {
        let mut waiting = self.waiting();
        let fits = fits(&waiting, &payload);
        if fits {
            waiting.push(sort, payload);
            self.more.notify_one();
        }
        fits
    }

    /// Says something, if there is somebody to hear it.
    pub(super) fn say(&self, what: &ToServing) {
        let Some(payload) = message(what) else {
            return;
        };
        self.take(Sort::Message, payload, |waiting, _| {
            waiting.open && waiting.count(Sort::Message) < MESSAGES
        });
    }

    /// Says what the files of a configuration hold by now, if there is somebody to hear it. What was to be said of
    /// them before, and was not, is forgotten for it.
    pub(super) fn material(&self, what: &ToServing) {
        let payload = message(what);
        let mut waiting = self.waiting();
        if waiting.open && payload.is_some() {
            waiting.material = payload;
            self.more.notify_one();
        }
    }

    /// A line of the stream. False: it is missed, and readers will be told.
    pub(super) fn line(&self, line: Bytes) -> bool {
        let taken = self.take(Sort::Line, line, |waiting, line| {
            waiting.open
                && waiting.missed == 0
                && line.len() <= LINE
                && waiting.bytes(Sort::Line) + line.len() <= LINES
        });
        if !taken {
            self.waiting().missed += 1;
        }
        taken
    }

    /// A log record. It waits for the next process if there is none now. False: it is lost.
    pub(super) fn record(&self, record: Bytes) -> bool {
        self.take(Sort::Record, record, |waiting, _| {
            waiting.count(Sort::Record) < self.records
        })
    }

    /// An incident. As a record.
    pub(super) fn incident(&self, about: Bytes) -> bool {
        self.take(Sort::Incident, about, |waiting, _| {
            waiting.count(Sort::Incident) < INCIDENTS
        })
    }

    /// An answer, in pieces. False: too much is waiting.
    pub(super) fn answer(&self, id: u32, text: &Bytes) -> bool {
        let mut waiting = self.waiting();
        if !waiting.open || waiting.bytes(Sort::Piece) + text.len() > ANSWERS {
            return false;
        }
        let count = text.len().div_ceil(PIECE).max(1);
        for at in 0..count {
            let piece = &text[at * PIECE..text.len().min((at + 1) * PIECE)];
            let mut payload = BytesMut::with_capacity(piece.len() + 5);
            payload.put_u32_le(id);
            payload.put_u8(u8::from(at + 1 == count));
            payload.extend_from_slice(piece);
            waiting.push(Sort::Piece, payload.freeze());
        }
        self.more.notify_one();
        true
    }

    /// There is somebody who hears.
    pub(super) fn open(&self) {
        self.waiting().open = true;
        self.more.notify_one();
    }

    /// Nobody hears any more. What is for others than who asked is kept for the next one.
    pub(super) fn shut(&self) {
        let mut waiting = self.waiting();
        waiting.open = false;
        waiting.material = None;
        waiting.missed = 0;
        let all = std::mem::take(&mut waiting.frames);
        waiting.of = Default::default();
        for (sort, payload) in all {
            if matches!(sort, Sort::Record | Sort::Incident) {
                waiting.push(sort, payload);
            }
        }
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.more.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// What is to be written next; `None`: all was, and no more will come.
    pub(super) async fn next(&self) -> Option<Batch> {
        loop {
            let (batch, closed) = {
                let mut waiting = self.waiting();
                (batch(&mut waiting), waiting.closed)
            };
            if !batch.bytes.is_empty() {
                return Some(batch);
            }
            if closed {
                return None;
            }
            self.more.notified().await;
        }
    }
}

fn batch(waiting: &mut Waiting) -> Batch {
    let mut batch = Batch::default();
    if let Some(payload) = waiting.material.take() {
        put(&mut batch.bytes, Sort::Message, &payload);
    }
    while batch.bytes.len() < BATCH
        && let Some((sort, payload)) = waiting.pop()
    {
        put(&mut batch.bytes, sort, &payload);
        batch.records += u64::from(sort == Sort::Record);
        batch.incidents += u64::from(sort == Sort::Incident);
    }
    // Where they would have been.
    if waiting.missed > 0 && waiting.count(Sort::Line) == 0 {
        let lines = std::mem::take(&mut waiting.missed);
        if let Some(payload) = message(&ToServing::Missed { lines }) {
            put(&mut batch.bytes, Sort::Message, &payload);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &Queue) -> Vec<Batch> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        queue.close();
        runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(batch) = queue.next().await {
                all.push(batch);
            }
            all
        })
    }

    #[test]
    fn a_reader_that_does_not_read_costs_no_more_than_the_bound() {
        let queue = Queue::new(2);
        queue.open();
        let line = Bytes::from(vec![b'x'; 1 << 20]);
        let taken = (0..10).filter(|_| queue.line(line.clone())).count();
        assert_eq!(taken, 4);
        assert!(!queue.line(Bytes::from(vec![b'x'; LINE + 1])));
        let record = Bytes::from_static(b"r");
        let taken = (0..5).filter(|_| queue.record(record.clone())).count();
        assert_eq!(taken, 2);
        let taken = (0..99).filter(|_| queue.incident(record.clone())).count();
        assert_eq!(taken, INCIDENTS);
        assert!(queue.answer(1, &Bytes::from(vec![b'x'; ANSWERS])));
        assert!(!queue.answer(2, &line));
        for _ in 0..2 * MESSAGES {
            queue.say(&ToServing::Beat { ready: true });
        }
        assert_eq!(queue.waiting().count(Sort::Message), MESSAGES);
        let all = drain(&queue);
        let written: usize = all.iter().map(|batch| batch.bytes.len()).sum();
        assert!(written < LINES + ANSWERS + (1 << 20), "{written}");
        assert_eq!(all.iter().map(|batch| batch.records).sum::<u64>(), 2);
        // Whoever reads is told what is missing.
        let told = all.iter().any(|batch| {
            let missed = br#"{"missed":{"lines":7}}"#;
            memchr::memmem::find(&batch.bytes, missed).is_some()
        });
        assert!(told);
    }

    #[test]
    fn what_is_for_others_waits_for_the_next_process() {
        let queue = Queue::new(8);
        // Nobody is there yet.
        assert!(!queue.line(Bytes::from_static(b"l")) && !queue.answer(1, &Bytes::new()));
        assert!(queue.record(Bytes::from_static(b"r")));
        queue.open();
        assert!(queue.answer(1, &Bytes::from_static(b"a")));
        queue.say(&ToServing::Beat { ready: true });
        assert!(queue.incident(Bytes::from_static(b"i")));
        queue.shut();
        assert_eq!(queue.waiting().frames.len(), 2);
        queue.open();
        let all = drain(&queue);
        assert_eq!((all[0].records, all[0].incidents), (1, 1));
        assert_eq!(all.len(), 1);
    }
}
