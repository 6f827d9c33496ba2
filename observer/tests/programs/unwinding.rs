//! Unwinding reaches the beginning of the thread, in programs that keep no frame pointers.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    harness::{Skip, TempDir, Tested, alone, name},
    programs::{Running, Sessions, compile, look, redis},
};

/// Looks at each program.
const LOOKS: usize = 5;
/// Processes of a small program.
const PROCESSES: usize = 8;

/// What became of the stacks of one program's blocked threads.
#[derive(Default)]
struct Count {
    program: &'static str,
    /// Threads that stayed blocked while they were looked at.
    blocked: usize,
    /// Their stacks that end where the thread begins.
    root: usize,
    /// Those of them without a frame that was only guessed at.
    whole: usize,
    /// Threads that moved.
    moved: usize,
    /// Calls on the longest stack.
    deepest: usize,
    /// What the others ended with.
    others: Vec<String>,
}

impl Count {
    fn of(program: &'static str, pids: &dyn Fn() -> Vec<u32>) -> Count {
        let mut count = Count {
            program,
            ..Count::default()
        };
        for _ in 0..LOOKS {
            let seen = look(&pids(), &[]);
            for task in seen["tasks"].as_array().unwrap() {
                count.add(task);
            }
        }
        count
    }

    fn add(&mut self, task: &Value) {
        if task["state"] != "waiting" {
            self.moved += 1;
            return;
        }
        let stack = &task["stack"];
        let end = stack["end"].as_str().unwrap_or("none");
        if matches!(end, "torn" | "running") {
            self.moved += 1;
            return;
        }
        let frames = stack["user"].as_array().map_or(&[][..], Vec::as_slice);
        self.deepest = self.deepest.max(frames.len());
        self.blocked += 1;
        if end == "root" {
            self.root += 1;
            let guessed = frames.iter().any(|frame| frame["scanned"] == true);
            self.whole += usize::from(!guessed);
        } else {
            self.others.push(format!("{end}: {task}"));
        }
    }

    fn is_right(&self) -> bool {
        self.blocked > 0 && self.root * 100 >= self.blocked * 99
    }
}

fn draw(counts: &[Count]) -> String {
    let mut text = format!(
        "\nunwinding\n{:<38}{:>8}{:>8}{:>8}{:>8}{:>9}\n",
        "program", "blocked", "root", "whole", "moved", "deepest"
    );
    for count in counts {
        writeln!(
            text,
            "{:<38}{:>8}{:>8}{:>8}{:>8}{:>9}",
            count.program, count.blocked, count.root, count.whole, count.moved, count.deepest
        )
        .unwrap();
    }
    text
}

/// Some processes of a program of this project's.
fn small(folder: &TempDir, name: &str, flags: &[&str]) -> Result<Vec<Running>, Skip> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inspect/stacks/tests/subject.c");
    let target: PathBuf = folder.path().join(name);
    compile(&source, &target, flags)?;
    let start = || {
        let running = Running::start(&target, &[])?;
        running.settle(5);
        Ok(running)
    };
    (0..PROCESSES).map(|_| start()).collect()
}

fn pids_of(all: &[Running]) -> Vec<u32> {
    all.iter().map(Running::pid).collect()
}

fn all() -> Tested {
    let folder = TempDir::new();
    let mut counts = Vec::new();

    let sessions = Sessions::start()?;
    counts.push(Count::of("PostgreSQL", &|| sessions.processes()));
    drop(sessions);

    let redis = redis(&folder)?;
    counts.push(Count::of("Redis", &|| vec![redis.pid()]));
    drop(redis);

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/threads.py");
    let python = Running::start(Path::new("/usr/bin/python3"), &[script.to_str().unwrap()])?;
    python.settle(34);
    counts.push(Count::of("Python", &|| vec![python.pid()]));
    drop(python);

    for (title, name, flags) in [
        (
            "C -fomit-frame-pointer",
            "omit",
            &["-O2", "-fomit-frame-pointer"][..],
        ),
        (
            "C -fomit-frame-pointer, stripped",
            "stripped",
            &["-O2", "-fomit-frame-pointer", "-s"],
        ),
        (
            "C -fomit-frame-pointer, static, stripped",
            "static",
            &["-O2", "-fomit-frame-pointer", "-static", "-s"],
        ),
    ] {
        let programs = small(&folder, name, flags)?;
        counts.push(Count::of(title, &|| pids_of(&programs)));
    }

    // Not captured: who runs the tests reads it whether they pass or not.
    std::io::stdout()
        .write_all(draw(&counts).as_bytes())
        .unwrap();
    for count in &counts {
        assert!(count.is_right(), "{}: {:#?}", count.program, count.others);
    }
    Ok(())
}

#[test]
fn reaches_the_beginning_of_the_thread() {
    alone(name!(), all);
}
