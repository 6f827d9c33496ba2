//! Is observer right on this kernel? Programs that wait in a known way and measure it themselves are observed, and
//! what is said of them is held against what they measured.
//!
//! The programs are this one ([`crate::workload`]), so nothing else is needed.

mod judge;
mod overhead;
mod scene;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde::Serialize;

use self::{judge::Said, scene::Scene};
use crate::{
    capture::Options,
    event::{Event, Meta, Reason},
    time::mono_ns,
    watch::Watch,
};

/// How long the programs are observed together.
const OBSERVED: Duration = Duration::from_secs(7);
/// Between two readings of the ring buffer.
const PERIOD: Duration = Duration::from_millis(20);
/// Programs that were told to end do so long before.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many times as wide promises about time are, for a host that is emulated or very busy; what is said has to be
/// as right as anywhere. At least 1.
#[derive(Clone, Copy, Debug)]
pub struct Slack(u32);

impl Slack {
    /// Zero is taken for one.
    pub fn new(times: u32) -> Slack {
        Slack(times.max(1))
    }

    fn ns(self, ns: u64) -> u64 {
        ns.saturating_mul(u64::from(self.0))
    }

    fn percent(self, percent: f64) -> f64 {
        percent * f64::from(self.0)
    }

    /// The share that has to be said of what cannot always be said.
    fn recall(self, share: f64) -> f64 {
        (1.0 - self.percent(1.0 - share)).max(0.5)
    }

    /// As many rounds as take the time that all of them take elsewhere.
    fn rounds(self, rounds: u32) -> u32 {
        (rounds / self.0).max(1)
    }

    fn patience(self) -> Duration {
        PATIENCE.saturating_mul(self.0)
    }
}

/// The scenes: name, whether it begins before observer, and the program with its options. Each lock is held for
/// long enough to be found taken, and free for long enough for its waiter to get it.
const SCENES: [(&str, bool, &[&str]); 12] = [
    ("deadlock", true, &["deadlock"]),
    ("pool", true, &["pool", "--threads", "10"]),
    ("threads", true, &["threads", "--threads", "16"]),
    (
        "mutex",
        false,
        &["mutex", "--hold-ms", "12", "--free-us", "4000"],
    ),
    ("pi", false, &["pi", "--hold-ms", "12", "--free-us", "4000"]),
    ("timedwait", false, &["timedwait"]),
    ("interrupted", false, &["interrupted", "--ms", "20"]),
    ("shared", false, &["shared", "--ms", "20"]),
    (
        "convoy",
        false,
        &["mutex", "--threads", "9", "--hold-ms", "2"],
    ),
    // Twice as long as the rule asks for, and the second between two questions to it: however slow the host is.
    ("hold", false, &["mutex", "--hold-ms", "2600"]),
    ("starved", false, &["starved"]),
    ("forming", false, &["deadlock"]),
];

/// One thing that observer does, and how well.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What.
    pub capability: &'static str,
    /// How often there was something to say.
    pub truth: u64,
    /// How often something was said.
    pub told: u64,
    /// How often that was right.
    pub right: u64,
    /// Of what was said, the share that was right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Of what there was to say, the share that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// How much the sum of durations, or the cost, is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_percent: Option<f64>,
    /// What else is to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Is it as promised?
    pub holds: bool,
}

impl Row {
    fn count(capability: &'static str, truth: u64, told: u64, right: u64) -> Row {
        let share = |part: u64, all: u64| (all > 0).then(|| part.min(all) as f64 / all as f64);
        Row {
            capability,
            truth,
            told,
            right,
            precision: share(right, told),
            recall: share(right, truth),
            error_percent: None,
            note: None,
            holds: true,
        }
    }
}

/// What observing cost.
#[derive(Clone, Debug, Serialize)]
pub struct Overhead {
    /// The program.
    pub program: &'static str,
    /// Time of a round unobserved, the best of several runs.
    pub alone_ns: f64,
    /// The same while observed.
    pub observed_ns: f64,
    /// How much longer that is.
    pub percent: f64,
    /// What it may be at most.
    pub limit_percent: f64,
    /// Is it as promised?
    pub holds: bool,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Host, kernel, and how it was observed.
    pub meta: Meta,
    /// How right.
    pub capabilities: Vec<Row>,
    /// How dear.
    pub overhead: Vec<Overhead>,
    /// CPU time that observer used, in percent of one CPU, while it observed.
    pub cpu_percent: f64,
    /// How many times as wide promises about time were than usually.
    pub slack: u32,
    /// How long all of it took.
    pub took_ns: u64,
}

