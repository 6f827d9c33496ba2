//! What a dump says of single groups: labels, threads, sockets, sleepers; and the dump as a profile.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{
    commands::{OBSERVER, dump, json, list},
    program::{Form, Program, Scene, name, skip, with_each},
};

const BOTH: [Form; 2] = [Form::Normal, Form::StrippedPie];

/// The group that the goroutine of this name is in.
#[track_caller]
fn group<'a>(seen: &'a Value, scene: &Scene, name: &str) -> &'a Value {
    let goid = scene.truth.goid(name);
    let groups = list(&seen["goroutines"][0]["groups"]).iter();
    let mut of = groups.filter(|group| list(&group["goids"]).contains(&goid.into()));
    of.next()
        .unwrap_or_else(|| panic!("{name} is in no group: {seen:#}"))
}

#[test]
fn groups_have_their_labels() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["labels"]);
        let seen = json(&scene);
        for name in ["labelled", "child"] {
            let labels = &group(&seen, &scene, name)["labels"];
            let expected = json!([
                {"key": "path", "value": "/a/b", "count": 1},
                {"key": "request", "value": "42", "count": 1},
            ]);
            assert_eq!(labels, &expected, "{program:?}");
        }
        let text = dump(&scene, &[]).1;
        assert!(text.contains("labels: path=/a/b request=42"), "{text}");
    });
}

#[test]
fn groups_have_their_threads() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["threads"]);
        let seen = json(&scene);
        let group = group(&seen, &scene, "syscall");
        assert_eq!(group["tids"], json!([scene.truth.fact("syscall_tid")]));
        assert_eq!(group["locked_to_thread"], 1, "{program:?}");
    });
}

#[test]
fn descriptors_have_their_peers() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["io"]);
        let seen = json(&scene);
        let wait = |name: &str| &group(&seen, &scene, name)["waits_for"][0];
        let listener = &wait("accept")["socket"];
        assert_eq!(listener["listening"], true, "{program:?}: {seen:#}");
        for name in ["read", "write"] {
            let client = &wait(name)["socket"];
            assert_eq!(client["protocol"], "tcp");
            assert_eq!(client["peer"], listener["local"], "{program:?}");
            let file = wait(name)["file"].as_str().unwrap();
            assert!(file.starts_with("socket:["), "{file}");
        }
        let text = dump(&scene, &[]).1;
        let on = format!("(tcp listening on {})", listener["local"].as_str().unwrap());
        assert!(text.contains(&on), "{text}");
    });
}

#[test]
fn sleepers_say_for_how_long() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["sleep"]);
        let seen = json(&scene);
        let left = group(&seen, &scene, "hour")["wakes_in_ns"].as_u64();
        let left = left.unwrap_or_else(|| panic!("{program:?}: {seen:#}"));
        assert!((3_500_000_000_000..=3_600_000_000_000).contains(&left));
    });
}

/// What `go tool pprof` makes of the goroutines. None: there is none.
fn pprof(program: &Program, scene: &Scene, how: &str) -> Option<String> {
    let folder = program.path().parent().unwrap();
    let file = folder.join(format!("{}.pb", scene.pid()));
    let pid = scene.pid().to_string();
    let output = Command::new(OBSERVER)
        .args(["dump", &pid, "--format", "pprof", "--force", "-o"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = Command::new("go")
        .args(["tool", "pprof", how, "-symbolize=none"])
        .arg(&file)
        .env("PPROF_TMPDIR", folder)
        .env("GOTOOLCHAIN", "local")
        .output();
    fs::remove_file(&file).unwrap();
    let output = output.ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    Some(said)
}

#[test]
fn a_dump_is_a_profile_that_pprof_reads() {
    with_each(name!(), &[Form::Stripped], |program| {
        let scene = program.play(&["many", "3000"]);
        let Some(top) = pprof(program, &scene, "-top") else {
            skip(
                name!(),
                "no `go tool pprof`: `cargo xtask test` installs it",
            );
            return;
        };
        assert!(top.contains("Type: goroutine"), "{top}");
        let total = format!(" of {} total", scene.truth.goroutines);
        assert!(top.contains(&total), "{top}");
        // Flat, its share, the sum, cumulated, its share, the name.
        let line = |function: &str| {
            let mut lines = top.lines();
            let line = lines.find(|line| line.split_ascii_whitespace().last() == Some(function));
            let line = line.unwrap_or_else(|| panic!("{function}: {top}"));
            let fields: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            (fields[0].clone(), fields[3].clone())
        };
        assert_eq!(line("main.many.func1"), ("0".into(), "3000".into()));
        let tags = pprof(program, &program.play(&["labels"]), "-tags").unwrap_or_default();
        for label in ["request", "42", "/a/b", "wait_reason", "chan receive"] {
            assert!(tags.contains(label), "{label}: {tags}");
        }
    });
}

#[test]
fn only_goroutines_are_in_a_profile() {
    for args in [vec![], vec![std::process::id().to_string()]] {
        let output = Command::new(OBSERVER)
            .args(["dump", "--format", "pprof"])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("goroutines"), "{said}");
    }
}
