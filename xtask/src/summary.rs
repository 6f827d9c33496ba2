//! What the tests' output amounts to: how many passed, failed and were skipped, and why.

use std::collections::BTreeMap;

/// Counts over all test programs of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    /// Tests that the harness passed over because their source says so.
    ignored: BTreeMap<String, String>,
    /// Tests that found that they cannot run here. The harness counts them as passed.
    skipped: BTreeMap<String, String>,
    /// Names of tests that failed.
    failing: Vec<String>,
    /// Tests that failed at first, and passed when they were run once more.
    unsteady: Vec<String>,
    /// Test programs that said how many tests they have, and those that said how these went.
    started: u64,
    ended: u64,
    /// What failing tests said, as long as it is not too much.
    failures: Vec<String>,
    /// Are the lines now those of failing tests?
    in_failures: bool,
}

/// Lines of failing tests that are kept.
const MAX_FAILURE_LINES: usize = 400;
/// Failing tests that are run once more. More than these are no accident.
const MAX_AGAIN: usize = 3;

impl Summary {
    /// Takes in one line of cargo's output.
    pub(crate) fn read_line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ended += u64::from(result.contains(" passed"));
            self.in_failures = false;
        } else if is_start(line) {
            self.started += 1;
        } else if let Some(name) = failing(line) {
            self.failing.push(name.to_owned());
        } else if let Some((name, reason)) = ignored(line) {
            self.ignored.insert(name.to_owned(), reason.to_owned());
        } else if line == "failures:" {
            self.in_failures = true;
        } else if self.in_failures && self.failures.len() < MAX_FAILURE_LINES {
            self.failures.push(line.to_owned());
        }
    }

    /// What failing tests said and their names, as the harness wrote it.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The tests that failed, if they are few and nothing else went wrong: a program that crashed has tests that
    /// nobody knows the end of.
    pub(crate) fn worth_another_run(&self) -> Option<&[String]> {
        let known = self.started == self.ended && self.failing.len() as u64 == self.failed;
        let few = !self.failing.is_empty() && self.failing.len() <= MAX_AGAIN;
        (known && few).then_some(&*self.failing)
    }

    /// Takes in how the tests that failed went when they were run once more: what counts is the second time, and
    /// that there was a first is told.
    pub(crate) fn take_second_run(&mut self, again: Summary) {
        let steady = |name: &String| again.failing.contains(name);
        let (failing, unsteady) = self.failing.drain(..).partition(steady);
        self.failing = failing;
        self.unsteady = unsteady;
        self.passed += self.unsteady.len() as u64;
        self.failed = self.failing.len() as u64;
        self.failures.extend(again.failures);
    }

    /// Tests that failed at first, and passed when they were run once more.
    pub(crate) fn unsteady(&self) -> &[String] {
        &self.unsteady
    }

    /// How many tests passed.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Takes in the file that tests write a line `skipped: NAME: reason` to.
    pub(crate) fn read_skips(&mut self, file: &str) {
        for line in file.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let line = line.strip_prefix("skipped: ").unwrap_or(line);
            // Two colons are of a path of modules: the reason comes after a colon and a space.
            let (name, reason) = line.split_once(": ").unwrap_or((line, "no reason given"));
            self.skipped.insert(name.to_owned(), reason.to_owned());
        }
    }

    /// Each skipped test with its reason, in the order of their names.
    pub(crate) fn skips(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.skipped.iter().chain(&self.ignored);
        all.map(|(name, reason)| (name.as_str(), reason.as_str()))
    }

    /// Whether any test was skipped.
    pub(crate) fn has_skips(&self) -> bool {
        self.skips().next().is_some()
    }

    /// Whether any test failed.
    pub(crate) fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// `N passed, N failed, N skipped`.
    pub(crate) fn closing_line(&self) -> String {
        let ran = self.passed.saturating_sub(self.skipped.len() as u64);
        let skipped = self.skipped.len() + self.ignored.len();
        format!("{ran} passed, {} failed, {skipped} skipped", self.failed)
    }
}

/// The number before a word in `ok. 5 passed; 0 failed; 1 ignored; …`.
fn count(result: &str, word: &str) -> u64 {
    result
        .split(';')
        .find_map(|part| {
            let (before, last) = part.trim().rsplit_once(' ')?;
            if last != word {
                return None;
            }
            before.rsplit(' ').next()?.parse().ok()
        })
        .unwrap_or(0)
}

