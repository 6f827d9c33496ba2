//! How fast a recording is read into model and rules, on all CPUs and on one; `cargo xtask bench --only replay` runs it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::Result;

use super::{Limits, Replay, Writer, tests::Folder};
use crate::{
    event::{
        Addr, Cost, CostReport, Event, Frame, Kind, LockClass, LockRef, Outcome, Stack, TaskRef,
        Wait, Waker,
    },
    rules::testing::{NOW, SECOND},
    time::WallTime,
};

const EVENTS: u32 = 600_000;
/// One in so many waits has a stack, which is what the budget of a busy host leaves.
const STACK: u32 = 100;
/// The best of these counts: others of the host only make it slower.
const RUNS: usize = 5;

/// Everything that this process does from here on it does on one CPU.
fn on_one_cpu() {
    // SAFETY: a set of bits, for which zeros are the empty one; the calls are given it, on the stack, and its size;
    // the CPU is that on which this runs, so it is in range.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    assert_eq!(done, 0);
}

/// So many frames of a stack.
fn frames(count: u64) -> Arc<[Frame]> {
    let frame = |at: u64| Frame {
        addr: Addr(0x7f1c_c54e_8000 + at),
        name: Some(format!("function_{at}").into()),
        offset: Some(at),
        module: Some("/usr/lib/x86_64-linux-gnu/libc.so.6".into()),
        ..Frame::default()
    };
    (0..count).map(frame).collect()
}

/// What most recordings are made of: waits of some tasks for some locks and for a CPU.
fn wait(i: u32) -> Event {
    let tid = 100 + i % 64;
    let mono_ns = NOW + u64::from(i) * 1_000;
    let task = |tid: u32| TaskRef {
        comm: Some(format!("worker-{tid}").into()),
        process: Some("server".into()),
        ..TaskRef::new(100, tid)
    };
    let addr = 0x55f3_7292_3000 + u64::from(i % 32) * 0x40;
    let for_lock = !i.is_multiple_of(3);
    Event::from(Wait {
        time: WallTime(1_790_000_000 * SECOND + mono_ns),
        mono_ns,
        task: task(tid).into(),
        kind: if for_lock { Kind::Lock } else { Kind::Runqueue },
        dur_ns: 37_000 + u64::from(i % 1_000),
        blocked_ns: Some(37_000),
        runqueue_ns: Some(u64::from(i % 1_000)),
        outcome: for_lock.then_some(Outcome::Woken),
        lock: for_lock.then(|| {
            Arc::new(LockRef {
                id: format!("100:{addr:#x}").into(),
                class: LockClass::PthreadMutex,
                name: None,
                addr: Addr(addr),
                shared: false,
            })
        }),
        locks: Vec::new(),
        mode: None,
        holder: None,
        causes: BTreeMap::new(),
        waker: for_lock.then(|| {
            Arc::new(Waker {
                pid: 100,
                tid: 100 + (i + 1) % 64,
                comm: Some(format!("worker-{}", 100 + (i + 1) % 64).into()),
                goid: None,
            })
        }),
        syscall: for_lock.then(|| "futex".into()),
        probe: None,
        ended_by: None,
        stack: i.is_multiple_of(STACK).then(|| {
            Box::new(Stack {
                user: frames(6),
                kernel: frames(7),
                end: None,
            })
        }),
        at_least: false,
        end_unseen: false,
    })
}

fn waits() -> Vec<Event> {
    let second = |i: u32| {
        Event::from(CostReport {
            time: WallTime(NOW),
            mono_ns: NOW + u64::from(i) * 1_000,
            cost: Cost::default(),
        })
    };
    let all = 0..EVENTS;
    all.flat_map(|i| [Some(wait(i)), (i % 50_000 == 0).then(|| second(i))])
        .flatten()
        .collect()
}

/// Events a second, from a file of this name.
fn rate(events: &[Event], name: &str) -> Result<f64> {
    let folder = Folder::new();
    let path = folder.file(name);
    let mut writer = Writer::create(&path, false, Limits::default())?;
    for event in events {
        writer.write(event)?;
    }
    writer.flush()?;
    let mut best = 0.0_f64;
    for _ in 0..RUNS {
        let began = Instant::now();
        let mut replay = Replay::open(&path)?;
        replay.finish(&mut |_| {})?;
        best = best.max(replay.events() as f64 / began.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[test]
fn speed() {
    let waits = waits();
    let both = |cpus: &str| {
        for (what, name) in [("plain", "a.jsonl"), ("compressed", "a.jsonl.zst")] {
            let rate = rate(&waits, name).unwrap();
            println!("waits, {what}, {cpus}: {rate:.0} events/s");
        }
    };
    both("all CPUs");
    on_one_cpu();
    both("one CPU");
    drop(waits);
    let none_twice = rate(&super::tests::events(EVENTS / 2), "a.jsonl.zst").unwrap();
    println!("no task or lock twice: {none_twice:.0} events/s");
}
