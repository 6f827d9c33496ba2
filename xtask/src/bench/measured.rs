//! Figures that tests of the library measure, since they call what is inside of it: `--features measure`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::figures::Figure;
use super::goals::Goal;
use crate::project;

/// A stack with its names, once its process and its files are known.
const WARM_US: f64 = 100.0;
/// Events of a recording, on one core.
const REPLAYED: f64 = 2_000_000.0;

/// What a test prints.
fn told(target: &[&str], test: &str) -> Result<String> {
    let mut cargo = project::cargo();
    cargo.args(["test", "--release", "--package", "observer"]);
    cargo.args(["--features", "measure"]).args(target);
    cargo.args(["--", "--nocapture", test]);
    let output = cargo
        .output()
        .with_context(|| format!("cannot start cargo for the test {test}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if !output.status.success() {
        let from = text.len().saturating_sub(2_000);
        let tail = text.get(from..).unwrap_or(&text);
        bail!("the test {test} failed: {}\n{tail}", output.status);
    }
    Ok(text)
}

/// Stacks of blocked threads: unwound, named.
pub(super) fn stacks() -> Result<Vec<Figure>> {
    let text = told(&["--lib"], "inspect::stacks::tests::times")?;
    let times: Vec<(&str, f64)> = text.lines().filter_map(labelled).collect();
    let longest = |beginning: &str| {
        let found = times.iter().filter(|(what, _)| what.starts_with(beginning));
        found.map(|(_, us)| *us).reduce(f64::max)
    };
    let warm = longest("warm, unwind only").zip(longest("names, warm"));
    if warm.is_none() {
        bail!("the test told no times:\n{text}");
    }
    let mut figures = vec![Figure::with_goal(
        "a stack with its names, all known",
        warm.map(|(unwound, named)| unwound + named),
        "µs",
        Goal::AtMost(WARM_US),
    )];
    for (what, us) in &times {
        figures.push(Figure::new(&format!("stacks: {what}"), Some(*us), "µs"));
    }
    Ok(figures)
}

/// How fast a recording is read into model and rules.
pub(super) fn replay() -> Result<Vec<Figure>> {
    let text = told(&["--lib"], "record::speed::speed")?;
    let rates: Vec<f64> = text.lines().filter_map(rate).collect();
    let [
        plain_all,
        compressed_all,
        plain_one,
        compressed_one,
        none_twice,
    ] = rates[..]
    else {
        bail!("the test told no rates:\n{text}");
    };
    let with_goal = |what: &str, rate| {
        let what = format!("replay: waits of 64 tasks, {what}");
        Figure::with_goal(&what, Some(rate), "a second", Goal::AtLeast(REPLAYED))
    };
    let other = "replay: waits in progress, no task and no lock twice, compressed";
    Ok(vec![
        with_goal("into model and rules, all cores", plain_all),
        with_goal(
            "compressed, into model and rules, all cores",
            compressed_all,
        ),
        with_goal("into model and rules, one core", plain_one),
        with_goal("compressed, into model and rules, one core", compressed_one),
        Figure::new(other, Some(none_twice), "a second"),
    ])
}

/// `WHAT: 2.7µs`, as microseconds.
fn labelled(line: &str) -> Option<(&str, f64)> {
    let (what, time) = line.rsplit_once(": ")?;
    Some((what, micros(time)?))
}

/// A duration as Rust prints it for people who look for faults.
fn micros(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let one = match unit {
        "ns" => Duration::from_nanos(1),
        "µs" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * one.as_secs_f64() * 1e6)
}

/// `2500000 events/s, …`.
fn rate(line: &str) -> Option<f64> {
    // The test runner may have begun the line.
    let (before, _) = line.split_once(" events/s")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_print_is_read() {
        for (line, expected) in [
            ("names, warm: 49.5µs", Some(("names, warm", 49.5))),
            (
                "warm, unwind only, mutex, 9 frames: 900ns",
                Some(("warm, unwind only, mutex, 9 frames", 0.9)),
            ),
            (
                "names, all files new: 20ms",
                Some(("names, all files new", 20_000.0)),
            ),
            ("test inspect::stacks::tests::times ... ok", None),
            ("error: it failed", None),
        ] {
            let found = labelled(line);
            assert_eq!(found.map(|(what, _)| what), expected.map(|(what, _)| what));
            let apart = found.zip(expected).map(|(a, b)| (a.1 - b.1).abs());
            assert!(apart.unwrap_or(0.0) < 1e-6, "{line}");
        }
        assert_eq!(
            rate("test a ... waits: 2100000 events/s"),
            Some(2_100_000.0)
        );
        assert_eq!(rate("running 1 test"), None);
    }
}
