//! Only what was asked for is observed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{
    Mode, Observer, Skip, TempDir, Workload, alone,
    event::{of, waits_of},
    in_both_modes, name, poll,
};

/// Every task that an event speaks of passes the filter; wakers are anybody.
#[track_caller]
fn assert_only(events: &[Value], passes: impl Fn(&Value) -> bool) {
    for kind in ["wait", "blocked", "task"] {
        for event in of(events, kind) {
            assert!(passes(&event["task"]), "{event}");
        }
    }
}

#[test]
fn by_process() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let watched = Workload::start(&["bitset"])?;
            let _other = Workload::start(&["bitset"])?;
            let observer = Observer::of(mode, &watched, &["--interval", "50ms"]);
            let (tid, pid) = (watched.tid("waiter"), watched.pid());
            observer.wait_until("waits", |events| waits_of(events, tid).count() >= 20);
            let run = observer.stop();
            assert_only(&run.events, |task| task["pid"] == pid);
            assert!(
                of(&run.events, "lock")
                    // A lock inside the kernel belongs to no process.
                    .all(|lock| lock["pid"].is_null() || lock["pid"] == pid)
            );
            Ok(())
        })
    });
}

#[test]
fn by_name() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let watched = Workload::start(&["timedwait"])?;
            let other = Workload::start(&["bitset"])?;
            let args = ["--comm", "timed", "--interval", "50ms"];
            let observer = Observer::trace(mode, &args);
            let tid = watched.tid("timed");
            observer.wait_until("waits", |events| waits_of(events, tid).count() >= 20);
            let run = observer.stop();
            assert_only(&run.events, |task| task["comm"] == "timed");
            let pid = other.pid();
            assert!(of(&run.events, "lock").all(|lock| lock["pid"] != pid));
            Ok(())
        })
    });
}

#[test]
fn by_name_and_process() {
    alone(name!(), || {
        let watched = Workload::start(&["mutex"])?;
        let _same_names = Workload::start(&["mutex"])?;
        let args = ["--comm", "waiter", "--interval", "50ms"];
        let observer = Observer::of(Mode::Sched, &watched, &args);
        let tid = watched.tid("waiter");
        observer.wait_until("waits", |events| waits_of(events, tid).count() >= 20);
        let run = observer.stop();
        assert_only(&run.events, |task| task["tid"] == tid);
        Ok(())
    });
}

/// A control group of the version 2 tree, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Group, Skip> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(path)
        });
        let Some(root) = root else {
            return Err(Skip("no version 2 control group tree is mounted".into()));
        };
        // The name of a fresh folder is one that no other test has.
        let name = TempDir::new().path().file_name().unwrap().to_owned();
        let group = Path::new(root).join(name);
        match fs::create_dir(&group) {
            Ok(()) => Ok(Group(group)),
            Err(error) => Err(Skip(format!(
                "no control group can be made at {}: {error}",
                group.display()
            ))),
        }
    }

    fn child(&self, name: &str) -> Group {
        let child = self.0.join(name);
        fs::create_dir(&child).unwrap();
        Group(child)
    }

    fn add(&self, workload: &Workload) {
        fs::write(self.0.join("cgroup.procs"), workload.pid().to_string()).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty a moment after its last process was waited for.
        poll("the control group to be empty", || {
            fs::remove_dir(&self.0).ok()
        });
    }
}

#[test]
fn by_control_group() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let group = Group::new()?;
            let below = group.child("below");
            let inside = Workload::start(&["bitset"])?;
            let deeper = Workload::start(&["bitset"])?;
            let _outside = Workload::start(&["bitset"])?;
            group.add(&inside);
            below.add(&deeper);
            let args = ["--cgroup", group.path(), "--interval", "50ms"];
            let observer = Observer::trace(mode, &args);
            observer.wait_until("waits in the group and below it", |events| {
                [&inside, &deeper]
                    .iter()
                    .all(|workload| waits_of(events, workload.tid("waiter")).count() >= 20)
            });
            let run = observer.stop();
            let pids = [inside.pid(), deeper.pid()];
            assert_only(&run.events, |task| {
                pids.iter().any(|pid| task["pid"] == *pid)
            });
            Ok(())
        })
    });
}

/// The same group, named by its path below the root of the tree.
#[test]
fn by_control_group_from_the_root() {
    alone(name!(), || {
        let group = Group::new()?;
        let inside = Workload::start(&["bitset"])?;
        let _outside = Workload::start(&["bitset"])?;
        group.add(&inside);
        let name = format!("/{}", group.0.file_name().unwrap().to_str().unwrap());
        let observer = Observer::trace(Mode::Sched, &["--cgroup", &name]);
        let (tid, pid) = (inside.tid("waiter"), inside.pid());
        observer.wait_until("waits", |events| waits_of(events, tid).count() >= 20);
        assert_only(&observer.stop().events, |task| task["pid"] == pid);
        Ok(())
    });
}
