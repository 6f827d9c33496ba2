//! Two moments of a real program.

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{TempDir, Workload, alone, name, output, together};

fn diff(a: &Path, b: &Path, format: &str) -> String {
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let output = output(&["diff", a, b, "--format", format]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn compared(a: &Path, b: &Path) -> Value {
    serde_json::from_str(&diff(a, b, "json")).unwrap()
}

fn names(tasks: &Value, of: impl Fn(&Value) -> &Value) -> Vec<String> {
    let tasks = tasks.as_array().unwrap();
    let names = tasks
        .iter()
        .map(|one| of(one)["comm"].as_str().unwrap().to_owned());
    names.collect()
}

#[test]
fn of_a_deadlock_at_two_moments() {
    together(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let folder = TempDir::new();
        let dump = |file: &str| {
            let pid = workload.pid().to_string();
            let output = output(&["dump", &pid, "--format", "json"]);
            assert!(output.status.success(), "{output:?}");
            let path = folder.path().join(file);
            fs::write(&path, output.stdout).unwrap();
            path
        };
        let (a, b) = (dump("a.json"), dump("b.json"));
        let diff = compared(&a, &b);
        let mut still = names(&diff["tasks"]["still"], |one| &one["task"]);
        still.retain(|name| name.len() == 2);
        still.sort();
        assert_eq!(still, ["ab", "ba"], "{diff:#}");
        for list in ["appeared", "vanished"] {
            assert_eq!(diff["tasks"][list], Value::Array(Vec::new()), "{diff:#}");
        }
        let rules = |list: &str| names_of_rules(&diff["findings"][list]);
        assert_eq!(rules("still"), ["deadlock"], "{diff:#}");
        assert_eq!(
            (rules("new").len(), rules("gone").len()),
            (0, 0),
            "{diff:#}"
        );
        for form in ["text", "md"] {
            let text = self::diff(&a, &b, form);
            assert!(text.contains("still in the same wait"), "{text}");
        }
        Ok(())
    });
}

fn names_of_rules(findings: &Value) -> Vec<&str> {
    let findings = findings.as_array().unwrap();
    findings
        .iter()
        .map(|one| one["rule"].as_str().unwrap())
        .collect()
}

/// A quiet and a bad recording of two runs of one program: the lock is known again by its name or is told as new.
#[test]
fn of_two_recordings() {
    alone(name!(), || {
        let folder = TempDir::new();
        let record = |threads: &str, file: &str| {
            let workload = Workload::start(&["mutex", "--threads", threads])?;
            let path = folder.path().join(file);
            let pid = workload.pid().to_string();
            let output = output(&[
                "record",
                "-o",
                path.to_str().unwrap(),
                "-p",
                &pid,
                "-d",
                "1500ms",
            ]);
            assert!(output.status.success(), "{output:?}");
            Ok(path)
        };
        let (a, b) = (record("1", "a.jsonl")?, record("8", "b.jsonl.zst")?);
        let diff = compared(&a, &b);
        let waiting = |side: &str| -> f64 {
            // It may be known as a mutex, or not yet.
            let locks = diff["locks"].as_array().unwrap();
            let all = locks
                .iter()
                .filter_map(|pair| pair[side]["waiting"].as_f64());
            all.sum()
        };
        assert!(waiting("b") > waiting("a") + 2.0, "{diff:#}");
        let grew = diff["summary"].to_string();
        assert!(grew.contains("The lock that grew most is"), "{grew}");
        Ok(())
    });
}
