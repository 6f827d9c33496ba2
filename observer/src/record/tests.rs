//! Recordings that are whole, cut, damaged, foreign, hostile.

use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::{
    event::{Cost, CostReport, Event},
    rules::testing::{NOW, SECOND, waiter},
    time::WallTime,
};

/// A folder of one test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("observer-record-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Events, each different from the others.
pub(super) fn events(count: u32) -> Vec<Event> {
    (0..count)
        .map(|i| {
            waiter(i)
                .at(u64::from(i))
                .long(2)
                .held_by(i + 1, "running")
                .blocked()
        })
        .collect()
}

pub(super) fn lines(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        crate::report::json::line(&mut bytes, event).unwrap();
    }
    bytes
}

/// Frames of a few events each.
pub(super) fn frames(events: &[Event], each: usize) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(super::LEVEL).unwrap();
    compressor.include_checksum(true).unwrap();
    events
        .chunks(each)
        .flat_map(|some| compressor.compress(&lines(some)).unwrap())
        .collect()
}

pub(super) fn read(bytes: Vec<u8>, compressed: bool) -> (Vec<Event>, Unread) {
    all(Reader::new(Cursor::new(bytes), compressed).unwrap())
}

/// All events, and what could not be read.
pub(super) fn all<R: std::io::Read + std::io::Seek>(mut reader: Reader<R>) -> (Vec<Event>, Unread) {
    let mut all = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        all.push(event);
    }
    (all, reader.unread())
}

#[test]
fn what_was_written_is_read() {
    let folder = Folder::new();
    for name in ["a.jsonl.zst", "a.jsonl"] {
        let (path, written) = (folder.file(name), events(5_000));
        let mut writer = Writer::create(&path, false, Limits::default()).unwrap();
        for event in &written {
            writer.write(event).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(writer.events(), 5_000);
        assert_eq!(writer.bytes(), path.metadata().unwrap().len());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut reader = Reader::open(&path).unwrap();
        for event in &written {
            assert_eq!(reader.next_event().unwrap().as_ref(), Some(event), "{name}");
        }
        assert_eq!(reader.next_event().unwrap(), None);
        assert_eq!(reader.unread().lines(), 0);
        // Other tools read it too: the frames follow each other as zstd has it.
        if name.ends_with("zst") {
            let plain = zstd::stream::decode_all(fs::File::open(&path).unwrap()).unwrap();
            assert_eq!(plain, lines(&written));
        }
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    fs::write(&path, "precious").unwrap();
    let Err(error) = Writer::create(&path, false, Limits::default()) else {
        panic!("overwritten");
    };
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert!(Writer::create(&path, true, Limits::default()).is_ok());
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

/// `/dev/full` takes nothing: what is there is kept, and told.
#[test]
fn a_full_disk_is_told() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    let mut writer = Writer::create(&path, false, Limits::default()).unwrap();
    writer.write(&events(1)[0]).unwrap();
    writer.flush().unwrap();
    let before = fs::read(&path).unwrap();
    writer.out = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    writer.write(&events(2)[1]).unwrap();
    let error = format!("{:#}", writer.flush().unwrap_err());
    assert!(error.contains("1 events"), "{error}");
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn two_at_once() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    let mut first = Writer::create(&path, false, Limits::default()).unwrap();
    for force in [false, true] {
        let Err(error) = Writer::create(&path, force, Limits::default()) else {
            panic!("two recordings in one file");
        };
        let error = format!("{error:#}");
        let why = if force { "another observer" } else { "exists" };
        assert!(error.contains(why), "{error}");
    }
    first.write(&events(1)[0]).unwrap();
    first.flush().unwrap();
    assert_eq!(read(fs::read(&path).unwrap(), false).0, events(1));
    drop(first);
    Writer::create(&path, true, Limits::default()).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 0);
}

/// Many short frames, long ones, and a long one that does not say how long it is.
#[test]
fn frames_of_any_length() {
    let all = events(16_000);
    let plain = lines(&all);
    assert!(plain.len() > 5 << 20);
    let mut of_unknown_length = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    of_unknown_length.write_all(&plain).unwrap();
    for bytes in [
        frames(&all, 3),
        frames(&all, 2_500),
        frames(&all, all.len()),
        of_unknown_length.finish().unwrap(),
    ] {
        let (read, unread) = read(bytes, true);
        assert!(read == all);
        assert_eq!(unread.notes().len(), 1, "{unread:?}");
    }
}

/// One checksum that is wrong, in a frame that is read at once, and one in a frame that is not.
#[test]
fn long_frames_are_checked() {
    for count in [2_500, 16_000] {
        let all = events(count);
        let mut bytes = frames(&all, all.len());
        *bytes.last_mut().unwrap() ^= 1;
        bytes.extend(frames(&events(3), 3));
        let (read, unread) = read(bytes, true);
        assert_eq!(read, events(3));
        assert_eq!(unread.frames, 1, "{unread:?}");
    }
}

/// A file that is cut where a block ends: everything that the block holds is read.
#[test]
fn cut_at_a_block() {
    const BLOCK: usize = 128 << 10;
    let line = lines(&events(1));
    let mut plain = vec![b' '; 2 * BLOCK];
    plain[BLOCK - line.len()..BLOCK].copy_from_slice(&line);
    plain[BLOCK - line.len() - 1] = b'\n';
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&plain).unwrap();
    let whole = encoder.finish().unwrap();
    let mut most = 0;
    for length in 0..whole.len() {
        let (read, unread) = read(whole[..length].to_vec(), true);
        assert!(read.len() >= most, "cut at {length}");
        assert!(length == 0 || unread.cut, "cut at {length}: {unread:?}");
        most = read.len();
    }
    assert_eq!(most, 1);
}

