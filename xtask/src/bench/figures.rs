//! Figures that are no ratios: rates, losses, memory, CPU and times of observer itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::child::{self, Background};
use super::events;
use super::goals::Goal;
use super::goroutines;
use super::measured;
use super::room::Room;
use super::screen;
use super::soak;
use super::stats::{Spread, grouped};
use super::watched::{Seen, Watched};
use crate::run;

const MIB: f64 = 1024.0 * 1024.0;

/// A group of figures that come from the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    Saturation,
    Cost,
    Threads,
    Locks,
    Start,
    Stacks,
    Replay,
    Goroutines,
    Screen,
    /// Not by default: the agent, for half an hour
    Soak,
}

/// One number, and what it should be.
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) value: String,
    pub(super) goal: Option<(String, &'static str)>,
}

impl Figure {
    pub(super) fn new(what: &str, value: Option<f64>, unit: &str) -> Self {
        let value = value.map_or_else(
            || "not known".to_owned(),
            |value| match unit {
                "%" => format!("{value:.1} %"),
                unit => format!("{} {unit}", grouped(value)),
            },
        );
        Self {
            what: what.to_owned(),
            value: value.trim_end().to_owned(),
            goal: None,
        }
    }

    pub(super) fn with_goal(what: &str, value: Option<f64>, unit: &str, goal: Goal) -> Self {
        let limit = match goal {
            Goal::AtMost(0.0) => "0".to_owned(),
            Goal::AtMost(limit) => format!("≤ {} {unit}", grouped(limit)),
            Goal::AtLeast(limit) => format!("≥ {} {unit}", grouped(limit)),
        };
        Self {
            goal: Some((limit.trim_end().to_owned(), goal.verdict(value))),
            ..Self::new(what, value, unit)
        }
    }
}

/// How much is measured.
struct Size {
    seconds: Duration,
    threads: u32,
    processes: u32,
    times: usize,
}

impl Group {
    /// Measures the group; a soak takes this long.
    pub(super) fn measure(self, room: &Room, quick: bool, soak: Duration) -> Result<Vec<Figure>> {
        let size = if quick {
            Size {
                seconds: Duration::from_millis(2_500),
                threads: 2_000,
                processes: 2,
                times: 3,
            }
        } else {
            Size {
                seconds: Duration::from_secs(5),
                threads: 10_000,
                processes: 10,
                times: 9,
            }
        };
        match self {
            Self::Saturation => saturation(room, &size),
            Self::Cost => cost(room, &size),
            Self::Threads => threads(room, &size),
            Self::Locks => locks(room, &size),
            Self::Start => start(room, &size),
            Self::Stacks => measured::stacks(),
            Self::Replay => measured::replay(),
            Self::Goroutines => goroutines::measure(quick),
            Self::Screen => screen(room, &size),
            Self::Soak => soak::soak(room, soak),
        }
    }
}

