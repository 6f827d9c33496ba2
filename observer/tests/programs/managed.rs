//! Threads of Go and of Java: their runtimes' waits are named as such, with and without symbols.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    harness::{Skip, TempDir, Tested, alone, name, poll},
    programs::{Running, look},
};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(name)
}

/// Runs a tool; skips the test where there is none.
fn run(command: &mut Command) -> Tested {
    let output = command
        .output()
        .map_err(|error| Skip(format!("{}: {error}", command.get_program().display())))?;
    assert!(output.status.success(), "{command:?}: {output:?}");
    Ok(())
}

/// The threads that wait for futexes.
fn in_futex(seen: &Value) -> impl Iterator<Item = &Value> {
    let tasks = seen["tasks"].as_array().unwrap().iter();
    tasks.filter(|task| task["syscall"] == "futex" && task["state"] == "waiting")
}

fn go(strip: bool) -> Tested {
    let folder = TempDir::new();
    let program = folder.path().join("threads");
    let mut compiler = Command::new("go");
    compiler.env("GOCACHE", folder.path().join("cache"));
    compiler.args(["build", "-o"]).arg(&program);
    if strip {
        compiler.args(["-ldflags", "-s -w"]);
    }
    run(compiler.arg(source("threads.go")))?;
    let running = Running::start(&program, &[])?;
    let more: &[&[&str]] = &[&[], &["--no-bpf"]];
    for more in more {
        poll("idle threads of Go's runtime", || {
            let seen = look(&[running.pid()], more);
            let waits: Vec<_> = in_futex(&seen).cloned().collect();
            let named = |task: &Value| task["lock"]["class"] == "go_runtime";
            (waits.len() >= 2 && waits.iter().all(named)).then_some(())
        });
    }
    let seen = look(&[running.pid()], &[]);
    for task in in_futex(&seen) {
        assert!(task.get("holder").is_none(), "{task}");
    }
    Ok(())
}

#[test]
fn threads_of_go() {
    alone(name!(), || go(false));
}

#[test]
fn threads_of_go_stripped() {
    alone(name!(), || go(true));
}

const LAUNCHER: &str = "bin/java";
const LIBRARY: &str = "lib/server/libjvm.so";

/// The virtual machine that `java` starts.
fn java_home() -> Result<PathBuf, Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let java = std::env::split_paths(&path).map(|folder| folder.join("java"));
    let mut java = java.filter_map(|java| fs::canonicalize(java).ok());
    let java = java
        .next()
        .ok_or_else(|| Skip("no java in PATH".to_owned()))?;
    Ok(java.parent().unwrap().parent().unwrap().to_owned())
}

/// The same virtual machine without symbols: a tree of links, but for the launcher and the library.
fn stripped(home: &Path, folder: &TempDir) -> Result<PathBuf, Skip> {
    let copy = folder.path().join("java");
    run(Command::new("cp").arg("-rsP").args([home, &copy]))?;
    for (name, tool) in [(LAUNCHER, &["cp"][..]), (LIBRARY, &["strip", "-o"])] {
        fs::remove_file(copy.join(name)).unwrap();
        let mut command = Command::new(tool[0]);
        let mut paths = [home.join(name), copy.join(name)];
        if tool.len() > 1 {
            paths.reverse();
        }
        run(command.args(&tool[1..]).args(paths))?;
    }
    Ok(copy)
}

/// Has the virtual machine's library no names of its functions? Some distributions take them away.
fn is_stripped(home: &Path) -> bool {
    let symbols = Command::new("nm").arg(home.join(LIBRARY)).output();
    symbols.is_ok_and(|symbols| symbols.stdout.is_empty())
}

/// A lock's name, and who holds it, if anybody does.
type Known = (&'static str, Option<&'static str>);

/// Threads of the program, and what they wait for by the machine's memory: class, name, and who holds it; or the class
/// alone, by the names of functions.
const THREADS: [(&str, &str, Option<Known>); 6] = [
    ("park", "jvm_park", None),
    (
        "lock",
        "jvm_lock",
        Some((
            "java.util.concurrent.locks.ReentrantLock$NonfairSync",
            Some("hold-lock"),
        )),
    ),
    ("hold-mon", "jvm_park", None),
    (
        "enter",
        "jvm_monitor",
        Some(("java.lang.Object", Some("hold-mon"))),
    ),
    ("wait", "jvm_park", Some(("java.lang.Object", None))),
    ("sleep", "jvm_runtime", None),
];

fn java(strip: bool) -> Tested {
    let folder = TempDir::new();
    let mut home = java_home()?;
    run(Command::new("javac")
        .arg("-d")
        .arg(folder.path())
        .arg(source("Threads.java")))?;
    if strip {
        home = stripped(&home, &folder)?;
    }
    let unnamed = is_stripped(&home);
    assert!(unnamed || !strip);
    let classes = folder.path().to_str().unwrap();
    let options = ["-XX:TieredStopAtLevel=1", "-cp", classes, "Threads"];
    let running = Running::start(&home.join(LAUNCHER), &options)?;
    let of = |seen: &Value, name: &str| {
        let found = in_futex(seen).find(|task| task["task"]["comm"] == name);
        found.cloned()
    };
    let seen = poll("all threads to wait", || {
        let seen = look(&[running.pid()], &[]);
        let all = THREADS.iter().all(|(name, _, _)| of(&seen, name).is_some());
        all.then_some(seen)
    });
    for (name, class, known) in THREADS {
        let task = of(&seen, name).unwrap();
        // What the machine publishes for debuggers does not go with its symbols.
        let class = if unnamed && known.is_none() {
            "jvm_runtime"
        } else {
            class
        };
        assert_eq!(task["lock"]["class"], class, "{task}");
        let told = known.map(|(name, _)| name);
        assert_eq!(task["lock"]["name"].as_str(), told, "{task}");
        let holder = known.and_then(|(_, holder)| holder);
        assert_eq!(task["holder"]["comm"].as_str(), holder, "{task}");
    }
    // Nobody is accused, those threads neither that are the virtual machine's own.
    assert_eq!(seen["deadlocks"].as_array().unwrap().len(), 0);
    // Those that run every few milliseconds may move while they are looked at.
    poll("a look in which every wait is known", || {
        let seen = look(&[running.pid()], &[]);
        let unknown = |task: &Value| {
            let class = &task["lock"]["class"];
            class == "futex" || class == "pthread_cond"
        };
        (!in_futex(&seen).any(unknown)).then_some(())
    });
    Ok(())
}

#[test]
fn threads_of_java() {
    alone(name!(), || java(false));
}

#[test]
fn threads_of_java_stripped() {
    alone(name!(), || java(true));
}
