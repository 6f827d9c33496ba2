//! Recordings that were changed at random, always in the same way: nothing panics, whatever is read, and whatever is
//! made of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{tests::*, *};
use crate::{
    event::{
        Blocked, Confidence, Cost, CostReport, Event, GoLock, GoLostChannel, GoState,
        GoroutineGroup, Goroutines, Kind, LockClass, LockTotals, TaskTotals, Wait, WaitTotals,
        Waker,
    },
    model::Model,
    report::{
        diff::{Diff, Moment},
        document,
        export::{Folded, csv, parquet::Table, perfetto::Perfetto, pprof},
        gather::Gathered,
        html,
        incident::Incident,
        scene::Scene,
    },
    rules::{
        Rules,
        testing::{NOW, SECOND, goroutines, lock, site, waiter},
    },
    time::WallTime,
};

/// A test of a few seconds, on a slow machine too.
const TIME: Duration = Duration::from_secs(8);
/// Changes of each sort of file.
const ROUNDS: u64 = 1_500;

/// `xorshift64*`.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// What is put in the place of a number.
const NUMBERS: [&str; 8] = [
    "0",
    "1",
    "-1",
    "18446744073709551615",
    "9223372036854775808",
    "4294967295",
    "1e308",
    "[[[[[[[[]]]]]]]]",
];

fn blocked() -> Blocked {
    waiter(10).at(1).held_by(11, "running").0
}

fn cost(mono_ns: u64) -> Event {
    Event::from(CostReport {
        time: WallTime(NOW),
        mono_ns,
        cost: Cost::default(),
    })
}

fn wait() -> Event {
    let blocked = blocked();
    Event::from(Wait {
        time: WallTime(NOW),
        mono_ns: NOW + SECOND,
        task: blocked.task,
        kind: Kind::Lock,
        dur_ns: SECOND,
        blocked_ns: Some(SECOND / 2),
        runqueue_ns: Some(SECOND / 2),
        outcome: None,
        lock: blocked.lock,
        locks: Vec::new(),
        holder: blocked.holder,
        causes: std::collections::BTreeMap::new(),
        waker: Some(
            Waker {
                pid: 1,
                tid: 11,
                comm: None,
                goid: None,
            }
            .into(),
        ),
        syscall: None,
        probe: None,
        ended_by: None,
        mode: None,
        stack: None,
        at_least: false,
        end_unseen: false,
    })
}

fn of_lock(mono_ns: u64, waits: u64) -> Event {
    Event::from(LockTotals {
        time: WallTime(NOW),
        mono_ns,
        lock: lock(1, LockClass::PthreadMutex).into(),
        pid: Some(1),
        process: None,
        waits,
        total_ns: waits * SECOND,
        max_ns: SECOND,
        p50_ns: Some(SECOND),
        p99_ns: None,
        timeouts: 0,
        interrupted: 0,
        waiters_now: 1,
        holder: None,
        histogram: Vec::new(),
        callers: Vec::new(),
        estimated: false,
    })
}

fn of_task(mono_ns: u64, waits: u64) -> Event {
    let totals = WaitTotals {
        waits,
        total_ns: waits * SECOND,
        max_ns: SECOND,
    };
    Event::from(TaskTotals {
        time: WallTime(NOW),
        mono_ns,
        task: blocked().task,
        kinds: [(Kind::Lock, totals), (Kind::Io, totals)].into(),
        runqueue: Some(totals),
        estimated: false,
    })
}

/// One of each type that says much.
pub(super) fn sample() -> Vec<Event> {
    vec![
        Event::from(blocked()),
        waiter(11).at(2).long(9).held_by(10, "waiting").blocked(),
        of_lock(NOW, 3),
        of_task(NOW, 3),
        cost(NOW + SECOND),
        wait(),
        of_lock(NOW + SECOND, 9),
        of_task(NOW + SECOND, 9),
        Event::from(many_goroutines(NOW + SECOND)),
        Event::from(many_goroutines(NOW + 4 * SECOND)),
        waiter(12)
            .at(2)
            .long(3)
            .writing()
            .held_by_readers()
            .blocked(),
        cost(NOW + 2 * SECOND),
    ]
}

fn many_goroutines(mono_ns: u64) -> Goroutines {
    let lock = || lock(7, LockClass::GoMutex);
    let place = || site("main.serve", 1).created_by;
    Goroutines {
        mono_ns,
        total: 70_000,
        sites: vec![site("main.serve", 60_000)],
        groups: vec![GoroutineGroup {
            count: 60_000,
            state: GoState::Waiting,
            wait_reason: Some("sync.Mutex.Lock".into()),
            created_by: Some(place()),
            stack: vec![place()],
            stack_cut: false,
            system: false,
            oldest_ns: Some(9 * SECOND),
            longest_wait_ns: Some(9 * SECOND),
            growth: Some(3.0),
            goids: vec![7],
            waits_for: Vec::new(),
            waits_left_out: 0,
            labels: Vec::new(),
            tids: Vec::new(),
            locked_to_thread: 0,
            wakes_in_ns: None,
        }],
        locks: vec![GoLock {
            lock: lock(),
            waiters_now: 60_000,
            mean_wait_ns: Some(SECOND),
            locked: Some(true),
            starving: Some(true),
            readers: None,
            readers_pending: None,
            counter: None,
            holders: Vec::new(),
        }],
        lost_channels: vec![GoLostChannel {
            lock: lock(),
            goids: vec![8],
            waiters_now: 3,
            created_by: Some(place()),
            confidence: Confidence::Likely,
            evidence: "nobody".to_owned(),
        }],
        ..goroutines()
    }
}

