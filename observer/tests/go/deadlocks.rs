//! Rings of goroutines and leaks are found, and where there are none nobody is accused.

use std::{
    thread,
    time::{Duration, Instant},
};

use observer::runtimes::go::{
    Inventory, Limits, Tracker, cycles, leaks, orphan_channels, writer_starvation,
};

use crate::{
    program::{Form, LIMIT, Program, Scene, name, with_each},
    truth::Truth,
};

const BOTH: [Form; 4] = [
    Form::Normal,
    Form::StrippedPie,
    Form::StrippedArm64,
    Form::StrippedPieArm64,
];
/// Without an emulator, whose own memory has addresses of the program's objects: what they lead to is not lost.
const NATIVE: [Form; 2] = [Form::Normal, Form::StrippedPie];

/// Asserts that these goroutines, in this order, are the one ring.
#[track_caller]
fn assert_ring(inventory: &Inventory, truth: &Truth, names: &[&str], program: &Program) {
    let found = cycles(inventory);
    assert_eq!(
        found.len(),
        1,
        "{program:?}: {found:#?} {:#?}",
        inventory.locks
    );
    let steps = &found[0].steps;
    assert_eq!(steps.len(), names.len(), "{program:?}: {found:#?}");
    for (i, name) in names.iter().enumerate() {
        let goid = truth.goid(name);
        let step = steps.iter().find(|step| step.goid == goid).unwrap();
        let next = names[(i + 1) % names.len()];
        // Each waits for the lock of the next, which is named like its holder.
        assert_eq!(
            (step.lock, step.holder),
            (truth.addr(next), truth.goid(next)),
            "{program:?}"
        );
        assert!(step.evidence.contains("main."), "{step:?}");
    }
    assert_eq!(found[0].behind, 0);
}

#[test]
fn two_goroutines_that_wait_for_each_other() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["abba"]);
        assert_ring(&scene.look(), &scene.truth, &["a", "b"], program);
    });
}

#[test]
fn three_in_a_ring() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["threeway"]);
        assert_ring(&scene.look(), &scene.truth, &["a", "b", "c"], program);
    });
}

/// The numbers of those who are told to hold a lock.
fn holders(inventory: &Inventory, truth: &Truth, name: &str) -> Vec<u64> {
    let lock = inventory.lock(truth.addr(name)).unwrap();
    lock.holders.iter().map(|holder| holder.goid).collect()
}

#[test]
fn locks_that_are_variables_of_the_program() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["global"]);
        let inventory = scene.look();
        assert_ring(&inventory, &scene.truth, &["one", "other"], program);
        // Others use both locks in the same function, and are not named.
        for name in ["one", "other"] {
            let named = holders(&inventory, &scene.truth, name);
            assert_eq!(named, [scene.truth.goid(name)], "{program:?} {name}");
        }
    });
}

#[test]
fn variables_of_each_kind() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["variables"]);
        let inventory = scene.look();
        for (lock, holder) in [
            ("table", "reader"),
            ("allDone", "finish"),
            ("first", "first"),
            ("second", "second"),
        ] {
            let named = holders(&inventory, &scene.truth, lock);
            let what = format!(
                "{program:?} {lock}: {:#?}",
                inventory.lock(scene.truth.addr(lock))
            );
            assert_eq!(named, [scene.truth.goid(holder)], "{what}");
        }
        assert_ring(&inventory, &scene.truth, &["first", "second"], program);
    });
}

#[test]
fn a_leak_is_found_within_three_looks() {
    with_each(name!(), &[Form::Stripped], |program| {
        let mut scene = program.play(&["leak"]);
        let mut target = scene.target();
        let mut tracker = Tracker::default();
        for look in 1..=3 {
            let mut inventory = target.snapshot(&Limits::default()).unwrap();
            assert_eq!(inventory.total, scene.truth.goroutines);
            tracker.observe(&mut inventory);
            let found = leaks(&tracker);
            if look < 3 {
                assert!(found.is_empty(), "{found:#?}");
                scene.tell("grow");
                continue;
            }
            assert_eq!(found.len(), 1, "{program:?}: {found:#?}");
            assert_eq!(found[0].created_by.function, "main.leakOne");
            assert_eq!(
                (&found[0].counts[..], found[0].blocked),
                (&[10, 20, 30][..], 30)
            );
            assert!(found[0].growth_per_minute > 0.0 && found[0].oldest_ns > Some(0));
            let site = tracker.sites()[0].clone();
            assert_eq!((site.births, site.deaths), (10, 0));
        }
    });
}

