//! Java: owners from the machine's memory, monitors by probes where it was started with them, and its own thread dump
//! where it is asked for.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    harness::{Mode, Observer, Run, Skip, TempDir, alone, event::of, name, together},
    program::{Program, functions, list},
};

/// Two threads that take two monitors the wrong way round, two that do so with locks of `java.util.concurrent`, one
/// that waits to be notified, one that was notified and has to enter again, one at the monitor of a class; and threads
/// that take turns at a monitor of a class of their own, briefly or for long.
const SOURCE: &str = r#"
import java.io.File;
import java.lang.management.ManagementFactory;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
public class Scene {
    static class Account {}
    static final Account first = new Account(), second = new Account();
    static final ReentrantLock third = new ReentrantLock(), fourth = new ReentrantLock();
    static void start(String name, Runnable body) {
        Thread thread = new Thread(body, name);
        thread.setDaemon(true);
        thread.start();
    }
    static void await(CountDownLatch latch) {
        try { latch.await(); } catch (InterruptedException e) {}
    }
    static void monitors(Account one, Account other, CountDownLatch both) {
        synchronized (one) { both.countDown(); await(both); synchronized (other) {} }
    }
    static void locks(ReentrantLock one, ReentrantLock other, CountDownLatch both) {
        one.lock(); both.countDown(); await(both); other.lock();
    }
    static void turns(int ms) {
        while (true) synchronized (first) { sleep(ms); }
    }
    static void sleep(int ms) {
        try { Thread.sleep(ms); } catch (InterruptedException e) {}
    }
    static void notified() {
        Object gate = new Object();
        CountDownLatch inside = new CountDownLatch(1);
        Thread waits = new Thread(() -> {
            synchronized (gate) {
                inside.countDown();
                try { gate.wait(); } catch (InterruptedException e) {}
            }
        }, "enters again");
        waits.setDaemon(true);
        waits.start();
        start("notifier", () -> {
            await(inside);
            synchronized (gate) { gate.notify(); sleep(3600000); }
        });
    }
    static void ofClass() {
        CountDownLatch held = new CountDownLatch(1);
        start("class-holder", () -> {
            synchronized (Scene.class) { held.countDown(); sleep(3600000); }
        });
        await(held);
        start("class-waiter", () -> { synchronized (Scene.class) {} });
    }
    static long blocked() {
        long own = Thread.currentThread().getId();
        return ManagementFactory.getThreadMXBean().getThreadInfo(own).getBlockedCount();
    }
    static void counted(AtomicLong all, CountDownLatch done) {
        long before = blocked();
        for (int i = 0; i < 200; i++) {
            synchronized (first) { sleep(1); }
            sleep(1);
        }
        all.addAndGet(blocked() - before);
        done.countDown();
    }
    static void counted(String go) throws Exception {
        blocked();
        System.out.println("ready");
        while (!new File(go).exists()) sleep(10);
        AtomicLong all = new AtomicLong();
        CountDownLatch done = new CountDownLatch(3);
        for (int i = 0; i < 3; i++) start("turn-" + i, () -> counted(all, done));
        done.await();
        System.out.println(all.get());
        Thread.sleep(3600000);
    }
    public static void main(String[] args) throws Exception {
        if (args.length > 1) counted(args[1]);
        if (args[0].startsWith("turns")) {
            int ms = args[0].equals("turns") ? 3 : 700;
            for (int i = 0; i < 3; i++) start("turn-" + i, () -> turns(ms));
        } else {
            notified();
            ofClass();
            CountDownLatch two = new CountDownLatch(2), more = new CountDownLatch(2);
            start("a thread with a long name", () -> monitors(first, second, two));
            start("another with a long name", () -> monitors(second, first, two));
            start("lock-a", () -> locks(third, fourth, more));
            start("lock-b", () -> locks(fourth, third, more));
            start("idle", () -> {
                Object nobody = new Object();
                synchronized (nobody) { try { nobody.wait(); } catch (InterruptedException e) {} }
            });
            two.await();
            more.await();
        }
        System.out.println("ready");
        Thread.sleep(3600000);
    }
}
"#;

/// Compiles the program.
fn compiled() -> Result<TempDir, Skip> {
    let folder = TempDir::new();
    let source = folder.path().join("Scene.java");
    fs::write(&source, SOURCE).unwrap();
    let compiled = Command::new("javac")
        .arg("-d")
        .arg(folder.path())
        .arg(&source)
        .status()
        .map_err(|error| Skip(format!("javac: {error}")))?;
    assert!(compiled.success());
    Ok(folder)
}

