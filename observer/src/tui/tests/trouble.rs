//! A service in trouble: two tasks in a circle, a writer that holds what three others wait for, and a pool
//! that merely waits for work.

use std::sync::Arc;

use super::scenes::*;
use crate::{
    event::{
        Addr, Blocked, Caller, Confidence, CostReport, Event, Finding, Frame, Kind, LockClass,
        LockRef, Severity, Stack, StackEnd, Subject, TaskTotals, WaitTotals,
    },
    model::Model,
};

/// When it is looked at.
pub(super) const NOW: u64 = START + 65 * SECOND;

fn frame(name: &str, file: &str, line: u32) -> Frame {
    Frame {
        addr: Addr(0x1000),
        name: Some(name.into()),
        file: Some(file.into()),
        line: Some(line),
        ..Frame::default()
    }
}

fn stack(function: &str) -> Stack {
    Stack {
        user: [
            frame("__lll_lock_wait", "/usr/src/nptl/lowlevellock.c", 49),
            frame(function, "/src/ledger/main.rs", 41),
            frame("ledger::main", "/src/ledger/main.rs", 7),
        ]
        .into(),
        kernel: [Frame {
            name: Some("futex_wait_queue".into()),
            ..Frame::default()
        }]
        .into(),
        end: Some(StackEnd::Root),
    }
}

type Named = (u32, &'static str);

/// A task that waits for a lock that another one holds.
fn held(who: Named, lock: (u64, &str), by: Named, age_s: u64) -> Blocked {
    let mut wait = blocked(NOW, who.0, who.1, Kind::Lock, age_s * SECOND);
    wait.lock = Some(mutex(lock.0, Some(lock.1)));
    let doing = match by.1 {
        "writer" => "in fsync(/data/wal)".to_owned(),
        other => format!("waiting for what {other} wants"),
    };
    wait.holder = Some(Box::new(holder(by.0, by.1, &doing)));
    wait.stack = Some(stack(&format!("ledger::{}", who.1.replace('-', "_"))));
    wait
}

pub(super) fn found(
    at_ns: u64,
    severity: Severity,
    title: &str,
    tids: &[u32],
    locks: &[Arc<LockRef>],
) -> Event {
    let tasks = tids.iter().map(|tid| Subject::Task(task(*tid, "task")));
    let locks = locks.iter().cloned().map(Subject::Lock);
    Event::from(Finding {
        time: wall(at_ns),
        mono_ns: at_ns,
        rule: "some_rule".into(),
        severity,
        title: title.into(),
        evidence: vec!["the lock's owner is recorded in it".into()],
        advice: "Take the locks in one order.".into(),
        subjects: tasks.chain(locks).collect(),
    })
}

/// More and more waits, one point of the history after the other.
fn rising(model: &mut Model) {
    for n in 1..=20u64 {
        let at_ns = NOW + n * 10 * MS;
        let waits = WaitTotals {
            waits: n * n,
            total_ns: n * MS,
            max_ns: MS,
        };
        model.apply(Event::from(TaskTotals {
            time: wall(at_ns),
            mono_ns: at_ns,
            task: task(4303, "client-1"),
            kinds: [(Kind::Lock, waits)].into(),
            runqueue: None,
            estimated: false,
        }));
        model.apply(Event::from(CostReport {
            time: wall(at_ns),
            mono_ns: at_ns,
            cost: model.cost(),
        }));
    }
}

fn findings(model: &mut Model) {
    let past = "deadlock of the past: x ⇄ y";
    let now = "deadlock: transfer-a/4301 ⇄ transfer-b/4302";
    let held = "accounts held by writer/4009 in fsync";
    for (ago_s, severity, title, tids, locks) in [
        (60, Severity::Critical, past, &[1, 2][..], &[][..]),
        (9, Severity::Warning, held, &[4303], &["accounts"]),
        (
            30,
            Severity::Critical,
            now,
            &[4301, 4302],
            &["right", "left"],
        ),
        (2, Severity::Info, "something to know", &[4303], &[]),
    ] {
        let locks: Vec<_> = locks.iter().map(|name| mutex(0xb0, Some(name))).collect();
        model.apply(found(NOW - ago_s * SECOND, severity, title, tids, &locks));
    }
}

pub(super) fn trouble() -> Model {
    let (a, b, client) = (
        (4301, "transfer-a"),
        (4302, "transfer-b"),
        (4303, "client-1"),
    );
    let writer = (4009, "writer");
    let mut model = busy();
    let mut second = held(b, (0xb0, "left"), a, 40);
    if let Some(holder) = &mut second.holder {
        holder.confidence = Confidence::Likely;
    }
    for wait in [
        held(a, (0xb8, "right"), b, 42),
        second,
        held(client, (0xa0, "accounts"), writer, 3),
        held((4304, "client-2"), (0xa0, "accounts"), writer, 2),
        held((4305, "client-3"), (0xa8, "index"), client, 1),
    ] {
        model.apply(Event::from(wait));
    }
    let mut accounts = totals(NOW, 0xa0, Some("accounts"), 900_000);
    Arc::make_mut(&mut accounts.lock).class = LockClass::PthreadMutex;
    accounts.callers = vec![Caller {
        stack: stack("ledger::post"),
        samples: 9,
        total_ns: SECOND,
    }];
    model.apply(Event::from(accounts));
    rising(&mut model);
    let mut ended = wait(NOW - 46 * SECOND, 4301, "transfer-a", 10 * SECOND);
    ended.lock = Some(mutex(0xa0, Some("accounts")));
    ended.holder = Some(Box::new(holder(writer.0, writer.1, "in fsync(/data/wal)")));
    model.apply(Event::from(ended));
    findings(&mut model);
    model
}
