//! tokio: a task that blocks its worker, and threads that may block.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    harness::{Mode, OBSERVER, Observer, event::of, name, together},
    program::{Program, functions, list},
};

const RULE: &str = "blocked_async_worker";

fn workers(mode: &str) -> Command {
    let folder = Path::new(OBSERVER).parent().unwrap().join("examples");
    let mut command = Command::new(folder.join("workers"));
    command.arg(mode);
    command
}

/// The thread that `handler` blocks: told by its own stack.
fn is_blocked(task: &Value) -> bool {
    functions(task)
        .iter()
        .any(|name| name.contains("fetch_synchronously"))
}

fn findings(dump: &Value) -> Vec<&Value> {
    let all = list(dump, "findings").iter();
    all.filter(|one| one["rule"] == RULE).collect()
}

#[test]
fn a_task_that_sleeps_blocks_its_worker() {
    together(name!(), || {
        let program = Program::start(&mut workers("blocked"))?;
        let dump = program.dump_until("a finding", &[], |dump| !findings(dump).is_empty());
        let blocked: Vec<&Value> = list(&dump, "tasks")
            .iter()
            .filter(|task| is_blocked(task))
            .collect();
        let found = findings(&dump);
        assert_eq!((blocked.len(), found.len()), (1, 1), "{dump}");
        let title = found[0]["title"].as_str().unwrap();
        assert!(title.contains("fetch_synchronously"), "{title}");
        assert_eq!(
            found[0]["subjects"][0]["task"]["tid"],
            blocked[0]["task"]["tid"]
        );

        // The same while it is watched.
        let pid = program.pid().to_string();
        let args = ["-p", &pid, "--long-wait", "200ms", "--interval", "200ms"];
        let observer = Observer::trace(Mode::Sched, &args);
        let live = observer.wait_for("the finding", |events| {
            of(events, "finding")
                .find(|one| one["rule"] == RULE)
                .cloned()
        });
        assert_eq!(live["subjects"], found[0]["subjects"], "{live}");
        let run = observer.stop();
        assert_eq!(of(&run.events, "finding").count(), 1);
        Ok(())
    });
}

#[test]
fn who_may_block_and_who_is_idle_is_innocent() {
    together(name!(), || {
        let program = Program::start(&mut workers("innocent"))?;
        // Both threads that sleep are there: the one of the pool for it, and the one that gave its tasks away.
        let sleeps = |task: &&Value| task["syscall"] == "clock_nanosleep";
        let dump = program.dump_until("two sleepers", &[], |dump| {
            list(dump, "tasks")
                .iter()
                .filter(sleeps)
                .filter(|task| task["age_ns"].as_u64() > Some(500_000_000))
                .count()
                == 2
        });
        assert_eq!(findings(&dump), Vec::<&Value>::new(), "{dump}");
        Ok(())
    });
}
