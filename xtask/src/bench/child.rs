//! Programs that run beside a measurement: started, watched until they are at work, and ended by their
//! own id, also when the measurement fails or is interrupted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, Ended, die_with_parent};

/// How long an observer may take until it has attached itself: bpftrace compiles first.
const ATTACHED_WITHIN: Duration = Duration::from_secs(30);
/// What it has attached must stay the same for this long.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// How long a program has to end when it is asked to: perf then reads what is left in its buffers.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A program in the background, ended when this is dropped.
pub(super) struct Background {
    pub(super) child: Child,
    what: String,
    log: PathBuf,
}

impl Background {
    /// Starts a program. What it says on standard error goes to `log`, for the message should it fail.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let stderr =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stderr(stderr);
        die_with_parent(command, libc::SIGINT);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", cmd::line(command)))?;
        Ok(Self {
            child,
            what: cmd::line(command),
            log: log.to_owned(),
        })
    }

    /// Waits until the program has attached kernel programs or opened events, and no more come.
    pub(super) fn wait_until_attached(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut last = (0, started);
        while last.0 == 0 || last.1.elapsed() < SETTLED_AFTER {
            self.must_run()?;
            if started.elapsed() > ATTACHED_WITHIN {
                let limit = ATTACHED_WITHIN.as_secs();
                bail!("`{}` attached nothing within {limit} s", self.what);
            }
            let probes = probes(self.child.id());
            if probes != last.0 {
                last = (probes, Instant::now());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until the program has written something to this file: observer writes first what it has attached, and
    /// attaches to probes of programs, if any, before all else.
    pub(super) fn wait_until_written(&mut self, output: &Path) -> Result<()> {
        let started = Instant::now();
        while !fs::metadata(output).is_ok_and(|file| file.len() > 0) {
            self.must_run()?;
            if started.elapsed() > ATTACHED_WITHIN {
                let limit = ATTACHED_WITHIN.as_secs();
                bail!("`{}` wrote nothing within {limit} s", self.what);
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// An error if the program has ended by itself.
    pub(super) fn must_run(&mut self) -> Result<()> {
        go_on()?;
        match self.child.try_wait().context("cannot wait for a child")? {
            None => Ok(()),
            Some(status) => bail!(
                "`{}` ended by itself: {}: {}",
                self.what,
                Ended(status),
                self.last_words()
            ),
        }
    }

    fn last_words(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").trim().to_owned()
    }

    /// Asks the program to end and waits for it.
    pub(super) fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait().context("cannot wait for a child")? {
            return Ok(status);
        }
        // SAFETY: kill takes two integers. The child is not reaped yet, so the id is still its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if let Some(status) = self.child.try_wait().context("cannot wait for a child")? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        self.child.kill().context("cannot kill a child")?;
        self.child.wait().context("cannot wait for a child")?;
        bail!("`{}` had to be killed", self.what)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// How many kernel programs and events a process has attached.
fn probes(pid: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| is_probe(&link.to_string_lossy()))
        .count()
}

fn is_probe(link: &str) -> bool {
    let inode = link.strip_prefix("anon_inode:").unwrap_or_default();
    ["bpf_link", "bpf-raw-tp", "perf_event"]
        .iter()
        .any(|kind| inode.contains(kind))
}

/// Runs a measured program to its end and hands back what it printed.
pub(super) fn measured(command: &mut Command) -> Result<String> {
    go_on()?;
    die_with_parent(command, libc::SIGKILL);
    // A standard input that is no terminal and never closes.
    command.stdin(Stdio::null());
    cmd::output(command)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on a signal is an error at the next [`go_on`], so that everything is cleared away.
pub(super) fn catch_signals() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = interrupt as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores into an atomic, which is async-signal-safe.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot handle signal {signal}"));
        }
    }
    Ok(())
}

/// An error once a signal has come.
pub(super) fn go_on() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Whether a signal has come.
pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-{name}-{}.log", std::process::id()))
    }

    #[test]
    fn a_background_program_ends_when_it_is_asked_to() {
        let log = log("ends");
        let mut child = Background::start(Command::new("sleep").arg("60"), &log).unwrap();
        child.must_run().unwrap();
        let status = child.stop().unwrap();
        assert_eq!(Ended(status).to_string(), "killed by signal 2");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn what_a_program_writes_is_waited_for() {
        let (log, output) = (log("written"), log("output"));
        fs::write(&output, "").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.05; echo meta; exec sleep 60"]);
        command.stdout(File::create(&output).unwrap());
        let mut child = Background::start(&mut command, &log).unwrap();
        child.wait_until_written(&output).unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "meta\n");
        child.stop().unwrap();
        assert!(child.wait_until_written(&log).is_err(), "it has ended");
        fs::remove_file(log)
            .and_then(|()| fs::remove_file(output))
            .unwrap();
    }

    #[test]
    fn one_that_ends_by_itself_is_quoted() {
        let log = log("quoted");
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'no such probe' >&2; exit 3"]);
        let mut child = Background::start(&mut command, &log).unwrap();
        let error = child.wait_until_attached().unwrap_err().to_string();
        assert!(error.contains("exit code 3: no such probe"), "{error}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn probes_are_known_by_their_descriptors() {
        assert!(is_probe("anon_inode:bpf_link") && is_probe("anon_inode:[perf_event]"));
        assert!(!is_probe("anon_inode:bpf-map") && !is_probe("/tmp/perf_event"));
        assert_eq!(probes(std::process::id()), 0);
    }
}
