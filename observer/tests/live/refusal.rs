//! What observer refuses, with which code and in which words.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::harness::{OBSERVER, TempDir, Workload, name, output, together};

/// `nobody`, without groups.
const NOBODY: u32 = 65_534;
/// Greater than any process identifier that Linux gives out.
const NO_PROCESS: &str = "4194305";

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in {stderr:?}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn an_unknown_process() {
    together(name!(), || {
        let output = output(&["trace", "-p", NO_PROCESS]);
        assert_refused(&output, 1, &[NO_PROCESS, "no process"]);
        assert!(output.stdout.is_empty());
        Ok(())
    });
}

#[test]
fn a_thread_in_place_of_a_process() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        let (tid, pid) = (
            workload.tid("waiter").to_string(),
            workload.pid().to_string(),
        );
        let output = output(&["trace", "-p", &tid]);
        assert_refused(&output, 1, &[&tid, "thread of process", &pid]);
        Ok(())
    });
}

#[test]
fn arguments_that_make_no_sense() {
    together(name!(), || {
        for args in [
            &["trace", "--no-such-flag"][..],
            &["no-such-command"],
            &["trace", "--min-wait", "5 parsecs"],
            &["trace", "--min-wait", "-1s"],
            &["trace", "--interval", "1ms"],
            &["trace", "--comm", "a-name-of-17-byte"],
            &["trace", "--ring-kib", "0"],
            &["trace", "--lock-slots", "1"],
            &["trace", "-p", "one"],
            &["trace", "--format", "xml"],
        ] {
            let output = output(args);
            assert_refused(&output, 2, &["error:"]);
            assert!(output.stdout.is_empty(), "{args:?}");
        }
        Ok(())
    });
}

#[test]
fn a_control_group_that_is_not_there() {
    together(name!(), || {
        let output = output(&["trace", "--cgroup", "/no-such-group"]);
        assert_refused(&output, 1, &["/no-such-group"]);
        Ok(())
    });
}

/// Runs a copy of observer that everybody may execute, as nobody in particular.
fn as_nobody(folder: &TempDir, args: &[&str]) -> Output {
    let mut copy = folder.path().join("observer");
    if !copy.exists() {
        copy = folder.copy(OBSERVER, "observer");
    }
    Command::new(&copy)
        .args(args)
        .stdin(Stdio::null())
        .current_dir(folder.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
}

#[test]
fn a_user_without_privileges() {
    together(name!(), || {
        let folder = TempDir::new();
        let trace = as_nobody(&folder, &["trace"]);
        assert_refused(&trace, 3, &["CAP_BPF", "CAP_PERFMON"]);
        assert!(trace.stdout.is_empty());

        let doctor = as_nobody(&folder, &["doctor"]);
        assert_refused(&doctor, 3, &["cannot run here"]);
        let text = String::from_utf8(doctor.stdout).unwrap();
        for capability in ["CAP_BPF", "CAP_PERFMON"] {
            let line = text
                .lines()
                .find(|line| line.contains("MISSING") && line.contains(capability));
            assert!(line.is_some(), "{capability}: {text}");
        }

        let doctor = as_nobody(&folder, &["doctor", "--format", "json"]);
        assert_eq!(doctor.status.code(), Some(3));
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        assert_eq!(report["usable"], false);
        Ok(())
    });
}

#[test]
fn nothing_where_all_is_there() {
    together(name!(), || {
        let doctor = output(&["doctor", "--format", "json"]);
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        assert_eq!(report["usable"], true, "{report:#}");
        assert_eq!(doctor.status.code(), Some(0));
        assert!(doctor.stderr.is_empty());
        let text = output(&["doctor"]);
        assert_eq!(text.status.code(), Some(0));
        assert!(!String::from_utf8(text.stdout).unwrap().contains("MISSING"));
        Ok(())
    });
}

/// The screen needs a terminal, and says so.
#[test]
fn a_screen_without_a_terminal() {
    together(name!(), || {
        assert_refused(&output(&["top"]), 1, &["terminal", "observer trace"]);
        assert_refused(&output(&[]), 1, &["terminal", "observer trace"]);
        Ok(())
    });
}
