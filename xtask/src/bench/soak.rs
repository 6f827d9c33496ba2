//! A soak: the agent under load for a long time, with a reader of its stream and one of its metrics. Its memory must stay
//! flat, and what is lost be counted: what a program knows of its own waits is held against what was counted of them.
//!
//! Nobody asks for it but by name: it takes half an hour. docs/agent.md says what it is made of.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::child::{self, Background};
use super::events;
use super::figures::{Figure, workload};
use super::goals::Goal;
use super::room::Room;
use crate::cmd::say;
use crate::run;

/// What runs beside the exact ping-pong: a contended mutex, an idle pool, a thousand threads a second that live for a
/// moment, and a deadlock, so that there is an incident.
const LOADS: [&[&str]; 4] = [
    &["mutex", "--threads", "8"],
    &["pool", "--threads", "64"],
    &["brood"],
    &["deadlock"],
];
/// The name of the ping-pong: that of no other process. It rests for so long after each thousand rounds.
const EXACT: &str = "soak-exact";
const REST_MS: &str = "50";
/// The kind of its waits, and how often its first thread may wait likewise, for the numbers and the ends of the two others.
const KIND: &str = "futex";
const OTHERS: f64 = 4.0;
/// The step of the budget from which on short waits are sampled, and one in how many; and by how many standard deviations
/// such a total may be off.
const SAMPLING: f64 = 2.0;
const SAMPLE: f64 = 16.0;
const ESTIMATE: f64 = 5.0;
/// Containers that come and go in a second: 5 000 in half an hour.
const CONTAINERS: u64 = 3;
/// Between two looks at the memory, and between two readings of the metrics.
const LOOK: Duration = Duration::from_secs(1);
const READING: Duration = Duration::from_secs(15);
/// Longer than the agent takes to read all totals once more.
const SETTLED: Duration = Duration::from_secs(12);
/// So much larger than in the middle third of the time it may be in the last, in percent.
const GROWTH: f64 = 5.0;
const TOKEN: &str = "a-token-for-the-soak";

