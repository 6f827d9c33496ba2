//! Programs that wait in a known way: this very program, in the part of [`crate::workload`].

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Nothing that a scene does before it says a line takes as long, on a slow machine either.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running program; ended when dropped.
pub(super) struct Scene {
    pub(super) name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    ready: Value,
    formed: Value,
    truth: Value,
}

impl Scene {
    /// Starts the program, and waits until it is ready.
    pub(super) fn start(name: &'static str, args: &[&str]) -> Result<Scene> {
        let mut child = Command::new("/proc/self/exe")
            .arg("workload")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(
                "cannot start a program to observe, which is observer itself (/proc/self/exe)",
            )?;
        let stdin = child.stdin.take();
        let (send, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody listens any more when the run is over.
                    let _ = send.send(line);
                }
            });
        }
        let mut scene = Scene {
            name,
            child,
            stdin,
            lines,
            ready: Value::Null,
            formed: Value::Null,
            truth: Value::Null,
        };
        scene.ready = scene.line("ready")?;
        Ok(scene)
    }

    /// The next line, which has to begin with a word.
    pub(super) fn line(&mut self, word: &str) -> Result<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => self.parse(&line, word),
            Err(error) => bail!("the program {} said nothing: {error}", self.name),
        }
    }

    fn parse(&self, line: &str, word: &str) -> Result<Value> {
        let rest = line.strip_prefix(word).unwrap_or_default();
        serde_json::from_str(rest)
            .with_context(|| format!("the program {} said `{line}`, not {word}", self.name))
    }

    /// Lets a program that was started with `--wait-go` begin.
    pub(super) fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("no standard input")?;
        stdin
            .write_all(b"go\n")
            .with_context(|| format!("the program {} has ended", self.name))
    }

    /// Tells the program to end.
    pub(super) fn stop(&mut self) {
        self.stdin = None;
    }

    /// Has the program said what it measured?
    pub(super) fn has_told(&mut self) -> Result<bool> {
        if !self.truth.is_null() {
            return Ok(true);
        }
        match self.lines.recv_timeout(Duration::ZERO) {
            // A deadlock that forms while it is observed says when it has.
            Ok(line) if line.starts_with("formed") => {
                self.formed = self.parse(&line, "formed")?;
                Ok(false)
            }
            Ok(line) => {
                self.truth = self.parse(&line, "truth")?;
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("the program {} failed", self.name),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All processes of the scene.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid()];
        if let Some(more) = self.ready["pids"].as_object() {
            pids.extend(
                more.values()
                    .filter_map(Value::as_u64)
                    .map(|pid| pid as u32),
            );
        }
        pids.dedup();
        pids
    }

    pub(super) fn tid(&self, thread: &str) -> u32 {
        self.ready["tids"][thread].as_u64().unwrap_or(0) as u32
    }

    /// The address of a lock.
    pub(super) fn lock(&self, name: &str) -> u64 {
        let text = self.ready["locks"][name].as_str().unwrap_or_default();
        let digits = text.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).unwrap_or(0)
    }

    /// When the program was as it is to be seen.
    pub(super) fn formed_ns(&self) -> u64 {
        self.ready["formed_ns"].as_u64().unwrap_or(0)
    }

    /// When a deadlock has formed, after `go`.
    pub(super) fn formed_later_ns(&self) -> u64 {
        self.formed["formed_ns"].as_u64().unwrap_or(0)
    }

    /// What a thread measured of itself.
    pub(super) fn measured(&self, thread: &str, what: &str) -> u64 {
        self.truth["threads"][thread][what].as_u64().unwrap_or(0)
    }

    /// What the program measured as a whole.
    pub(super) fn fact(&self, what: &str) -> f64 {
        self.truth[what].as_f64().unwrap_or(0.0)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stdin = None;
        // It has ended by itself, or is not to go on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
