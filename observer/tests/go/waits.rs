//! Is it said what each goroutine waits for?

use observer::runtimes::go::{
    ChannelOperation, IoOperation, LockMode, LockState, WaitsFor, writer_starvation,
};

use crate::program::{Form, name, with_each};

const BOTH: [Form; 4] = [
    Form::Normal,
    Form::StrippedPie,
    Form::StrippedArm64,
    Form::StrippedPieArm64,
];

#[test]
fn channels_are_described_with_their_queues() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["channels"]);
        let inventory = scene.look();
        let truth = &scene.truth;
        let full = inventory.channel(truth.addr("full")).unwrap();
        assert_eq!(
            (full.len, full.cap, full.elem_size, full.closed),
            (3, 3, 8, false)
        );
        assert_eq!((full.senders, full.receivers), (3, 0), "{program:?}");
        let empty = inventory.channel(truth.addr("empty")).unwrap();
        assert_eq!((empty.len, empty.cap, empty.elem_size), (0, 0, 16));
        assert_eq!((empty.senders, empty.receivers), (0, 2));
        let channel = |name, operation, select| WaitsFor::Channel {
            addr: truth.addr(name),
            operation: Some(operation),
            select,
        };
        let (send, receive) = (ChannelOperation::Send, ChannelOperation::Receive);
        assert_eq!(
            truth.of(&inventory, "sender").waits_for,
            [channel("full", send, false)]
        );
        assert_eq!(
            truth.of(&inventory, "receiver").waits_for,
            [channel("empty", receive, false)]
        );
        let mut select = truth.of(&inventory, "select").waits_for.clone();
        select.sort_by_key(|what| format!("{what:?}"));
        let mut expected = [
            channel("empty", receive, true),
            channel("full", send, true),
            channel("closed", receive, true),
        ];
        expected.sort_by_key(|what| format!("{what:?}"));
        assert_eq!(select, expected, "{program:?}");
        assert!(truth.of(&inventory, "nil").waits_for.is_empty());
        assert!(truth.of(&inventory, "forever").waits_for.is_empty());
    });
}

#[test]
fn a_writer_that_waits_for_readers() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["writer"]);
        let inventory = scene.look();
        let truth = &scene.truth;
        let lock = inventory.lock(truth.addr("lock")).unwrap();
        let LockState::RwMutex {
            writers,
            writer,
            readers,
            readers_pending,
        } = &lock.state
        else {
            panic!("{lock:?}");
        };
        // The late reader is counted, but not among those that the writer waits for.
        assert_eq!(
            (*writer, *readers, *readers_pending),
            (true, 3, 2),
            "{program:?}"
        );
        assert!(writers.locked);
        assert_eq!((writers.waiters, lock.waiting), (1, 3));
        let mode = |name| truth.of(&inventory, name).lock().unwrap().1;
        assert_eq!(mode("writer"), LockMode::Exclusive);
        assert_eq!(mode("second"), LockMode::Exclusive);
        assert_eq!(mode("late"), LockMode::Shared);
        let mut holders: Vec<u64> = lock.holders.iter().map(|holder| holder.goid).collect();
        holders.sort_unstable();
        for name in ["reader1", "reader2"] {
            assert!(
                holders.contains(&truth.goid(name)),
                "{program:?}: {lock:#?}"
            );
        }
        let starved = writer_starvation(&inventory);
        assert_eq!(starved.len(), 1);
        assert!(starved[0].writers.contains(&truth.goid("writer")));
        assert_eq!(starved[0].readers_behind, [truth.goid("late")]);
        assert_eq!(starved[0].readers_pending, 2);
    });
}

#[test]
fn a_wait_group_that_is_not_done() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["waitgroup"]);
        let inventory = scene.look();
        let group = inventory.lock(scene.truth.addr("group")).unwrap();
        assert_eq!(
            group.state,
            LockState::WaitGroup {
                counter: 1,
                waiters: 1
            },
            "{program:?}"
        );
        let waiter = scene.truth.of(&inventory, "waiter");
        assert_eq!(waiter.lock(), Some((group.addr, LockMode::Pass)));
    });
}

#[test]
fn sleepers_have_their_moment() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["sleep"]);
        let inventory = scene.look();
        let [WaitsFor::Deadline { mono_ns }] = scene.truth.of(&inventory, "hour").waits_for[..]
        else {
            panic!("{program:?}: {inventory:#?}");
        };
        let left = mono_ns - inventory.mono_ns;
        assert!(
            (3_500_000_000_000..=3_600_000_000_000).contains(&left),
            "{left}"
        );
        // A channel that a timer sends to, as far as the release says so.
        let timer = scene
            .truth
            .of(&inventory, "timer")
            .channels()
            .next()
            .unwrap();
        let old = ["go1.19", "go1.21"]
            .iter()
            .any(|old| program.release.starts_with(old));
        assert_eq!(inventory.channel(timer).unwrap().timer, !old, "{program:?}");
    });
}

#[test]
fn io_waits_have_their_descriptor() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["io"]);
        let told = [
            ("accept", "listener", IoOperation::Read),
            ("read", "client", IoOperation::Read),
            ("write", "client", IoOperation::Write),
        ]
        .map(|(name, fd, operation)| {
            let fd = u32::try_from(scene.truth.fact(fd)).unwrap();
            (name, WaitsFor::Io { fd, operation })
        });
        // Who writes is woken as long as the kernel takes more.
        let inventory = scene.look_until(|inventory| {
            told.iter().all(|(name, waits_for)| {
                let goroutine = inventory.goroutine(scene.truth.goid(name));
                goroutine.is_some_and(|of| of.waits_for == [waits_for.clone()])
            })
        });
        for (name, waits_for) in told {
            let goroutine = scene.truth.of(&inventory, name);
            assert_eq!(
                goroutine.waits_for,
                [waits_for],
                "{program:?} {name}: {goroutine:#?}"
            );
        }
    });
}
