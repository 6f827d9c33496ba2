//! Two threads that wait for each other: before observer came, and while it watches.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{
    Observer, Workload, alone,
    event::{number, of},
    in_both_modes, name,
};

/// The first `blocked` event of both threads, once there is one of each.
fn both(events: &[Value], workload: &Workload) -> Option<BTreeMap<&'static str, Value>> {
    let first = |name| {
        let tid = workload.tid(name);
        let event = of(events, "blocked").find(|event| event["task"]["tid"] == tid)?;
        Some((name, event.clone()))
    };
    ["ab", "ba"].into_iter().map(first).collect()
}

/// Each waits for the lock that the other holds.
fn assert_crossed(blocked: &BTreeMap<&'static str, Value>, workload: &Workload, older: bool) {
    for (thread, lock) in [("ab", "second"), ("ba", "first")] {
        let event = &blocked[thread];
        assert_eq!(event["lock"]["addr"], workload.lock(lock), "{event}");
        assert_eq!(event["kind"], "futex", "{event}");
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
                let events = of(events, "blocked").filter(|event| event["task"]["tid"] == tid);
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