/// A look that also searches for channels that nobody can reach. The program may be busy just then.
fn search(scene: &Scene) -> Inventory {
    let limits = Limits {
        search: 1 << 30,
        ..Limits::default()
    };
    let mut target = scene.target();
    let start = Instant::now();
    loop {
        let inventory = target.snapshot(&limits).unwrap();
        if !inventory.searched_in_vain || start.elapsed() > LIMIT {
            return inventory;
        }
    }
}

#[test]
fn a_channel_that_nobody_else_has() {
    with_each(name!(), &NATIVE, |program| {
        let scene = program.play(&["orphan"]);
        let inventory = search(&scene);
        let reachable = |name| {
            let channel = inventory.channel(scene.truth.addr(name));
            channel.map(|channel| channel.reachable)
        };
        let lost = ["lost", "pair1", "pair2", "behind"];
        for name in lost {
            assert_eq!(
                reachable(name),
                Some(Some(false)),
                "{program:?} {name}: {inventory:#?}"
            );
        }
        // In a map, in a timer's function, in a finalizer's object, behind a goroutine that may go on, and on the
        // stack of one that sleeps.
        for name in ["kept", "timed", "final", "chained", "asleep"] {
            assert_eq!(
                reachable(name),
                Some(Some(true)),
                "{program:?} {name}: {inventory:#?}"
            );
        }
        let mut found: Vec<_> = orphan_channels(&inventory)
            .iter()
            .map(|one| one.channel)
            .collect();
        let mut wanted = lost.map(|name| scene.truth.addr(name));
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{program:?}");
    });
}

#[test]
fn nothing_is_said_of_channels_while_goroutines_run() {
    with_each(name!(), &[Form::Stripped], |program| {
        let scene = program.play(&["busy"]);
        let mut target = scene.target();
        let limits = Limits {
            search: 1 << 30,
            ..Limits::default()
        };
        let inventory = target.snapshot(&limits).unwrap();
        assert!(inventory.searched_in_vain, "{program:?}");
        assert!(
            inventory
                .channels
                .iter()
                .all(|channel| channel.reachable.is_none())
        );
        let said = inventory
            .notes
            .iter()
            .any(|note| note.contains("goroutines run"));
        assert!(said, "{program:?}: {:?}", inventory.notes);
    });
}

#[test]
fn an_idle_server_is_accused_of_nothing() {
    with_each(name!(), &NATIVE, |program| {
        let mut scene = program.play(&["idle"]);
        let mut target = scene.target();
        let mut tracker = Tracker::default();
        for _ in 0..5 {
            let mut inventory = target.snapshot(&Limits::default()).unwrap();
            tracker.observe(&mut inventory);
            assert!(cycles(&inventory).is_empty(), "{program:?}");
            assert!(orphan_channels(&inventory).is_empty(), "{program:?}");
            assert!(orphan_channels(&search(&scene)).is_empty(), "{program:?}");
            assert!(writer_starvation(&inventory).is_empty(), "{program:?}");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(leaks(&tracker).is_empty(), "{program:?}");
        // One goroutine ends, and its death is seen.
        let before = scene.truth.goroutines;
        scene.tell("grow");
        while scene.truth.goroutines == before {
            scene.tell("say");
        }
        let mut inventory = target.snapshot(&Limits::default()).unwrap();
        tracker.observe(&mut inventory);
        assert_eq!(
            tracker
                .sites()
                .iter()
                .map(|site| site.deaths)
                .sum::<usize>(),
            1
        );
    });
}
