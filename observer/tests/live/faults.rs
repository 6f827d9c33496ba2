//! Tasks that die, and observer that is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Workload, alone,
    event::{number, of},
    in_both_modes, name, poll, signal,
};

/// `doomed-0` … `doomed-7`, eight threads in each child that is killed.
const DOOMED: u64 = 8;

/// A task that was killed while it waited is gone: nobody waits any more.
#[test]
fn a_task_ends_in_a_wait() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let names: Vec<_> = (0..DOOMED).map(|n| format!("doomed-{n}")).collect();
            let mut args = vec!["--long-wait", "20ms", "--interval", "50ms"];
            for name in &names {
                args.extend(["--comm", name]);
            }
            let observer = Observer::trace(mode, &args);
            let mut workload = Workload::start(&["exit-in-wait"])?;
            observer.wait_until("threads of five children", |events| {
                let pids = of(events, "blocked").map(|event| number(&event["task"], "pid"));
                pids.collect::<BTreeSet<_>>().len() >= 5
            });
            let word = workload.lock("word").to_owned();
            let truth = workload.finish();
            let end = number(&truth, "end_ns");
            // Long enough for each of them to double its age several times, were it still there.
            observer.wait_until("time to pass", |events| {
                let last = of(events, "cost").last();
                last.is_some_and(|cost| number(cost, "mono_ns") > end + 1_500_000_000)
            });
            let run = observer.stop();
            assert_gone(&run.events, &word, end);
            run.assert_complete();
            Ok(())
        })
    });
}

/// No child is blocked when the next one is, nor after the end.
fn assert_gone(events: &[Value], word: &str, end: u64) {
    // By name alone, threads of another such workload on this host are seen as well.
    let ours = |event: &&Value| event["lock"]["addr"] == word;
    let blocked = || of(events, "blocked").filter(ours);
    assert!(blocked().next().is_some());
    let mut starts = BTreeMap::<u64, u64>::new();
    for event in blocked() {
        assert_eq!(event["kind"], "futex", "{event}");
        let start = number(event, "mono_ns") - number(event, "age_ns");
        let first = starts.entry(number(&event["task"], "pid")).or_insert(start);
        *first = start.min(*first);
    }
    for event in blocked() {
        let (now, pid) = (number(event, "mono_ns"), number(&event["task"], "pid"));
        assert!(now <= end, "dead since {end}: {event}");
        let next = starts
            .values()
            .filter(|start| **start > starts[&pid] && **start < now)
            .count();
        // The threads of one child start one after the other.
        assert_eq!(next, 0, "the next child waits already: {event}");
    }
}

/// Programs that a process holds, as it is told by the descriptors that it has open.
fn programs_of(pid: u32) -> BTreeSet<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    let mut programs = BTreeSet::new();
    for text in texts {
        let ids = text
            .lines()
            .filter_map(|line| line.strip_prefix("prog_id:"));
        programs.extend(ids.filter_map(|id| id.trim().parse::<u32>().ok()));
    }
    programs
}

fn loaded() -> BTreeSet<u32> {
    let programs = aya::programs::loaded_programs();
    // One that goes away meanwhile is an error in the list.
    programs
        .filter_map(|program| Some(program.ok()?.id()))
        .collect()
}

#[test]
fn observer_is_killed() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let workload = Workload::start(&["bitset"])?;
            let mut observer = Observer::of(mode, &workload, &[]);
            let programs = programs_of(observer.pid());
            assert!(programs.len() >= if mode == Mode::Sched { 3 } else { 5 });
            assert!(loaded().is_superset(&programs), "{programs:?}");
            signal(observer.pid(), libc::SIGKILL);
            observer.collect();
            poll("the kernel programs to be gone", || {
                loaded().is_disjoint(&programs).then_some(())
            });
            Ok(())
        })
    });
}
