//! Rules about what goes wrong besides locks: on programs in which it does, and on innocents.

use std::fs;

use serde_json::Value;

use crate::harness::{Mode, Observer, TempDir, Workload, alone, event::of, name, together};

/// What a rule found.
fn by_rule<'a>(events: &'a [Value], rule: &'a str) -> impl Iterator<Item = &'a Value> {
    of(events, "finding").filter(move |finding| finding["rule"] == rule)
}

/// The processes that a finding is about.
fn accused(finding: &Value) -> Vec<u64> {
    let subjects = finding["subjects"].as_array().unwrap();
    let pid = |subject: &Value| {
        let pid = subject["process"].as_u64();
        pid.or_else(|| subject["task"]["pid"].as_u64())
    };
    subjects.iter().filter_map(pid).collect()
}

/// Observes both programs with these thresholds until the rules have found something in the guilty one; of the
/// innocent one they say nothing.
fn judge(guilty: &Workload, innocent: &Workload, thresholds: &str, rules: &[&str]) {
    let folder = TempDir::new();
    let file = folder.path().join("rules.toml");
    fs::write(&file, thresholds).unwrap();
    let pids = [guilty, innocent].map(|workload| workload.pid().to_string());
    let observer = Observer::trace(
        Mode::Sched,
        &[
            "-p",
            &pids[0],
            "-p",
            &pids[1],
            "--long-wait",
            "100ms",
            "--interval",
            "200ms",
            "--rules",
            file.to_str().unwrap(),
        ],
    );
    let guilty = u64::from(guilty.pid());
    observer.wait_until("what the rules find", |events| {
        let found = |rule: &&str| {
            let mut findings = by_rule(events, rule);
            findings.any(|finding| accused(finding).contains(&guilty))
        };
        rules.iter().all(found)
    });
    let run = observer.stop();
    for finding in rules.iter().flat_map(|rule| by_rule(&run.events, rule)) {
        let accused = accused(finding);
        assert!(accused.iter().all(|pid| *pid == guilty), "{finding}");
    }
}

/// Threads for whose page nobody comes, and threads that wait for work.
#[test]
fn tasks_that_make_no_progress() {
    together(name!(), || {
        let guilty = Workload::start(&["faulting"])?;
        let innocent = Workload::start(&["pool", "--threads", "10"])?;
        let rules = ["thread_stuck", "d_state_pileup"];
        judge(&guilty, &innocent, "stuck = \"2s\"\n", &rules);
        Ok(())
    });
}

/// Threads that become more and more, and a pool of many.
#[test]
fn threads_that_are_never_told_to_stop() {
    together(name!(), || {
        let guilty = Workload::start(&["leak"])?;
        let innocent = Workload::start(&["pool", "--threads", "200"])?;
        let thresholds = "leak_sample = \"500ms\"\nleak_threads = 20\n";
        judge(&guilty, &innocent, thresholds, &["thread_leak"]);
        Ok(())
    });
}

/// More to do than the CPUs can, and no more than that. The time that a task waits for a CPU is the host's, so
/// nothing else may run.
#[test]
fn more_to_do_than_the_cpus_can() {
    alone(name!(), || {
        let cpus = std::thread::available_parallelism().unwrap().get();
        for (threads, overloaded) in [(1, false), (cpus * 6, true)] {
            let workload = Workload::start(&["busy", "--threads", &threads.to_string()])?;
            let observer = Observer::of(Mode::Sched, &workload, &["--interval", "200ms"]);
            observer.wait_until("some looks, or what the rule finds", |events| {
                let found = by_rule(events, "runqueue_latency").next().is_some();
                let looks = of(events, "cost").count();
                found || (!overloaded && looks >= 15)
            });
            let run = observer.stop();
            let found = by_rule(&run.events, "runqueue_latency").count();
            assert_eq!(found > 0, overloaded, "{threads} threads");
        }
        Ok(())
    });
}
