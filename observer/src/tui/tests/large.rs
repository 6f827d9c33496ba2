//! A host as large as observer is made for.

use crossterm::event::KeyCode;

use super::scenes::*;
use crate::{
    event::{Addr, Event, Frame, Kind, Stack, Wait},
    model::{Limits, Model},
};

/// Places in the program at which tasks wait.
const STACKS: u32 = 200;

/// One of them, twelve calls deep.
fn stack(n: u32) -> Stack {
    let frame = |depth: u32| Frame {
        addr: Addr(0x40_0000 + u64::from(n * 100 + depth)),
        name: Some(format!("ledger::part_{n}::step_{depth}").into()),
        file: Some("/src/ledger/part.rs".into()),
        line: Some(depth),
        ..Frame::default()
    };
    Stack {
        user: (0..12).map(frame).collect(),
        ..Stack::default()
    }
}

/// The largest host that observer is made for.
fn large() -> Model {
    let mut model = Model::new(Limits::default());
    model.apply(Event::from(meta()));
    // As in a capture: a process has its name once.
    let process: std::sync::Arc<str> = "ledger".into();
    for n in 0..100_000u64 {
        let mut totals = totals(
            START + SECOND,
            0x10_0000 + n * 64,
            None,
            n * 7919 % 100_003 + 1,
        );
        totals.process = Some(std::sync::Arc::clone(&process));
        totals.histogram.clear();
        model.apply(Event::from(totals));
    }
    let stacks: Vec<Stack> = (0..STACKS).map(stack).collect();
    for n in 0..10_000u32 {
        let mut wait = blocked(
            START + SECOND,
            10_000 + n,
            "worker",
            Kind::Lock,
            u64::from(n) * MS,
        );
        wait.stack = Some(stacks[(n % STACKS) as usize].clone());
        // A tree ten thousand deep is the worst one to draw.
        wait.holder = Some(Box::new(holder(10_001 + n, "worker", "running")));
        wait.lock = Some(mutex(0x10_0000 + u64::from(n) * 64, None));
        model.apply(Event::from(wait));
        model.apply(Event::from(wait_of(n)));
    }
    model
}

/// What is looked at, and the keys that lead there from the one before.
const STEPS: &[(&str, &str)] = &[
    ("overview", "1"),
    ("graph", "4"),
    ("waits", "5"),
    ("runtimes", "6"),
    ("processes", "7"),
    ("containers", "8"),
    ("blocked", "2"),
    ("blocked_by_lock", "g"),
    ("blocked_by_process", "g"),
    ("blocked_by_stack", "g"),
    ("blocked_filtered", "g/worker"),
    ("locks", "\x1b3"),
    ("locks_selected", "jjj"),
    ("locks_last", "G"),
    ("locks_filtered", "/ledgerx"),
];

fn press(driver: &mut Driver, keys: &str, model: &Model) {
    for key in keys.chars() {
        match key {
            '\x1b' => driver.press(KeyCode::Esc, model),
            key => driver.press(KeyCode::Char(key), model),
        };
    }
}

#[test]
fn a_large_host_is_drawn_from_its_visible_rows() {
    let model = large();
    let mut driver = Driver::blocked(200, 50);
    for (what, keys) in STEPS {
        press(&mut driver, keys, &model);
        let screen = driver.show(&model);
        let all = match *what {
            "locks_filtered" => "0 of 100000",
            what if what.starts_with("locks") => "100000 locks",
            "blocked" => "10000 blocked",
            "blocked_by_stack" => "200 groups of blocked tasks, by stack",
            _ => "lost 0",
        };
        assert!(screen.contains(all), "{what}:\n{screen}");
    }
}

/// How long a frame takes, with the rows taken anew for it: median and longest of many.
#[cfg(feature = "measure")]
#[test]
fn measure_frames() {
    let model = large();
    let mut driver = Driver::blocked(200, 50);
    for (what, keys) in STEPS {
        press(&mut driver, keys, &model);
        let mut times: Vec<u128> = (0..40)
            .map(|_| {
                let start = std::time::Instant::now();
                driver.show(&model);
                start.elapsed().as_nanos()
            })
            .collect();
        times.sort_unstable();
        println!("frame {what} {} {}", times[20], times[39]);
    }
}

fn wait_of(n: u32) -> Wait {
    wait(
        START + 2 * SECOND + u64::from(n),
        200_000 + n,
        "worker",
        5 * MS,
    )
}
