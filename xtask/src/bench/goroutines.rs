//! Goroutines read from outside: how long a look takes beside the program's own, and what a busy server keeps of
//! its throughput while it is looked at. The tests measure; their lines are read here.

use anyhow::{Result, bail};

use super::figures::Figure;
use super::goals::Goal;
use crate::cmd;
use crate::{go, project};

/// What a look may take, by the number of goroutines.
const GOALS_MS: [(&str, f64); 2] = [("10000", 15.0), ("100000", 150.0)];
/// What a server has to keep of its throughput.
const KEPT: f64 = 0.99;

/// Runs the tests that measure. `quick`: without the server, which takes half a minute a release.
pub(super) fn measure(quick: bool) -> Result<Vec<Figure>> {
    go::ensure(true);
    let mut tests = project::cargo();
    tests
        .args(["test", "--quiet", "--release", "--package", "observer"])
        .args(["--features", "measure", "--test", "go", "--", "time::"])
        .args(["--nocapture", "--test-threads", "1"]);
    if quick {
        tests.args(["--skip", "a_server"]);
    }
    let figures = read(&cmd::output(&mut tests)?);
    if figures.is_empty() {
        bail!("nothing was measured: there is no Go toolchain");
    }
    Ok(figures)
}

/// The figures of the tests' lines.
fn read(said: &str) -> Vec<Figure> {
    said.lines()
        .filter_map(|line| times(line).or_else(|| server(line)))
        .flatten()
        .collect()
}

/// The number between two texts.
fn between(line: &str, before: &str, after: &str) -> Option<f64> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(after)?.0.parse().ok()
}

/// `go1.27.3 10000: found in 0.9 ms; read in 14.1 ms (median …); its own GoroutineProfile 12.0 ms (best of 5)`
fn times(line: &str) -> Option<Vec<Figure>> {
    let (release, rest) = line.split_once(' ')?;
    let count = rest.split_once(": found in")?.0;
    let (_, goal) = GOALS_MS.iter().find(|(known, _)| *known == count)?;
    let took = between(line, "read in ", " ms");
    let own = between(line, "GoroutineProfile ", " ms");
    Some(vec![
        Figure::with_goal(
            &format!("{count} goroutines of {release}, one look"),
            took,
            "ms",
            Goal::AtMost(*goal),
        ),
        Figure::new(
            &format!("{count} goroutines of {release}, its own GoroutineProfile"),
            own,
            "ms",
        ),
    ])
}

/// `go1.27.3 server: 50000 requests/s alone; observed 0.995 of that (median of 7, …)`
fn server(line: &str) -> Option<Vec<Figure>> {
    let release = line.split_once(" server: ")?.0;
    let kept = between(line, "observed ", " of that").map(|kept| kept * 100.0);
    Some(vec![Figure::with_goal(
        &format!("throughput that a busy server of {release} keeps while observed"),
        kept,
        "%",
        Goal::AtLeast(KEPT * 100.0),
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tests_are_read() {
        let said = "\nrunning 2 tests\n\
            go1.27.3 10000: found in 1.0 ms; read in 14.1 ms (median of 7, best 9.0); its own GoroutineProfile 6.7 ms (best of 5)\n\
            go1.27.3 100000: found in 0.9 ms; read in 152.9 ms (median of 7, best 99.2); its own GoroutineProfile 162.3 ms (best of 5)\n\
            go1.27.3 server: 51234 requests/s alone; observed 0.995 of that (median of 7, from 0.990 to 1.001)\n";
        let figures = read(said);
        let verdicts: Vec<_> = figures
            .iter()
            .map(|one| one.goal.as_ref().map(|goal| goal.1))
            .collect();
        let expected = [Some("met"), None, Some("not met"), None, Some("met")];
        assert_eq!(verdicts, expected);
        assert!(figures[4].value.contains("99.5"), "{}", figures[4].value);
        assert!(read("go1.27.3 10000: nothing").is_empty());
    }
}
