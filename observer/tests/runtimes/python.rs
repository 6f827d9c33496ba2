//! Python: functions of blocked threads, locks that wait for each other, and the interpreter lock.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    harness::{Mode, OBSERVER, Observer, Skip, Terminal, alone, event::of, name, output, together},
    program::{Program, functions, list},
};

/// Two threads that take two locks the wrong way round, one inside a method; one that waits for a condition; and the
/// main thread that waits for them.
const CROSSED: &str = r#"
import threading
first, second = threading.LOCK(), threading.LOCK()
both = threading.Barrier(3)
condition = threading.Condition()
def one():
    with first:
        both.wait()
        with second: pass
class Account:
    def move(self):
        with second:
            both.wait()
            with first: pass
def idle():
    with condition:
        condition.wait()
threads = [threading.Thread(target=f, daemon=True) for f in (one, Account().move, idle)]
for thread in threads: thread.start()
both.wait()
print("ready", flush=True)
for thread in threads: thread.join()
"#;

/// A lock that the main thread took without `with`, and one that nobody holds in the end.
const TAKEN: &str = r#"
import threading, time
lock = threading.Lock()
def wait():
    with lock: pass
lock.acquire()
threading.Thread(target=wait, daemon=True).start()
print("ready", flush=True)
time.sleep(3600)
"#;

/// Threads that compute; they do not share anything but the interpreter lock.
const BUSY: &str = r#"
import threading
def compute():
    n = 0
    while True: n += 1
for _ in range(3): threading.Thread(target=compute, daemon=True).start()
print("ready", flush=True)
compute()
"#;

/// As many threads that are idle.
const IDLE: &str = r#"
import threading, time
for _ in range(3): threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("ready", flush=True)
while True: time.sleep(0.01)
"#;

/// The distribution's own, stripped as it is.
fn python(program: &str) -> Result<Program, Skip> {
    let known = "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))";
    let status = Command::new("/usr/bin/python3")
        .args(["-c", known])
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => return Err(Skip("/usr/bin/python3 is not one of 3.11 to 3.13".into())),
        Err(error) => return Err(Skip(format!("/usr/bin/python3: {error}"))),
    }
    Program::start(Command::new("/usr/bin/python3").args(["-c", program]))
}

/// Interpreters of other releases, with the second number of each: in the path, or where pyenv has them.
fn others() -> Vec<(u32, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let versions = home.map(|home| home.join(".pyenv/versions"));
    let versions = versions.and_then(|versions| std::fs::read_dir(versions).ok());
    let folders: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .chain(std::env::split_paths(&path))
        .collect();
    (7..=15)
        .filter_map(|minor| {
            let name = format!("python3.{minor}");
            let mut programs = folders.iter().map(|folder| folder.join(&name));
            // What pyenv has in the path are scripts.
            let program = programs.find(|program| {
                std::fs::read(program).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
            })?;
            Some((minor, program))
        })
        .collect()
}

fn detail(dump: &Value) -> &str {
    let runtimes = list(&dump["meta"]["capture"], "runtimes");
    let python = runtimes.iter().find(|one| one["runtime"] == "python");
    python.unwrap()["detail"].as_str().unwrap()
}

/// Releases that are known tell functions, lines, locks and who is inside `with`; the others say that they are not.
#[test]
fn releases_that_are_not_the_distributions_own() {
    together(name!(), || {
        let others = others();
        if others.is_empty() {
            return Err(Skip("there are no other releases of Python".into()));
        }
        for (minor, python) in others {
            println!("{}", python.display());
            for (lock, confidence) in [("Lock", "likely"), ("RLock", "exact")] {
                let crossed = CROSSED.replace("LOCK", lock);
                let mut command = Command::new(&python);
                let program = Program::start(command.args(["-c", &crossed]))?;
                if !(9..=13).contains(&minor) {
                    let dump = program.dump(&[]);
                    let detail = detail(&dump);
                    assert!(detail.contains("of this release are not known"), "{detail}");
                    continue;
                }
                let dump = program.dump_until("a deadlock", &[], |dump| {
                    !list(dump, "deadlocks").is_empty()
                });
                assert!(detail(&dump).starts_with(&format!("3.{minor}")), "{dump}");
                let method = if minor < 11 { "move" } else { "Account.move" };
                let (one, other) = (in_function(&dump, "one"), in_function(&dump, method));
                for (task, holder, line) in [(one, other, 9), (other, one, 14)] {
                    assert_eq!(task["lock"]["class"], "python_lock", "{task}");
                    assert_eq!(task["holder"]["tid"], holder["task"]["tid"], "{task}");
                    assert_eq!(task["holder"]["confidence"], confidence, "{task}");
                    let name = task["lock"]["name"].as_str().unwrap();
                    assert!(name.ends_with(&format!("(<string>:{line})")), "{name}");
                }
                let idle = in_function(&dump, "idle");
                assert_eq!(idle["lock"]["class"], "python_condition", "{idle}");
                assert_eq!(list(&dump, "deadlocks").len(), 1, "{dump}");
            }
        }
        Ok(())
    });
}

fn in_function<'a>(dump: &'a Value, name: &str) -> &'a Value {
    list(dump, "tasks")
        .iter()
        .find(|task| functions(task).iter().any(|one| one == name))
        .unwrap_or_else(|| panic!("nobody is in {name}: {dump}"))
}