pub(super) fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, random.next() as u8),
            3 => {
                let end = (at + random.below(200)).min(bytes.len());
                let some = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, some);
            }
            4 => {
                let end = (at + random.below(40)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => number(bytes, at, NUMBERS[random.below(NUMBERS.len())]),
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
}

/// Puts something in the place of the next number of a line.
fn number(bytes: &mut Vec<u8>, from: usize, text: &str) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(begin) = bytes[from..].iter().position(is_digit) else {
        return;
    };
    let begin = from + begin;
    let length = bytes[begin..].iter().position(|byte| !is_digit(byte));
    let end = length.map_or(bytes.len(), |length| begin + length);
    bytes.splice(begin..end, text.bytes());
}

/// Everything that is made of a recording.
fn use_all(events: Vec<Event>, unread: &Unread) {
    let (mut model, mut rules) = (Model::default(), Rules::default());
    let (mut folded, mut gathered) = (Folded::new(true), Gathered::default());
    let mut perfetto = Perfetto::new(Vec::new(), true);
    let mut table = Table::new(Vec::new()).unwrap();
    let mut out = Vec::new();
    for event in events {
        folded.see(&event);
        gathered.see(&event);
        perfetto.see(&event).unwrap();
        table.see(&event).unwrap();
        csv::line(&mut out, &event).unwrap();
        let now_ns = model.now_ns();
        crate::digest::absorb(&mut model, &mut rules, event);
        assert!(model.now_ns() >= now_ns);
    }
    folded.finish(&model);
    perfetto.finish(&model).unwrap();
    table.finish(&model).unwrap();
    csv::finish(&mut out, &model).unwrap();
    folded.write(&mut out).unwrap();
    pprof::write(&mut out, &folded, &model).unwrap();
    let incident = Incident::new(&model, gathered, unread.notes(), Scene::default());
    html::write(&mut out, &incident).unwrap();
    incident.json(&mut out).unwrap();
    document::text(&mut out, &incident.document()).unwrap();
    let moment = || Moment::of_model("a".to_owned(), &model, Vec::new());
    let diff = Diff::of(moment(), moment());
    document::markdown(&mut out, &diff.document()).unwrap();
    for event in snapshot(&model) {
        crate::report::json::line(&mut out, &event).unwrap();
    }
}

#[test]
fn changed_at_random() {
    let all = sample();
    use_all(all.clone(), &Unread::default());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let began = Instant::now();
    for round in 0..ROUNDS {
        for compressed in [false, true] {
            // The numbers of a compressed file are changed before it is made.
            let mut bytes = lines(&all);
            if !compressed || round % 2 == 0 {
                change(&mut bytes, &mut random);
            }
            if compressed {
                bytes = zstd::bulk::compress(&bytes, 1).unwrap();
                if round % 2 == 1 {
                    change(&mut bytes, &mut random);
                }
            }
            let (events, unread) = read(bytes, compressed);
            use_all(events, &unread);
        }
        if began.elapsed() > TIME {
            return;
        }
    }
}

/// Snapshots of the model that were changed: they are none, or all can be made of them.
#[test]
fn changed_models() {
    let mut model = Model::default();
    for event in sample() {
        model.apply(event);
    }
    let mut saved = Vec::new();
    model.save(&mut saved).unwrap();
    assert!(Model::load(&saved).is_some());
    let mut random = Random(0x1234_5678_9abc_def1);
    let (began, mut loaded) = (Instant::now(), 0);
    for _ in 0..ROUNDS {
        let mut bytes = saved.clone();
        change(&mut bytes, &mut random);
        let Some(mut model) = Model::load(&bytes) else {
            continue;
        };
        loaded += 1;
        let mut rules = Rules::default();
        for event in sample() {
            crate::digest::ask(&mut model, &mut rules, event);
        }
        for lock in model.locks() {
            lock.waited_ns(model.now_ns());
        }
        let incident = Incident::new(&model, Gathered::default(), Vec::new(), Scene::default());
        html::write(&mut Vec::new(), &incident).unwrap();
        if began.elapsed() > TIME {
            break;
        }
    }
    assert!(loaded > 0);
}

/// The clock of the host was set, or the machine slept: times go back and forth.
#[test]
fn clocks_that_jump() {
    let mut events = sample();
    for (i, jump) in [0, u64::MAX, 1, NOW, 0, u64::MAX / 2]
        .into_iter()
        .enumerate()
    {
        let mut again = sample();
        for event in &mut again {
            if let Event::Blocked(blocked) = event {
                blocked.mono_ns = jump;
                blocked.time = WallTime(jump.wrapping_mul(i as u64));
            }
            if let Event::Wait(wait) = event {
                let wait = Arc::make_mut(wait);
                wait.mono_ns = jump;
                wait.dur_ns = u64::MAX;
            }
        }
        events.extend(again);
    }
    let bytes = lines(&events);
    let (events, unread) = read(bytes, false);
    use_all(events, &unread);
}