/// Soaks for this long.
pub(super) fn soak(room: &Room, time: Duration) -> Result<Vec<Figure>> {
    let mut agent = Agent::start(room)?;
    let streamed = agent.read_stream()?;
    let mut loads = Vec::new();
    for load in LOADS {
        loads.push(workload(room, load)?);
    }
    let exact = Exact::start(room)?;
    let mut containers = Containers::new()?;
    let mut seen = Seen::default();
    let (began, mut next_reading) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < time {
        let until = Instant::now() + LOOK;
        agent.process.must_run()?;
        containers.come_and_go()?;
        seen.look(&agent)?;
        if began.elapsed() >= next_reading {
            next_reading += READING;
            seen.read(&agent, began.elapsed())?;
        }
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
    let truth = exact.finish()?;
    drop(loads);
    thread::sleep(SETTLED);
    seen.read(&agent, began.elapsed())?;
    let streamed = streamed.load(Ordering::Relaxed) as f64;
    Ok(seen.figures(truth, streamed, containers.number as f64))
}

/// The agent, on defaults but for its folder, its port, its token, and a receiver of OTLP that is never there.
struct Agent {
    process: Background,
    port: u16,
}

impl Agent {
    fn start(room: &Room) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.context("there is no free port")?.port();
        let token = room.write("token", TOKEN)?;
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\ntoken_file = \"{}\"\n[incidents]\ndir = \"{}\"\n[otlp]\nendpoint = \"http://127.0.0.1:9\"\n",
            token.display(),
            room.path("incidents").display()
        );
        let config = room.write("agent.toml", &text)?;
        let mut command = Command::new(run::released("observer"));
        command.args(["agent", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Background::start(&mut command, &room.path("agent.log"))?;
        let mut agent = Self { process, port };
        let started = Instant::now();
        while agent.get("/readyz").is_err() {
            agent.process.must_run()?;
            if started.elapsed() > Duration::from_secs(30) {
                bail!("the agent was not ready within 30 s");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(agent)
    }

    /// Asks for a path. Of HTTP/1.0, so that the body comes as it is.
    fn ask(&self, path: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        )?;
        Ok(stream)
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut text = String::new();
        self.ask(path)?.read_to_string(&mut text)?;
        let status = text.lines().next().unwrap_or_default();
        if !status.contains(" 200 ") {
            bail!("the agent answers {path} with `{status}`");
        }
        Ok(text)
    }

    /// Reads its stream as fast as it comes. How many events there were so far.
    fn read_stream(&self) -> Result<Arc<AtomicU64>> {
        let stream = self.ask("/api/v1/events")?;
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        // It ends with the agent.
        thread::spawn(move || {
            let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
            for line in lines.filter(|line| line.first() == Some(&b'{')) {
                count.fetch_add(1, Ordering::Relaxed);
                drop(line);
            }
        });
        Ok(read)
    }

    /// The agent, and the process that serves HTTP.
    fn pids(&self) -> Result<[u32; 2]> {
        let pid = self.process.child.id();
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?;
        // One of its threads has started it.
        let child = threads.flatten().find_map(|thread| {
            let children = fs::read_to_string(thread.path().join("children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        });
        Ok([pid, child.context("nobody serves HTTP")?])
    }
}

/// The ping-pong that knows how often it waited.
struct Exact {
    process: Background,
    output: BufReader<ChildStdout>,
}

impl Exact {
    fn start(room: &Room) -> Result<Self> {
        let program = room.path(EXACT);
        symlink(run::released("examples/workload"), &program)?;
        let mut command = Command::new(program);
        command.args(["pingpong", "--ms", REST_MS]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Background::start(&mut command, &room.path("exact.log"))?;
        let output = process.child.stdout.take();
        Ok(Self {
            process,
            output: BufReader::new(output.context("the ping-pong has no output")?),
        })
    }

    /// Ends it; how often it waited.
    fn finish(mut self) -> Result<f64> {
        drop(self.process.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        let truth = events::line_of(&text, "truth").context("the ping-pong tells no truth")?;
        events::number(truth, "waits").context("the ping-pong does not say how often it waited")
    }
}

/// Containers that come and go: control groups of the form that the kubelet gives them, with a process for a moment.
struct Containers {
    top: PathBuf,
    number: u64,
    running: Vec<(Child, PathBuf)>,
}

impl Containers {
    fn new() -> Result<Self> {
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        let tops = roots.map(|root| PathBuf::from(root).join("observer-soak"));
        let top = tops.into_iter().find(|top| {
            // Where there is no hierarchy of that name, none is to be made.
            let _ = fs::create_dir(top);
            top.join("cgroup.procs").is_file()
        });
        Ok(Self {
            top: top.context("no control group can be made here")?,
            number: 0,
            running: Vec::new(),
        })
    }

    fn come_and_go(&mut self) -> Result<()> {
        for _ in 0..CONTAINERS {
            self.number += 1;
            let number = self.number;
            let pod = format!("pod00000000-0000-0000-0000-{number:012x}");
            let group = self.top.join(pod).join(format!("{number:064x}"));
            fs::create_dir_all(&group).context("cannot make a control group")?;
            let mut command = Command::new("sh");
            let script = "echo $$ > \"$0/cgroup.procs\"; sleep 0.1; sleep 0.1; sleep 0.1";
            command.args(["-c", script]).arg(&group);
            let child = command.spawn().context("cannot start sh")?;
            self.running.push((child, group));
        }
        self.running.retain_mut(|(child, group)| {
            let goes_on = matches!(child.try_wait(), Ok(None));
            if !goes_on {
                let _ = fs::remove_dir(&group);
                let _ = group.parent().map(fs::remove_dir);
            }
            goes_on
        });
        Ok(())
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for (child, group) in &mut self.running {
            let _ = child.wait();
            let _ = fs::remove_dir(&group);
            let _ = group.parent().map(fs::remove_dir);
        }
        let _ = fs::remove_dir(&self.top);
    }
}

/// What was seen of the agent.
#[derive(Default)]
struct Seen {
    /// Resident MiB of both processes, look by look.
    sizes: [Vec<f64>; 2],
    /// The metrics as they were read first and last, and when.
    first: Option<(Duration, String)>,
    last: (Duration, String),
    /// Was the budget at a step at which totals are estimates?
    sampled: bool,
}

impl Seen {
    fn look(&mut self, agent: &Agent) -> Result<()> {
        for (pid, sizes) in agent.pids()?.into_iter().zip(&mut self.sizes) {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            sizes.push(kib.context("a process does not say how large it is")? / 1024.0);
        }
        Ok(())
    }

    /// Reads the metrics, and says how things are.
    fn read(&mut self, agent: &Agent, at: Duration) -> Result<()> {
        child::go_on()?;
        let before = std::mem::replace(&mut self.last, (at, agent.get("/metrics")?));
        if self.first.is_none() {
            self.first = Some(self.last.clone());
            return Ok(());
        }
        let elapsed = at.saturating_sub(before.0).as_secs_f64();
        let text = &self.last.1;
        self.sampled |= sum(text, "observer_budget_step", &[]) >= SAMPLING;
        let share = |name| (sum(text, name, &[]) - sum(&before.1, name, &[])) * 100.0 / elapsed;
        let size = |of: usize| self.sizes[of].last().copied().unwrap_or_default();
        say!(
            "soak: {:5.0} s: agent {:.1} MiB, {:.1} %; observer-http {:.1} MiB, {:.1} %; budget step {}, series {}, lost {}\n",
            at.as_secs_f64(),
            size(0),
            share("observer_cpu_seconds_total"),
            size(1),
            share("observer_serving_cpu_seconds_total"),
            sum(text, "observer_budget_step", &[]),
            sum(text, "observer_metrics_series", &[]),
            sum(text, "observer_lost_total", &[]),
        );
        Ok(())
    }

    /// How the ping-pong's waits may differ from what was counted of them, and by how many.
    fn may_be_wrong(&self, truth: f64) -> (&'static str, f64) {
        if self.sampled {
            let what = "of these too few or too many, by totals estimated to keep to the budget";
            (what, ESTIMATE * (truth * (SAMPLE - 1.0)).sqrt())
        } else {
            ("of these not counted, or more than once", 0.0)
        }
    }

    fn figures(&self, truth: f64, streamed: f64, containers: f64) -> Vec<Figure> {
        let Some((began, first)) = &self.first else {
            return Vec::new();
        };
        let (ended, last) = &self.last;
        let elapsed = ended.saturating_sub(*began).as_secs_f64();
        let more = |name: &str| sum(last, name, &[]) - sum(first, name, &[]);
        let mut figures = Vec::new();
        let mut add = |what: &str, value: f64, unit: &str, goal: Option<Goal>| {
            let what = format!("soak: {what}");
            figures.push(match goal {
                Some(goal) => Figure::with_goal(&what, Some(value), unit, goal),
                None => Figure::new(&what, Some(value), unit),
            });
        };
        add("time", elapsed, "s", None);
        add(
            "waits",
            more("observer_waits_total") / elapsed,
            "a second",
            None,
        );
        add("containers that came and went", containers, "", None);
        for (name, cpu, sizes) in [
            ("agent", "observer_cpu_seconds_total", &self.sizes[0]),
            (
                "observer-http",
                "observer_serving_cpu_seconds_total",
                &self.sizes[1],
            ),
        ] {
            let thirds = thirds(sizes);
            for (third, size) in ["first", "second", "last"].iter().zip(thirds) {
                let what = format!("{name}, resident at most in the {third} third");
                add(&what, size, "MiB", None);
            }
            let growth = (thirds[2] / thirds[1] - 1.0) * 100.0;
            let what = format!("{name}, growth from the second third to the last");
            add(&what, growth, "%", Some(Goal::AtMost(GROWTH)));
            let share = more(cpu) * 100.0 / elapsed;
            add(&format!("{name}, CPU of one core"), share, "%", None);
        }
        let counted = sum(last, "observer_waits_total", &[EXACT, KIND]);
        add("waits by the ping-pong's own count", truth, "", None);
        let (what, most) = self.may_be_wrong(truth);
        add(what, wrong(truth, counted), "", Some(Goal::AtMost(most)));
        add("events", more("observer_events_total"), "", None);
        add("events read from the stream", streamed, "", None);
        for line in last
            .lines()
            .filter(|line| line.starts_with("observer_lost_total{") && !line.ends_with(" 0"))
        {
            let cause = line.split('"').nth(1).unwrap_or_default();
            let count = sum(last, "observer_lost_total", &[cause]);
            add(&format!("lost, and counted: {cause}"), count, "", None);
        }
        let restarts = sum(last, "observer_serving_restarts_total", &[]);
        let none = Some(Goal::AtMost(0.0));
        add("restarts of observer-http", restarts, "", none);
        figures
    }
}

/// The largest of each third.
fn thirds(sizes: &[f64]) -> [f64; 3] {
    let third = sizes.len() / 3;
    [0, 1, 2].map(|at| {
        let sizes = sizes.iter().skip(at * third);
        let sizes = sizes.take(if at == 2 { usize::MAX } else { third });
        sizes.copied().fold(0.0, f64::max)
    })
}

/// By how much the waits that were counted are too few, or too many.
fn wrong(truth: f64, counted: f64) -> f64 {
    (truth - counted).max(counted - truth - OTHERS).max(0.0)
}

/// The sum of a metric's values whose labels have all of these values among them.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let has = |label: &&str| rest.contains(&format!("\"{label}\""));
        let is_it = rest.starts_with(['{', ' ']) && labels.iter().all(has);
        is_it.then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added() {
        let text = "# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"2\",y=\"1\"} 3.5\na_total_b 9\nc 4\n";
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value}");
        near(sum(text, "a_total", &[]), 5.5);
        near(sum(text, "a_total", &["2"]), 3.5);
        near(sum(text, "a_total", &["2", "1"]), 3.5);
        near(sum(text, "a_total", &["1", "3"]), 0.0);
        near(sum(text, "c", &[]), 4.0);
        near(sum(text, "d", &[]), 0.0);
    }

    #[test]
    fn waits_are_too_few_or_too_many() {
        for (counted, expected) in [(90, 10), (100, 0), (104, 0), (105, 1), (200, 96)] {
            assert_eq!(wrong(100.0, f64::from(counted)) as i32, expected);
        }
    }

    #[test]
    fn the_last_third_is_what_is_left() {
        let sizes = [1.0, 2.0, 5.0, 3.0, 4.0, 4.0, 9.0];
        assert_eq!(thirds(&sizes).map(|size| size as u32), [2, 5, 9]);
        assert_eq!(thirds(&[]).map(|size| size as u32), [0, 0, 0]);
    }
}
