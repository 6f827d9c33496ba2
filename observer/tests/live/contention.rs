//! A holder and a waiter on one mutex, ordinary and with priority inheritance.

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Tested, Workload, alone, assert_close, assert_same_but_for_the_edge,
    event::{last_lock, number, of, sum, waits_on},
    in_both_modes, name,
};

/// The lock is held long enough for the waiter to find it taken, and left free long enough for the
/// waiter to get it before the holder does.
const PACE: [&str; 4] = ["--hold-ms", "12", "--free-us", "4000"];
const LONG_WAITS: usize = 100;

#[test]
fn mutex() {
    alone(name!(), || contended("mutex", "futex", "futex"));
}

#[test]
fn priority_inheritance() {
    alone(name!(), || contended("pi", "lock", "futex_pi"));
}

fn contended(program: &str, kind: &str, class: &str) -> Tested {
    in_both_modes(|mode| {
        let mut workload = Workload::start(&[&[program, "--wait-go"], &PACE[..]].concat())?;
        let observer = Observer::of(mode, &workload, &[]);
        let (waiter, holder) = (workload.tid("waiter"), workload.tid("holder"));
        let lock = workload.lock("lock").to_owned();
        workload.go();
        observer.wait_until("a hundred long waits", |events| {
            waits_on(events, waiter, &lock).count() >= LONG_WAITS
        });
        let truth = workload.finish();
        let truth = &truth["threads"]["waiter"];
        let run = observer.target_ended();

        let waits: Vec<_> = waits_on(&run.events, waiter, &lock).collect();
        let observed = waits.len() as u64;
        assert_same_but_for_the_edge("waits", observed, number(truth, "long_calls"));
        let total = sum(waits.iter().copied(), "dur_ns");
        assert_close("time waited", total, number(truth, "long_sum_ns"));
        for wait in &waits {
            // A look may have told that it is a mutex.
            if wait["lock"]["class"] != "pthread_mutex" {
                assert_eq!(wait["kind"], kind, "{wait}");
                assert_eq!(wait["lock"]["class"], class, "{wait}");
            }
            assert_eq!(wait["lock"]["shared"], false, "{wait}");
            assert_eq!(wait["outcome"], "woken", "{wait}");
            assert_eq!(wait["waker"]["tid"], holder, "{wait}");
            assert_eq!(wait["waker"]["comm"], "holder", "{wait}");
            assert_eq!(wait["task"]["comm"], "waiter", "{wait}");
            assert_eq!(wait["task"]["pid"], workload.pid(), "{wait}");
            assert_eq!(wait["syscall"], "futex", "{wait}");
            let parts = number(wait, "blocked_ns") + number(wait, "runqueue_ns");
            assert_eq!(parts, number(wait, "dur_ns"), "{wait}");
        }
        let totals = last_lock(&run.events, &lock).expect("the lock's totals");
        assert!(number(totals, "waits") >= observed, "{totals}");
        assert_close(
            "the lock's total",
            number(totals, "total_ns"),
            number(truth, "sum_ns"),
        );
        run.assert_complete();
        Ok(())
    })
}

/// A long wait is split among what its holder did meanwhile.
#[test]
fn what_a_long_wait_was_spent_on() {
    alone(name!(), || {
        let mut workload = Workload::start(&["mutex", "--hold-ms", "900"])?;
        let observer = Observer::of(Mode::Sched, &workload, &["--min-wait", "100ms"]);
        let split = observer.wait_for("a wait with its parts", |events| {
            let mut waits = of(events, "wait");
            let is_split = |wait: &&Value| wait["causes"]["holder_asleep"].is_u64();
            waits.find(is_split).cloned()
        });
        let parts = split["causes"].as_object().unwrap();
        let sum: u64 = parts.values().map(|ns| ns.as_u64().unwrap()).sum();
        assert_eq!(sum, number(&split, "dur_ns"), "{split}");
        assert_eq!(split["holder"]["tid"], workload.tid("holder"), "{split}");
        assert_eq!(split["holder"]["confidence"], "exact", "{split}");
        workload.finish();
        observer.target_ended().assert_complete();
        Ok(())
    });
}
