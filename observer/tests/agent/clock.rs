//! The wall clock is set while the agent runs: forward by more than a year, and back behind where it was. The host's clock
//! stays as it is: a library in front of the C library's sets that of the agent alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    agent::{Agent, needs},
    harness::{Skip, TempDir, Workload, name, poll, together},
};

const DAY: i64 = 86_400;
const CONFIG: &str = "[capture]\ninterval = \"200ms\"\nlong_wait = \"100ms\"\n\
    [incidents]\ndir = \"{DIR}/incidents\"\nafter = \"100ms\"\nkeep = \"24h\"\n";

/// The library.
fn library(folder: &TempDir) -> Result<PathBuf, Skip> {
    needs("gcc")?;
    let library = folder.path().join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/clock.c");
    let out = Command::new("gcc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{errors}");
    Ok(library)
}

/// The day that the agent has, in days since the Unix epoch, and the longest wait of a process.
fn seen(agent: &Agent, pid: u32) -> Option<(i64, u64)> {
    let all = agent.json("/api/v1/blocked?limit=10000");
    let time: jiff::Timestamp = all["time"].as_str()?.parse().ok()?;
    let of_it = |wait: &&Value| wait["task"]["pid"] == pid && wait["task"]["tid"] != pid;
    let ages = all["blocked"].as_array()?.iter().filter(of_it);
    let age = ages.filter_map(|wait| wait["age_ns"].as_u64()).max()?;
    Some((time.as_second() / DAY, age))
}

fn incidents(agent: &Agent) -> Vec<String> {
    let all = agent.json("/api/v1/incidents");
    let all = all["incidents"].as_array().unwrap().iter();
    all.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_wall_clock_that_is_set_disturbs_nothing() {
    together(name!(), || {
        let folder = TempDir::new();
        let (library, clock) = (library(&folder)?, folder.path().join("clock"));
        let set = |days: i64| fs::write(&clock, (days * DAY).to_string()).unwrap();
        set(0);
        let environment = [("LD_PRELOAD", library), ("CLOCK_FILE", clock.clone())];
        let agent = Agent::start_in(CONFIG, &environment)?;
        let mut workload = Workload::start(&["deadlock"])?;
        poll("the incident is written", || {
            (!incidents(&agent).is_empty()).then_some(())
        });
        let pid = workload.pid();
        let (today, mut before) = poll("the deadlock is seen", || seen(&agent, pid));
        let mut written = incidents(&agent);
        for days in [400, -400, 0] {
            set(days);
            let (_, age) = poll("the wall clock is another one", || {
                seen(&agent, pid).filter(|(day, _)| (day - today - days).abs() <= 1)
            });
            // What lasts goes on as it did.
            assert!((before..before + 120_000_000_000).contains(&age), "{age}");
            before = age;
            let (status, body) = agent.ask(&["-X", "POST"], "/api/v1/incidents");
            assert_eq!(status, 202, "{body}");
            let new = poll("another incident is written", || {
                let all = incidents(&agent);
                all.into_iter().find(|one| !written.contains(one))
            });
            // None of them is a year old.
            written.push(new);
            let all = incidents(&agent);
            assert!(written.iter().all(|one| all.contains(one)), "{all:?}");
            let metrics = agent.open("/metrics").1;
            let oldest = metrics
                .lines()
                .filter_map(|line| line.strip_prefix("observer_blocked_oldest_seconds{"));
            // Others of this host may be as old as it is, and no older.
            let uptime = fs::read_to_string("/proc/uptime").unwrap();
            let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
            for line in oldest {
                let (_, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().unwrap() <= uptime + 1.0, "{line}");
            }
            assert_eq!(agent.open("/readyz").0, 200);
        }
        workload.finish();
        agent.stop();
        Ok(())
    });
}
