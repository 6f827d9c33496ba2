//! Two threads that wait for each other: before observer came, and while it watches.

use std::collections::BTreeMap;

use observer::time::mono_ns;
use serde_json::Value;

use crate::harness::{
    Mode, Observer, Workload, alone,
    event::{number, of},
    in_both_modes, name,
};

/// The first `blocked` event of both threads, once there is one of each.
fn both(events: &[Value], workload: &Workload) -> Option<BTreeMap<&'static str, Value>> {
    let first = |name| {
        let tid = workload.tid(name);
        // Before, they wait on a pipe for the word to begin.
        let in_futex = |event: &&Value| event["task"]["tid"] == tid && event["syscall"] == "futex";
        let event = of(events, "blocked").find(in_futex)?;
        Some((name, event.clone()))
    };
    ["ab", "ba"].into_iter().map(first).collect()
}

/// Each waits for the lock that the other holds.
fn assert_crossed(blocked: &BTreeMap<&'static str, Value>, workload: &Workload, older: bool) {
    for (thread, lock) in [("ab", "second"), ("ba", "first")] {
        let event = &blocked[thread];
        assert_eq!(event["lock"]["addr"], workload.lock(lock), "{event}");
        // Told by a look at the thread, for which there may be no time at first.
        let kind = event["kind"].as_str().unwrap();
        assert!(["lock", "futex"].contains(&kind), "{event}");
        assert_eq!(event["syscall"], "futex", "{event}");
        assert_eq!(event["task"]["comm"], thread, "{event}");
        assert_eq!(event["task"]["pid"], workload.pid(), "{event}");
        let at_least = older.then_some(&Value::Bool(true));
        assert_eq!(event.get("at_least"), at_least, "{event}");
    }
}

#[test]
fn older_than_observer() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let mut workload = Workload::start(&["deadlock"])?;
            let observer = Observer::of(mode, &workload, &["--long-wait", "100ms"]);
            let blocked = observer.wait_for("both threads", |events| both(events, &workload));
            assert_crossed(&blocked, &workload, true);
            workload.finish();
            observer.target_ended().assert_complete();
            Ok(())
        })
    });
}

#[test]
fn an_age_from_before() {
    alone(name!(), || {
        let spawned = mono_ns();
        let mut workload = Workload::start(&["deadlock"])?;
        // Both threads wait by now. Time has to pass, for there to be an age.
        let ready = mono_ns();
        while mono_ns() < ready + 1_500_000_000 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let observer = Observer::of(Mode::Sched, &workload, &["--long-wait", "100ms"]);
        let blocked = observer.wait_for("both threads", |events| both(events, &workload));
        for event in blocked.values() {
            let start = number(event, "mono_ns") - number(event, "age_ns");
            assert!(start > spawned && start < ready + 100_000_000, "{event}");
        }
        workload.finish();
        observer.target_ended();
        Ok(())
    });
}

#[test]
fn told_as_a_circle_with_holders() {
    alone(name!(), || {
        let mut workload = Workload::start(&["deadlock"])?;
        let observer = Observer::of(Mode::Sched, &workload, &[]);
        let circle = observer.wait_for("the deadlock", |events| {
            of(events, "deadlock").next().cloned()
        });
        let tasks = circle["tasks"].as_array().unwrap();
        assert_eq!(tasks.len(), 2, "{circle}");
        for (thread, other, lock) in [("ab", "ba", "second"), ("ba", "ab", "first")] {
            let task = tasks
                .iter()
                .find(|task| task["task"]["tid"] == workload.tid(thread))
                .unwrap();
            assert_eq!(task["waits_for"], workload.tid(other), "{circle}");
            assert_eq!(task["confidence"], "exact", "{circle}");
            assert_eq!(task["lock"]["addr"], workload.lock(lock), "{circle}");
            assert_eq!(task["lock"]["class"], "pthread_mutex", "{circle}");
            assert_eq!(task["stack"]["end"], "root", "{circle}");
        }
        workload.finish();
        let run = observer.target_ended();
        assert_eq!(of(&run.events, "deadlock").count(), 1);
        let rules: Vec<_> = of(&run.events, "finding")
            .map(|found| &found["rule"])
            .collect();
        assert_eq!(rules, ["deadlock"]);
        run.assert_complete();
        Ok(())
    });
}

#[test]
fn while_observed() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let mut workload = Workload::start(&["deadlock", "--wait-go"])?;
            let observer = Observer::of(mode, &workload, &["--long-wait", "100ms"]);
            workload.go();
            let formed = number(&workload.next("formed"), "formed_ns");
            let blocked = observer.wait_for("both threads", |events| both(events, &workload));
            assert_crossed(&blocked, &workload, false);
            for event in blocked.values() {
                // The age is counted from the wait's own start, before the workload saw it.
                let start = number(event, "mono_ns") - number(event, "age_ns");
                assert!(start <= formed, "{event} formed {formed}");
            }
            // Told again when twice as old, and never more often.
            let ages = |events: &[Value], tid: u64| -> Vec<u64> {
                let in_futex =
                    |event: &&Value| event["task"]["tid"] == tid && event["syscall"] == "futex";
                let events = of(events, "blocked").filter(in_futex);
                events.map(|event| number(event, "age_ns")).collect()
            };
            let tid = workload.tid("ab");
            observer.wait_until("the third report", |events| ages(events, tid).len() >= 3);
            workload.finish();
            let run = observer.target_ended();
            let ages = ages(&run.events, tid);
            assert!(ages[0] >= 100_000_000, "{ages:?}");
            assert!(ages.windows(2).all(|two| two[1] >= 2 * two[0]), "{ages:?}");
            Ok(())
        })
    });
}
