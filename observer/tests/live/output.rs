//! Where events are written.

use std::fs;

use observer::event::Event;

use crate::harness::{TempDir, Workload, name, output, together};

#[test]
fn to_a_file() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        let (folder, pid) = (TempDir::new(), workload.pid().to_string());
        let path = folder.path().join("events.jsonl");
        let file = path.to_str().unwrap();
        let args = ["trace", "-p", &pid, "-d", "300ms", "-o", file];
        let output = output(&args);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty());
        let text = fs::read_to_string(&path).unwrap();
        let events = text.lines().map(serde_json::from_str);
        let events: Vec<Event> = events.collect::<Result<_, _>>().unwrap();
        assert!(matches!(events.first(), Some(Event::Meta(_))));
        assert!(matches!(events.last(), Some(Event::End(_))));
        Ok(())
    });
}

#[test]
fn never_over_a_file() {
    together(name!(), || {
        let workload = Workload::start(&["mutex"])?;
        let (folder, pid) = (TempDir::new(), workload.pid().to_string());
        let path = folder.path().join("precious");
        fs::write(&path, "untouched").unwrap();
        let file = path.to_str().unwrap();
        let output = output(&["trace", "-p", &pid, "-d", "100ms", "-o", file]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(file), "{stderr}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "untouched");
        Ok(())
    });
}

/// A run that cannot begin leaves no empty file behind: the next one would trip over it.
#[test]
fn no_file_without_a_run() {
    together(name!(), || {
        let folder = TempDir::new();
        let path = folder.path().join("events.jsonl");
        let file = path.to_str().unwrap();
        let output = output(&["trace", "-p", "4194305", "-o", file]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!path.exists(), "an empty file was left behind");
        Ok(())
    });
}
