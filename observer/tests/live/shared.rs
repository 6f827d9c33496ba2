//! One futex in the memory of two processes.

use serde_json::Value;

use crate::harness::{
    Observer, Workload, alone, assert_close_around,
    event::{assert_count, number, of, sum, waits_on},
    in_both_modes, name,
};

#[test]
fn one_lock_in_two_processes() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let mut workload = Workload::start(&["shared", "--wait-go", "--ms", "20"])?;
            let child = workload.ready()["pids"]["child"].to_string();
            // A short wait is one as well: the totals are to be those of all.
            let args = ["-p", &child, "--min-wait", "0", "--interval", "100ms"];
            let observer = Observer::of(mode, &workload, &args);
            workload.go();
            let waits =
                |events: &[_], who| waits_on(events, workload.tid(who), workload.lock(who)).count();
            observer.wait_until("waits of both processes", |events| {
                waits(events, "parent") >= 20 && waits(events, "child") >= 20
            });
            let both = ["parent", "child"]
                .map(|who| (who, workload.tid(who), workload.lock(who).to_owned()));
            let inode = workload.ready()["inode"].to_string();
            let truth = workload.finish();
            let run = observer.target_ended();

            let mut ids = Vec::new();
            let mut total = 0;
            for (who, tid, addr) in &both {
                let waits: Vec<_> = waits_on(&run.events, *tid, addr).collect();
                let truth = &truth["threads"][*who];
                assert_count(who, waits.len() as u64, number(truth, "woken"));
                let time = sum(waits.iter().copied(), "dur_ns");
                assert_close_around(who, time, number(truth, "sum_ns"), waits.len());
                total += waits.len() as u64;
                for wait in waits {
                    assert_eq!(wait["lock"]["shared"], true, "{wait}");
                    ids.push(wait["lock"]["id"].as_str().unwrap());
                }
            }
            assert_ne!(both[0].2, both[1].2, "the addresses are to differ");
            ids.dedup();
            assert_eq!(ids.len(), 1, "one lock, one identity: {ids:?}");
            // Device, inode and offset.
            assert!(ids[0].ends_with(&format!(":{inode}+0x40")), "{}", ids[0]);
            let lines = || of(&run.events, "lock").filter(|lock| lock["lock"]["id"] == ids[0]);
            let last = lines().last().expect("the lock's totals");
            assert_eq!(number(last, "waits"), total, "{last}");
            let at = |lock: &&Value| lock["mono_ns"] == last["mono_ns"];
            assert_eq!(lines().filter(at).count(), 1, "one line each time");
            run.assert_complete();
            Ok(())
        })
    });
}
