//! `--go-events`: waits of goroutines as they happen, held against a program that makes a known number of them.

use std::{process::Command, time::Instant};

use serde_json::Value;

use crate::{
    commands::{OBSERVER, list},
    program::{Form, LIMIT, Scene, name, skip, with_each},
    trace::Trace,
};

impl Trace {
    /// The same with the events of a scene's goroutines.
    fn of(scene: &Scene) -> Option<Trace> {
        let pid = scene.pid().to_string();
        let all = ["--min-wait", "0ms", "--max-overhead", "none"];
        Trace::with(&[&["--go-events", "-p", &pid], &all[..]].concat())
    }

    /// Waits of goroutines until there are enough, and all that follow until it has ended.
    fn waits(mut self, enough: impl Fn(&[Value]) -> bool) -> (Vec<Value>, Value) {
        let start = Instant::now();
        let (mut waits, mut loss) = (Vec::new(), Value::Null);
        let mut stopped = false;
        while let Ok(line) = self.lines.recv_timeout(LIMIT) {
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["type"] == "wait" && event["probe"] == "go:park" {
                waits.push(event);
            } else if event["type"] == "loss" {
                loss = event;
            }
            if !stopped && (enough(&waits) || start.elapsed() > LIMIT) {
                stopped = true;
                let pid = self.child.id().to_string();
                Command::new("kill").args(["-INT", &pid]).status().unwrap();
            }
        }
        self.child.wait().unwrap();
        (waits, loss)
    }
}

#[test]
fn waits_are_as_many_as_the_program_made() {
    with_each(name!(), &[Form::Stripped, Form::Pie], |program| {
        let mut scene = program.play(&["turns"]);
        let Some(trace) = Trace::of(&scene) else {
            skip(name!(), "the kernel programs cannot be loaded");
            return;
        };
        let missing = list(&trace.meta["capture"]["missing"]).iter();
        let missing: Vec<&Value> = missing
            .filter(|one| {
                one["feature"]
                    .as_str()
                    .unwrap()
                    .contains("goroutine events")
            })
            .collect();
        if program.release.starts_with("go1.19") {
            // Its functions have no instruction that is cheap to stop at: refused by name.
            let why = missing[0]["why"].as_str().unwrap();
            assert!(why.contains("go1.19"), "{why}");
            trace.waits(|_| true);
            return;
        }
        assert!(missing.is_empty(), "{program:?}: {missing:?}");
        scene.tell("grow");
        scene.tell("grow");
        let turns = scene.truth.fact("turns") as usize;
        let (receiver, locker) = (scene.truth.goid("receiver"), scene.truth.goid("locker"));
        let of = |waits: &[Value], goid: u64, kind: &str| -> Vec<Value> {
            let is_one = |one: &&Value| one["task"]["goid"] == goid && one["kind"] == kind;
            waits.iter().filter(is_one).cloned().collect()
        };
        let (channel, mutex) = ("goroutine_channel", "goroutine_mutex");
        let (waits, loss) = trace.waits(|waits| {
            of(waits, locker, mutex).len() >= turns && of(waits, locker, channel).len() >= turns - 1
        });
        // The first of each had begun before.
        let received = of(&waits, receiver, channel);
        assert_eq!(received.len(), turns - 1, "{program:?}: {waits:#?}");
        assert_eq!(of(&waits, locker, channel).len(), turns - 1, "{program:?}");
        let locked = of(&waits, locker, mutex);
        assert_eq!(locked.len(), turns, "{program:?}: {waits:#?}");
        for wait in &received {
            assert_eq!(wait["mode"], "chan receive");
            assert_eq!(
                wait["lock"]["addr"],
                scene.truth.addr("numbers").to_string()
            );
            assert_eq!(wait["lock"]["class"], "go_chan");
        }
        for wait in received.iter().chain(&locked) {
            assert_eq!(wait["waker"]["goid"], 1, "{wait:#}");
            assert_eq!(wait["task"]["pid"], scene.pid());
            assert!(wait["dur_ns"].as_u64().unwrap() > 0);
        }
        assert!(locked.iter().all(|wait| wait["mode"] == "sync.Mutex.Lock"));
        let slept: Vec<Value> = of(&waits, 1, "sleep");
        assert!(
            slept.iter().all(|wait| wait["waker"].is_null()),
            "{slept:#?}"
        );
        assert_eq!(loss["total"], 0, "{loss}");
    });
}

#[test]
fn go_processes_of_the_host_are_found() {
    with_each(name!(), &[Form::StrippedPie], |program| {
        let scene = program.play(&["leak"]);
        let Some(mut trace) = Trace::with(&["--interval", "250ms"]) else {
            skip(name!(), "the kernel programs cannot be loaded");
            return;
        };
        let start = Instant::now();
        let mut found = std::collections::BTreeMap::new();
        // No more than so many are looked at: where the host has others, those count.
        while found.len() < 8 && !found.contains_key(&u64::from(scene.pid())) {
            assert!(start.elapsed() < LIMIT, "{program:?}: {found:?}");
            let line = trace.lines.recv_timeout(LIMIT).unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["type"] == "goroutines" {
                found.insert(event["pid"].as_u64().unwrap(), event["total"].clone());
            }
        }
        if let Some(total) = found.get(&u64::from(scene.pid())) {
            assert_eq!(*total, scene.truth.goroutines);
        }
        trace.child.kill().unwrap();
        trace.child.wait().unwrap();
    });
}

#[test]
fn without_a_process_there_are_no_events_of_goroutines() {
    let output = Command::new(OBSERVER)
        .args(["trace", "--go-events"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--pid"), "{said}");
}
