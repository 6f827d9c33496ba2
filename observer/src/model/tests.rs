//! The model, from tables of events.

use super::*;
use crate::{
    event::{Addr, Kind, LockClass, LockRef, TaskRef},
    time::WallTime,
};

fn task(tid: u32) -> TaskRef {
    TaskRef {
        comm: Some("worker".into()),
        process: Some("server".into()),
        ..TaskRef::new(1, tid)
    }
}

fn lock_ref(id: &str) -> LockRef {
    LockRef {
        id: id.into(),
        class: LockClass::Futex,
        name: None,
        addr: Addr(0x1000),
        shared: false,
    }
}

pub(crate) fn blocked(tid: u32, at_ns: u64, age_ns: u64, lock: &str) -> Event {
    Event::from(Blocked {
        time: WallTime(at_ns),
        mono_ns: at_ns,
        task: task(tid).into(),
        kind: Kind::Futex,
        age_ns,
        blocked_ns: None,
        runqueue_ns: None,
        lock: Some(lock_ref(lock).into()),
        locks: Vec::new(),
        access: None,
        holder: None,
        syscall: Some("futex".into()),
        probe: None,
        mode: None,
        stack: None,
        at_least: false,
    })
}

fn wait(tid: u32, end_ns: u64, dur_ns: u64) -> Event {
    Event::from(Wait {
        time: WallTime(end_ns),
        mono_ns: end_ns,
        task: task(tid).into(),
        kind: Kind::Futex,
        dur_ns,
        blocked_ns: Some(dur_ns),
        runqueue_ns: Some(0),
        outcome: None,
        lock: Some(lock_ref("a").into()),
        locks: Vec::new(),
        holder: None,
        causes: std::collections::BTreeMap::new(),
        waker: None,
        syscall: None,
        probe: None,
        mode: None,
        ended_by: None,
        stack: None,
        at_least: false,
        end_unseen: false,
    })
}

fn totals(id: &str, at_ns: u64, waits: u64) -> Event {
    Event::from(LockTotals {
        time: WallTime(at_ns),
        mono_ns: at_ns,
        lock: lock_ref(id).into(),
        pid: Some(1),
        process: None,
        waits,
        total_ns: waits * 1_000,
        max_ns: 1_000,
        p50_ns: None,
        p99_ns: None,
        timeouts: 0,
        interrupted: 0,
        waiters_now: 0,
        holder: None,
        histogram: Vec::new(),
        callers: Vec::new(),
        estimated: false,
    })
}

#[test]
fn a_wait_that_ends_is_no_longer_blocked() {
    let mut model = Model::default();
    model.apply(blocked(7, 5_000, 1_000, "a"));
    assert_eq!(model.blocked_task(7).map(|w| w.age_ns(6_000)), Some(2_000));
    model.apply(wait(7, 9_000, 5_000));
    assert!(model.blocked_task(7).is_none());
    assert_eq!(model.waits().len(), 1);
}

#[test]
fn an_older_wait_of_the_same_task_ends_nothing() {
    let mut model = Model::default();
    model.apply(blocked(7, 50_000, 1_000, "a"));
    model.apply(wait(7, 40_000, 5_000));
    assert!(model.blocked_task(7).is_some());
}

#[test]
fn waiters_of_a_lock_come_longest_first() {
    let mut model = Model::default();
    model.apply(blocked(1, 10_000, 1_000, "a"));
    model.apply(blocked(2, 10_000, 5_000, "a"));
    model.apply(blocked(3, 10_000, 9_000, "b"));
    let waiters = model.waiters(&lock_ref("a"));
    let tids: Vec<u32> = waiters.iter().map(|w| w.event.task.tid).collect();
    assert_eq!(tids, [2, 1]);
}

#[test]
fn rates_come_from_the_two_latest_totals() {
    let mut model = Model::default();
    model.apply(totals("a", 1_000_000_000, 10));
    model.apply(totals("a", 3_000_000_000, 50));
    let lock = model.lock("a").unwrap();
    assert!((lock.waits_per_s - 20.0).abs() < 1e-9);
    assert_eq!(lock.totals.waits, 50);
}

