//! Two moments, made of dumps and of models.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::rules::testing::{NOW, SECOND, model, waiter};

fn dump(second: u64, tasks: &[Value], findings: &[Value]) -> Value {
    json!({
        "meta": {
            "time": format!("2026-01-01T00:00:{second:02}.000000000Z"), "host": "here", "kernel": "6.1",
            "filters": {"min_wait_ns": 0, "long_wait_ns": 0, "interval_ns": 0},
        },
        "tasks": tasks, "goroutines": [], "locks": [], "deadlocks": [], "findings": findings,
        "loss": {"total": 0},
    })
}

fn task(tid: u32, lock: Option<&str>, age_s: u64) -> Value {
    let mut task =
        json!({"task": {"pid": 1, "tid": tid, "comm": format!("t{tid}"), "process": "p"}});
    if let Some(lock) = lock {
        task["kind"] = json!("lock");
        task["age_ns"] = json!(age_s * SECOND);
        task["lock"] = json!({"id": format!("1:{lock}"), "class": "of_the_future", "name": lock, "shared": false});
    }
    task
}

fn finding(rule: &str, tid: u32, title: &str) -> Value {
    let subject = json!({"task": {"pid": 1, "tid": tid}});
    json!({"rule": rule, "severity": "critical", "title": title, "evidence": [], "advice": "", "subjects": [subject]})
}

fn moment(name: &str, value: &Value) -> Moment {
    let path = std::env::temp_dir().join(format!("observer-diff-{}-{name}", std::process::id()));
    fs::write(&path, serde_json::to_vec(value).unwrap()).unwrap();
    let moment = Moment::read(&path).unwrap();
    // For people, over many lines, it is the same.
    fs::write(&path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
    let pretty = Moment::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(moment.tasks, pretty.tasks);
    moment
}

fn tids(tasks: &[TaskAt]) -> Vec<u32> {
    tasks.iter().map(|task| task.task.tid).collect()
}

#[test]
fn who_came_went_stayed_and_moved_on() {
    let a = [
        task(1, Some("L"), 5),
        task(2, Some("L"), 5),
        task(3, Some("L"), 5),
        task(4, None, 0),
        task(5, Some("M"), 1),
    ];
    let b = [
        // The same wait, and one that began anew at the same lock.
        task(1, Some("L"), 15),
        task(2, Some("L"), 3),
        task(4, None, 0),
        task(5, Some("N"), 11),
        task(6, Some("L"), 1),
    ];
    let found = [
        [finding("deadlock", 1, "for 5 s"), finding("stuck", 3, "x")],
        [finding("deadlock", 1, "for 15 s"), finding("stuck", 6, "x")],
    ];
    let diff = Diff::of(
        moment("a", &dump(0, &a, &found[0])),
        moment("b", &dump(10, &b, &found[1])),
    );
    assert_eq!(tids(&diff.tasks.appeared), [6]);
    assert_eq!(tids(&diff.tasks.vanished), [3]);
    assert_eq!(diff.tasks.still.len(), 1);
    assert_eq!(diff.tasks.still[0].now.task.tid, 1);
    assert_eq!(diff.tasks.still[0].age_before_ns, Some(5 * SECOND));
    assert_eq!(diff.tasks.moved_on, 3);
    let rules = |all: &[FindingAt]| -> Vec<String> {
        all.iter()
            .map(|one| format!("{} {}", one.rule, one.title))
            .collect()
    };
    assert_eq!(rules(&diff.findings.still), ["deadlock for 15 s"]);
    assert_eq!(rules(&diff.findings.new), ["stuck x"]);
    assert_eq!(rules(&diff.findings.gone), ["stuck x"]);
    assert_eq!(
        diff.summary[0],
        "After 10.0s one finding is new (critical: x), one finding is gone, one finding is still there."
    );
    assert_eq!(
        diff.summary[1],
        "One task is still in the same wait, the longest t1/1, waiting for L, for 15.0s."
    );
    let mut text = Vec::new();
    crate::report::document::text(&mut text, &diff.document()).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("STILL IN THE SAME WAIT"), "{text}");
}

#[test]
fn the_earlier_one_stands_first() {
    let diff = Diff::of(
        moment("late", &dump(10, &[task(1, Some("L"), 15)], &[])),
        moment("early", &dump(0, &[task(1, Some("L"), 5)], &[])),
    );
    assert_eq!(diff.tasks.still.len(), 1);
    assert_eq!(diff.notes.len(), 1, "{:?}", diff.notes);
}

#[test]
fn only_what_both_saw_is_compared() {
    let mut of_one = dump(0, &[task(1, Some("L"), 5)], &[]);
    of_one["meta"]["filters"]["pids"] = json!([1]);
    let mut other = task(70, Some("L"), 5);
    other["task"]["pid"] = json!(7);
    let of_all = dump(10, &[task(1, Some("L"), 15), other], &[]);
    let diff = Diff::of(moment("one", &of_one), moment("all", &of_all));
    assert_eq!(diff.tasks.appeared, []);
    assert!(diff.notes[0].contains("process 1"), "{:?}", diff.notes);
}

/// A number that was given to another process is not the task that had it.
#[test]
fn numbers_are_used_again() {
    let mut other = task(1, Some("L"), 15);
    other["task"]["process"] = json!("another");
    let diff = Diff::of(
        moment("was", &dump(0, &[task(1, Some("L"), 5)], &[])),
        moment("is", &dump(10, &[other], &[])),
    );
    assert_eq!(tids(&diff.tasks.appeared), [1]);
    assert_eq!(tids(&diff.tasks.vanished), [1]);
}