fn start(folder: &Path, options: &[&str], which: &str) -> Result<Program, Skip> {
    let mut java = Command::new("java");
    java.args(options)
        .args(["-Xmx64m", "-cp"])
        .arg(folder)
        .args(["Scene", which]);
    Program::start(&mut java)
}

fn called<'a>(dump: &'a Value, name: &str) -> &'a Value {
    list(dump, "tasks")
        .iter()
        .find(|task| task["task"]["comm"] == name)
        .unwrap_or_else(|| panic!("no thread {name}: {dump}"))
}

/// The pairs of the program that wait for each other, with the class of the lock and its name.
const PAIRS: [([&str; 2], &str, &str); 2] = [
    (
        ["a thread with a long name", "another with a long name"],
        "jvm_monitor",
        "Scene$Account",
    ),
    (
        ["lock-a", "lock-b"],
        "jvm_lock",
        "java.util.concurrent.locks.ReentrantLock$NonfairSync",
    ),
];

/// Each of a pair waits for the lock that the other one has.
fn check_pairs(dump: &Value) {
    for (pair, class, lock) in PAIRS {
        let [one, other] = pair.map(|name| called(dump, name));
        for (task, holder) in [(one, other), (other, one)] {
            assert_eq!(task["lock"]["class"], class, "{task}");
            assert_eq!(task["lock"]["name"], lock, "{task}");
            assert_eq!(task["holder"]["tid"], holder["task"]["tid"], "{task}");
            assert_eq!(task["holder"]["confidence"], "exact", "{task}");
        }
    }
    let idle = called(dump, "idle");
    assert_eq!(idle["lock"]["class"], "jvm_park", "{idle}");
    assert_eq!(idle["holder"], Value::Null, "{idle}");
}

#[test]
fn its_memory_tells_owners_and_deadlocks() {
    together(name!(), || {
        let folder = compiled()?;
        // Pointers that are compressed, and pointers that are not.
        for options in [
            &[][..],
            &["-XX:-UseCompressedOops", "-XX:-UseCompressedClassPointers"],
        ] {
            let program = start(folder.path(), options, "crossed")?;
            let dump = program.dump_until("two deadlocks", &[], |dump| {
                let entered = ["class-waiter", "enters again"].map(|name| {
                    let mut tasks = list(dump, "tasks").iter();
                    tasks.any(|task| task["task"]["comm"] == name && task["kind"] == "jvm_monitor")
                });
                list(dump, "deadlocks").len() == 2 && entered == [true; 2]
            });
            check_pairs(&dump);
            for deadlock in list(&dump, "deadlocks") {
                assert_eq!(deadlock["confidence"], "exact", "{deadlock}");
            }
            for (waiter, name, holder) in [
                ("class-waiter", "java.lang.Class of Scene", "class-holder"),
                ("enters again", "java.lang.Object", "notifier"),
            ] {
                let task = called(&dump, waiter);
                assert_eq!(task["lock"]["class"], "jvm_monitor", "{task}");
                assert_eq!(task["lock"]["name"], name, "{task}");
                assert_eq!(task["holder"]["comm"], holder, "{task}");
                assert_eq!(task["holder"]["confidence"], "exact", "{task}");
            }
            let idle = called(&dump, "idle");
            assert_eq!(idle["lock"]["name"], "java.lang.Object", "{idle}");
            let runtimes = list(&dump["meta"]["capture"], "runtimes");
            let java = runtimes.iter().find(|one| one["runtime"] == "jvm").unwrap();
            let detail = java["detail"].as_str().unwrap();
            assert!(detail.contains("from its memory"), "{detail}");
            // Nothing is asked of it.
            let pid = program.pid();
            assert!(!fs::exists(format!("/tmp/.java_pid{pid}")).unwrap());
        }
        Ok(())
    });
}

/// ZGC leaves references behind that are out of date. They are not followed, and monitors have their owners all the
/// same.
#[test]
fn a_collector_that_hides_objects_does_not_hide_owners() {
    together(name!(), || {
        let folder = compiled()?;
        let program = start(folder.path(), &["-XX:+UseZGC"], "crossed")?;
        let of_monitors = |dump: &Value| {
            let deadlocks = list(dump, "deadlocks").iter();
            let tasks = deadlocks.map(|one| list(one, "tasks").to_vec());
            let mut tasks = tasks.filter(|tasks| tasks[0]["lock"]["class"] == "jvm_monitor");
            tasks.next()
        };
        let dump = program.dump_until("a deadlock", &[], |dump| of_monitors(dump).is_some());
        let tasks = of_monitors(&dump).unwrap();
        assert_eq!(tasks.len(), 2, "{dump}");
        for task in tasks {
            assert_eq!(task["confidence"], "exact", "{dump}");
            let name = &task["lock"]["name"];
            assert!(name.is_null() || name == "Scene$Account", "{dump}");
        }
        Ok(())
    });
}