#[test]
fn memory_is_bounded_and_what_is_forgotten_counted() {
    let mut model = Model::new(Limits {
        waits: 10,
        locks: 100,
        tasks: 100,
        findings: 2,
        go_processes: 2,
    });
    for i in 0..1_000 {
        model.apply(totals(&format!("lock {i}"), i, 1));
        model.apply(wait(1, i, 1));
    }
    assert!(model.locks().count() <= 100);
    assert_eq!(
        model.forgotten().locks + model.locks().count() as u64,
        1_000
    );
    assert!(model.lock("lock 999").is_some());
    assert!(model.lock("lock 0").is_none());
    assert_eq!(model.waits().len(), 10);
    assert_eq!(model.long_waits(), 1_000);
}

#[test]
fn time_never_goes_back() {
    let mut model = Model::default();
    model.apply(totals("a", 100, 1));
    model.apply(totals("b", 50, 1));
    assert_eq!(model.now_ns(), 100);
}

/// A mutex that nobody has got since is a lock like others, and goes when its last waiter goes.
#[test]
fn waits_in_progress_belong_to_their_lock() {
    let waiting = |tid, at_ns, age_ns| {
        let Event::Blocked(mut event) = blocked(tid, at_ns, age_ns, "m") else {
            unreachable!()
        };
        Arc::make_mut(event.lock.as_mut().unwrap()).class = LockClass::PthreadMutex;
        Event::Blocked(event)
    };
    let mut model = Model::default();
    model.apply(blocked(1, 1_000, 500, "futex of an unknown class"));
    assert_eq!(model.locks().count(), 0);
    model.apply(waiting(2, 1_000, 500));
    model.apply(waiting(3, 1_000, 100));
    model.apply(waiting(3, 2_000, 1_100));
    let lock = model.lock("m").unwrap();
    assert_eq!((lock.waiters, lock.pending_ns(2_000)), (2, 2_600));
    model.apply(wait(2, 3_000, 2_500));
    let lock = model.lock("m").unwrap();
    assert_eq!((lock.waiters_now(), lock.waited_ns(3_000)), (1, 4_600));
    model.apply(wait(3, 4_000, 3_100));
    assert!(model.lock("m").is_none());
}

/// The first totals of a lock have nothing to be compared with, though somebody waited before they came.
#[test]
fn first_totals_are_no_burst() {
    let mut model = Model::default();
    let Event::Blocked(mut waiting) = blocked(2, 900_000_000, 500, "m") else {
        unreachable!()
    };
    Arc::make_mut(waiting.lock.as_mut().unwrap()).class = LockClass::PthreadMutex;
    model.apply(Event::Blocked(waiting));
    model.apply(totals("m", 1_000_000_000, 20));
    assert!(model.lock("m").unwrap().waits_per_s.abs() < 1e-9);
}

/// The wall clock is set forward and back: what lasts is measured by a clock that nobody sets.
#[test]
fn a_wall_clock_that_is_set_disturbs_nothing() {
    const SECOND: u64 = 1_000_000_000;
    const YEAR: u64 = 365 * 86_400 * SECOND;
    // By how much the wall clock is ahead at each second.
    let steps = [10 * YEAR, 11 * YEAR, 9 * YEAR, 0, 10 * YEAR];
    let run = |set: &dyn Fn(usize) -> u64| {
        let mut model = Model::default();
        let mut seen = Vec::new();
        for at in 0..steps.len() {
            let now_ns = (at as u64 + 1) * SECOND;
            let at_wall = |mut event: Event| {
                let time = WallTime(now_ns + set(at));
                match &mut event {
                    Event::Blocked(one) => one.time = time,
                    Event::Wait(one) => Arc::make_mut(one).time = time,
                    Event::Lock(one) => one.time = time,
                    _ => {}
                }
                event
            };
            model.apply(at_wall(blocked(7, now_ns, now_ns, "a")));
            model.apply(at_wall(wait(8, now_ns, SECOND / 2)));
            model.apply(at_wall(totals("a", now_ns, at as u64)));
            model.advance(now_ns + SECOND / 10);
            let wall = model.wall_time();
            assert_eq!(wall, WallTime(now_ns + SECOND / 10 + set(at)));
            let lock = model.lock("a").map(|lock| lock.waited_ns(model.now_ns()));
            let age = model.blocked_task(7).map(|one| one.age_ns(model.now_ns()));
            seen.push((model.now_ns(), age, lock, model.waits().len()));
        }
        seen
    };
    let undisturbed = run(&|_| 10 * YEAR);
    assert_eq!(run(&|at| steps[at]), undisturbed);
    assert_eq!(undisturbed[4].1, Some(5 * SECOND + SECOND / 10));
}
