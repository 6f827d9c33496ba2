//! One look at every thread of a process.

use std::process::Output;

use serde_json::Value;

use crate::harness::{Workload, name, output, together};

fn dump(arguments: &[&str]) -> Output {
    output(&[&["dump"], arguments].concat())
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn a_deadlock_with_and_without_the_iterator() {
    together(name!(), || {
        let mut workload = Workload::start(&["deadlock"])?;
        let pid = workload.pid().to_string();
        for more in [&[][..], &["--no-bpf"]] {
            let output = dump(&[&[pid.as_str(), "--format", "json"], more].concat());
            assert!(output.status.success(), "{output:?}");
            let seen = json(&output);
            let circle = seen["deadlocks"][0]["tasks"].as_array().unwrap();
            assert_eq!(circle.len(), 2, "{seen}");
            for (thread, other, lock) in [("ab", "ba", "second"), ("ba", "ab", "first")] {
                let task = seen["tasks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|task| task["task"]["tid"] == workload.tid(thread))
                    .unwrap();
                assert_eq!(task["kind"], "lock", "{task}");
                assert_eq!(task["holder"]["tid"], workload.tid(other), "{task}");
                assert_eq!(task["holder"]["confidence"], "exact", "{task}");
                assert_eq!(task["lock"]["addr"], workload.lock(lock), "{task}");
                assert_eq!(task["chain"].as_array().unwrap().len(), 3, "{task}");
                // Only the kernel knows for how long.
                assert_eq!(task["age_ns"].is_u64(), more.is_empty(), "{task}");
            }
            assert_eq!(seen["findings"][0]["rule"], "deadlock");
            assert_eq!(seen["findings"].as_array().unwrap().len(), 1);
        }
        let failed = dump(&[&pid, "--fail-on", "deadlock"]);
        assert_eq!(failed.status.code(), Some(10));
        let text = String::from_utf8_lossy(&failed.stdout);
        assert!(text.contains("critical: deadlock: ab/"), "{text}");
        workload.finish();
        Ok(())
    });
}

#[test]
fn what_cannot_be_dumped() {
    together(name!(), || {
        let output = dump(&["4194000"]);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("no process 4194000"), "{error}");
        assert_eq!(dump(&["x"]).status.code(), Some(2));
        Ok(())
    });
}