/// Is it the line by which a test program begins, `running 5 tests`?
fn is_start(line: &str) -> bool {
    let rest = line.strip_prefix("running ");
    let number = rest.and_then(|rest| rest.split_once(" test"));
    number.is_some_and(|(number, rest)| number.parse::<u64>().is_ok() && matches!(rest, "" | "s"))
}

/// Name in `test NAME ... FAILED`.
fn failing(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    // What the harness adds to the name is no part of it.
    Some(name.strip_suffix(" - should panic").unwrap_or(name))
}

/// Name and reason in `test NAME ... ignored, REASON`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("marked as ignored");
    Some((name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str, skips: &str) -> Summary {
        let mut summary = Summary::default();
        for line in output.lines() {
            summary.read_line(line);
        }
        summary.read_skips(skips);
        summary
    }

    #[test]
    fn the_results_of_all_programs_are_summed() {
        let summary = read(
            "running 3 tests\ntest a ... ok\n\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished\n\
             test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n",
            "",
        );
        assert_eq!(summary.closing_line(), "13 passed, 2 failed, 0 skipped");
        assert!(summary.has_failures());
        assert!(!summary.has_skips());
    }

    #[test]
    fn what_failing_tests_said_is_kept() {
        let summary = read(
            "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nno lock\n\n\nfailures:\n    a\n\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored\nlater\n",
            "",
        );
        let said = summary.failures().join("\n");
        assert_eq!(said, "\n---- a stdout ----\nno lock\n\n\n    a\n");
    }

    const UNSTEADY: &str = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\
        late\n\nfailures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n";

    #[test]
    fn a_test_that_failed_once_is_told_of() {
        let mut summary = read(UNSTEADY, "");
        assert_eq!(summary.worth_another_run(), Some(&["b".to_owned()][..]));
        let again =
            "running 1 test\ntest b ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        summary.take_second_run(read(again, ""));
        assert_eq!(summary.closing_line(), "2 passed, 0 failed, 0 skipped");
        assert_eq!(summary.unsteady(), ["b"]);
        assert!(summary.failures().contains(&"late".to_owned()));
    }

    #[test]
    fn a_test_that_fails_twice_has_failed() {
        let mut summary = read(UNSTEADY, "");
        summary.take_second_run(read(UNSTEADY, ""));
        assert_eq!(summary.closing_line(), "1 passed, 1 failed, 0 skipped");
        assert!(summary.has_failures() && summary.unsteady().is_empty());
    }

    #[test]
    fn a_crash_and_many_failures_are_no_accident() {
        let crashed = read(&format!("{UNSTEADY}running 7 tests\ntest c ... ok\n"), "");
        assert_eq!(crashed.worth_another_run(), None);
        let many = read(&UNSTEADY.repeat(4), "");
        assert_eq!(many.worth_another_run(), None);
        assert_eq!(read("", "").worth_another_run(), None);
    }

    #[test]
    fn a_skipped_test_has_not_passed_and_counts_once() {
        let summary = read(
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
            "skipped: kernel::locks: needs root: not 0\nskipped: screen: no tmux\n\n\
             skipped: screen: no tmux\nskipped: bare\n",
        );
        assert_eq!(summary.closing_line(), "2 passed, 0 failed, 3 skipped");
        let skips: Vec<_> = summary.skips().collect();
        assert_eq!(skips[0], ("bare", "no reason given"));
        assert_eq!(skips[1], ("kernel::locks", "needs root: not 0"));
        assert_eq!(skips[2], ("screen", "no tmux"));
    }

    #[test]
    fn an_ignored_test_is_a_skipped_one() {
        let summary = read(
            "test slow ... ignored, takes an hour\ntest src/lib.rs - f (line 3) ... ignored\n\
             test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n",
            "",
        );
        assert_eq!(summary.closing_line(), "1 passed, 0 failed, 2 skipped");
        let skips: Vec<_> = summary.skips().collect();
        assert_eq!(skips[0], ("slow", "takes an hour"));
        assert_eq!(skips[1], ("src/lib.rs - f (line 3)", "marked as ignored"));
    }

    #[test]
    fn other_lines_count_nothing() {
        let summary = read("test result: \n5 passed; 1 failed\nwarning: test x\n", "\n");
        assert_eq!(summary, Summary::default());
    }
}
