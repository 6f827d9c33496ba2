//! Decompresses a recording ahead of who reads its lines, in a thread of its own, where there is more than one CPU.
//!
//! Events are not made there. What one thread allocates and another frees costs both more than is won.

use std::{
    fs::File,
    io, mem,
    num::NonZero,
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    thread,
};

use super::frames::{AT_ONCE, Damage, Frames, Step};

/// Blocks that wait to be read, beside the one that waits to be put there.
const DEPTH: usize = 1;

/// Room that is kept, of each block.
const ROOM: usize = AT_ONCE as usize;

/// What came out of a frame, or a piece of a long one.
struct Block {
    bytes: Vec<u8>,
    step: Step,
    /// All that was damaged up to here.
    damage: Damage,
}

/// Frames that are decompressed ahead.
pub(super) struct Ahead {
    blocks: Receiver<io::Result<Block>>,
    /// Takes blocks that were read, to be used again.
    used: Sender<Vec<u8>>,
    pub(super) damage: Damage,
}

impl Ahead {
    /// Is there a CPU for it?
    pub(super) fn is_worth_it() -> bool {
        thread::available_parallelism().is_ok_and(|cpus| cpus > NonZero::<usize>::MIN)
    }

    /// Reads on where the frames stand.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn of(frames: Frames<File>) -> io::Result<Ahead> {
        let (send, blocks) = mpsc::sync_channel(DEPTH);
        let (used, free) = mpsc::channel();
        let damage = frames.damage;
        thread::Builder::new()
            .name("frames".to_owned())
            .spawn(move || decompress(frames, &send, &free))?;
        Ok(Ahead {
            blocks,
            used,
            damage,
        })
    }

    /// As [`Frames::next`], up to the end or an error.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> io::Result<Step> {
        let gone = |_| io::Error::other("the thread that decompresses it has ended");
        let mut block = self.blocks.recv().map_err(gone)??;
        self.damage = block.damage;
        if out.is_empty() {
            mem::swap(out, &mut block.bytes);
        } else {
            out.extend_from_slice(&block.bytes);
        }
        // Who reads no more needs no more room.
        let _ = self.used.send(block.bytes);
        Ok(block.step)
    }
}

/// Decompresses frame after frame. It ends with the file, or when nobody waits for them any more.
fn decompress(
    mut frames: Frames<File>,
    send: &SyncSender<io::Result<Block>>,
    free: &Receiver<Vec<u8>>,
) {
    loop {
        // Of frames that are longer than those that observer writes no room is kept.
        let used = free.try_iter().find(|used| used.capacity() <= ROOM);
        let mut bytes = used.unwrap_or_default();
        bytes.clear();
        let block = frames.next(&mut bytes).map(|step| Block {
            bytes,
            step,
            damage: frames.damage,
        });
        let goes_on = block.as_ref().is_ok_and(|block| block.step != Step::End);
        if send.send(block).is_err() || !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Reader,
        tests::{Folder, all, events, frames, lines},
    };

    fn flipped(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    }

    #[test]
    fn with_a_thread_and_without_the_same_is_read() {
        let folder = Folder::new();
        let path = folder.file("a.jsonl.zst");
        let written = events(2_000);
        let whole = frames(&written, 300);
        let text = lines(&written);
        // Frames that end within a line, and one that is longer than what is held back of it.
        let torn = |damaged: usize| -> Vec<u8> {
            let chunks = text.chunks(10_007).enumerate();
            let frames = chunks.flat_map(|(at, chunk)| {
                let frame = zstd::bulk::compress(chunk, 1).unwrap();
                if at == damaged {
                    flipped(&frame)
                } else {
                    frame
                }
            });
            frames.collect()
        };
        let repeated = (17 << 20) / text.len() + 1;
        let long = zstd::bulk::compress(&text.repeat(repeated), 1).unwrap();
        for (bytes, times) in [
            (&whole[..], Some(1)),
            (&flipped(&whole), None),
            (&whole[..whole.len() - 9], None),
            (&torn(usize::MAX), Some(1)),
            (&torn(7), None),
            (&long, Some(repeated)),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let open = || Reader::open(&path).unwrap();
            let (events, unread) = all(open());
            let is_whole = !unread.cut && unread.frames == 0 && unread.lines() == 0;
            assert_eq!(is_whole, times.is_some(), "{unread:?}");
            if let Some(times) = times {
                assert!(events.chunks(written.len()).all(|again| again == written));
                assert_eq!(events.len(), times * written.len());
            }
            let mut ahead = open();
            ahead.lines = ahead.lines.read_ahead().unwrap();
            assert!((events, unread) == all(ahead));
        }
    }
}
