//! What a run of the test program said.

use serde_json::Value;

/// The first line of a run.
const BEGINS: &str = "---- vmtest";

/// Lines around the report of `observer doctor`.
const DOCTOR_BEGINS: &str = "---- doctor";
const DOCTOR_ENDS: &str = "---- end of doctor";

/// The same of `observer verify`.
const VERIFY_BEGINS: &str = "---- verify";
const VERIFY_ENDS: &str = "---- end of verify";

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Failed(String),
    Skipped(String),
}

/// One check, in one way to know a futex wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) verdict: Verdict,
}

/// All that a run said.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) checks: Vec<Check>,
    pub(super) doctor: Value,
    /// Null where it could not run.
    pub(super) verify: Value,
    pub(super) seconds: f64,
}

impl Outcome {
    /// Reads a console; nothing when the run did not come to its end.
    pub(super) fn parse(console: &str, seconds: f64) -> Option<Self> {
        let mut checks = Vec::new();
        let (mut doctor, mut verify) = (String::new(), String::new());
        let mut block = Block::None;
        let mut closed = false;
        for line in console.lines().map(str::trim_end) {
            match line {
                DOCTOR_BEGINS => block = Block::Doctor,
                VERIFY_BEGINS => block = Block::Verify,
                DOCTOR_ENDS | VERIFY_ENDS => block = Block::None,
                _ if block == Block::Doctor => doctor.push_str(line),
                _ if block == Block::Verify => verify.push_str(line),
                _ => {
                    checks.extend(check(line));
                    closed |= is_closing(line);
                }
            }
        }
        let doctor = serde_json::from_str(&doctor).ok()?;
        let verify = serde_json::from_str(&verify).unwrap_or_default();
        closed.then_some(Self {
            checks,
            doctor,
            verify,
            seconds,
        })
    }

    /// Whether the checks passed: there were some, and none failed.
    pub(super) fn is_good(&self) -> bool {
        let [passed, failed, _] = self.counts();
        failed == 0 && passed > 0
    }

    /// Checks that failed, each with the way to know a futex wait.
    pub(super) fn failed(&self) -> Vec<String> {
        let checks = self.checks.iter();
        let failed = checks.filter(|check| matches!(check.verdict, Verdict::Failed(_)));
        failed
            .map(|check| format!("{} {}", check.name, check.mode))
            .collect()
    }

    /// `N passed, N failed, N skipped (N s)`.
    pub(super) fn summary(&self) -> String {
        let [passed, failed, skipped] = self.counts();
        format!(
            "{passed} passed, {failed} failed, {skipped} skipped ({:.1} s)",
            self.seconds
        )
    }

    fn counts(&self) -> [usize; 3] {
        let count = |is: fn(&Verdict) -> bool| {
            let checks = self.checks.iter();
            checks.filter(|check| is(&check.verdict)).count()
        };
        [
            count(|verdict| matches!(verdict, Verdict::Ok)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        ]
    }
}

/// Between which markers a line stands.
#[derive(PartialEq, Eq)]
enum Block {
    None,
    Doctor,
    Verify,
}

/// Whether the test program came to its first line.
pub(super) fn has_begun(console: &str) -> bool {
    console.lines().any(|line| line.trim_end() == BEGINS)
}

/// A line `ok NAME MODE`, `FAIL NAME MODE: WHY` or `skipped NAME MODE: WHY`.
fn check(line: &str) -> Option<Check> {
    let (word, rest) = line.split_once(' ')?;
    let (subject, why) = rest.split_once(": ").unwrap_or((rest, ""));
    let verdict = match word {
        "ok" => Verdict::Ok,
        "FAIL" => Verdict::Failed(why.to_owned()),
        "skipped" => Verdict::Skipped(why.to_owned()),
        _ => return None,
    };
    let (name, mode) = subject.split_once(' ').unwrap_or((subject, ""));
    Some(Check {
        name: name.to_owned(),
        mode: mode.to_owned(),
        verdict,
    })
}

fn is_closing(line: &str) -> bool {
    line.split_once(" passed, ").is_some_and(|(count, rest)| {
        count.parse::<u32>().is_ok() && rest.contains(" failed, ") && rest.ends_with(" skipped")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\x1bcBooting from ROM..\r\n---- vmtest\r\nok mutex sched\r\n\
        skipped waitv sched: futex_waitv is not in this kernel\r\n\
        FAIL pi tracepoint: 3 waits seen: 4 made\r\n---- verify\r\n{\"capabilities\":[]}\r\n\
        ---- end of verify\r\n---- doctor\r\n{\r\n \"kernel\": \"5.10\"\r\n}\r\n\
        ---- end of doctor\r\n1 passed, 1 failed, 1 skipped\r\n[    9.8] reboot: Power down\r\n";

    #[test]
    fn a_console_is_read() {
        let outcome = Outcome::parse(CONSOLE, 9.84).unwrap();
        assert_eq!(outcome.summary(), "1 passed, 1 failed, 1 skipped (9.8 s)");
        assert!(!outcome.is_good());
        assert_eq!(outcome.failed(), ["pi tracepoint"]);
        assert_eq!(outcome.doctor["kernel"], "5.10");
        assert!(outcome.verify["capabilities"].is_array());
        assert_eq!(outcome.checks.len(), 3);
        assert_eq!(
            outcome.checks[2],
            Check {
                name: "pi".to_owned(),
                mode: "tracepoint".to_owned(),
                verdict: Verdict::Failed("3 waits seen: 4 made".to_owned()),
            }
        );
    }

    #[test]
    fn a_run_that_did_not_end_has_no_outcome() {
        let (cut, _) = CONSOLE.split_once("1 passed").unwrap();
        assert!(has_begun(cut) && !has_begun("[ 0.9] Kernel panic\r\n"));
        assert!(Outcome::parse(cut, 1.0).is_none());
        assert!(Outcome::parse("", 1.0).is_none());
        let empty = CONSOLE
            .replace("ok mutex sched", "")
            .replace("FAIL", "fail");
        assert!(
            !Outcome::parse(&empty, 1.0).unwrap().is_good(),
            "no check passed"
        );
    }
}
