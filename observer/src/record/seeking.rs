//! Seeks in recordings: what is there after one is what a replay from the start has at that time.

use std::{fs, path::Path, sync::Arc};

use serde_json::Value;

use super::{
    sweep::{Random, sample},
    tests::Folder,
    *,
};
use crate::{
    digest,
    event::Event,
    model::Model,
    rules::{
        Rules,
        testing::{NOW, SECOND},
    },
    time::WallTime,
};

/// Time of the stream.
const SECONDS: u64 = 120;
/// Events in each second.
const EACH: u64 = 120;

/// An event at another time, with numbers of its own.
fn at(mut event: Event, at_ns: u64, random: &mut Random) -> Event {
    let time = WallTime(at_ns);
    match &mut event {
        Event::Wait(one) => {
            let one = Arc::make_mut(one);
            (one.time, one.mono_ns, one.dur_ns) = (time, at_ns, random.next() >> 32);
        }
        Event::Blocked(one) => (one.time, one.mono_ns) = (time, at_ns),
        Event::Goroutines(one) => (one.time, one.mono_ns) = (time, at_ns),
        Event::Cost(one) => {
            (one.time, one.mono_ns) = (time, at_ns);
            one.cost.cpu_ns = at_ns / 50 + (random.next() >> 44);
        }
        Event::Lock(one) => {
            (one.time, one.mono_ns) = (time, at_ns);
            Arc::make_mut(&mut one.lock).id = format!("lock {}", random.below(40)).into();
            one.waits = random.next() >> 40;
            one.total_ns = random.next() >> 20;
            one.max_ns = random.next() >> 20;
        }
        Event::Task(one) => {
            let one = Arc::make_mut(one);
            (one.time, one.mono_ns) = (time, at_ns);
            Arc::make_mut(&mut one.task).tid = 1 + random.below(100) as u32;
            for totals in one.kinds.values_mut().chain(&mut one.runqueue) {
                totals.waits = random.next() >> 40;
                totals.total_ns = random.next() >> 20;
                totals.max_ns = random.next() >> 20;
            }
        }
        _ => {}
    }
    event
}

/// A run of some minutes, recorded as `record` does.
fn record(path: &Path) -> u64 {
    let mut writer = Writer::create(path, false, Limits::default()).unwrap();
    let (mut model, mut rules) = (Model::default(), Rules::default());
    let mut random = Random(0x0dd0_5eed_0dd0_5eed);
    let (kinds, mut count) = (sample(), 0);
    let totals = kinds
        .iter()
        .filter(|event| matches!(event, Event::Lock(_) | Event::Task(_)));
    let totals: Vec<_> = totals.collect();
    for second in 0..SECONDS {
        for i in 0..EACH {
            let at_ns = NOW + second * SECOND + i * SECOND / EACH;
            let kind = match i {
                0 => &kinds[second as usize % kinds.len()],
                1 => &kinds[4],
                _ => totals[random.below(totals.len())],
            };
            let mut events = Vec::new();
            let event = at(kind.clone(), at_ns, &mut random);
            digest::feed(&mut model, &mut rules, event, &mut events);
            for event in &events {
                writer.write(event).unwrap();
            }
            count += events.len() as u64;
        }
        writer.mark(&model).unwrap();
    }
    writer.flush().unwrap();
    count
}

/// All that a model knows, in an order of its own.
fn known(model: &Model) -> Value {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(all) => {
                all.iter_mut().for_each(sort);
                if all.iter().all(Value::is_object) {
                    all.sort_by_cached_key(ToString::to_string);
                }
            }
            Value::Object(fields) => fields.values_mut().for_each(sort),
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    model.save(&mut bytes).unwrap();
    let mut value = serde_json::from_slice(&bytes).unwrap();
    sort(&mut value);
    value
}

/// Takes the events up to a time; returns how many these were.
fn play(replay: &mut Replay, until_ns: u64) -> u64 {
    let before = replay.events();
    while replay.next_ns().is_some_and(|at_ns| at_ns <= until_ns) {
        replay.step().unwrap();
    }
    replay.advance(until_ns);
    replay.events() - before
}

fn open(path: &Path) -> Replay {
    let mut replay = Replay::open(path).unwrap();
    replay.as_recorded();
    replay
}

/// Times in the stream, in seconds.
const TIMES: [u64; 6] = [3, 30, 55, 80, 100, 119];

