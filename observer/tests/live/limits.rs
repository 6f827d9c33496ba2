//! Loads that are greater than the tables: counted and told, and nothing else is lost.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Run, Skip, Tested, Workload, alone,
    event::{last_lock, number, of},
    in_both_modes, kernel_at_least, name,
};

/// The readings of one counter of losses, in order.
fn readings(run: &Run, counter: &str) -> Vec<u64> {
    let losses = of(&run.events, "loss");
    losses
        .map(|loss| number(&loss["counters"], counter))
        .collect()
}

fn assert_only_grows(readings: &[u64]) {
    assert!(readings.is_sorted(), "{readings:?}");
}

#[test]
fn a_ring_buffer_too_small() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let rounds = ["storm", "--wait-go", "--rounds", "20000"];
            let mut workload = Workload::start(&rounds)?;
            let small = ["--ring-kib", "4", "--min-wait", "0", "--interval", "50ms"];
            let observer = Observer::of(mode, &workload, &small);
            workload.go();
            let truth = workload.truth();
            let run = observer.target_ended();

            let lost = readings(&run, "ring_full");
            assert_only_grows(&lost);
            assert!(*lost.last().unwrap() > 0, "{}", run.loss());
            let total = number(run.loss(), "total");
            assert_eq!(total, *lost.last().unwrap(), "{}", run.loss());

            let address = workload.lock("lock-0");
            let lock = last_lock(&run.events, address).expect("the lock's totals");
            let waits = number(lock, "waits");
            let told = of(&run.events, "wait").filter(|wait| wait["lock"]["addr"] == address);
            let (told, lost) = (told.count() as u64, *lost.last().unwrap());
            assert!(
                told < waits && waits <= told + lost,
                "{told} {waits} {lost}"
            );
            // A call that was woken before it slept is none of observer's waits.
            let threads = truth["threads"].as_object().unwrap();
            let woken: u64 = threads.values().map(|thread| number(thread, "woken")).sum();
            assert!(waits <= woken, "observed {waits}, measured {woken}");
            assert!(
                waits * 100 >= woken * 99,
                "observed {waits}, measured {woken}"
            );
            Ok(())
        })
    });
}

/// Every wait streamed for seconds: what is told is in order, no time is negative, and the rest is counted.
#[test]
fn a_flood() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let program = ["storm", "--wait-go", "--threads", "8", "--for", "4"];
            let mut workload = Workload::start(&program)?;
            let flood = [
                "--min-wait",
                "0",
                "--interval",
                "100ms",
                "--max-overhead",
                "none",
            ];
            let observer = Observer::of(mode, &workload, &flood);
            workload.go();
            workload.truth();
            let run = observer.target_ended();
            let first = number(&run.events[0], "mono_ns");
            let last = number(run.end(), "mono_ns");
            let mut told = 0;
            for wait in of(&run.events, "wait") {
                let (end, dur) = (number(wait, "mono_ns"), number(wait, "dur_ns"));
                // A time that went backwards would be a very great number.
                assert!(end <= last && dur <= last - first, "{wait}");
                let parts = ["blocked_ns", "runqueue_ns"].map(|name| wait[name].as_u64());
                if let [Some(blocked), Some(runqueue)] = parts {
                    assert_eq!(blocked + runqueue, dur, "{wait}");
                }
                told += u64::from(wait["lock"]["addr"] == workload.lock("lock-0"));
            }
            let waits = last_lock(&run.events, workload.lock("lock-0")).expect("its totals");
            let (waits, lost) = (number(waits, "waits"), number(run.loss(), "total"));
            assert!(told > 1_000, "no flood: {told}");
            assert!(
                told <= waits && waits <= told + lost,
                "told {told}, lost {lost}, of {waits}"
            );
            assert_eq!(run.loss()["counters"]["clock_backwards"], 0);
            // The tables, and what is on its way: nothing grows with the count of waits.
            let rss = number(run.end(), "rss_bytes");
            assert!(rss < 256 << 20, "{rss} bytes");
            Ok(())
        })
    });
}

#[test]
fn more_locks_than_slots() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let program = ["storm", "--wait-go", "--locks", "1000", "--threads", "8"];
            let mut workload = Workload::start(&program)?;
            let small = [
                "--lock-slots",
                "64",
                "--min-wait",
                "10ms",
                "--interval",
                "50ms",
            ];
            let observer = Observer::of(mode, &workload, &small);
            workload.go();
            let count = |loss: &Value, name| number(&loss["counters"], name);
            observer.wait_until("the loss to be told", |events| {
                of(events, "loss")
                    .any(|loss| count(loss, "locks_full") > 0 || count(loss, "locks_evicted") > 0)
            });
            workload.finish();
            let run = observer.target_ended();
            assert_eq!(run.events[0]["capture"]["lock_slots"], 64);
            for counter in ["locks_full", "locks_evicted"] {
                assert_only_grows(&readings(&run, counter));
            }
            let others = run.loss()["counters"].as_object().unwrap();
            for (name, count) in others {
                // The last two are no losses.
                let expected = [
                    "locks_full",
                    "locks_evicted",
                    "lock_insert",
                    "end_inferred",
                    "stacks_skipped",
                ];
                assert!(
                    expected.contains(&name.as_str()) || *count == 0,
                    "{}",
                    run.loss()
                );
            }
            // What is not known of the locks is known of the tasks.
            let waits: u64 = of(&run.events, "task")
                .filter_map(|task| task["kinds"]["futex"]["waits"].as_u64())
                .max()
                .unwrap_or(0);
            assert!(waits > 0);
            Ok(())
        })
    });
}

/// A pool of threads greater than what most hosts have.
const THREADS: u64 = 20_000;

#[test]
fn twenty_thousand_threads() {
    alone(name!(), twenty_thousand);
}

fn twenty_thousand() -> Tested {
    for limit in ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"] {
        let allowed: u64 = fs::read_to_string(limit).unwrap().trim().parse().unwrap();
        if allowed < THREADS + 5_000 {
            return Err(Skip(format!(
                "{limit} is {allowed}: too few for {THREADS} threads"
            )));
        }
    }
    if !kernel_at_least(5, 15) {
        return Err(Skip(
            "this kernel does not tell what a sleeping task sleeps in".into(),
        ));
    }
    let count = THREADS.to_string();
    let workload = Workload::start(&["threads", "--threads", &count])?;
    let tids = workload.ready()["tids"].as_object().unwrap().values();
    let tids: BTreeSet<u64> = tids.filter_map(Value::as_u64).collect();
    assert_eq!(tids.len() as u64, THREADS);
    let observer = Observer::of(Mode::Sched, &workload, &["--long-wait", "100ms"]);
    let seen = |events: &[Value]| -> BTreeSet<u64> {
        let blocked = of(events, "blocked").filter(|event| event["kind"] == "futex");
        let tids = blocked.filter_map(|event| event["task"]["tid"].as_u64());
        tids.collect()
    };
    observer.wait_until("all threads", |events| {
        events.len() as u64 > THREADS && seen(events) == tids
    });
    let run = observer.stop();
    assert_eq!(seen(&run.events), tids);
    for event in of(&run.events, "blocked").filter(|event| event["kind"] == "futex") {
        assert_eq!(event["at_least"], true, "{event}");
        let thread = event["task"]["comm"].as_str().unwrap();
        assert_eq!(event["lock"]["addr"], workload.lock(thread), "{event}");
    }
    run.assert_complete();
    Ok(())
}
