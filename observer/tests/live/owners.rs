//! Locks that go from hand to hand while others sleep on: an event names nobody `exact` who has given the lock on.

use std::collections::HashMap;

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Workload, alone,
    event::{number, of},
    name,
};

/// More locks than are looked at again and again.
const LOCKS: u64 = 20;
const THREADS: u64 = 4;

/// When each thread gave its lock on.
fn given_on(truth: &Value, workload: &Workload) -> HashMap<u64, u64> {
    let threads = truth["threads"].as_object().unwrap();
    threads
        .iter()
        .map(|(name, thread)| (workload.tid(name), number(thread, "to_ns")))
        .collect()
}

#[test]
fn no_owner_of_a_while_ago() {
    alone(name!(), || {
        let (locks, threads) = (LOCKS.to_string(), THREADS.to_string());
        let options = ["--locks", &locks, "--threads", &threads, "--ms", "1000"];
        let mut workload =
            Workload::start(&[&["handover", "--wait-go"][..], &options[..]].concat())?;
        // Reports at 250 ms and at each doubling, totals all the time: hand-overs lie between.
        let args = ["--long-wait", "250ms", "--interval", "70ms"];
        let observer = Observer::of(Mode::Sched, &workload, &args);
        workload.go();
        let truth = workload.truth();
        let run = observer.target_ended();

        let given_on = given_on(&truth, &workload);
        let mut exact: HashMap<&str, u64> = HashMap::new();
        for kind in ["blocked", "lock"] {
            for event in of(&run.events, kind) {
                let holder = &event["holder"];
                if holder["confidence"] != "exact" {
                    continue;
                }
                let until = given_on[&number(holder, "tid")];
                // It held the lock when the event was made, or after.
                let at = number(event, "mono_ns");
                assert!(
                    until >= at,
                    "given on {} ns before: {event}",
                    at.saturating_sub(until)
                );
                *exact.entry(kind).or_default() += 1;
            }
        }
        // And it is not for want of trying.
        for kind in ["blocked", "lock"] {
            let count = exact.get(kind).copied().unwrap_or(0);
            assert!(count > 0, "no exact holder in {kind} events");
        }
        Ok(())
    });
}
