//! Both ways to know a futex wait, held to the same answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Skip, Tested, Workload, assert_close,
    event::{number, of, sum},
    in_both_modes, name, together,
};

/// What is said of waits: thread, kind, outcome, waker.
type Story = [String; 4];
type Stories = BTreeMap<Story, usize>;

/// Runs a workload that waits a fixed number of times, and tells what observer says of its threads'
/// futex waits.
fn stories(mode: Mode, program: &[&str], threads: &[&str]) -> Result<Stories, Skip> {
    let mut workload = Workload::start(&[program, &["--wait-go"]].concat())?;
    let mut args = vec!["--min-wait", "0"];
    let child = workload.ready()["pids"]["child"].to_string();
    if workload.ready().get("pids").is_some() {
        args.extend(["-p", &child]);
    }
    let observer = Observer::of(mode, &workload, &args);
    workload.go();
    let truth = workload.truth();
    let run = observer.target_ended();
    run.assert_complete();
    let mut stories = Stories::new();
    for thread in threads {
        let waits: Vec<_> = of(&run.events, "wait")
            .filter(|wait| wait["task"]["tid"] == workload.tid(thread))
            .filter(|wait| {
                wait["syscall"]
                    .as_str()
                    .is_some_and(|call| call.starts_with("futex"))
            })
            .collect();
        if let Some(truth) = truth["threads"].get(*thread)
            && truth.get("sum_ns").is_some()
        {
            let total = sum(waits.iter().copied(), "dur_ns");
            assert_close(thread, total, number(truth, "sum_ns"));
        }
        for wait in waits {
            *stories.entry(story(wait, &workload)).or_default() += 1;
        }
    }
    Ok(stories)
}

fn story(wait: &Value, workload: &Workload) -> Story {
    let thread = |tid: &Value| {
        let tids = workload.ready()["tids"].as_object().unwrap();
        let name = tids.iter().find(|(_, known)| *known == tid);
        name.map_or_else(|| tid.to_string(), |(name, _)| name.clone())
    };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    [
        thread(&wait["task"]["tid"]),
        text(&wait["kind"]),
        text(&wait["outcome"]),
        thread(&wait["waker"]["tid"]),
    ]
}

/// `expected`: the number of waits of each thread, where the workload fixes it.
fn agree(program: &[&str], threads: &[(&str, Option<usize>)]) -> Tested {
    let names: Vec<_> = threads.iter().map(|(name, _)| *name).collect();
    let mut all: Vec<Stories> = Vec::new();
    in_both_modes(|mode| {
        let stories = stories(mode, program, &names)?;
        for (name, expected) in threads {
            let of_thread = stories.iter().filter(|(story, _)| story[0] == *name);
            let waits: usize = of_thread.map(|(_, count)| count).sum();
            assert!(
                expected.is_none_or(|expected| waits == expected),
                "{name}: {waits} waits, {expected:?} expected: {stories:#?}"
            );
        }
        all.push(stories);
        Ok(())
    })?;
    assert!(!all[0].is_empty());
    assert_eq!(all[0], all[1], "{program:?}: sched, tracepoint");
    Ok(())
}

#[test]
fn mutex() {
    let pace = [
        "mutex",
        "--hold-ms",
        "12",
        "--free-us",
        "4000",
        "--rounds",
        "60",
    ];
    together(name!(), || agree(&pace, &[("waiter", Some(60))]));
}

#[test]
fn priority_inheritance() {
    let pace = [
        "pi",
        "--hold-ms",
        "12",
        "--free-us",
        "4000",
        "--rounds",
        "60",
    ];
    together(name!(), || agree(&pace, &[("waiter", Some(60))]));
}

#[test]
fn timed_out() {
    let program = ["timedwait", "--rounds", "60"];
    together(name!(), || agree(&program, &[("timed", Some(60))]));
}

#[test]
fn interrupted() {
    let program = ["interrupted", "--rounds", "60"];
    together(name!(), || agree(&program, &[("sleeper", Some(60))]));
}

#[test]
fn bitset() {
    let program = ["bitset", "--rounds", "60"];
    together(name!(), || agree(&program, &[("waiter", Some(60))]));
}

#[test]
fn futex_wait_call() {
    let program = ["futexwait2", "--rounds", "60"];
    together(name!(), || agree(&program, &[("waiter", Some(60))]));
}

#[test]
fn waitv() {
    let program = ["waitv", "--rounds", "60"];
    together(name!(), || agree(&program, &[("waiter", Some(60))]));
}

#[test]
fn names() {
    let program = ["names", "--ms", "20", "--rounds", "30"];
    together(name!(), || agree(&program, &[("evil", Some(30))]));
}

#[test]
fn shared() {
    // The child waits for the parent's first turn as well.
    let program = ["shared", "--ms", "20", "--rounds", "30"];
    let threads = [("parent", Some(30)), ("child", Some(31))];
    together(name!(), || agree(&program, &threads));
}

#[test]
fn ping_pong() {
    let rounds = 2_000;
    let program = ["pingpong", "--rounds", "2000"];
    // The other thread may wait once more, for the end: that wait is no part of the comparison.
    together(name!(), || agree(&program, &[("ping", Some(rounds))]));
}
