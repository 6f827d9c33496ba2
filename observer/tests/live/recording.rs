//! Recordings: made live, read later, with the same findings.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use observer::{
    event::{Event, Finding},
    record::{Reader, Replay},
    report::answer::summary_sentences,
};
use serde_json::Value;

use crate::harness::{OBSERVER, Skip, TempDir, Workload, alone, name, output, together};

fn events(path: &Path) -> Vec<Event> {
    let mut reader = Reader::open(path).unwrap();
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        events.push(event);
    }
    assert_eq!(reader.unread().notes(), Vec::<String>::new());
    events
}

/// Records a workload for a while.
fn record(workload: &Workload, path: &Path, duration: &str) {
    let pid = workload.pid().to_string();
    let file = path.to_str().unwrap();
    let output = output(&["record", "-o", file, "-p", &pid, "-d", duration]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("recorded "), "{told}");
}

#[test]
fn replays_to_the_findings_of_the_live_run() {
    alone(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl.zst");
        record(&workload, &path, "4s");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let events = events(&path);
        assert!(matches!(events.first(), Some(Event::Meta(_))));
        let Some(Event::End(end)) = events.last() else {
            panic!("no end");
        };
        assert_eq!(end.events, events.len() as u64 - 1);
        let live: Vec<&Finding> = events
            .iter()
            .filter_map(|event| match event {
                Event::Finding(finding) => Some(&**finding),
                _ => None,
            })
            .collect();
        assert!(live.iter().any(|one| &*one.rule == "deadlock"), "{live:?}");

        let mut replay = Replay::open(&path).unwrap();
        replay.finish(&mut |_| {}).unwrap();
        assert_eq!(replay.differences(), (Vec::new(), Vec::new()));
        let shown: Vec<_> = replay.model().findings().collect();
        assert_eq!(shown, live);
        let answer = summary_sentences(replay.model());
        assert!(answer[0].starts_with("Deadlock in "), "{answer:?}");
        for name in ["ab/", "ba/"] {
            assert!(answer[0].contains(name), "{answer:?}");
        }
        Ok(())
    });
}

/// A recording keeps the thresholds that its rules went by.
#[test]
fn replays_with_the_thresholds_of_the_live_run() {
    together(name!(), || {
        let workload = Workload::start(&["mutex", "--hold-ms", "700"])?;
        let folder = TempDir::new();
        let rules = folder.path().join("rules.toml");
        fs::write(&rules, "long_hold = \"150ms\"\n").unwrap();
        let path = folder.path().join("run.jsonl.zst");
        let pid = workload.pid().to_string();
        let (file, rules) = (path.to_str().unwrap(), rules.to_str().unwrap());
        let output = self::output(&[
            "record",
            "-o",
            file,
            "-p",
            &pid,
            "-d",
            "3s",
            "--long-wait",
            "200ms",
            "--rules",
            rules,
        ]);
        assert!(output.status.success(), "{output:?}");
        let mut replay = Replay::open(&path).unwrap();
        replay.finish(&mut |_| {}).unwrap();
        let of_rule = |finding: &&Finding| &*finding.rule == "long_hold";
        assert!(
            replay.model().findings().any(|one| of_rule(&one)),
            "no long hold"
        );
        assert_eq!(replay.differences(), (Vec::new(), Vec::new()));
        Ok(())
    });
}

