//! What goes over the socket between the two processes: a length, a sort, and so many bytes. Pure but for the reading.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The length (four bytes, little-endian) and the sort.
pub(super) const HEAD: usize = 5;
/// Room that is made for what is read next.
const ROOM: usize = 16 << 10;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sort {
    /// One of the messages, as JSON.
    Message = 0,
    /// An event, as a line of the stream.
    Line = 1,
    /// A log record for OTLP, protobuf.
    Record = 2,
    /// What others are told of an incident, JSON.
    Incident = 3,
    /// A piece of an answer.
    Piece = 4,
}

impl Sort {
    pub(super) const ALL: [Sort; 5] = [
        Sort::Message,
        Sort::Line,
        Sort::Record,
        Sort::Incident,
        Sort::Piece,
    ];

    fn of(byte: u8) -> Option<Sort> {
        Sort::ALL.into_iter().find(|sort| *sort as u8 == byte)
    }
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) sort: Sort,
    pub(super) payload: Bytes,
}

/// Writes a frame.
pub(super) fn put(out: &mut BytesMut, sort: Sort, payload: &[u8]) {
    // What is longer than this was refused before.
    out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_u8(sort as u8);
    out.extend_from_slice(payload);
}

/// Length and sort of what follows.
///
/// # Errors
/// There is no such sort, or it is longer than `most`.
pub(super) fn head(head: [u8; HEAD], most: usize) -> io::Result<(usize, Sort)> {
    let [a, b, c, d, sort] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    match Sort::of(sort) {
        Some(sort) if length <= most => Ok((length, sort)),
        _ => Err(bad("a frame that is none")),
    }
}

pub(super) fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The frames that come.
pub(super) struct Frames<R> {
    stream: R,
    read: BytesMut,
    most: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// `most`: bytes that one may have.
    pub(super) fn new(stream: R, most: usize) -> Frames<R> {
        Frames {
            stream,
            read: BytesMut::new(),
            most,
        }
    }

    /// The next one; `None`: there are no more. Nothing is lost when this is given up.
    ///
    /// # Errors
    /// The socket fails, ends within a frame, or brings what is none.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.cut()? {
                return Ok(Some(frame));
            }
            self.read.reserve(ROOM);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                let whole = self.read.is_empty();
                return whole
                    .then_some(None)
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn cut(&mut self) -> io::Result<Option<Frame>> {
        let Some(first) = self.read.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        // Before anything is kept for it.
        let (length, sort) = head(*first, self.most)?;
        if self.read.len() < HEAD + length {
            return Ok(None);
        }
        self.read.advance(HEAD);
        let payload = self.read.split_to(length).freeze();
        Ok(Some(Frame { sort, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], most: usize) -> io::Result<Vec<Frame>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut frames = Frames::new(bytes, most);
            let mut all = Vec::new();
            while let Some(frame) = frames.next().await? {
                all.push(frame);
            }
            Ok(all)
        })
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = BytesMut::new();
        let long = vec![7; 100_000];
        put(&mut out, Sort::Line, b"a");
        put(&mut out, Sort::Message, b"");
        put(&mut out, Sort::Piece, &long);
        let read = all(&out, 100_000).unwrap();
        let sorts: Vec<_> = read.iter().map(|frame| frame.sort).collect();
        assert_eq!(sorts, [Sort::Line, Sort::Message, Sort::Piece]);
        assert_eq!((&*read[0].payload, &*read[2].payload), (&b"a"[..], &*long));
    }

    #[test]
    fn what_is_none_is_refused() {
        let mut out = BytesMut::new();
        put(&mut out, Sort::Message, &[1; 65]);
        // Too long, though not yet there.
        assert!(all(&out[..HEAD], 64).is_err());
        assert_eq!(all(&out, 65).unwrap().len(), 1);
        // It ends too early.
        for end in 1..out.len() {
            assert!(all(&out[..end], 65).is_err(), "{end}");
        }
        for bytes in [
            &[0, 0, 0, 0, 5][..],
            &[0, 0, 0, 0, 255],
            &[255, 255, 255, 255, 0],
        ] {
            assert!(all(bytes, 1 << 20).is_err(), "{bytes:?}");
        }
    }
}