#[test]
fn a_deadlock_is_told_once_and_contention_by_class() {
    alone(name!(), || {
        let folder = compiled()?;
        let program = start(folder.path(), &[], "crossed")?;
        let pid = program.pid().to_string();
        let observer = Observer::trace(Mode::Sched, &["-p", &pid]);
        let of_monitors = |events: &[Value]| {
            of(events, "deadlock")
                .filter(|event| event["tasks"][0]["lock"]["class"] == "jvm_monitor")
                .count()
        };
        observer.wait_until("both deadlocks", |events| {
            of(events, "deadlock").count() == 2
        });
        // The machine wakes the threads every second, and they go on to wait.
        observer.wait_until("that they are blocked for long", |events| {
            of(events, "blocked")
                .filter(|event| event["kind"] == "jvm_monitor")
                .any(|event| event["age_ns"].as_u64() > Some(3_000_000_000))
        });
        let run = observer.stop();
        assert_eq!(of_monitors(&run.events), 1);
        drop(program);

        let program = start(folder.path(), &[], "turns for long")?;
        let pid = program.pid().to_string();
        let observer = Observer::trace(Mode::Sched, &["-p", &pid]);
        let contended = |events: &[Value]| {
            of(events, "wait")
                .filter(|wait| wait["kind"] == "jvm_monitor")
                .filter(|wait| wait["holder"]["tid"].is_u64())
                .cloned()
                .collect::<Vec<_>>()
        };
        observer.wait_until("contention", |events| contended(events).len() >= 3);
        let run = observer.stop();
        for wait in contended(&run.events) {
            assert_eq!(wait["lock"]["class"], "jvm_monitor", "{wait}");
            assert_eq!(wait["lock"]["name"], "Scene$Account", "{wait}");
            let [waiter, holder] = [&wait["task"], &wait["holder"]].map(|task| {
                let name = task["comm"].as_str().unwrap();
                assert!(name.starts_with("turn-"), "{wait}");
                name
            });
            assert_ne!(waiter, holder, "{wait}");
        }
        Ok(())
    });
}

#[test]
fn its_own_dump_tells_owners_and_deadlocks() {
    together(name!(), || {
        let folder = compiled()?;
        let program = start(folder.path(), &[], "crossed")?;
        let dump = program.dump_until("two deadlocks", &["--jvm-attach"], |dump| {
            list(dump, "deadlocks").len() == 2
        });
        check_pairs(&dump);
        for name in PAIRS.iter().flat_map(|(pair, _, _)| pair) {
            let own = functions(called(&dump, name));
            assert!(own.iter().any(|name| name.starts_with("Scene.")), "{own:?}");
        }
        // Nothing is left behind.
        let pid = program.pid();
        assert!(!fs::exists(format!("/tmp/.attach_pid{pid}")).unwrap());
        Ok(())
    });
}

#[test]
fn what_is_no_machine_is_not_asked() {
    together(name!(), || {
        let mut sleep = Command::new("sh");
        let program = Program::start(sleep.args(["-c", "echo ready; exec sleep 3600"]))?;
        let dump = program.dump(&["--jvm-attach"]);
        let missing = list(&dump["meta"]["capture"], "missing").iter();
        let why: Vec<&str> = missing.filter_map(|one| one["why"].as_str()).collect();
        assert!(why.iter().any(|why| why.contains("libjvm.so")), "{why:?}");
        Ok(())
    });
}

/// Waits for monitors by the pack.
fn monitor_waits(events: &[Value], pid: u32) -> impl Iterator<Item = &Value> {
    of(events, "wait").filter(move |wait| {
        wait["task"]["pid"] == pid && wait["probe"] == "hotspot:monitor__contended__enter"
    })
}

/// The threads that take turns, and how often each waited for the account.
fn turns(events: &[Value], pid: u32) -> HashMap<String, u64> {
    let mut threads: HashMap<String, u64> = HashMap::new();
    for wait in monitor_waits(events, pid) {
        let thread = wait["task"]["comm"].as_str().unwrap();
        if thread.starts_with("turn-") && wait["lock"]["name"] == "Scene$Account" {
            assert_eq!(wait["kind"], "jvm_monitor", "{wait}");
            assert_eq!(wait["lock"]["class"], "jvm_monitor", "{wait}");
            *threads.entry(thread.to_owned()).or_default() += 1;
        }
    }
    threads
}

