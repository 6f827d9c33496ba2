//! How long a look takes, beside the program's own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use observer::runtimes::go::Limits;

use crate::{
    commands::OBSERVER,
    program::{Form, Scene, name, skip, with_each},
};

/// Prints the times for 10 000 and 100 000 goroutines; `cargo xtask bench --only goroutines` runs it.
#[test]
fn times_beside_the_programs_own() {
    with_each(name!(), &[Form::Stripped], |program| {
        for count in ["10000", "100000"] {
            let mut scene = program.play(&["many", count]);
            let start = Instant::now();
            let mut target = scene.target();
            let open = start.elapsed();
            let mut times = Vec::new();
            for _ in 0..7 {
                let inventory = target.snapshot(&Limits::default()).unwrap();
                assert_eq!(inventory.total, scene.truth.goroutines);
                times.push(inventory.took_ns);
            }
            times.sort_unstable();
            scene.tell("profile");
            println!(
                "{} {count}: found in {:.1} ms; read in {:.1} ms (median of 7, best {:.1}); its own GoroutineProfile {:.1} ms (best of 5)",
                program.release,
                open.as_secs_f64() * 1e3,
                times[3] as f64 / 1e6,
                times[0] as f64 / 1e6,
                scene.truth.fact("profile_ns") as f64 / 1e6,
            );
        }
    });
}

/// How long the server works for one number.
const ROUND: Duration = Duration::from_secs(2);
/// Pairs of rounds, one of which is observed.
const PAIRS: usize = 7;

/// Requests a second, in one round.
fn rate(scene: &mut Scene) -> f64 {
    scene.tell("grow");
    let before = (scene.truth.fact("requests"), scene.truth.fact("ns"));
    std::thread::sleep(ROUND);
    scene.tell("grow");
    let requests = scene.truth.fact("requests") - before.0;
    requests as f64 * 1e9 / (scene.truth.fact("ns") - before.1) as f64
}

/// Traces the process meanwhile. None: the kernel allows no programs.
fn observed(scene: &mut Scene) -> Option<f64> {
    let mut child = Command::new(OBSERVER)
        .args(["trace", "--format", "jsonl", "-p", &scene.pid().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    // From the first look at the goroutines on.
    let is_first = |line: &std::io::Result<String>| {
        line.as_ref()
            .is_ok_and(|line| line.starts_with("{\"type\":\"goroutines\""))
    };
    let attached = out.by_ref().any(|line| is_first(&line));
    // What it says later is to be read, or it waits for that.
    let reader = std::thread::spawn(move || out.count());
    let rate = attached.then(|| rate(scene));
    let _ = child.kill();
    child.wait().unwrap();
    reader.join().unwrap();
    rate
}

/// Prints how much of its throughput a busy server keeps while it is observed, at the default interval.
#[test]
fn a_server_keeps_its_throughput() {
    with_each(name!(), &[Form::Stripped], |program| {
        let mut scene = program.play(&["server"]);
        let (mut alone, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let before = rate(&mut scene);
            let Some(while_observed) = observed(&mut scene) else {
                skip(name!(), "the kernel or the privileges allow no programs");
                return;
            };
            let after = rate(&mut scene);
            alone.push(f64::midpoint(before, after));
            ratios.push(while_observed / f64::midpoint(before, after));
        }
        alone.sort_unstable_by(f64::total_cmp);
        ratios.sort_unstable_by(f64::total_cmp);
        println!(
            "{} server: {:.0} requests/s alone; observed {:.3} of that (median of {PAIRS}, from {:.3} to {:.3})",
            program.release,
            alone[PAIRS / 2],
            ratios[PAIRS / 2],
            ratios[0],
            ratios[PAIRS - 1],
        );
    });
}