/// A workload in the background that works until it is stopped.
pub(super) fn workload(room: &Room, args: &[&str]) -> Result<(Background, String)> {
    let mut command = Command::new(run::released("examples/workload"));
    // Its standard input never closes: the time given is longer than any measurement.
    command.args(args).args(["--for", "86400"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Background::start(&mut command, &room.path("workload.log"))?;
    let output = child.child.stdout.take();
    let mut ready = String::new();
    BufReader::new(output.context("a workload has no output")?)
        .read_line(&mut ready)
        .context("cannot read what a workload says")?;
    if events::line_of(&ready, "ready").is_none() {
        child.must_run()?;
        anyhow::bail!(
            "the workload {} did not say that it is ready",
            args.join(" ")
        );
    }
    Ok((child, ready))
}

/// Observes a workload that is at work already.
fn observe(room: &Room, args: &[&str], size: &Size) -> Result<Seen> {
    let mut watched = Watched::start(room, args, None)?;
    watched.wait_until_attached()?;
    watched.finish(size.seconds)
}

/// The most waits that can be made here: a ping-pong on each CPU.
fn saturation(room: &Room, size: &Size) -> Result<Vec<Figure>> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut busy = Vec::new();
    for cpu in 0..cpus {
        busy.push(workload(room, &["pingpong", "--cpu", &cpu.to_string()])?);
    }
    let counted = observe(room, &[], size)?;
    let streamed = observe(room, &["--min-wait", "0"], size)?;
    drop(busy);
    let written = streamed.end("events");
    let per_core_second = written
        .zip(streamed.end("cpu_ns"))
        .map(|(events, cpu_ns)| events * 1e9 / cpu_ns);
    Ok(vec![
        Figure::new(
            "saturated, default: waits counted",
            counted.per_second("waits"),
            "a second",
        ),
        Figure::with_goal(
            "saturated, default: records lost",
            counted.lost(),
            "",
            Goal::AtMost(0.0),
        ),
        Figure::new(
            "saturated, streamed: events written",
            streamed.per_second("events"),
            "a second",
        ),
        Figure::new(
            "saturated, streamed: records lost, and counted",
            streamed.lost(),
            "",
        ),
        Figure::with_goal(
            "streamed: events written for each second of CPU",
            per_core_second,
            "",
            Goal::AtLeast(500_000.0),
        ),
    ])
}

/// observer's own CPU time while very many waits are counted.
fn cost(room: &Room, size: &Size) -> Result<Vec<Figure>> {
    let busy = workload(room, &["storm", "--threads", "8"])?;
    let seen = observe(room, &[], size)?;
    drop(busy);
    let rate = seen
        .per_second("waits")
        .map_or_else(|| "?".to_owned(), grouped);
    let share = seen.cpu_share().map(|share| share * 100.0);
    let what = format!("default: CPU of one core, at {rate} waits a second");
    Ok(vec![
        Figure::with_goal(&what, share, "%", Goal::AtMost(2.0)),
        Figure::new("default: resident memory then", rss(&seen), "MiB"),
    ])
}

fn rss(seen: &Seen) -> Option<f64> {
    Some(seen.end("rss_bytes")? / MIB)
}

/// Memory with very many threads that wait.
fn threads(room: &Room, size: &Size) -> Result<Vec<Figure>> {
    let count = size.threads.to_string();
    let busy = workload(room, &["threads", "--threads", &count])?;
    let seen = observe(room, &[], size)?;
    drop(busy);
    let what = format!(
        "resident memory with {} blocked threads",
        grouped(f64::from(size.threads))
    );
    Ok(vec![Figure::with_goal(
        &what,
        rss(&seen),
        "MiB",
        Goal::AtMost(64.0),
    )])
}

/// Memory with very many locks: process after process, each with a lock of its own for each thread.
fn locks(room: &Room, size: &Size) -> Result<Vec<Figure>> {
    let mut watched = Watched::start(room, &["--lock-slots", "131072"], None)?;
    watched.wait_until_attached()?;
    let count = size.threads.to_string();
    for _ in 0..size.processes {
        let mut command = Command::new(run::released("examples/workload"));
        child::measured(command.args(["threads", "--threads", &count, "--for", "0.1"]))?;
    }
    let seen = watched.finish(Duration::from_millis(1_500))?;
    let what = format!(
        "resident memory with {} locks",
        grouped(seen.locks.len() as f64)
    );
    Ok(vec![
        Figure::with_goal(&what, rss(&seen), "MiB", Goal::AtMost(64.0)),
        Figure::with_goal("records lost meanwhile", seen.lost(), "", Goal::AtMost(0.0)),
    ])
}

/// The screen: its frames, and its CPU with very many threads.
fn screen(room: &Room, size: &Size) -> Result<Vec<Figure>> {
    let mut figures: Vec<Figure> = screen::frames()?
        .into_iter()
        .map(|(name, median, longest)| {
            let what = format!(
                "screen, 10 000 threads and 100 000 locks: a frame of {name} (longest of 40: {longest:.1} ms)"
            );
            Figure::with_goal(&what, Some(median), "ms", screen::FRAME)
        })
        .collect();
    if screen::is_there() {
        let count = size.threads.to_string();
        let busy = workload(room, &["threads", "--threads", &count])?;
        let percent = screen::cpu(room, size.seconds)?;
        drop(busy);
        let what = format!(
            "screen: CPU of one core, with {} blocked threads",
            grouped(f64::from(size.threads))
        );
        figures.push(Figure::with_goal(&what, percent, "%", screen::CPU));
    }
    Ok(figures)
}

/// How soon there is an answer.
fn start(room: &Room, size: &Size) -> Result<Vec<Figure>> {
    let (busy, ready) = workload(room, &["deadlock"])?;
    let pid = busy.child.id();
    // It says so once the deadlock has formed.
    debug_assert_eq!(events::number(&ready, "pid"), Some(f64::from(pid)));
    let (mut meta, mut blocked) = (Vec::new(), Vec::new());
    for _ in 0..size.times {
        let watched = Watched::start(room, &["--long-wait", "100ms"], Some(pid))?;
        let seen = watched.finish(Duration::from_millis(1_500))?;
        meta.extend(seen.meta);
        blocked.extend(seen.blocked);
    }
    drop(busy);
    let median = |times: &[Duration]| {
        let ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        Spread::of(&ms).map(|spread| spread.median)
    };
    let deadlock = "start to the first `blocked` of an older deadlock (--long-wait 100ms)";
    Ok(vec![
        Figure::with_goal(
            "start to `meta`, all attached",
            median(&meta),
            "ms",
            Goal::AtMost(150.0),
        ),
        Figure::with_goal(deadlock, median(&blocked), "ms", Goal::AtMost(1_000.0)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_its_unit_and_its_goal() {
        let lost = Figure::with_goal("lost", Some(0.0), "", Goal::AtMost(0.0));
        assert_eq!(lost.value, "0");
        assert_eq!(lost.goal, Some(("0".to_owned(), "met")));
        let rss = Figure::with_goal("rss", Some(1_234.4), "MiB", Goal::AtMost(64.0));
        assert_eq!(rss.value, "1 234 MiB");
        assert_eq!(rss.goal, Some(("≤ 64 MiB".to_owned(), "not met")));
        let cpu = Figure::with_goal("cpu", None, "%", Goal::AtMost(2.0));
        assert_eq!(cpu.value, "not known");
        assert_eq!(cpu.goal, Some(("≤ 2 %".to_owned(), "not measured")));
        assert_eq!(Figure::new("cpu", Some(0.512), "%").value, "0.5 %");
    }
}
