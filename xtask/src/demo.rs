//! The demo: observer on a small program whose threads are really stuck.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, Ended, die_with_parent, say};
use crate::{project, run};

/// How long the demo may take until its threads are as they should be.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long the demo has to end on SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// How long the demo is traced when nobody looks at a screen.
const TRACED: &str = "5s";

/// Builds and starts the demo, and observes it: on the screen, or as text into a pipe. Hands back
/// how observer ended.
pub(crate) fn demo() -> Result<ExitStatus> {
    let mut build = project::cargo();
    build.args(["build", "--release", "--package", "observer"]);
    build.args(["--bin", "observer", "--example", "demo"]);
    cmd::run(&mut build).context("cannot build observer and its demo program")?;

    pass_signals_on()?;
    let demo = Demo::start()?;
    let mut observer = run::observer();
    let pid = demo.child.id().to_string();
    if io::stdout().is_terminal() {
        observer.args(["top", "-p", &pid]);
    } else {
        let trace = ["trace", "-p", &pid, "-d", TRACED, "--format", "text"];
        observer.args(trace);
    }
    // Through sudo this has no effect; then observer ends because its target did.
    die_with_parent(&mut observer, libc::SIGTERM);
    let mut child = observer
        .spawn()
        .with_context(|| format!("cannot start `{}`", cmd::line(&observer)))?;
    OBSERVER.store(child.id() as i32, Ordering::Relaxed);
    let ended = child.wait();
    OBSERVER.store(0, Ordering::Relaxed);
    ended.with_context(|| format!("cannot wait for `{}`", cmd::line(&observer)))
}

/// The demo program, ended when this is dropped.
struct Demo {
    child: Child,
}

impl Demo {
    /// Starts the program and waits until its threads are as they should be.
    fn start() -> Result<Self> {
        let program = run::released("examples/demo");
        let log = project::target().join("demo.log");
        let stderr =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Not onto the screen that observer draws on.
            .stderr(stderr)
            // Ctrl-C is for observer, which ends with a summary; the demo goes after it.
            .process_group(0);
        die_with_parent(&mut command, libc::SIGKILL);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start the demo {}", program.display()))?;
        DEMO.store(child.id() as i32, Ordering::Relaxed);
        let mut demo = Self { child };
        match demo.wait_until_ready() {
            Ok(()) => Ok(demo),
            Err(error) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("{error:#}\n{}", said.trim_end())
            }
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let pid = self.child.id();
        let stdout = self.child.stdout.take().context("the demo has no output")?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || read_until_ready(stdout, &tell));
        let asked = Instant::now();
        loop {
            match told.recv_timeout(READY_WITHIN.saturating_sub(asked.elapsed())) {
                Ok(line) if line.starts_with("ready") => {
                    say!("demo: pid {pid}: {line}\n");
                    return Ok(());
                }
                // What is in there, in the demo's own words: names for the addresses below.
                Ok(line) if io::stdout().is_terminal() => say!("demo: {line}\n"),
                Ok(line) => writeln!(io::stdout(), "{line}")?,
                Err(RecvTimeoutError::Timeout) => bail!(
                    "the demo (pid {pid}) printed no line `ready…` within {} s",
                    READY_WITHIN.as_secs()
                ),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("cannot wait for the demo")?;
                    bail!("the demo ended before it was ready: {}", Ended(status))
                }
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // First, so that no signal is passed on to a pid that may be another's by then.
        DEMO.store(0, Ordering::Relaxed);
        send(self.child.id() as i32, libc::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a program's output to its end, so that it never stalls on a full pipe, and tells the
/// lines up to the first that begins with `ready`.
fn read_until_ready(output: impl Read, tell: &mpsc::Sender<String>) {
    let mut told = false;
    for line in BufReader::new(output).split(b'\n') {
        let Ok(line) = line else { return };
        if !told {
            told = line.starts_with(b"ready");
            let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

/// The processes that a signal is passed on to; 0 for none.
static DEMO: AtomicI32 = AtomicI32::new(0);
static OBSERVER: AtomicI32 = AtomicI32::new(0);

/// From here on this process outlives a signal, until observer has ended by it.
fn pass_signals_on() -> Result<()> {
    for (signal, handler) in [
        (libc::SIGINT, interrupt as extern "C" fn(libc::c_int)),
        (libc::SIGTERM, pass_on),
        (libc::SIGHUP, pass_on),
    ] {
        // A handler, because a child would inherit it if the signal were merely ignored.
        // SAFETY: the handlers call only async-signal-safe functions.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot handle signal {signal}"));
        }
    }
    Ok(())
}

/// Ctrl-C on a terminal reaches observer too, which ends with its summary: a second one, from
/// here, would cut that short.
extern "C" fn interrupt(_signal: libc::c_int) {
    if OBSERVER.load(Ordering::Relaxed) == 0 {
        send(DEMO.load(Ordering::Relaxed), libc::SIGTERM);
    }
}

/// Ends both. Under sudo the first may be refused: then observer ends because its target did.
extern "C" fn pass_on(_signal: libc::c_int) {
    for pid in [&OBSERVER, &DEMO] {
        send(pid.load(Ordering::Relaxed), libc::SIGTERM);
    }
}

fn send(pid: i32, signal: libc::c_int) {
    // 0 and below mean whole groups of processes.
    if pid > 0 {
        // SAFETY: kill takes two integers, touches no memory and is async-signal-safe.
        unsafe { libc::kill(pid, signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_up_to_ready_are_told_and_the_rest_is_read() {
        let (tell, told) = mpsc::channel();
        let output = b"starting\nready: 9 threads\nready again\n\xff\n";
        read_until_ready(&output[..], &tell);
        drop(tell);
        assert_eq!(
            told.iter().collect::<Vec<_>>(),
            ["starting", "ready: 9 threads"]
        );
    }

    #[test]
    fn a_child_with_this_parent_starts() {
        let mut command = Command::new("true");
        die_with_parent(&mut command, libc::SIGKILL);
        assert!(command.status().unwrap().success());
    }
}
