//! Both ways to know a futex wait, held to the same answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Skip, Tested, Workload, alone, assert_close_around,
    event::{assert_count, number, sum, waits_of},
    in_both_modes, name,
};

/// What is said of waits: thread, kind, outcome, waker.
type Story = [String; 4];

/// What observer and the workload say of the workload's futex waits.
struct Told {
    stories: BTreeMap<Story, usize>,
    truth: Value,
}

impl Told {
    /// How many waits a thread had, as the workload counts them.
    fn expected(&self, threads: &[&str]) -> u64 {
        let all = &self.truth["threads"];
        // Of threads that have no counts of their own the sum is known.
        let sum = self.truth["waits"].as_u64();
        sum.unwrap_or_else(|| {
            threads
                .iter()
                .map(|name| number(&all[*name], "calls"))
                .sum()
        })
    }
}

/// Runs a workload that waits a fixed number of times, and hears what is said of its threads' waits.
fn tell(mode: Mode, program: &[&str], threads: &[&str]) -> Result<Told, Skip> {
    let mut workload = Workload::start(&[program, &["--wait-go"]].concat())?;
    // Without looks, which make a lock of a futex as soon as there is time for one.
    let mut args = vec!["--min-wait", "0", "--no-stacks"];
    let child = workload.ready()["pids"]["child"].to_string();
    if workload.ready().get("pids").is_some() {
        args.extend(["-p", &child]);
    }
    let observer = Observer::of(mode, &workload, &args);
    workload.go();
    let truth = workload.truth();
    let run = observer.target_ended();
    run.assert_complete();
    let mut stories = BTreeMap::new();
    for thread in threads {
        let tid = workload.tid(thread);
        let waits: Vec<_> = waits_of(&run.events, tid)
            .filter(|wait| {
                let call = wait["syscall"].as_str();
                call.is_some_and(|call| call.starts_with("futex"))
            })
            .collect();
        if let Some(measured) = truth["threads"][*thread]["sum_ns"].as_u64() {
            assert_close_around(
                thread,
                sum(waits.iter().copied(), "dur_ns"),
                measured,
                waits.len(),
            );
        }
        for wait in waits {
            *stories.entry(story(wait, &workload)).or_default() += 1;
        }
    }
    Ok(Told { stories, truth })
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

/// Both ways tell of as many waits as there were, of the same kinds, outcomes and wakers.
fn agree(program: &[&str], threads: &[&str]) -> Tested {
    let mut all = Vec::new();
    in_both_modes(|mode| {
        let told = tell(mode, program, threads)?;
        let waits: usize = told.stories.values().sum();
        assert_count("waits", waits as u64, told.expected(threads));
        all.push(told);
        Ok(())
    })?;
    let [sched, tracepoint] = &all[..] else {
        panic!("two ways, {} runs", all.len());
    };
    // One in twenty may have a story of its own: an interrupt inside another task's futex call leaves
    // open how a wait ended, and the kernel may leave out a wake-up.
    let kinds = |told: &Told| -> Vec<Story> {
        let all: usize = told.stories.values().sum();
        let common = told.stories.iter().filter(|(_, count)| **count * 20 > all);
        common.map(|(story, _)| story.clone()).collect()
    };
    assert_eq!(kinds(sched), kinds(tracepoint), "{program:?}");
    Ok(())
}

/// A mutex that is held long enough for the waiter to find it taken.
const PACE: [&str; 6] = ["--hold-ms", "12", "--free-us", "4000", "--rounds", "60"];

#[test]
fn mutex() {
    let program = [&["mutex"], &PACE[..]].concat();
    alone(name!(), || agree(&program, &["waiter"]));
}

#[test]
fn priority_inheritance() {
    let program = [&["pi"], &PACE[..]].concat();
    alone(name!(), || agree(&program, &["waiter"]));
}

#[test]
fn timed_out() {
    let program = ["timedwait", "--rounds", "60"];
    alone(name!(), || agree(&program, &["timed"]));
}

#[test]
fn interrupted() {
    let program = ["interrupted", "--rounds", "60"];
    alone(name!(), || agree(&program, &["sleeper"]));
}

#[test]
fn bitset() {
    let program = ["bitset", "--rounds", "60"];
    alone(name!(), || agree(&program, &["waiter"]));
}

#[test]
fn futex_wait_call() {
    let program = ["futexwait2", "--rounds", "60"];
    alone(name!(), || agree(&program, &["waiter"]));
}

#[test]
fn waitv() {
    let program = ["waitv", "--rounds", "60"];
    alone(name!(), || agree(&program, &["waiter"]));
}

#[test]
fn names() {
    let program = ["names", "--ms", "20", "--rounds", "30"];
    alone(name!(), || agree(&program, &["evil"]));
}

#[test]
fn shared() {
    let program = ["shared", "--ms", "20", "--rounds", "30"];
    alone(name!(), || agree(&program, &["parent", "child"]));
}

#[test]
fn ping_pong() {
    let program = ["pingpong", "--rounds", "2000"];
    alone(name!(), || agree(&program, &["ping", "pong"]));
}
