//! What the commands say of Go processes.

use std::process::Command;

use serde_json::Value;

use crate::{
    program::{Form, LIMIT, Program, Scene, name, skip, with_each},
    trace::Trace,
};

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// `observer dump PID`, without kernel programs: these tests need no root.
pub(crate) fn dump(scene: &Scene, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(OBSERVER)
        .args(["dump", "--no-bpf", &scene.pid().to_string()])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.is_empty(), "{output:?}");
    (output.status.code(), said)
}

pub(crate) fn json(scene: &Scene) -> Value {
    serde_json::from_str(&dump(scene, &["--format", "json"]).1).unwrap()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Findings by these rules.
fn findings<'a>(all: &'a [Value], rules: &[&str]) -> Vec<&'a Value> {
    let of_rules = |found: &&Value| rules.iter().any(|rule| found["rule"] == *rule);
    all.iter().filter(of_rules).collect()
}

const RULES: [&str; 6] = [
    "goroutine_deadlock",
    "goroutine_leak",
    "goroutine_count",
    "blocked_goroutines",
    "writer_starvation",
    "channel_without_other_end",
];

#[test]
fn a_dump_has_the_groups_that_the_program_has() {
    with_each(name!(), &[Form::Stripped], |program| {
        let scene = program.play(&["channels"]);
        let seen = json(&scene);
        let go = &seen["goroutines"][0];
        assert_eq!(go["pid"], scene.pid());
        assert_eq!(go["release"], program.release);
        assert_eq!(go["total"], scene.truth.goroutines);
        let groups = list(&go["groups"]);
        let own = groups.iter().filter(|group| group["system"] != true);
        let count: u64 = own.map(|group| group["count"].as_u64().unwrap()).sum();
        assert_eq!(count, scene.truth.goroutines as u64, "{go:#}");
        let of = |name: &str| {
            let goid = scene.truth.goid(name);
            let is_there = |group: &&Value| list(&group["goids"]).contains(&goid.into());
            groups.iter().find(is_there).unwrap()
        };
        let sender = of("sender");
        assert_eq!(sender["wait_reason"], "chan send");
        assert_eq!(sender["created_by"]["function"], "main.call");
        let full = scene.truth.addr("full").to_string();
        assert_eq!(sender["waits_for"][0]["lock"]["addr"], full);
        assert_eq!(sender["waits_for"][0]["operation"], "send");
        let mut channels = list(&go["channels"]).iter();
        let channel = channels.find(|one| one["lock"]["addr"] == full).unwrap();
        assert_eq!((&channel["len"], &channel["cap"]), (&3.into(), &3.into()));
        // Two that only send, and a select.
        assert_eq!(channel["senders"], 3);
        let text = dump(&scene, &[]).1;
        let total = format!(
            "{} goroutines ({})",
            scene.truth.goroutines, program.release
        );
        assert!(text.contains(&total), "{text}");
        assert!(text.contains("created by main.call"), "{text}");
        assert!(
            text.contains(&format!("waits to send go_chan {full} (3 of 3 in it")),
            "{text}"
        );
    });
}

#[test]
fn a_dump_shows_a_deadlock_of_goroutines() {
    with_each(name!(), &[Form::Normal, Form::StrippedPie], |program| {
        let scene = program.play(&["abba"]);
        let seen = json(&scene);
        let circles = list(&seen["goroutines"][0]["deadlocks"]);
        assert_eq!(circles.len(), 1, "{seen:#}");
        let steps = list(&circles[0]["goroutines"]);
        assert_eq!(steps.len(), 2);
        for (name, other) in [("a", "b"), ("b", "a")] {
            let goid = scene.truth.goid(name);
            let step = steps.iter().find(|step| step["goid"] == goid).unwrap();
            assert_eq!(step["waits_for"], scene.truth.goid(other));
            assert_eq!(step["lock"]["addr"], scene.truth.addr(other).to_string());
            assert_eq!(step["lock"]["class"], "go_mutex");
        }
        assert_eq!(circles[0]["confidence"], "likely");
        let found = findings(list(&seen["findings"]), &RULES);
        assert_eq!(found.len(), 1, "{seen:#}");
        assert_eq!(found[0]["rule"], "goroutine_deadlock");
        let (code, text) = dump(&scene, &["--fail-on", "deadlock"]);
        assert_eq!(code, Some(10));
        assert!(text.contains("suspected deadlock: goroutines "), "{text}");
    });
}

/// Traces until `enough`, which may tell the scene to go on. `None`: the kernel allows no programs.
fn trace(
    scene: &mut Scene,
    mut enough: impl FnMut(&Value, &mut Scene) -> bool,
) -> Option<Vec<Value>> {
    let pid = scene.pid().to_string();
    let Trace {
        mut child,
        lines,
        meta,
    } = Trace::with(&["--interval", "250ms", "-p", &pid])?;
    let mut is_over = enough(&meta, scene);
    let mut events = vec![meta];
    while !is_over && let Ok(line) = lines.recv_timeout(LIMIT) {
        let event: Value = serde_json::from_str(&line).unwrap();
        is_over = enough(&event, scene);
        events.push(event);
    }
    let _ = child.kill();
    child.wait().unwrap();
    Some(events)
}

fn with_trace(name: &str, form: Form, test: impl Fn(&Program) -> Option<()>) {
    with_each(name, &[form], |program| {
        if test(program).is_none() {
            skip(name, "the kernel or the privileges allow no programs");
        }
    });
}

#[test]
fn a_trace_finds_a_leak_at_its_origin() {
    with_trace(name!(), Form::Stripped, |program| {
        let mut scene = program.play(&["leak"]);
        let mut looks = 0;
        let events = trace(&mut scene, |event, scene| {
            if event["type"] == "goroutines" {
                assert_eq!(event["pid"], scene.pid());
                looks += 1;
                // It grows between any two samples of the rule.
                scene.tell("grow");
            }
            assert!(looks < 200, "no finding");
            event["type"] == "finding" && event["rule"] == "goroutine_leak"
        })?;
        let title = events.last().unwrap()["title"].as_str().unwrap();
        assert!(title.contains("started by main.leakOne"), "{title}");
        // That nobody else has the channels may be found as well, and is true.
        let others = [RULES[0], RULES[2], RULES[3], RULES[4]];
        assert_eq!(findings(&events, &others), Vec::<&Value>::new());
        Some(())
    });
}

#[test]
fn a_trace_finds_a_deadlock_and_a_starved_writer() {
    with_trace(name!(), Form::Stripped, |program| {
        for (play, rule) in [
            ("abba", "goroutine_deadlock"),
            ("writer", "writer_starvation"),
        ] {
            let mut scene = program.play(&[play]);
            let is_it = |event: &Value| event["type"] == "finding" && event["rule"] == rule;
            let events = trace(&mut scene, |event, _| is_it(event))?;
            assert!(is_it(events.last().unwrap()), "{events:#?}");
        }
        Some(())
    });
}

#[test]
fn a_trace_of_an_idle_server_finds_nothing() {
    with_trace(name!(), Form::Stripped, |program| {
        let mut scene = program.play(&["idle"]);
        let mut looks = 0;
        let events = trace(&mut scene, |event, _| {
            looks += u32::from(event["type"] == "goroutines");
            looks == 12
        })?;
        assert_eq!(findings(&events, &RULES), Vec::<&Value>::new());
        Some(())
    });
}
