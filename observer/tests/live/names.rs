//! Names that a terminal must not be given as they are.

use crate::harness::{
    Mode, Observer, Workload,
    event::{of, waits_on},
    name, output, together,
};

#[test]
fn harmless_as_text() {
    together(name!(), || {
        let workload = Workload::start(&["names", "--ms", "20"])?;
        let (pid, tid) = (workload.pid().to_string(), workload.tid("evil"));
        let args = ["trace", "-p", &pid, "-d", "1s", "--format", "text", "--all"];
        let output = output(&args);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{text:?}");
        let lines: Vec<_> = text.lines().filter(|line| line.contains("evil")).collect();
        let waits = lines.iter().filter(|line| line.contains("  wait  "));
        assert!(waits.count() > 5, "{text}");
        for line in lines.iter().filter(|line| line.contains("  wait  ")) {
            // What follows the name is on the same line.
            let whole = line.contains(&format!("/{tid} (")) || line.contains("woken by evil");
            assert!(whole, "{line:?} in {text}");
        }
        Ok(())
    });
}

#[test]
fn escaped_as_json() {
    together(name!(), || {
        let mut workload = Workload::start(&["names", "--ms", "20"])?;
        let observer = Observer::of(Mode::Sched, &workload, &["--interval", "50ms"]);
        let (tid, word) = (workload.tid("evil"), workload.lock("word").to_owned());
        observer.wait_until("some waits", |events| {
            waits_on(events, tid, &word).count() > 5
        });
        let comm = workload.ready()["comm"].clone();
        workload.finish();
        let run = observer.target_ended();
        for wait in waits_on(&run.events, tid, &word) {
            assert_eq!(wait["task"]["comm"], comm, "{wait}");
        }
        let mut tasks = of(&run.events, "task").filter(|task| task["task"]["tid"] == tid);
        assert!(tasks.all(|task| task["task"]["comm"] == comm));
        Ok(())
    });
}