/// The same of a program that has started: nobody waits for another monitor.
fn contended(events: &[Value], pid: u32) -> HashMap<String, u64> {
    let threads = turns(events, pid);
    let all = monitor_waits(events, pid).count() as u64;
    assert_eq!(threads.values().sum::<u64>(), all, "{threads:?}");
    threads
}

/// By the machine's probes if it was started with them, by its functions if not: each wait once, and its class whatever
/// pointers to classes look like.
#[test]
fn monitors_have_the_name_of_their_class_however_short_the_wait() {
    alone(name!(), || {
        let folder = compiled()?;
        for options in [
            &["-XX:+DTraceMonitorProbes"][..],
            &[],
            &["-XX:-UseCompressedOops", "-XX:-UseCompressedClassPointers"],
        ] {
            let program = start(folder.path(), options, "turns")?;
            let pid = program.pid();
            let text = pid.to_string();
            for scope in [&["-p", &text][..], &[]] {
                // The budget, which is little on a machine this busy, takes functions out.
                let everything = [
                    "--usdt",
                    "hotspot",
                    "--interval",
                    "200ms",
                    "--max-overhead",
                    "none",
                ];
                let args = [scope, &everything].concat();
                let observer = Observer::trace(Mode::Sched, &args);
                observer.wait_until("waits of all three", |events| {
                    contended(events, pid).len() == 3
                });
                let of_monitor = |event: &&Value| {
                    // A futex of the machine's may be known to be a monitor's too.
                    let id = event["lock"]["id"].as_str().unwrap();
                    event["pid"] == pid && id.contains(":usdt:hotspot:monitor__contended")
                };
                let total = |events: &[Value]| {
                    of(events, "lock")
                        .filter(of_monitor)
                        .filter_map(|event| event["waits"].as_u64())
                        .max()
                };
                observer.wait_until("totals", |events| total(events) > Some(20));
                let run = observer.stop();
                // It is one monitor, and each wait is counted once: what was reported, and what was too short.
                let locks: Vec<&Value> = of(&run.events, "lock").filter(of_monitor).collect();
                assert!(
                    locks
                        .iter()
                        .all(|lock| lock["lock"]["name"] == "Scene$Account"
                            && lock["lock"]["id"] == locks[0]["lock"]["id"]),
                    "{locks:?}"
                );
                let reported: u64 = contended(&run.events, pid).values().sum();
                assert!(total(&run.events) >= Some(reported), "{locks:?}");
                let counters = &run.loss()["counters"];
                for cause in ["usdt_unended", "usdt_read", "usdt_text"] {
                    assert!(counters[cause].as_u64().unwrap_or(0) == 0, "{counters}");
                }
            }
        }
        Ok(())
    });
}

/// As many as the machine itself counts.
#[test]
fn waits_for_monitors_are_counted_as_the_machine_counts_them() {
    alone(name!(), || {
        let folder = compiled()?;
        for options in [&["-XX:+DTraceMonitorProbes"][..], &[]] {
            let go = folder.path().join("go");
            let _ = fs::remove_file(&go);
            let mut java = Command::new("java");
            java.args(options).args(["-Xmx64m", "-cp"]);
            java.arg(folder.path()).args(["Scene", "counted"]).arg(&go);
            let mut program = Program::start(&mut java)?;
            let pid = program.pid().to_string();
            let args = ["-p", &pid, "--usdt", "hotspot", "--max-overhead", "none"];
            let observer = Observer::trace(Mode::Sched, &args);
            fs::write(&go, "").unwrap();
            let blocked: u64 = program.line().parse().unwrap();
            let run = observer.stop();
            let totals = of(&run.events, "lock").filter(|event| {
                event["lock"]["name"] == "Scene$Account"
                    && event["lock"]["id"].as_str().unwrap().contains(":usdt:")
            });
            let waits = totals.last().and_then(|lock| lock["waits"].as_u64());
            println!("{options:?}: {blocked} by the machine, {waits:?} observed");
            assert!(blocked > 0);
            assert_eq!(waits, Some(blocked), "{options:?}");
        }
        Ok(())
    });
}

/// Other releases than the distribution's, where they are installed.
fn others() -> Vec<PathBuf> {
    let machines = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let mut machines: Vec<PathBuf> = machines
        .filter_map(|entry| fs::canonicalize(entry.path().join("bin/java")).ok())
        .collect();
    machines.sort();
    machines.dedup();
    let own = own();
    machines.retain(|machine| Some(machine) != own.as_ref());
    machines
}