/// Every length that a file can be cut to: what is whole is read, in order, and the cut is told.
#[test]
fn cut_anywhere() {
    let all = events(12);
    for (bytes, compressed) in [(frames(&all, 3), true), (lines(&all), false)] {
        let mut most = 0;
        for length in 0..=bytes.len() {
            let (read, unread) = read(bytes[..length].to_vec(), compressed);
            assert_eq!(read, all[..read.len()], "cut at {length}");
            assert!(read.len() >= most, "cut at {length}");
            most = read.len();
            assert_eq!(unread.bad + unread.frames, 0, "cut at {length}: {unread:?}");
        }
        assert_eq!(most, all.len());
    }
}

/// Every bit of a compressed file: never an event that was not written, and the other frames are read.
#[test]
fn a_bit_that_flipped() {
    let all = events(9);
    let bytes = frames(&all, 3);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (read, unread) = read(damaged, true);
        for event in &read {
            assert!(all.contains(event), "bit {bit}: {event:?}");
        }
        assert!(
            read.len() >= 6,
            "bit {bit}: {} events, {unread:?}",
            read.len()
        );
        assert!(read.len() == 9 || !unread.notes().is_empty(), "bit {bit}");
    }
}

/// Without a checksum a changed line may be an event, and a strange one: nothing may panic.
#[test]
fn a_bit_that_flipped_in_plain_lines() {
    let mut all = events(3);
    all.push(cost(NOW + SECOND));
    let bytes = lines(&all);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (read, _) = read(damaged, false);
        assert!(read.len() >= 2, "bit {bit}");
        let (mut model, mut rules) = Default::default();
        for event in read {
            crate::digest::ask(&mut model, &mut rules, event);
        }
    }
}

fn cost(mono_ns: u64) -> Event {
    Event::from(CostReport {
        time: WallTime(mono_ns),
        mono_ns,
        cost: Cost::default(),
    })
}

#[test]
fn garbage_is_no_recording() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.zst");
    let noise: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for bytes in [
        noise,
        Vec::new(),
        b"{}\n[]\nnull\n".to_vec(),
        b"{\"type\":\"wait\"}".to_vec(),
    ] {
        fs::write(&path, &bytes).unwrap();
        let Err(error) = Reader::open(&path) else {
            panic!("{} bytes are a recording", bytes.len());
        };
        assert!(error.to_string().contains("no recording"), "{error}");
        read(bytes, false);
    }
}