/// What Go's own tool makes of a profile.
fn go_tool_pprof(profile: &Path) -> Result<String, Skip> {
    let output = Command::new("go")
        .args(["tool", "pprof", "-top", "-symbolize=none"])
        .arg(profile)
        .env("PPROF_TMPDIR", profile.parent().unwrap())
        .env("GOTOOLCHAIN", "local")
        .output()
        .map_err(|error| {
            Skip(format!(
                "no `go tool pprof`: {error}: `cargo xtask test` installs it"
            ))
        })?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn reports_and_exports() {
    alone(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl");
        record(&workload, &path, "2s");
        let file = path.to_str().unwrap();
        let made = |args: &[&str]| {
            let output = output(args);
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let text = made(&["report", file]);
        assert!(text.starts_with("Deadlock in "), "{text}");
        assert!(made(&["report", file, "--format", "md"]).contains("## Deadlocks"));
        let json: Value =
            serde_json::from_str(&made(&["report", file, "--format", "json"])).unwrap();
        assert_eq!(json["deadlocks"].as_array().unwrap().len(), 1, "{json}");
        assert_eq!(json["blocked"][0]["type"], "blocked");

        let folded = made(&["export", file, "--to", "folded"]);
        let line = folded.lines().find(|line| line.contains(";ab;")).unwrap();
        let (stack, weight) = line.rsplit_once(' ').unwrap();
        assert!(stack.contains("pthread_mutex_lock"), "{line}");
        assert!(weight.parse::<u64>().unwrap() > 1_000_000_000, "{line}");
        assert!(made(&["export", file, "--to", "flamegraph"]).contains("<svg"));
        let profile = folder.path().join("run.pb.gz");
        made(&[
            "export",
            file,
            "--to",
            "pprof",
            "-o",
            profile.to_str().unwrap(),
        ]);
        let top = go_tool_pprof(&profile)?;
        assert!(top.contains("pthread_mutex_lock"), "{top}");
        let csv = made(&["export", file, "--to", "csv"]);
        let columns = csv.lines().next().unwrap().split(',').count();
        assert!(
            csv.lines().all(|line| line.split(',').count() == columns),
            "{csv}"
        );
        assert!(csv.contains(",true,"), "{csv}");

        let report = folder.path().join("report.md");
        fs::write(&report, "precious").unwrap();
        let refused = output(&["report", file, "-o", report.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(fs::read_to_string(&report).unwrap(), "precious");
        Ok(())
    });
}

#[test]
fn of_a_command() {
    together(name!(), || {
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl.zst");
        let file = path.to_str().unwrap();
        let output = output(&["record", "-o", file, "--", "sleep", "0.3"]);
        assert!(output.status.success(), "{output:?}");
        let events = events(&path);
        let slept = events.iter().any(|event| match event {
            Event::Wait(wait) => {
                wait.task.comm.as_deref() == Some("sleep") && wait.dur_ns > 250_000_000
            }
            _ => false,
        });
        assert!(slept, "{events:#?}");
        Ok(())
    });
}

/// A file system of 64 KiB: what fits is kept and can be read, and the end is told.
#[test]
fn onto_a_full_disk() {
    together(name!(), || {
        let workload = Workload::start(&["mutex", "--threads", "6", "--hold-ms", "1"])?;
        let folder = TempDir::new();
        let saved = folder.path().join("saved.jsonl");
        // The mount is that of one process and what it starts, and ends with it.
        let script = "mount -t tmpfs -o size=64k none \"$1\" || exit 77; \
            \"$2\" record -o \"$1/run.jsonl\" -p \"$3\" -d 60s; code=$?; cp \"$1/run.jsonl\" \"$4\"; exit $code";
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        // The copy lies outside of the disk.
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .args([&disk, Path::new(OBSERVER)])
            .arg(workload.pid().to_string())
            .arg(&saved)
            .output()
            .unwrap();
        if output.status.code() == Some(77) {
            return Err(Skip("no file system can be mounted here".to_owned()));
        }
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("good up to here"), "{told}");
        assert!(told.contains("No space left"), "{told}");
        let events = events(&saved);
        assert!(!events.is_empty(), "{told}");
        assert!(matches!(events.first(), Some(Event::Meta(_))));
        Ok(())
    });
}

#[test]
fn of_no_command() {
    together(name!(), || {
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl.zst");
        let file = path.to_str().unwrap();
        let output = output(&["record", "-o", file, "--", "/no/such/program"]);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("/no/such/program"), "{told}");
        Ok(())
    });
}

#[test]
fn that_is_not_there() {
    together(name!(), || {
        let missing = output(&["report", "/no/such/recording"]);
        assert_eq!(missing.status.code(), Some(1));
        let told = String::from_utf8(missing.stderr).unwrap();
        assert!(told.contains("/no/such/recording"), "{told}");
        Ok(())
    });
}
