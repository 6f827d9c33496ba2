//! Other programs: starting them, and saying what went wrong; lines of progress on stderr.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Writes to stderr, and does without when nobody reads it (`eprint!` would panic).
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::cmd::write_stderr(&format!($($arg)*))
    };
}
pub(crate) use say;

pub(crate) fn write_stderr(text: &str) {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command whose output the user sees.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {}", line(command), Ended(status));
    }
    Ok(())
}

/// Runs a command whose output the user sees, and hands back how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))
}

/// Runs a command quietly; what it printed is shown only in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed: {}\n{}",
            line(command),
            Ended(status),
            String::from_utf8_lossy(&stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Whether a program of this name is on PATH.
pub(crate) fn exists(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| is_program(&dir.join(program))))
}

/// Whether a file is there that can be started.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// How a process ended, in words.
pub(crate) struct Ended(pub(crate) ExitStatus);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::process::ExitStatusExt as _;
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "killed by signal {signal}"),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

/// A step that takes a while: a line that is begun when it starts and finished when it ends.
pub(crate) struct Step {
    /// What a second line begins with, when the step's own output came between.
    resume: Option<String>,
    started: Instant,
    ended: bool,
}

impl Step {
    /// Begins a step that prints nothing itself.
    pub(crate) fn quiet(subject: &str, doing: &str) -> Self {
        say!("{subject}: {doing} … ");
        Self::new(None)
    }

    /// Begins a step whose programs print their own progress.
    pub(crate) fn noisy(subject: &str, doing: &str) -> Self {
        say!("{subject}: {doing} …\n");
        Self::new(Some(subject.to_owned()))
    }

    fn new(resume: Option<String>) -> Self {
        Self {
            resume,
            started: Instant::now(),
            ended: false,
        }
    }

    /// Ends the step well.
    pub(crate) fn done(mut self) {
        self.end("done");
    }

    fn end(&mut self, how: &str) {
        self.ended = true;
        let seconds = self.started.elapsed().as_secs_f64();
        match &self.resume {
            Some(subject) => say!("{subject}: {how} ({seconds:.1} s)\n"),
            None => say!("{how} ({seconds:.1} s)\n"),
        }
    }
}

impl Drop for Step {
    /// An error on the way leaves no half line behind.
    fn drop(&mut self) {
        if !self.ended {
            self.end("failed");
        }
    }
}

/// Has the kernel send the child a signal when this process ends, in whichever way.
pub(crate) fn die_with_parent(command: &mut Command, signal: libc::c_int) {
    let parent = std::process::id() as i32;
    let ask = move || {
        // A shell without job control starts what is in the background with the signal ignored.
        // SAFETY: the default action is a valid disposition; for SIGKILL the call fails, which is no harm.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a signal number and touches no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended just before the line above.
        // SAFETY: getppid takes no arguments and cannot fail.
        if unsafe { libc::getppid() } != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe functions may be called: signal, prctl
    // and getppid are plain system calls, and nothing here allocates or takes a lock.
    unsafe { command.pre_exec(ask) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_the_code_and_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo reason >&2; exit 7"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(error.contains("`sh -c echo reason >&2; exit 7` failed: exit code 7"));
        assert!(error.ends_with("\nreason"), "{error}");

        let mut command = Command::new("sh");
        command.args(["-c", "kill -9 $$"]);
        let error = run(&mut command).unwrap_err().to_string();
        assert!(error.ends_with("killed by signal 9"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = format!(
            "{:#}",
            run(&mut Command::new("/no/such/program")).unwrap_err()
        );
        assert!(
            error.starts_with("cannot start `/no/such/program`: "),
            "{error}"
        );
        assert!(exists("sh"));
        assert!(!exists("no-such-program-anywhere"));
    }
}
