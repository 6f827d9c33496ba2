//! The tests of the whole workspace, with what they need, and a count of what was skipped.

use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

use crate::cmd::{self, Ended, say};
use crate::summary::Summary;
use crate::vm::{self, Choice};
use crate::{deps, go, project, python};

/// The variable with the file that a test writes to when it cannot run.
const SKIPS: &str = "OBSERVER_SKIPS";

/// The oldest kernel that is supported, and one more.
const OLD_KERNELS: [Choice; 2] = [Choice::V5_10, Choice::V6_1];

/// Runs the tests; `true` when all is well.
pub(crate) fn test(install: bool, args: &[String]) -> Result<bool> {
    deps::ensure(install);
    go::ensure(install);
    python::ensure(install);
    if !project::is_root() {
        say!("test: not root: the tests that load programs into the kernel will be skipped\n");
    }

    let ci = is_ci(env::var("CI").ok().as_deref());
    // Minutes of building and emulating: what runs at every change has them, a person asks for them.
    let machines = !ci || !args.is_empty() || vm::vm(&OLD_KERNELS, false, install)?;
    let skips = project::target().join("skips.txt");
    fs::create_dir_all(project::target())
        .and_then(|()| fs::write(&skips, ""))
        .with_context(|| format!("cannot write {}", skips.display()))?;
    let mut summary = Summary::default();
    let mut out = io::stdout();
    let mut status = stream(cargo(args).env(SKIPS, &skips), &mut summary, &mut out)?;
    // Whoever chose tests sees to it themselves.
    let again = summary.worth_another_run().filter(|_| args.is_empty());
    if let Some(names) = again.map(<[String]>::to_vec) {
        let _ = writeln!(out, "\nrun once more, alone: {}", names.join(", "));
        let (once, ended) = run_again(&names, &skips, &mut out)?;
        if once.passed() >= names.len() as u64 {
            status = ended;
        }
        summary.take_second_run(once);
    }
    let skipped = fs::read_to_string(&skips)
        .with_context(|| format!("cannot read the skipped tests in {}", skips.display()))?;
    summary.read_skips(&skipped);
    let (text, good) = conclude(&summary, status, ci);
    let _ = out.write_all(text.as_bytes());
    if !machines {
        let _ = out.write_all(b"cargo xtask vm failed: see above\n");
    }
    let _ = out.flush();
    Ok(good && machines)
}

/// The command that runs the tests that the arguments choose.
fn cargo(args: &[String]) -> Command {
    let mut cargo = project::cargo();
    cargo.arg("test");
    if !names_package(args) {
        // The kernel programs cannot run here by themselves: observer's tests load them.
        cargo.args(["--workspace", "--exclude", "observer-ebpf"]);
    }
    cargo.arg("--no-fail-fast").args(args);
    cargo
}

/// Runs these tests, one after the other.
fn run_again(
    names: &[String],
    skips: &Path,
    out: &mut impl Write,
) -> Result<(Summary, ExitStatus)> {
    let mut cargo = cargo(&[]);
    cargo
        .args(["--", "--test-threads=1", "--exact"])
        .args(names);
    let mut summary = Summary::default();
    let status = stream(cargo.env(SKIPS, skips), &mut summary, out)?;
    Ok((summary, status))
}

/// Runs a command with its output passed through and read along.
fn stream(
    command: &mut Command,
    summary: &mut Summary,
    out: &mut impl Write,
) -> Result<ExitStatus> {
    let context = format!("cannot run `{}`", cmd::line(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| context.clone())?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .with_context(|| context.clone())?
            > 0
        {
            // When nobody reads any more, the tests still run to their end for the exit code.
            let _ = out.write_all(&line);
            summary.read_line(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    child.wait().context(context)
}

/// What was skipped, and the closing line; and whether all is well.
fn conclude(summary: &Summary, status: ExitStatus, ci: bool) -> (String, bool) {
    // Far above, between thousands of lines, nobody finds them.
    let mut lines = summary.failures().to_vec();
    lines.push(String::new());
    for (name, reason) in summary.skips() {
        lines.push(format!("skipped: {name}: {reason}"));
    }
    for name in summary.unsteady() {
        lines.push(format!(
            "unsteady: {name}: it failed, see above, and passed when it was run once more, alone"
        ));
    }
    let skips_fail = ci && summary.has_skips();
    if skips_fail {
        lines.push("CI=true: a skipped test is a failure".to_owned());
    }
    if !status.success() && !summary.has_failures() {
        // A build that failed or a test program that crashed leaves no line with a count.
        lines.push(format!("cargo test failed: {}: see above", Ended(status)));
    }
    lines.push(summary.closing_line());
    lines.push(String::new());
    let good = status.success() && !summary.has_failures() && !skips_fail;
    (lines.join("\n"), good)
}

/// Whether the arguments choose packages themselves.
fn names_package(args: &[String]) -> bool {
    args.iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

fn is_ci(variable: Option<&str>) -> bool {
    matches!(variable, Some("true" | "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output goes nowhere else: these tests run under the command they test, which would
    /// count what they print.
    fn shell(script: &str) -> (Summary, ExitStatus, String) {
        let mut summary = Summary::default();
        let mut command = Command::new("sh");
        let mut out = Vec::new();
        let status = stream(command.args(["-c", script]), &mut summary, &mut out).unwrap();
        (summary, status, String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_end_of_the_tests_decides() {
        let (summary, good, out) = shell("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'");
        assert_eq!(out, "test result: ok. 2 passed; 0 failed; 0 ignored\n");
        let closing = "\n2 passed, 0 failed, 0 skipped\n";
        assert_eq!(conclude(&summary, good, true), (closing.to_owned(), true));

        let (crashed, bad, _) = shell("echo 'test result: ok. 2 passed; 0 failed'; exit 101");
        let (text, good) = conclude(&crashed, bad, false);
        assert!(text.contains("cargo test failed: exit code 101"), "{text}");
        assert!(text.ends_with(closing), "{text}");
        assert!(!good);
    }

    #[test]
    fn packages_may_be_chosen() {
        let chosen = |args: &[&str]| {
            names_package(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert!(chosen(&["-p", "observer"]) && chosen(&["--package=observer"]));
        assert!(!chosen(&["locks", "--", "-p"]));
    }

    #[test]
    fn a_skip_fails_in_ci_only() {
        let (mut summary, status, _) = shell("echo 'test result: ok. 2 passed; 0 failed'");
        summary.read_skips("skipped: a: no tmux\n");
        assert!(conclude(&summary, status, false).1);
        let (text, good) = conclude(&summary, status, true);
        assert!(text.starts_with("\nskipped: a: no tmux\nCI=true"), "{text}");
        assert!(
            text.ends_with("\n1 passed, 0 failed, 1 skipped\n"),
            "{text}"
        );
        assert!(!good);
        assert!(is_ci(Some("true")) && !is_ci(Some("false")) && !is_ci(None));
    }
}