/// 256 MB in a few bytes; a line without end: bounded, and told.
#[test]
fn bombs() {
    let mut bomb = zstd::stream::encode_all(std::io::repeat(b'x').take_(1 << 28), 3).unwrap();
    bomb.extend(frames(&events(3), 3));
    let (read, unread) = self::read(bomb, true);
    assert_eq!(read, events(3));
    assert_eq!(unread.frames, 1, "{unread:?}");
    // One that is just too long, whatever was read before it.
    let small = zstd::bulk::compress(&vec![b'x'; 30 << 20], 3).unwrap();
    let good = events(60_000);
    let whole = frames(&good, good.len());
    for before in [&[][..], &whole] {
        let bytes = [before, &small, &frames(&events(3), 3)].concat();
        let (read, unread) = self::read(bytes, true);
        assert!(read.ends_with(&events(3)));
        assert_eq!(
            read.len(),
            if before.is_empty() { 3 } else { good.len() + 3 }
        );
        assert_eq!(unread.frames, 1, "{unread:?}");
    }
    let mut long = vec![b'x'; 40 << 20];
    long.push(b'\n');
    long.extend(lines(&events(2)));
    let (read, unread) = self::read(long, false);
    assert_eq!((read.len(), unread.too_long), (2, 1));
}

/// `Read::take` for a sized reader, by name.
trait Take: std::io::Read + Sized {
    fn take_(self, limit: u64) -> std::io::Take<Self> {
        self.take(limit)
    }
}

impl<R: std::io::Read> Take for R {}

#[test]
fn a_newer_schema_is_read_as_far_as_it_goes() {
    let mut bytes = lines(&events(1));
    let text = String::from_utf8(bytes.clone()).unwrap();
    // A field, a type, a kind and a class that will be.
    write!(
        bytes,
        "{}",
        text.replace(
            "{\"type\":\"blocked\",",
            "{\"new\":[1],\"type\":\"blocked\","
        )
    )
    .unwrap();
    bytes.extend(b"{\"type\":\"safepoint\",\"mono_ns\":1}\n");
    let new = text
        .replace("\"kind\":\"lock\"", "\"kind\":\"gpu\"")
        .replace("pthread_mutex", "gpu_fence");
    assert_ne!(new, text);
    bytes.extend(new.bytes());
    let (read, unread) = read(bytes, false);
    assert_eq!(read.len(), 3);
    assert_eq!(read[0], read[1]);
    let Event::Blocked(blocked) = &read[2] else {
        panic!()
    };
    assert_eq!(blocked.kind.name(), "other");
    assert_eq!(unread.unknown.get("safepoint"), Some(&1));
    assert_eq!((unread.adapted, unread.bad), (1, 0));
}

#[test]
fn the_older_half_is_dropped() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.zst");
    let limits = Limits {
        size: Some(20_000),
        age: None,
    };
    let mut writer = Writer::create(&path, false, limits).unwrap();
    let (mut model, mut rotated) = (crate::model::Model::default(), 0);
    for i in 0..3_000 {
        let event = waiter(i % 7).at(u64::from(i)).long(u64::from(i)).blocked();
        model.apply(event.clone());
        writer.write(&event).unwrap();
        if i % 100 == 0 {
            writer.flush().unwrap();
        }
        if writer.is_full() {
            writer.rotate(&snapshot(&model)).unwrap();
            rotated += 1;
        }
    }
    writer.flush().unwrap();
    assert!(rotated > 2, "{rotated}");
    assert_eq!(writer.events(), 3_000);
    let old = folder.file("a.1.jsonl.zst");
    assert!(path.metadata().unwrap().len() + old.metadata().unwrap().len() < 30_000);
    // The newer file by itself tells who is blocked.
    let mut replay = Replay::open(&path).unwrap();
    replay.finish(&mut |_| {}).unwrap();
    assert_eq!(replay.model().blocked().count(), 7);
}

/// A limit of age counts from a file's beginning, again for each.
#[test]
fn a_file_grows_old() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.zst");
    let with_age = |age| Limits {
        size: None,
        age: Some(age),
    };
    let hour = std::time::Duration::from_hours(1);
    let mut writer = Writer::create(&path, false, with_age(2 * hour)).unwrap();
    writer.write(&events(1)[0]).unwrap();
    assert!(!writer.is_full());
    writer.began = writer.began.checked_sub(hour).unwrap();
    assert!(writer.is_full());
    writer.rotate(&[]).unwrap();
    assert!(!writer.is_full());
    writer.flush().unwrap();
    let old = fs::read(folder.file("a.1.jsonl.zst")).unwrap();
    assert_eq!(read(old, true).0, events(1));
}
