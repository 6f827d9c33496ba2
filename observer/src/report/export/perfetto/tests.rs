//! The form of a trace; whether others can read it is seen in `tests/foreign`.

use prost::Message;

use super::{proto::*, *};
use crate::{
    event::{Outcome, Severity},
    rules::testing::{NOW, SECOND, model, waiter},
    time::WallTime,
};

#[derive(Clone, PartialEq, prost::Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

/// A wait of two seconds, the last half of a second of it on the run queue.
fn wait(tid: u32, end_ns: u64) -> Wait {
    let Event::Blocked(blocked) = waiter(tid).at(7).held_by(9, "running").blocked() else {
        panic!()
    };
    Wait {
        time: WallTime(end_ns),
        mono_ns: end_ns,
        task: blocked.task,
        kind: blocked.kind,
        dur_ns: 2 * SECOND,
        blocked_ns: Some(3 * SECOND / 2),
        runqueue_ns: Some(SECOND / 2),
        outcome: Some(Outcome::Woken),
        lock: blocked.lock,
        locks: Vec::new(),
        holder: blocked.holder,
        causes: std::collections::BTreeMap::new(),
        waker: Some(
            Waker {
                pid: 1,
                tid: 9,
                comm: Some("t9".into()),
                goid: None,
            }
            .into(),
        ),
        syscall: blocked.syscall,
        probe: None,
        ended_by: None,
        mode: None,
        stack: None,
        at_least: false,
        end_unseen: false,
    }
}

fn trace(events: &[Event], last: &Model) -> Vec<TracePacket> {
    let mut bytes = Vec::new();
    let mut perfetto = Perfetto::new(&mut bytes, false);
    for event in events {
        perfetto.see(event).unwrap();
    }
    assert_eq!(perfetto.finish(last).unwrap(), 0);
    Trace::decode(&*bytes).unwrap().packet
}

/// Begin and end of each slice on a line, as a reader puts them together.
fn slices(packets: &[TracePacket], track: u64) -> Vec<(u64, Option<u64>)> {
    let mut events: Vec<_> = packets
        .iter()
        .filter_map(|packet| Some((packet.timestamp?, packet.track_event.as_ref()?)))
        .filter(|(_, event)| event.track_uuid == track)
        .collect();
    events.sort_by_key(|(at, _)| *at);
    let (mut all, mut open) = (Vec::new(), Vec::new());
    for (at, event) in events {
        if event.r#type == Type::SliceBegin as i32 {
            open.push(all.len());
            all.push((at, None));
        } else if event.r#type == Type::SliceEnd as i32 {
            let last = open.pop().expect("an end without a beginning");
            all[last].1 = Some(at);
        }
    }
    all
}

fn threads(packets: &[TracePacket]) -> Vec<u64> {
    let tracks = packets
        .iter()
        .filter_map(|one| one.track_descriptor.as_ref());
    let threads = tracks.filter(|track| track.thread.is_some());
    threads.map(|track| track.uuid).collect()
}

#[test]
fn waits_lie_on_lines_of_their_threads() {
    let (first, second) = (NOW, NOW + 2 * SECOND);
    let model = model(&[waiter(11).at(7).long(4).blocked()]);
    let events = [Event::from(wait(10, first)), Event::from(wait(10, second))];
    let packets = trace(&events, &model);
    let threads = threads(&packets);
    // The one that waited, its waker, and the one that waits still.
    assert_eq!(threads.len(), 3, "{packets:#?}");
    assert_eq!(
        slices(&packets, threads[0]),
        [
            (first - 2 * SECOND, Some(first)),
            (first - SECOND / 2, Some(first)),
            (second - 2 * SECOND, Some(second)),
            (second - SECOND / 2, Some(second)),
        ]
    );
    assert_eq!(slices(&packets, threads[2]), [(NOW - 4 * SECOND, None)]);
}