fn crossed(lock: &str, confidence: &str) {
    together(name!(), || {
        let program = python(&CROSSED.replace("LOCK", lock))?;
        let dump = program.dump_until("a deadlock", &[], |dump| {
            !list(dump, "deadlocks").is_empty()
        });
        let circle = &dump["deadlocks"][0];
        assert_eq!(circle["confidence"], confidence, "{circle}");
        let (one, other) = (
            in_function(&dump, "one"),
            in_function(&dump, "Account.move"),
        );
        for (task, holder, line) in [(one, other, 9), (other, one, 14)] {
            assert_eq!(task["lock"]["class"], "python_lock", "{task}");
            assert_eq!(task["holder"]["tid"], holder["task"]["tid"], "{task}");
            assert_eq!(task["holder"]["confidence"], confidence, "{task}");
            let frames = list(&task["stack"], "user");
            let own = frames
                .iter()
                .find(|frame| frame["file"] == "<string>")
                .unwrap();
            assert_eq!(own["line"], line, "{task}");
            let name = task["lock"]["name"].as_str().unwrap();
            assert!(name.ends_with(&format!("(<string>:{line})")), "{name}");
        }
        // Nobody holds what these wait for.
        let idle = in_function(&dump, "idle");
        assert_eq!(idle["lock"]["class"], "python_condition", "{idle}");
        assert_eq!(idle["holder"], Value::Null, "{idle}");
        assert_eq!(list(&dump, "deadlocks").len(), 1, "{dump}");
        // The runtime is told by name and release, and so does `doctor`.
        let known = |runtimes: &[Value]| {
            let python = runtimes.iter().find(|one| one["runtime"] == "python");
            let detail = python.expect("Python is recognised")["detail"].as_str();
            assert!(detail.unwrap().starts_with("3.1"), "{detail:?}");
        };
        known(list(&dump["meta"]["capture"], "runtimes"));
        let pid = program.pid().to_string();
        let doctor = output(&["doctor", "-p", &pid, "--format", "json"]);
        let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        known(list(&doctor, "runtimes"));
        Ok(())
    });
}

#[test]
fn locks_that_wait_for_each_other_are_a_suspected_deadlock() {
    crossed("Lock", "likely");
}

#[test]
fn locks_that_name_their_owner_are_a_deadlock() {
    crossed("RLock", "exact");
}

#[test]
fn a_lock_that_was_taken_without_a_trace_has_no_holder() {
    together(name!(), || {
        let program = python(TAKEN)?;
        let waits = |dump: &Value| {
            list(dump, "tasks")
                .iter()
                .any(|task| task["lock"]["class"] == "python_lock")
        };
        let dump = program.dump_until("the waiter", &[], waits);
        let task = in_function(&dump, "wait");
        assert_eq!(task["holder"]["confidence"], "unknown", "{task}");
        assert_eq!(task["holder"]["tid"], Value::Null, "{task}");
        assert_eq!(list(&dump, "deadlocks").len(), 0, "{dump}");
        // Nobody has asked for this process by its number.
        let observer = Observer::trace(Mode::Sched, &["--comm", "python3"]);
        let pid = program.pid();
        let found = observer.wait_for("the runtime", |events| {
            let of_it = |event: &&Value| event["pid"] == pid && event["runtime"] == "python";
            of(events, "runtime").find(of_it).cloned()
        });
        assert!(
            found["detail"].as_str().unwrap().starts_with("3.1"),
            "{found}"
        );
        assert_eq!(found["process"], "python3", "{found}");
        let run = observer.stop();
        let told = of(&run.events, "runtime").filter(|event| event["pid"] == pid);
        assert_eq!(told.count(), 1, "once each");
        Ok(())
    });
}

#[test]
fn threads_that_compute_queue_for_the_interpreter_lock() {
    alone(name!(), || {
        let program = python(BUSY)?;
        let pid = program.pid().to_string();
        let args = ["-p", &pid, "--interval", "300ms"];
        let observer = Observer::trace(Mode::Sched, &args);
        let found = observer.wait_for("the finding, with a holder", |events| {
            of(events, "finding")
                .find(|one| one["rule"] == "gil_convoy")
                .cloned()
        });
        assert_eq!(found["subjects"][0]["process"], program.pid(), "{found}");
        // The holder is one of the threads, and memory names it.
        let lock = observer.wait_for("a holder", |events| {
            of(events, "lock")
                .find(|lock| {
                    lock["lock"]["class"] == "python_gil" && lock["holder"]["tid"].is_number()
                })
                .cloned()
        });
        assert_eq!(lock["holder"]["confidence"], "exact", "{lock}");
        assert_eq!(lock["holder"]["pid"], program.pid(), "{lock}");
        assert_eq!(lock["lock"]["name"], "the interpreter lock", "{lock}");
        observer.stop();
        Ok(())
    });
}

#[test]
fn threads_that_sleep_do_not() {
    together(name!(), || {
        let program = python(IDLE)?;
        let pid = program.pid().to_string();
        let args = ["-p", &pid, "--interval", "100ms"];
        let observer = Observer::trace(Mode::Sched, &args);
        observer.wait_until("ten reports", |events| of(events, "cost").count() >= 10);
        let run = observer.stop();
        assert_eq!(of(&run.events, "finding").count(), 0);
        Ok(())
    });
}

#[test]
fn the_screen_shows_the_interpreter_lock() {
    together(name!(), || {
        let program = python(BUSY)?;
        let pid = program.pid();
        let terminal = Terminal::open(&format!("{OBSERVER} top -p {pid}"))?;
        terminal.resize("200", "40");
        terminal.wait_for(&["[1", "Overview]"]);
        terminal.key("6");
        terminal.wait_for(&["RUNTIME", "python", "interpreter", "exact"]);
        terminal.key("/");
        for key in ["i", "n", "t", "e", "r", "p", "Enter", "Enter"] {
            terminal.key(key);
        }
        terminal.wait_for(&["[2", "only", "interpreter", "lock", "python,"]);
        terminal.key("Escape");
        terminal.wait_for(&["[6", "RUNTIME"]);
        Ok(())
    });
}
