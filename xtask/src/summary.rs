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
}

impl Summary {
    /// Takes in one line of cargo's output.
    pub(crate) fn read_line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
        } else if let Some((name, reason)) = ignored(line) {
            self.ignored.insert(name.to_owned(), reason.to_owned());
        }
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