#[test]
fn arrows_have_two_ends_at_one_time() {
    let packets = trace(&[Event::from(wait(10, NOW))], &Model::default());
    let of = |ids: fn(&TrackEvent) -> &Vec<u64>| {
        let mut all = packets.iter().filter_map(|packet| {
            let event = packet.track_event.as_ref()?;
            let id = ids(event).first()?;
            Some((*id, packet.timestamp, event.track_uuid))
        });
        let first = all.next().unwrap();
        assert!(all.next().is_none());
        first
    };
    let (id, at, from) = of(|event| &event.flow_ids);
    let (same, then, to) = of(|event| &event.terminating_flow_ids);
    assert_eq!((id, at), (same, then));
    assert_eq!(at, Some(NOW - SECOND / 2));
    assert_ne!(from, to);
}

/// Waits of one thread that cannot be, by a clock that jumps or by a file that lies, lie side by side, and there
/// is an end to it.
#[test]
fn overlapping_waits_do_not_cross() {
    let ends = [0, SECOND, SECOND / 2, SECOND + 1_000];
    let events: Vec<_> = ends
        .iter()
        .map(|ns| Event::from(wait(10, NOW + ns)))
        .collect();
    let packets = trace(&events, &Model::default());
    let tracks = packets
        .iter()
        .filter_map(|one| one.track_descriptor.as_ref());
    let others = tracks.filter(|track| track.name.as_deref() == Some("overlapping waits"));
    let mut total = slices(&packets, threads(&packets)[0]).len();
    for track in others {
        assert_eq!(track.parent_uuid, Some(threads(&packets)[0]));
        total += slices(&packets, track.uuid).len();
    }
    // Each is a slice, and the time on the run queue another one.
    assert_eq!(total, 2 * ends.len());

    let mut perfetto = Perfetto::new(Vec::new(), false);
    for _ in 0..1_000 {
        perfetto.see(&Event::from(wait(10, NOW))).unwrap();
    }
    assert_eq!(perfetto.finish(&Model::default()).unwrap(), 996);
}

#[test]
fn findings_are_marks() {
    let Event::Blocked(blocked) = waiter(10).blocked() else {
        panic!()
    };
    let finding = Event::from(Finding {
        time: WallTime(0),
        mono_ns: NOW,
        rule: "deadlock".into(),
        severity: Severity::Critical,
        title: "a\u{1b}[31m deadlock".to_owned(),
        evidence: vec!["e".to_owned()],
        advice: "a".to_owned(),
        subjects: vec![Subject::Task(blocked.task)],
    });
    let packets = trace(&[finding], &Model::default());
    let marks: Vec<u64> = packets
        .iter()
        .filter_map(|packet| packet.track_event.as_ref())
        .map(|event| event.track_uuid)
        .collect();
    assert_eq!(marks, [FINDINGS, threads(&packets)[0]]);
    let data = packets.iter().find_map(|one| one.interned_data.as_ref());
    let name = &data.unwrap().event_names[0].text;
    assert!(
        name.contains("deadlock") && !name.contains('\u{1b}'),
        "{name}"
    );
}

/// The reader forgets its strings when the writer does.
#[test]
fn numbers_begin_anew() {
    let mut bytes = Vec::new();
    let mut packets = Packets::new(&mut bytes);
    for i in 0..140_000_u64 {
        packets.limit();
        let name = packets.name(&format!("n{i}"));
        let event = TrackEvent {
            name_iid: Some(name),
            ..of(Type::Instant, 1)
        };
        packets.event(i, event).unwrap();
    }
    let mut known = std::collections::HashMap::new();
    for (i, packet) in Trace::decode(&*bytes).unwrap().packet.iter().enumerate() {
        if packet.sequence_flags & CLEARED != 0 {
            known.clear();
        }
        for one in packet
            .interned_data
            .iter()
            .flat_map(|data| &data.event_names)
        {
            known.insert(one.iid, one.text.clone());
        }
        let iid = packet.track_event.as_ref().unwrap().name_iid.unwrap();
        assert_eq!(known[&iid], format!("n{i}"));
    }
    assert!(known.len() <= 1 << 17);
}
