//! Workloads under an observer: started, observed, and their truths taken down.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

/// The exit code by which a workload says that the kernel lacks its call.
const UNSUPPORTED: i32 = 77;
/// How long a workload or a run of observer may last at most, in seconds.
const WORKLOAD_SECONDS: &str = "20";
const OBSERVER_SECONDS: &str = "60s";
/// How long observer may take until it observes. Emulated, it takes seconds.
const ATTACHED_WITHIN: Duration = Duration::from_mins(1);
/// From this age on a wait in progress is told.
const LONG_WAIT: &str = "300ms";
/// How long the run lasts at least, so that waits that never end are told.
const OBSERVED_FOR: Duration = Duration::from_millis(1_500);

/// A workload, from its ready line on.
pub(crate) struct Scene {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said when it was ready: process, threads and locks.
    pub(crate) ready: Value,
    /// What it measured; null when it never ends by itself.
    pub(crate) truth: Value,
}

impl Scene {
    /// Starts a workload and waits until it is ready; or why this kernel cannot have it.
    pub(crate) fn prepare(
        program: &Path,
        name: &str,
        args: &[&str],
    ) -> Result<Result<Scene, String>> {
        let mut command = Command::new(program);
        command.arg(name).args(args);
        if never_ends(name) {
            // Ready means formed, unless it waits for `go`.
        } else {
            command.args(["--wait-go", "--for", WORKLOAD_SECONDS]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("no output")?;
        let mut scene = Scene {
            child,
            stdout: BufReader::new(stdout),
            ready: Value::Null,
            truth: Value::Null,
        };
        let line = scene.line()?;
        if let Some(json) = line.strip_prefix("ready ") {
            scene.ready = serde_json::from_str(json)?;
            return Ok(Ok(scene));
        }
        let status = scene.child.wait()?;
        match line.strip_prefix("unsupported ") {
            Some(what) if status.code() == Some(UNSUPPORTED) => {
                Ok(Err(format!("{what} is not in this kernel")))
            }
            _ => bail!("workload {name} said \"{line}\" and ended: {status}"),
        }
    }

    /// Process identifier.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the workload work to its end.
    fn play(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no input")?;
        stdin.write_all(b"go\n")?;
        let line = self.line()?;
        let json = line
            .strip_prefix("truth ")
            .ok_or_else(|| anyhow!("a workload said \"{line}\" instead of its truth"))?;
        self.truth = serde_json::from_str(json)?;
        self.child.wait()?;
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn never_ends(name: &str) -> bool {
    name == "deadlock"
}

/// Plays the scenes one after the other under one observer; gives its events.
pub(crate) fn observe(
    observer: &Path,
    mode: &str,
    scenes: &mut BTreeMap<&str, Scene>,
) -> Result<Vec<Value>> {
    let mut command = Command::new(observer);
    command
        .args(["trace", "--format", "jsonl", "--futex", mode])
        .args(["--min-wait", "0", "--long-wait", LONG_WAIT])
        .args(["--duration", OBSERVER_SECONDS]);
    for scene in scenes.values() {
        command.args(["--pid", &scene.pid().to_string()]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", observer.display()))?;
    let stdout = child.stdout.take().context("no output")?;
    let (began, begins) = mpsc::channel();
    let reader = thread::spawn(move || read(stdout, &began));
    if begins.recv_timeout(ATTACHED_WITHIN).is_err() {
        let _ended = child.kill();
        let status = child.wait()?;
        bail!("observer printed no event: {status}; see above for what it said");
    }
    let began = Instant::now();
    for (name, scene) in scenes.iter_mut().filter(|(name, _)| !never_ends(name)) {
        scene
            .play()
            .with_context(|| format!("workload {name} under observer"))?;
    }
    thread::sleep(OBSERVED_FOR.saturating_sub(began.elapsed()));
    for scene in scenes.values_mut() {
        // Those that never end by themselves: observer ends when the last one has.
        let _ended = scene.child.kill();
    }
    let events = reader
        .join()
        .map_err(|_| anyhow!("the reader of observer's events panicked"))??;
    let status = child.wait()?;
    if !status.success() {
        bail!("observer failed: {status}");
    }
    Ok(events)
}

/// Reads events to their end, and tells when the first has come.
fn read(stdout: ChildStdout, began: &Sender<()>) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let event = serde_json::from_str(&line)
            .with_context(|| format!("no JSON from observer: {line}"))?;
        events.push(event);
        let _told = began.send(());
    }
    Ok(events)
}