impl Report {
    /// Capabilities and costs that are not as promised.
    pub fn broken(&self) -> usize {
        let rows = self.capabilities.iter().filter(|row| !row.holds).count();
        rows + self.overhead.iter().filter(|one| !one.holds).count()
    }
}

/// An event, and when it was told.
struct Seen {
    event: Event,
    at_ns: u64,
}

/// Observes the programs and judges. `tell` is told what is done.
///
/// # Errors
/// Those of the capture, and when a program cannot be started or fails.
pub fn verify(slack: Slack, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let began = Instant::now();
    tell("starting programs that wait in known ways");
    let mut scenes = Vec::new();
    for (name, older, args) in SCENES {
        let mut args = args.to_vec();
        if !older {
            args.push("--wait-go");
        }
        scenes.push(Scene::start(name, &args)?);
    }
    tell("observing them");
    let (meta, seen) = observe(&mut scenes, slack)?;
    let capabilities = Said::new(&scenes, &seen, slack).rows();
    drop(scenes);
    tell("measuring what observing costs");
    let overhead = overhead::measure(slack)?;
    let end = seen.iter().rev().find_map(|seen| match &seen.event {
        Event::End(end) => Some(end),
        _ => None,
    });
    let share = end.map_or(0.0, |end| {
        end.cost.cpu_ns as f64 / end.dur_ns.max(1) as f64 * 100.0
    });
    Ok(Report {
        meta,
        capabilities,
        overhead,
        cpu_percent: share,
        slack: slack.0,
        took_ns: began.elapsed().as_nanos() as u64,
    })
}

/// The options of a user, but that only these processes are observed, and that nothing is sampled.
fn options(pids: Vec<u32>) -> Options {
    Options {
        pids,
        long_wait: Duration::from_millis(500),
        max_overhead: None,
        ..Options::default()
    }
}

/// A run that keeps all events.
struct Session {
    watch: Watch,
    seen: Vec<Seen>,
}

impl Session {
    fn start(pids: Vec<u32>) -> Result<Session> {
        Ok(Session {
            watch: Watch::start(options(pids), true)?,
            seen: Vec::new(),
        })
    }

    fn poll(&mut self) -> bool {
        let mut events = Vec::new();
        let more = self.watch.poll(&mut events);
        self.keep(events);
        if !more {
            sleep(PERIOD);
        }
        more
    }

    fn keep(&mut self, events: Vec<Event>) {
        let at_ns = mono_ns();
        let seen = events.into_iter().map(|event| Seen { event, at_ns });
        self.seen.extend(seen);
    }

    fn finish(&mut self) {
        let mut events = Vec::new();
        self.watch.finish(Reason::TargetEnded, &mut events);
        self.keep(events);
    }
}

fn observe(scenes: &mut [Scene], slack: Slack) -> Result<(Meta, Vec<Seen>)> {
    let pids = scenes.iter().flat_map(Scene::pids).collect();
    let mut session = Session::start(pids)?;
    let Event::Meta(meta) = session.watch.meta() else {
        bail!("the stream does not begin as it should");
    };
    session.poll();
    for (scene, (_, older, _)) in scenes.iter_mut().zip(SCENES) {
        if !older {
            scene.go()?;
        }
    }
    let began = Instant::now();
    while began.elapsed() < OBSERVED {
        session.poll();
    }
    for scene in &mut *scenes {
        scene.stop();
    }
    let began = Instant::now();
    loop {
        let mut all = true;
        for scene in &mut *scenes {
            all &= scene.has_told()?;
        }
        if all && session.watch.targets_ended() {
            break;
        }
        if began.elapsed() > slack.patience() {
            bail!("the programs that were observed do not end: the host is too busy to verify");
        }
        session.poll();
    }
    while session.poll() {}
    session.finish();
    Ok((*meta, session.seen))
}
