//! What observing costs: programs that do nothing but wait and wake, unobserved and observed in turns.

use std::time::Instant;

use anyhow::{Result, bail};

use super::{Overhead, Session, Slack, scene::Scene};

/// Runs of each sort; the best counts, because others of the host only make it worse.
const RUNS: usize = 4;

/// Programs, with the rounds of a run and what it may be dearer, in percent. The goals are +15 % and +10 % on a
/// machine with nothing else to do; a host that is in use, or a virtual one, measures worse.
const PROGRAMS: [(&str, u32, f64); 2] = [("pingpong", 40_000, 60.0), ("condpong", 25_000, 60.0)];

pub(super) fn measure(slack: Slack) -> Result<Vec<Overhead>> {
    PROGRAMS
        .into_iter()
        .map(|(program, rounds, limit_percent)| {
            let rounds = slack.rounds(rounds).to_string();
            let limit_percent = slack.percent(limit_percent);
            let (mut alone_ns, mut observed_ns) = (f64::MAX, f64::MAX);
            for _ in 0..RUNS {
                alone_ns = alone_ns.min(play(program, &rounds, slack, false)?);
                observed_ns = observed_ns.min(play(program, &rounds, slack, true)?);
            }
            let percent = (observed_ns / alone_ns.max(1.0) - 1.0) * 100.0;
            Ok(Overhead {
                program,
                alone_ns,
                observed_ns,
                percent,
                limit_percent,
                holds: percent <= limit_percent,
            })
        })
        .collect()
}

/// Nanoseconds of a round.
fn play(program: &'static str, rounds: &str, slack: Slack, observed: bool) -> Result<f64> {
    let mut scene = Scene::start(program, &[program, "--rounds", rounds, "--wait-go"])?;
    let mut session = if observed {
        Some(Session::start(scene.pids())?)
    } else {
        None
    };
    scene.go()?;
    let began = Instant::now();
    while !scene.has_told()? {
        if began.elapsed() > slack.patience() {
            bail!("the program {program} does not end: the host is too busy to measure");
        }
        match &mut session {
            Some(session) => drop(session.poll()),
            None => std::thread::sleep(super::PERIOD),
        }
    }
    Ok(scene.fact("ns_per_round"))
}
