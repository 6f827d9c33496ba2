//! Each way to wait for a futex, and each way for such a wait to end.

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Run, Skip, Tested, Workload, alone, assert_close_around,
    event::{assert_count, last_lock, number, of, sum, waits_of, waits_on},
    in_both_modes, name,
};

/// Runs a workload until this many waits of a thread have been seen. Every wait is reported: the
/// counts can be held against each other exactly.
fn watch(
    mode: Mode,
    program: &[&str],
    thread: &str,
    waits: usize,
) -> Result<(Workload, Value, Run), Skip> {
    let mut workload = Workload::start(&[program, &["--wait-go"]].concat())?;
    let observer = Observer::of(mode, &workload, &["--min-wait", "0"]);
    let tid = workload.tid(thread);
    workload.go();
    observer.wait_until("enough waits", |events| {
        futex_waits(events, tid).count() >= waits
    });
    let truth = workload.finish();
    let truth = truth["threads"][thread].clone();
    let run = observer.target_ended();
    run.assert_complete();
    Ok((workload, truth, run))
}

fn futex_waits(events: &[Value], tid: u64) -> impl Iterator<Item = &Value> {
    // By the call: a look may have told what sort of futex it is.
    let in_futex = |wait: &&Value| {
        let call = wait["syscall"].as_str();
        call.is_some_and(|call| call.starts_with("futex"))
    };
    waits_of(events, tid).filter(in_futex)
}

fn with_outcome(events: &[Value], tid: u64, outcome: &str) -> u64 {
    let waits = futex_waits(events, tid);
    waits.filter(|wait| wait["outcome"] == outcome).count() as u64
}

#[test]
fn timed_out() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let (workload, truth, run) = watch(mode, &["timedwait"], "timed", 50)?;
            let tid = workload.tid("timed");
            let cond = workload.lock("cond");
            let cond = u64::from_str_radix(cond.trim_start_matches("0x"), 16).unwrap();
            let waits: Vec<_> = futex_waits(&run.events, tid).collect();
            assert_count("waits", waits.len() as u64, number(&truth, "timed_out"));
            for wait in &waits {
                // An interrupt inside another task's futex call leaves open what it was.
                assert!(
                    wait.get("outcome").is_none_or(|it| it == "timeout"),
                    "{wait}"
                );
                assert_eq!(wait.get("waker"), None, "{wait}");
                let word = wait["lock"]["addr"].as_str().unwrap();
                let word = u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
                assert!((cond..cond + 48).contains(&word), "{wait}");
            }
            let total = sum(waits.iter().copied(), "dur_ns");
            assert_close_around("time waited", total, number(&truth, "sum_ns"), waits.len());
            let timeouts = sum(totals(&run, &waits).into_iter(), "timeouts");
            assert_count("timeouts", timeouts, waits.len() as u64);
            Ok(())
        })
    });
}

/// The last totals of each lock that was waited for: a condition variable has two words.
fn totals<'a>(run: &'a Run, waits: &[&Value]) -> Vec<&'a Value> {
    let mut words: Vec<_> = waits.iter().map(|wait| &wait["lock"]["addr"]).collect();
    words.sort_by_key(|word| word.as_str());
    words.dedup();
    let words = words.into_iter().filter_map(Value::as_str);
    words
        .filter_map(|word| last_lock(&run.events, word))
        .collect()
}

#[test]
fn interrupted() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let (workload, truth, run) = watch(mode, &["interrupted"], "sleeper", 50)?;
            let tid = workload.tid("sleeper");
            let count = |outcome| with_outcome(&run.events, tid, outcome);
            let waits = futex_waits(&run.events, tid).count() as u64;
            assert_count("waits", waits, number(&truth, "calls"));
            assert_count(
                "interrupted",
                count("interrupted"),
                number(&truth, "interrupted"),
            );
            // The last one may be ended by a signal and by the wake-up, both before it runs.
            assert_count("woken", count("woken"), number(&truth, "woken"));
            let totals = last_lock(&run.events, workload.lock("word")).unwrap();
            assert_eq!(number(totals, "interrupted"), count("interrupted"));
            Ok(())
        })
    });
}

#[test]
fn bitset() {
    alone(name!(), || woken("bitset", "futex"));
}

#[test]
fn futex_wait_call() {
    alone(name!(), || woken("futexwait2", "futex_wait"));
}

fn woken(program: &str, syscall: &str) -> Tested {
    in_both_modes(|mode| {
        let (workload, truth, run) = watch(mode, &[program], "waiter", 50)?;
        let (tid, word) = (workload.tid("waiter"), workload.lock("word"));
        let waits: Vec<_> = waits_on(&run.events, tid, word).collect();
        assert_count("waits", waits.len() as u64, number(&truth, "woken"));
        for wait in &waits {
            assert_eq!(wait["outcome"], "woken", "{wait}");
            assert_eq!(wait["waker"]["tid"], workload.tid("waker"), "{wait}");
            assert_eq!(wait["syscall"], syscall, "{wait}");
        }
        let total = sum(waits.iter().copied(), "dur_ns");
        assert_close_around("time waited", total, number(&truth, "sum_ns"), waits.len());
        let totals = last_lock(&run.events, word).unwrap();
        assert_eq!(number(totals, "waits"), waits.len() as u64);
        Ok(())
    })
}

#[test]
fn waitv() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let (workload, truth, run) = watch(mode, &["waitv"], "waiter", 50)?;
            let (tid, waker) = (workload.tid("waiter"), workload.tid("waker"));
            let words = ["first", "second", "third"].map(|name| workload.lock(name));
            let waits: Vec<_> = futex_waits(&run.events, tid).collect();
            assert_count("waits", waits.len() as u64, number(&truth, "woken"));
            for wait in &waits {
                let locks = wait["locks"].as_array().expect("all locks of the wait");
                let addrs: Vec<_> = locks.iter().map(|lock| &lock["addr"]).collect();
                assert_eq!(addrs, words, "{wait}");
                assert_eq!(wait["outcome"], "woken", "{wait}");
                assert_eq!(wait["waker"]["tid"], waker, "{wait}");
                assert_eq!(wait["syscall"], "futex_waitv", "{wait}");
                match mode {
                    // The return code says which.
                    Mode::Tracepoint => assert_eq!(wait["lock"]["addr"], words[1], "{wait}"),
                    Mode::Sched => assert_eq!(wait.get("lock"), None, "{wait}"),
                }
            }
            let total = sum(waits.iter().copied(), "dur_ns");
            assert_close_around("time waited", total, number(&truth, "sum_ns"), waits.len());
            Ok(())
        })
    });
}

#[test]
fn calls_that_do_not_wait() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let rounds = ["wouldblock", "--wait-go", "--rounds", "200000"];
            let mut workload = Workload::start(&rounds)?;
            let every = ["--min-wait", "0", "--interval", "50ms"];
            let observer = Observer::of(mode, &workload, &every);
            workload.go();
            let truth = workload.truth();
            assert_eq!(truth["threads"]["caller"]["would_block"], 200_000);
            let run = observer.target_ended();
            let caller = workload.tid("caller");
            let wait = futex_waits(&run.events, caller).next();
            assert_eq!(wait, None, "a wait where there was none");
            let lock = last_lock(&run.events, workload.lock("word"));
            assert_eq!(lock, None, "totals of a lock that nobody waited for");
            let mut tasks = of(&run.events, "task").filter(|task| task["task"]["tid"] == caller);
            assert!(tasks.all(|task| task["kinds"].get("futex").is_none()));
            run.assert_complete();
            Ok(())
        })
    });
}
