//! Only what was asked for is observed.

use serde_json::Value;

use crate::harness::{
    Group, Mode, Observer, Workload, alone,
    event::{of, waits_of},
    in_both_modes, name,
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

#[test]
fn by_control_group() {
    alone(name!(), || {
        in_both_modes(|mode| {
            let group = Group::new()?;
            let below = group.child("below");
            let inside = Workload::start(&["bitset"])?;
            let deeper = Workload::start(&["bitset"])?;
            let _outside = Workload::start(&["bitset"])?;
            group.add(inside.pid());
            below.add(deeper.pid());
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
        group.add(inside.pid());
        let name = format!("/{}", group.name());
        let observer = Observer::trace(Mode::Sched, &["--cgroup", &name]);
        let (tid, pid) = (inside.tid("waiter"), inside.pid());
        observer.wait_until("waits", |events| waits_of(events, tid).count() >= 20);
        assert_only(&observer.stop().events, |task| task["pid"] == pid);
        Ok(())
    });
}
