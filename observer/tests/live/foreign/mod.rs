//! Exports, opened by readers that others wrote.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Skip, TempDir, Workload, name, output, together};

/// Where `cargo xtask test` puts the readers.
fn packages() -> Result<PathBuf, Skip> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/python");
    if path.join("packages.txt").exists() {
        Ok(path)
    } else {
        Err(Skip(
            "the readers of exports are not there: `cargo xtask test` fetches them".to_owned(),
        ))
    }
}

/// Runs a program in Python, and reads the JSON that it prints.
fn python(program: &str, args: &[&str]) -> Result<Value, Skip> {
    let child = Command::new("python3")
        .env("PYTHONPATH", packages()?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-c", program])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Skip(format!("python3: {error}")))?;
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{stderr}");
    Ok(serde_json::from_slice(&child.stdout).unwrap())
}

/// A recording of a lock that is held and waited for, of a bit more than a second.
fn recording(folder: &TempDir, workload: &[&str]) -> Result<(PathBuf, u32), Skip> {
    let workload = Workload::start(workload)?;
    let path = folder.path().join("run.jsonl.zst");
    let pid = workload.pid();
    let (file, id) = (path.to_str().unwrap(), pid.to_string());
    let output = output(&["record", "-o", file, "-p", &id, "-d", "2500ms"]);
    assert!(output.status.success(), "{output:?}");
    Ok((path, pid))
}

fn export(path: &Path, form: &str, folder: &TempDir) -> PathBuf {
    let into = folder.path().join(form);
    let (file, out) = (path.to_str().unwrap(), into.to_str().unwrap());
    let output = output(&["export", file, "--to", form, "-o", out]);
    assert!(output.status.success(), "{output:?}");
    into
}

#[test]
fn perfetto_reads_the_timeline() {
    together(name!(), || {
        packages()?;
        let folder = TempDir::new();
        let (path, pid) = recording(&folder, &["mutex", "--threads", "3"])?;
        let trace = export(&path, "perfetto", &folder);
        let seen = python(include_str!("perfetto.py"), &[trace.to_str().unwrap()])?;
        let tracks = &seen["tracks"];
        let process = tracks.as_object().unwrap().values();
        let named = process
            .filter(|track| track["process"] == "workload" && track["pid"] == pid)
            .count();
        assert_eq!(named, 1, "{tracks:#}");

        // Waits for the lock, on lines of threads of that process, with who held it.
        let slices = seen["slices"].as_array().unwrap();
        let waits: Vec<&Value> = slices
            .iter()
            .filter(|slice| slice["notes"]["lock_class"] == "pthread_mutex")
            .collect();
        assert!(waits.len() > 10, "{seen:#}");
        for wait in &waits {
            let track = &tracks[wait["track"].as_str().unwrap()];
            assert_eq!(track["pid"], pid, "{wait:#}");
            assert_eq!(wait["depth"], 0, "{wait:#}");
            assert!(
                wait["name"].as_str().unwrap().starts_with("lock "),
                "{wait:#}"
            );
            if let Some(end) = wait["end"].as_u64() {
                let dur = end - wait["at"].as_u64().unwrap();
                assert_eq!(wait["notes"]["dur_ns"], dur, "{wait:#}");
                assert_eq!(wait["notes"]["outcome"], "woken", "{wait:#}");
            }
        }
        let queued = slices
            .iter()
            .any(|slice| slice["name"] == "run queue" && slice["depth"] == 1);
        assert!(queued, "{seen:#}");

        // Arrows from one thread of it to another.
        let arrows = seen["arrows"].as_array().unwrap();
        assert!(arrows.len() > 10, "{seen:#}");
        for arrow in arrows {
            for end in ["from", "to"] {
                let track = &tracks[arrow[end].as_str().unwrap()];
                assert_eq!(track["pid"], pid, "{arrow:#}");
            }
            assert_ne!(arrow["from"], arrow["to"]);
        }
        Ok(())
    });
}

#[test]
fn perfetto_shows_findings_and_what_goes_on() {
    together(name!(), || {
        packages()?;
        let folder = TempDir::new();
        let (path, _) = recording(&folder, &["deadlock"])?;
        let trace = export(&path, "perfetto", &folder);
        let seen = python(include_str!("perfetto.py"), &[trace.to_str().unwrap()])?;
        let marks = seen["marks"].as_array().unwrap();
        let found: Vec<&Value> = marks
            .iter()
            .filter(|mark| mark["notes"]["rule"] == "deadlock")
            .map(|mark| &seen["tracks"][mark["track"].as_str().unwrap()])
            .collect();
        // Once among all findings, and once on the line of each of the two.
        assert_eq!(found.len(), 3, "{seen:#}");
        assert!(found.iter().any(|track| track["name"] == "Findings"));
        for name in ["ab", "ba"] {
            assert!(
                found.iter().any(|track| track["thread"] == name),
                "{found:#?}"
            );
        }
        let slices = seen["slices"].as_array().unwrap();
        let going_on = slices.iter().filter(|slice| {
            slice["notes"]["in_progress"] == true
                && slice["end"].is_null()
                && slice["notes"]["holder_confidence"] == "exact"
        });
        assert_eq!(going_on.count(), 2, "{seen:#}");
        Ok(())
    });
}

#[test]
fn duckdb_reads_the_table() {
    together(name!(), || {
        packages()?;
        let folder = TempDir::new();
        let (path, pid) = recording(&folder, &["mutex", "--threads", "3"])?;
        let table = export(&path, "parquet", &folder);
        let csv = export(&path, "csv", &folder);
        let files = [table.to_str().unwrap(), csv.to_str().unwrap()];
        let seen = python(include_str!("duckdb.py"), &files)?;
        let [parquet, csv] = ["parquet", "csv"].map(|form| &seen[form]);
        assert!(parquet["rows"].as_u64().unwrap() > 10, "{seen:#}");
        // Two ways to the same.
        assert_eq!(parquet["rows"], csv["rows"], "{seen:#}");
        assert_eq!(parquet["dur_ns"], csv["dur_ns"], "{seen:#}");
        assert_eq!(parquet["locks"], csv["locks"], "{seen:#}");
        assert_eq!(parquet["pids"], serde_json::json!([pid]), "{seen:#}");
        assert!(seen["stacks"].as_u64().unwrap() > 0, "{seen:#}");
        let types = seen["types"].as_object().unwrap();
        assert_eq!(types["dur_ns"], "BIGINT", "{seen:#}");
        assert!(
            types["time"].as_str().unwrap().starts_with("TIMESTAMP"),
            "{seen:#}"
        );
        Ok(())
    });
}
