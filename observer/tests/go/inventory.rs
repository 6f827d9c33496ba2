//! Is every goroutine there, once, and is it said what it does?

use observer::runtimes::go::{Refused, State, Target, recognise};

use crate::program::{Form, name, with_each};

const ALL: [Form; 8] = [
    Form::Arm64,
    Form::StrippedArm64,
    Form::StrippedPieArm64,
    Form::Cgo,
    Form::Normal,
    Form::Stripped,
    Form::Pie,
    Form::StrippedPie,
];

#[test]
fn every_goroutine_is_there_in_every_form() {
    with_each(name!(), &ALL, |program| {
        let scene = program.play(&["channels"]);
        if !program.form.is_emulated() {
            let recognised = recognise(scene.pid()).unwrap();
            assert_eq!(recognised.release.text, program.release);
            assert_eq!(recognised.to_string(), program.release);
        }
        let inventory = scene.look();
        let what = format!("{program:?}: {inventory:#?}");
        assert_eq!(inventory.total, scene.truth.goroutines, "{what}");
        assert_eq!((inventory.torn, inventory.broken_stacks), (0, 0), "{what}");
        assert_eq!(inventory.layout_of, None, "{what}");
        assert!(inventory.notes.is_empty(), "{what}");
        let untested = program.form.is_emulated().then_some("arm64");
        assert_eq!(inventory.untested, untested, "{what}");
        for (goid, printed) in &scene.truth.stacks {
            let goroutine = inventory.goroutine(*goid).unwrap();
            assert!(!goroutine.system, "{what}");
            // The main one ran while it said so.
            if *goid != 1 {
                let reason = goroutine.wait_reason.as_deref();
                assert_eq!(reason, Some(printed.reason.as_str()), "{what}");
                assert_eq!(goroutine.state, State::Waiting);
            }
        }
    });
}

#[test]
fn unknown_releases_are_calibrated() {
    with_each(name!(), &[Form::Stripped], |program| {
        for minor in [18, 20, 29] {
            let scene = program.claiming(minor).play(&["channels"]);
            let inventory = scene.look();
            let what = format!("{program:?} as {minor}: {inventory:#?}");
            assert!(inventory.layout_of.is_some(), "{what}");
            assert_eq!(inventory.total, scene.truth.goroutines, "{what}");
            for (goid, printed) in scene.truth.stacks.iter().filter(|(goid, _)| **goid != 1) {
                let goroutine = inventory.goroutine(*goid).unwrap();
                let reason = goroutine.wait_reason.as_deref();
                assert_eq!(reason, Some(printed.reason.as_str()), "{what}");
                assert!(!goroutine.stack.cut, "{what}");
            }
        }
        // A release that is known has its own layout only: where it does not fit, it is refused by name.
        let other = if program.release.starts_with("go1.27") {
            19
        } else {
            27
        };
        let scene = program.claiming(other).play(&["channels"]);
        match Target::open(scene.pid()) {
            Err(Refused::Layout { release, reason }) => {
                assert!(release.starts_with(&format!("go1.{other}")) && !reason.is_empty());
            }
            other => panic!("{program:?}: {other:?}"),
        }
    });
}

#[test]
fn threads_are_named_while_they_run() {
    with_each(name!(), &[Form::Normal, Form::StrippedArm64], |program| {
        let mut scene = program.play(&["threads"]);
        scene.tell("say");
        let inventory = scene.look();
        let (busy, call) = (
            scene.truth.of(&inventory, "busy"),
            scene.truth.of(&inventory, "syscall"),
        );
        // It may be preempted just now, but it is never blocked.
        assert!(!busy.is_blocked(), "{busy:?}");
        assert_eq!(call.state, State::Syscall);
        let tid = u32::try_from(scene.truth.fact("syscall_tid")).unwrap();
        assert_eq!(
            (call.tid, call.locked_to_thread),
            (Some(tid), true),
            "{call:?}"
        );
        assert!(busy.stack.frames.is_empty() || busy.state != State::Running);
    });
}

#[test]
fn labels_are_read_and_inherited() {
    with_each(name!(), &[Form::Normal, Form::StrippedArm64], |program| {
        let scene = program.play(&["labels"]);
        let inventory = scene.look();
        for name in ["labelled", "child"] {
            let labels = &scene.truth.of(&inventory, name).labels;
            let labels: Vec<_> = labels
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            assert_eq!(labels, [("path", "/a/b"), ("request", "42")], "{program:?}");
        }
    });
}

#[test]
fn groups_count_what_is_alike() {
    with_each(name!(), &[Form::Stripped], |program| {
        let scene = program.play(&["many", "3000"]);
        let inventory = scene.look();
        assert_eq!(inventory.total, scene.truth.goroutines);
        let groups = inventory.groups();
        assert_eq!(groups[0].count, 3000, "{:#?}", &groups[..2]);
        assert_eq!(groups[0].wait_reason.as_deref(), Some("chan receive"));
        assert_eq!(groups[0].created_by.as_ref().unwrap().function, "main.many");
        assert_eq!(
            groups.iter().map(|group| group.count).sum::<usize>(),
            inventory.goroutines.len()
        );
        let json = serde_json::to_value(&groups[0]).unwrap();
        assert_eq!(
            (&json["state"], &json["count"]),
            (&"waiting".into(), &3000.into())
        );
        assert_eq!(json["stack"][0]["function"], "runtime.gopark");
    });
}

#[test]
fn what_comes_and_goes_is_counted_or_torn() {
    with_each(name!(), &[Form::Normal, Form::Arm64], |program| {
        let scene = program.play(&["churn"]);
        let mut target = scene.target();
        for _ in 0..20 {
            let inventory = target
                .snapshot(&observer::runtimes::go::Limits::default())
                .unwrap();
            let stay = inventory.groups();
            let stay = stay.iter().find(|group| group.count >= 400).unwrap();
            // Those that hold still are all there, and whole.
            assert_eq!(stay.count, 500, "{program:?}: torn {}", inventory.torn);
            assert!(!stay.stack.cut);
            assert!(
                inventory.torn * 5 < inventory.total,
                "{program:?}: {} of {}",
                inventory.torn,
                inventory.total
            );
            assert!(inventory.broken_stacks * 50 <= inventory.total);
        }
    });
}

#[test]
fn what_is_no_go_program_is_refused_by_name() {
    let refused = Target::open(std::process::id()).unwrap_err();
    assert_eq!(refused, Refused::NotGo);
    assert_eq!(refused.to_string(), "not a Go program");
    // A kernel thread, and a process that is not.
    assert!(recognise(2).is_err());
    assert_eq!(recognise(u32::MAX / 2).unwrap_err(), Refused::Gone);
}