#[test]
fn locks_that_grew() {
    let of = |waiters: u32, file: &str| {
        let mut events: Vec<_> = (0..waiters)
            .map(|i| waiter(10 + i).at(1).long(5).blocked())
            .collect();
        events.push(waiter(5).at(2).long(1).blocked());
        let mut model = model(&events);
        model.advance(NOW + SECOND);
        Moment::of_model(file.to_owned(), &model, Vec::new())
    };
    let diff = Diff::of(of(1, "a"), of(4, "b"));
    assert_eq!(diff.locks.len(), 1, "{:#?}", diff.locks);
    let [a, b] = [&diff.locks[0].a, &diff.locks[0].b].map(|side| side.as_ref().unwrap());
    assert_eq!((a.waiters_now, b.waiters_now), (1, 4));
    assert!(
        diff.summary
            .iter()
            .any(|line| line.contains("lock_1: 4 tasks")),
        "{:?}",
        diff.summary
    );
    assert_eq!(tids(&diff.tasks.appeared), [11, 12, 13]);
}

#[test]
fn what_is_neither() {
    let path = std::env::temp_dir().join(format!("observer-diff-{}-bad", std::process::id()));
    for (bytes, why) in [
        (&b""[..], "no recording"),
        (b"hello", "no recording"),
        (b"{", "no dump"),
        (b"{}", "it has no `meta`"),
        (b"{\"meta\":[]}", "it has no `meta`"),
        (b"[1]", "no recording"),
        (b"{\"meta\":{}, \"tasks\":", "no dump"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", Moment::read(&path).unwrap_err());
        assert!(
            error.contains(why),
            "{}: {error}",
            String::from_utf8_lossy(bytes)
        );
    }
    // Strange, but readable: said, not fatal.
    let strange =
        json!({"meta": {}, "tasks": [1, {"task": 2}, task(1, None, 0)], "locks": {}, "end": 7});
    fs::write(&path, strange.to_string()).unwrap();
    let moment = Moment::read(&path).unwrap();
    assert_eq!(moment.tasks.len(), 1);
    assert!(
        moment.notes[0].contains("left out: 2"),
        "{:?}",
        moment.notes
    );
    fs::remove_file(&path).unwrap();
}

/// Goroutines of one group.
fn group(reason: &str, at: &str, goids: &[u64]) -> Value {
    json!({
        "count": goids.len(), "state": "waiting", "wait_reason": reason, "goids": goids,
        "stack": [{"function": at, "addr": "0x1"}],
    })
}

fn with_goroutines(second: u64, groups: &[Value]) -> Value {
    let mut dump = dump(second, &[], &[]);
    dump["goroutines"] = json!([{
        "time": "2026-01-01T00:00:00.000000000Z", "mono_ns": 1, "pid": 7, "release": "go1.24.1", "took_ns": 1,
        "total": 3, "by_state": {}, "groups": groups, "sites": [], "torn": 0, "left_out": 0,
    }]);
    dump
}

/// Goroutines of one group that there are more of, of one that are still there, and of one that is gone.
#[test]
fn goroutines_appear_vanish_grow_and_stay() {
    let before = [
        group("chan send", "main.leak", &[5, 6]),
        group("select", "main.gone", &[9]),
        group("sync.Mutex.Lock", "main.stuck", &[3]),
        group("chan receive", "main.others", &[20]),
    ];
    let after = [
        group("chan send", "main.leak", &[5, 6, 30, 31]),
        group("sync.Mutex.Lock", "main.stuck", &[3]),
        group("chan receive", "main.others", &[40]),
        group("sleep", "main.new", &[33]),
    ];
    let diff = Diff::of(
        moment("go-a", &with_goroutines(0, &before)),
        moment("go-b", &with_goroutines(10, &after)),
    );
    let count = |side: &Option<GoGroup>| side.as_ref().map_or(0, |group| group.count as i64);
    let changed = diff.goroutines.iter().map(|pair| {
        let group = pair.b.as_ref().or(pair.a.as_ref()).unwrap();
        (group.at.as_str(), count(&pair.b) - count(&pair.a))
    });
    let wanted = [("main.leak", 2), ("main.new", 1), ("main.gone", -1)];
    assert_eq!(changed.collect::<Vec<_>>(), wanted);
    let still = diff.goroutines_still.iter();
    let still: Vec<(&str, &[u64])> = still
        .map(|one| (one.now.at.as_str(), &one.still[..]))
        .collect();
    // Others of the same place are not those that were there.
    assert_eq!(still, [("main.leak", &[5, 6][..]), ("main.stuck", &[3])]);
    assert_eq!(diff.goroutines_still[0].older_ns, 10 * SECOND);
}

/// Of a group that is too large to name all, it is not known who is still there.
#[test]
fn large_groups_are_still_there_without_names() {
    let many = |goid: u64| {
        let mut group = group("chan send", "main.many", &[goid]);
        group["count"] = json!(90);
        with_goroutines(goid, &[group])
    };
    let diff = Diff::of(moment("go-c", &many(1)), moment("go-d", &many(2)));
    let known = diff.goroutines_still.iter().map(|one| one.still.len());
    assert_eq!(known.collect::<Vec<_>>(), [0]);
}
