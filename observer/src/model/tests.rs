//! The model, from tables of events.

use super::*;
use crate::{
    event::{Addr, Kind, LockClass, LockRef, TaskRef},
    time::WallTime,
};

fn task(tid: u32) -> TaskRef {
    TaskRef {
        pid: 1,
        tid,
        comm: Some("worker".into()),
        process: Some("server".into()),
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
    Event::Blocked(Blocked {
        time: WallTime(at_ns),
        mono_ns: at_ns,
        task: task(tid),
        kind: Kind::Futex,
        age_ns,
        blocked_ns: None,
        runqueue_ns: None,
        lock: Some(lock_ref(lock)),
        locks: Vec::new(),
        syscall: Some("futex".into()),
        stack: None,
        at_least: false,
    })
}

fn wait(tid: u32, end_ns: u64, dur_ns: u64) -> Event {
    Event::Wait(Wait {
        time: WallTime(end_ns),
        mono_ns: end_ns,
        task: task(tid),
        kind: Kind::Futex,
        dur_ns,
        blocked_ns: Some(dur_ns),
        runqueue_ns: Some(0),
        outcome: None,
        lock: Some(lock_ref("a")),
        locks: Vec::new(),
        waker: None,
        syscall: None,
        stack: None,
        at_least: false,
        end_unseen: false,
    })
}

fn totals(id: &str, at_ns: u64, waits: u64) -> Event {
    Event::Lock(LockTotals {
        time: WallTime(at_ns),
        mono_ns: at_ns,
        lock: lock_ref(id),
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
