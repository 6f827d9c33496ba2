//! One observer for a list of scenes, and the table of what it said.

use std::{
    cell::Cell,
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use observer::time::human;
use serde_json::Value;

use crate::{
    harness::{
        Mode, Observer, Tested,
        event::{number, of},
    },
    judge::{Score, Verdict, judge},
    scene::{Scene, Stage},
};

/// By then everything has been said that is going to be.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays scenes, has them watched for so long at least, and asserts that all that was said is right.
/// `with`: done to each program before its scene begins.
pub(crate) fn watch(
    title: &str,
    scenes: Vec<Scene>,
    at_least: Duration,
    with: &dyn Fn(&Stage),
) -> Tested {
    let mut stages = Vec::new();
    for scene in scenes {
        let stage = scene.start()?;
        with(&stage);
        stages.push(stage);
    }
    for stage in stages.iter_mut().filter(|stage| !stage.scene.later) {
        stage.stand();
    }
    // Short waits are not what this is about, and busy threads have many.
    let options = ["--long-wait", "300ms", "--min-wait", "100ms"];
    let mut args: Vec<String> = options.map(str::to_owned).into();
    for stage in &stages {
        for pid in stage.processes() {
            args.extend(["-p".to_owned(), pid.to_string()]);
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let observer = Observer::trace(Mode::Sched, &args);
    for stage in stages.iter_mut().filter(|stage| stage.scene.later) {
        stage.go();
        stage.stand();
    }
    let begun = Instant::now();
    let watched = |events: &[Value]| {
        let last = of(events, "cost").last()?;
        let watched = number(last, "mono_ns") - number(&events[0], "mono_ns");
        (watched >= at_least.as_nanos() as u64).then_some(())
    };
    let circles: usize = stages.iter().map(|stage| stage.circles().count()).sum();
    let starved = Cell::new(None);
    let verdicts = observer.wait_for("all to be told", |events| {
        if of(events, "deadlock").count() >= circles && starved.get().is_none() {
            starved.set(run_delay(observer.pid()));
        }
        watched(events)?;
        let starved_ns = starved.get().unwrap_or(0);
        let verdicts: Vec<Verdict> = stages
            .iter()
            .map(|stage| judge(stage, events, starved_ns))
            .collect();
        let over = verdicts.iter().all(Verdict::is_final) || begun.elapsed() > PATIENCE;
        over.then_some(verdicts)
    });
    let run = observer.stop();
    let table = draw(title, &stages, &verdicts);
    // Not captured: who runs the tests reads it whether they pass or not.
    std::io::stdout().write_all(table.as_bytes()).unwrap();
    let faults: Vec<String> = stages
        .iter()
        .zip(&verdicts)
        .flat_map(|(stage, verdict)| {
            let who = format!("{} of {}", stage.scene.name, stage.scene.build.name());
            verdict
                .faults
                .iter()
                .map(move |fault| format!("{who}: {fault}"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    run.assert_complete();
    Ok(())
}

/// Watches the scenes whose programs can be had; that others cannot is the reason why the test is skipped in part.
pub(crate) fn watch_all(title: &str, scenes: Vec<Scene>, at_least: Duration) -> Tested {
    let mut missing = None;
    let mut all = Vec::new();
    for scene in scenes {
        match scene.build.path() {
            Ok(_) => all.push(scene),
            Err(skip) => missing = Some(skip),
        }
    }
    if !all.is_empty() {
        watch(title, all, at_least, &|_| ())?;
    }
    missing.map_or(Ok(()), Err)
}

/// Nanoseconds that a process's first thread was kept waiting for a CPU: other programs may need this one's,
/// and what observer does then says nothing about it.
fn run_delay(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn draw(title: &str, stages: &[Stage], verdicts: &[Verdict]) -> String {
    let mut text = format!(
        "\n{title}\n{:<22}{:<20}{:>10}{:>8}{:>8}{:>8}{:>8}{:>8}{:>10}{:>9}\n",
        "scene",
        "program",
        "deadlocks",
        "exact",
        "likely",
        "unknown",
        "class",
        "name",
        "findings",
        "accused"
    );
    let mut sum = Verdict::default();
    let mut row = |scene: &str, program: &str, verdict: &Verdict| {
        let cell = |score: Score| match score.all {
            0 => "-".to_owned(),
            all => format!("{}/{all}", score.right),
        };
        let [exact, likely, unknown] = verdict.holders.map(cell);
        writeln!(
            text,
            "{scene:<22}{program:<20}{:>10}{exact:>8}{likely:>8}{unknown:>8}{:>8}{:>8}{:>10}{:>9}",
            cell(verdict.deadlocks),
            cell(verdict.classes),
            cell(verdict.names),
            cell(verdict.findings),
            verdict.accused
        )
        .unwrap();
    };
    for (stage, verdict) in stages.iter().zip(verdicts) {
        row(stage.scene.name, stage.scene.build.name(), verdict);
        sum.deadlocks.add(verdict.deadlocks);
        sum.classes.add(verdict.classes);
        sum.names.add(verdict.names);
        sum.findings.add(verdict.findings);
        for (all, one) in sum.holders.iter_mut().zip(verdict.holders) {
            all.add(one);
        }
        sum.accused += verdict.accused;
    }
    row("all", "", &sum);
    if sum.deadlocks.all > 0 {
        let slowest = verdicts.iter().map(|verdict| verdict.slowest_ns).max();
        let slowest = human(slowest.unwrap_or(0));
        writeln!(text, "latest deadlock told after {slowest}").unwrap();
    }
    text
}
