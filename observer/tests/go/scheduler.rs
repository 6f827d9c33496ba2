//! What the scheduler is at, against what it prints of itself (`GODEBUG=schedtrace`).

use std::time::Instant;

use observer::{
    event::GoGc,
    runtimes::go::{Inventory, Limits, Scheduler},
};

use crate::program::{Form, LIMIT, Scene, name, with_each};

const BOTH: [Form; 4] = [
    Form::Normal,
    Form::StrippedPie,
    Form::StrippedArm64,
    Form::StrippedPieArm64,
];

/// One line of `schedtrace`, in the words of the inventory.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    idle_processors: u32,
    threads: u64,
    spinning_threads: u32,
    idle_threads: u32,
    run_queue: u32,
    queues: Vec<u32>,
}

/// `SCHED 40ms: gomaxprocs=2 idleprocs=0 threads=5 spinningthreads=0 idlethreads=1 runqueue=3 [1 0]`, with
/// spaces within the brackets and more behind them in later releases.
fn parse(line: &str) -> Option<Printed> {
    let (_, line) = line.strip_prefix("SCHED ")?.split_once(": ")?;
    let of = |name: &str| -> Option<u32> {
        let mut words = line.split_ascii_whitespace();
        let word = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        word.parse().ok()
    };
    let (_, queues) = line.split_once('[')?;
    let (queues, _) = queues.split_once(']')?;
    let queues = queues.split_ascii_whitespace().map(str::parse);
    let queues: Vec<u32> = queues.collect::<Result<_, _>>().ok()?;
    assert_eq!(of("gomaxprocs")?, queues.len() as u32);
    Some(Printed {
        idle_processors: of("idleprocs")?,
        threads: of("threads")?.into(),
        spinning_threads: of("spinningthreads")?,
        idle_threads: of("idlethreads")?,
        run_queue: of("runqueue")?,
        queues,
    })
}

fn seen(scheduler: &Scheduler) -> Printed {
    Printed {
        idle_processors: scheduler.idle_processors,
        threads: scheduler.threads,
        spinning_threads: scheduler.spinning_threads,
        idle_threads: scheduler.idle_threads,
        run_queue: scheduler.run_queue,
        queues: scheduler.processors.iter().map(|p| p.run_queue).collect(),
    }
}

/// Looks until something is as it should be.
#[track_caller]
fn until(scene: &Scene, is_so: impl Fn(&Scheduler, &Inventory) -> bool) -> Inventory {
    let mut target = scene.target();
    let start = Instant::now();
    loop {
        let inventory = target.snapshot(&Limits::default()).unwrap();
        let scheduler = inventory.scheduler.as_ref();
        let scheduler = scheduler.unwrap_or_else(|| panic!("{:?}", inventory.notes));
        if is_so(scheduler, &inventory) {
            return inventory;
        }
        let printed = scene.errors();
        assert!(
            start.elapsed() < LIMIT,
            "{scheduler:#?} {:?}",
            printed.last()
        );
    }
}

#[test]
fn it_is_what_the_program_prints() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play_with(&["channels"], "schedtrace=20");
        until(&scene, |scheduler, _| {
            let printed = scene.errors();
            let printed = printed.iter().rev().find_map(|line| parse(line));
            printed.is_some_and(|printed| printed == seen(scheduler))
        });
    });
}

#[test]
fn queues_have_their_lengths() {
    with_each(name!(), &BOTH, |program| {
        let mut scene = program.play_with(&["queues"], "schedtrace=20");
        // 38 of them wait, and two run; some may be between the two.
        let near = |count: u32| (34..=40).contains(&count);
        until(&scene, |scheduler, inventory| {
            let own = scheduler.processors.iter();
            let own: u32 = own.map(|p| p.run_queue + u32::from(p.next)).sum();
            let runnable = inventory
                .goroutines
                .iter()
                .filter(|g| g.state.name() == "runnable");
            let printed = scene.errors();
            let printed = printed.iter().rev().find_map(|line| parse(line));
            scheduler.processors.len() == 2
                && scheduler.idle_processors == 0
                && scheduler.processors.iter().all(|p| p.tid.is_some())
                && near(scheduler.run_queue + own)
                && near(runnable.count() as u32)
                && printed.is_some_and(|p| near(p.run_queue + p.queues.iter().sum::<u32>()))
        });
        scene.tell("grow");
        until(&scene, |scheduler, _| {
            let own = scheduler.processors.iter();
            scheduler.idle_processors == 2
                && scheduler.run_queue == 0
                && own.map(|p| p.run_queue).sum::<u32>() == 0
        });
    });
}

#[test]
fn threads_in_system_calls_are_counted() {
    with_each(name!(), &BOTH, |program| {
        let scene = program.play(&["threads"]);
        // The one that is locked to its thread, and the main one, which reads.
        until(&scene, |scheduler, _| scheduler.syscall_threads == 2);
    });
}

#[test]
fn garbage_collection_is_seen() {
    with_each(name!(), &BOTH, |program| {
        let mut scene = program.play(&["garbage"]);
        until(&scene, |scheduler, _| scheduler.gc == Some(GoGc::Mark));
        scene.tell("grow");
        until(&scene, |scheduler, _| {
            scheduler.gc == Some(GoGc::Off) && !scheduler.stopping
        });
    });
}