/// What is known at these times, by a replay from the start.
fn expected(path: &Path) -> Vec<Value> {
    let mut replay = open(path);
    let mut expected = Vec::new();
    for second in TIMES {
        play(&mut replay, NOW + second * SECOND);
        expected.push(known(replay.model()));
    }
    expected
}

fn assert_seeks(path: &Path, expected: &[Value]) -> Vec<u64> {
    let mut replay = open(path);
    // Forward and back, near and far.
    let mut read = Vec::new();
    for i in [5, 2, 3, 0, 4, 1, 5] {
        let until_ns = NOW + TIMES[i] * SECOND;
        replay.seek(until_ns).unwrap();
        read.push(play(&mut replay, until_ns));
        let known = known(replay.model());
        assert!(known == expected[i], "after a seek to {} s", TIMES[i]);
    }
    read
}

#[test]
fn a_seek_shows_what_a_replay_from_the_start_does() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.zst");
    let count = record(&path);
    let marks = marks::find(fs::File::open(&path).unwrap()).unwrap();
    assert!(marks.len() >= 2, "{marks:?}");
    let expected = expected(&path);
    let findings = |value: &Value| value["findings"].as_array().unwrap().len();
    assert!(findings(&expected[5]) > findings(&expected[0]));
    let read = assert_seeks(&path, &expected);
    // From the second snapshot on at the latest, and not from the start.
    assert!(read[0] < count / 2, "{read:?} of {count}");

    // They are no lines: readers of zstd do not see them, nor does this one.
    let bytes = fs::read(&path).unwrap();
    let plain = zstd::stream::decode_all(&bytes[..]).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &plain).count() as u64, count);
    assert!(memchr::memmem::find(&plain, b"observer's model").is_none());
    let mut replay = open(&path);
    replay.finish(&mut |_| {}).unwrap();
    let unread = replay.unread();
    assert_eq!(
        (replay.events(), unread.lines(), unread.frames),
        (count, 0, 0)
    );
    // And they are a tenth of the file at most.
    let size: u64 = marks.iter().map(|mark| mark.length()).sum();
    assert!(size * 10 <= bytes.len() as u64, "{size} of {}", bytes.len());
}

/// A snapshot that is damaged is not used, and one that was cut off is not there.
#[test]
fn damaged_snapshots() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.zst");
    record(&path);
    let expected = expected(&path);
    let bytes = fs::read(&path).unwrap();
    let marks = marks::find(fs::File::open(&path).unwrap()).unwrap();
    let last = marks.last().unwrap();
    let inside = (last.end - last.length() / 2) as usize;
    let mut damaged = bytes.clone();
    damaged[inside] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert_seeks(&path, &expected);
    fs::write(&path, &bytes[..inside]).unwrap();
    assert_eq!(
        marks::find(fs::File::open(&path).unwrap()).unwrap(),
        marks,
        "the head is there"
    );
    let mut replay = open(&path);
    replay.seek(u64::MAX).unwrap();
    replay.finish(&mut |_| {}).unwrap();
    let seen = known(replay.model());
    let mut replay = open(&path);
    replay.finish(&mut |_| {}).unwrap();
    assert!(seen == known(replay.model()));
    assert!(replay.unread().cut);
}

/// With rules of one's own the findings are theirs, wherever one goes.
#[test]
fn judged_anew() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.zst");
    record(&path);
    let mut replay = Replay::open(&path).unwrap();
    let thresholds = "goroutines = 1000000\nblocked_goroutines = 1000000";
    replay.judge_anew(crate::rules::Thresholds::parse(thresholds).unwrap());
    let until_ns = NOW + 60 * SECOND;
    play(&mut replay, until_ns);
    let found = known(replay.model());
    let of_rule = |rule: &str| {
        let count = |findings: &[Value]| findings.iter().filter(|one| one["rule"] == rule).count();
        found["findings"].as_array().map_or(0, |all| count(all))
    };
    assert_eq!(of_rule("blocked_goroutines"), 0);
    assert!(of_rule("long_hold") > 0);
    replay.seek(NOW + 100 * SECOND).unwrap();
    play(&mut replay, NOW + 100 * SECOND);
    replay.seek(until_ns).unwrap();
    play(&mut replay, until_ns);
    assert!(known(replay.model()) == found);
}