/// The one that is in the path.
fn own() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|folder| fs::canonicalize(folder.join("java")).ok())
}

fn missing(run: &Run) -> String {
    let meta = of(&run.events, "meta").next().unwrap();
    let missing = meta["capture"]["missing"].as_array();
    missing.map_or_else(String::new, |missing| format!("{missing:?}"))
}

#[test]
fn monitors_of_other_releases() {
    alone(name!(), || {
        let folder = compiled()?;
        let others = others();
        if others.is_empty() {
            return Err(Skip("there are no other releases of Java".into()));
        }
        for machine in others {
            println!("{}", machine.display());
            let mut java = Command::new(&machine);
            java.args(["-Xmx64m", "-cp"]).arg(folder.path());
            let program = Program::start(java.args(["Scene", "turns"]))?;
            let pid = program.pid();
            let text = pid.to_string();
            let args = ["-p", &text, "--usdt", "hotspot", "--max-overhead", "none"];
            let observer = Observer::trace(Mode::Sched, &args);
            observer.wait_until("waits of all three", |events| {
                contended(events, pid).len() == 3
            });
            let run = observer.stop();
            assert_eq!(missing(&run), "");
        }
        Ok(())
    });
}

/// A machine that runs with another file in the place of its library; it finds the rest of itself by that place, so the
/// file is put there, for this program alone.
fn with_library(library: &Path, folder: &Path) -> Result<Command, Skip> {
    let own = own().ok_or_else(|| Skip("there is no Java".into()))?;
    let mut java = Command::new("unshare");
    java.args(["--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"")
        .arg(library)
        .args([&own_library(&own), &own])
        .args(["-Xmx64m", "-cp"])
        .arg(folder);
    Ok(java)
}

fn own_library(own: &Path) -> PathBuf {
    own.with_file_name("../lib/server/libjvm.so")
}

/// Nobody maps its library when observer starts: its probes and its functions are attached to all the same.
#[test]
fn a_machine_that_starts_later() {
    alone(name!(), || {
        let folder = compiled()?;
        let own = own().ok_or_else(|| Skip("there is no Java".into()))?;
        let copy = folder.path().join("libjvm.so");
        if fs::copy(own_library(&own), &copy).is_err() {
            return Err(Skip("lib/server/libjvm.so is not there".into()));
        }
        let args = ["--usdt", "hotspot", "--max-overhead", "none"];
        let observer = Observer::trace(Mode::Sched, &args);
        let mut java = with_library(&copy, folder.path())?;
        let program = Program::start(java.args(["Scene", "turns"]))?;
        let pid = program.pid();
        observer.wait_until("waits of all three", |events| turns(events, pid).len() == 3);
        observer.wait_until("a sleep", |events| {
            of(events, "wait").any(|wait| {
                wait["task"]["pid"] == pid
                    && wait["probe"] == "hotspot:thread__sleep__begin"
                    && wait["kind"] == "sleep"
                    && wait["lock"]["name"] == "Thread.sleep"
            })
        });
        let run = observer.stop();
        let of_monitors = |hook: &Value| {
            let hook = hook.as_str().unwrap();
            hook.contains("monitor__contended__enter") && hook.contains("by ObjectMonitor::")
        };
        let later = of(&run.events, "attached").flat_map(|event| list(event, "attached"));
        assert!(later.filter(|hook| of_monitors(hook)).count() > 0);
        Ok(())
    });
}

/// A library without symbols: the machine's functions are not found, and that is said.
#[test]
fn a_machine_without_symbols_is_refused_by_name() {
    alone(name!(), || {
        let folder = compiled()?;
        let own = own().ok_or_else(|| Skip("there is no Java".into()))?;
        let library = own_library(&own);
        let stripped = folder.path().join("libjvm.so");
        let status = Command::new("strip")
            .args(["--strip-all", "-o"])
            .args([&stripped, &library])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(Skip("strip, or lib/server/libjvm.so, is not there".into()));
        }
        let mut java = with_library(&stripped, folder.path())?;
        let program = Program::start(java.args(["Scene", "turns"]))?;
        let pid = program.pid().to_string();
        let args = ["-p", &pid, "--usdt", "hotspot", "--interval", "100ms"];
        let observer = Observer::trace(Mode::Sched, &args);
        observer.wait_until("some reports", |events| of(events, "cost").count() >= 5);
        let run = observer.stop();
        let missing = missing(&run);
        assert!(missing.contains("stripped of its symbols"), "{missing}");
        assert!(contended(&run.events, program.pid()).is_empty());
        Ok(())
    });
}
