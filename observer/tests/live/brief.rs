//! Threads and processes that come and go by the thousand, and numbers that are given out again.

use crate::harness::{
    Mode, Observer, Run, Tested, Workload, alone,
    event::{number, of},
    name,
};

/// So many are made: some three seconds' worth.
const MADE: u64 = 3_000;
/// What observer's memory may grow by meanwhile: what it reads of the files of the first ones it looks at, and far
/// less than it were if something stayed of each.
const GROWTH: u64 = 128 << 20;

/// Memory is bounded, and what is lost is counted.
fn assert_bounded(run: &Run) {
    let first = of(&run.events, "cost").next().expect("a cost event");
    let (before, after) = (number(first, "rss_bytes"), number(run.end(), "rss_bytes"));
    assert!(
        after <= before + GROWTH,
        "memory grew from {before} to {after}"
    );
    let counters = run.loss()["counters"].as_object().unwrap();
    let known = ["stacks_skipped", "end_inferred"];
    let lost = counters
        .iter()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .filter_map(|(_, count)| count.as_u64());
    assert_eq!(number(run.loss(), "total"), lost.sum::<u64>());
}

fn thousands(more: &[&str]) -> Tested {
    let rounds = MADE.to_string();
    let mut workload =
        Workload::start(&[&["brood", "--wait-go", "--rounds", &rounds], more].concat())?;
    let args = ["--comm", "brood", "--interval", "200ms"];
    let observer = Observer::trace(Mode::Sched, &args);
    workload.go();
    let truth = workload.truth();
    assert_eq!(truth["made"], MADE);
    let end = number(&truth, "end_ns");
    observer.wait_until("totals after the end", |events| {
        let last = of(events, "cost").last();
        last.is_some_and(|cost| number(cost, "mono_ns") > end + 500_000_000)
    });
    let run = observer.stop();
    assert_bounded(&run);
    // Each of them slept once. Who came and went between two readings is counted all the same.
    let slept: u64 = of(&run.events, "task")
        .filter_map(|task| task["kinds"]["sleep"]["waits"].as_u64())
        .sum();
    let lost = number(run.loss(), "total");
    assert!(
        slept + lost >= MADE * 95 / 100,
        "{slept} slept, {lost} lost, of {MADE}"
    );
    Ok(())
}

#[test]
fn a_thousand_threads_a_second() {
    alone(name!(), || thousands(&[]));
}

#[test]
fn a_thousand_processes_a_second() {
    alone(name!(), || thousands(&["--processes"]));
}

/// Two processes of the same number, the first of which was killed in its wait: the second one's wait is its own.
#[test]
fn a_number_given_out_again() {
    alone(name!(), || {
        let mut workload = Workload::start(&["heir", "--wait-go", "--ms", "1500"])?;
        let args = ["--comm", "heir", "--long-wait", "100ms"];
        let observer = Observer::trace(Mode::Sched, &args);
        workload.go();
        let truth = workload.truth();
        let run = observer.stop();
        let children = ["child-0", "child-1"].map(|name| &truth[name]);
        assert_eq!(children[0]["pid"], children[1]["pid"]);
        for (place, child) in children.into_iter().enumerate() {
            let word = workload.lock(&format!("word-{place}"));
            let blocked: Vec<_> = of(&run.events, "blocked")
                .filter(|event| event["task"]["tid"] == child["pid"])
                .filter(|event| event["lock"]["addr"] == word)
                .collect();
            assert!(!blocked.is_empty(), "{child}");
            for event in blocked {
                let (at, age) = (number(event, "mono_ns"), number(event, "age_ns"));
                // The wait began a little before the child was seen to sleep.
                let from = number(child, "from_ns") - 100_000_000;
                assert!(at - age >= from, "older than the child: {event}");
                assert!(at <= number(child, "to_ns") + 100_000_000, "{event}");
            }
        }
        Ok(())
    });
}
