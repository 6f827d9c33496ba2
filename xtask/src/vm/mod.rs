//! observer on other kernels: stock ones in emulated machines, whose first process is the test program.

mod boot;
mod cpio;
mod image;
mod kernel;
mod outcome;
mod table;
mod verified;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::cmd::{Step, say};
use crate::{deps, project};
use image::Programs;
use kernel::{LINES, Line};
use outcome::{Outcome, Verdict};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The oldest that is supported
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    /// The newest there is
    #[value(name = "7.x")]
    V7,
    /// This machine's own, without an emulator
    Host,
    /// All of them
    All,
}

/// A kernel to test on, in the order of the table.
enum Place {
    Machine(&'static Line),
    Host,
}

impl Place {
    fn name(&self) -> &'static str {
        match self {
            Self::Machine(line) => line.name,
            Self::Host => "host",
        }
    }
}

/// Failing checks that are worth another boot. More than these are no accident.
const MAX_AGAIN: usize = 3;

/// Tests on each of the kernels; `true` when all is well.
pub(crate) fn vm(choices: &[Choice], keep: bool, install: bool) -> Result<bool> {
    let all = choices.contains(&Choice::All);
    let mut places = places(choices);
    if all && !project::is_root() {
        say!("vm: not root: this machine's own kernel is left out\n");
        places.retain(|place| matches!(place, Place::Machine(_)));
    }
    if places
        .iter()
        .any(|place| matches!(place, Place::Machine(_)))
    {
        deps::require("vm", boot::QEMU, "qemu-system-x86", install)?;
    }
    let programs = image::build()?;
    let initramfs = image::make(&programs)?;
    let mut outcomes = Vec::new();
    let mut good = true;
    for place in &places {
        match test_again(place, &programs, &initramfs, keep) {
            Ok(outcome) => {
                good &= outcome.is_good();
                outcomes.push((place.name(), outcome));
            }
            // The next kernel may be of another mind.
            Err(error) => {
                say!("vm: {}: {error:#}\n", place.name());
                good = false;
            }
        }
    }
    if !keep {
        let _ = fs::remove_file(&initramfs);
    }
    let whole = outcomes.iter().any(|(name, _)| *name == Place::Host.name());
    if all && good && whole {
        let path = project::root().join("docs/kernels.md");
        fs::write(&path, table::render(&outcomes))
            .with_context(|| format!("cannot write {}", path.display()))?;
    } else if all {
        say!("vm: docs/kernels.md is left as it was, as not every kernel was tested and passed\n");
    }
    Ok(good)
}

/// Tests on one kernel, in a second boot too if few checks failed in the first: the clock of an emulated machine goes on
/// while the host does something else.
fn test_again(place: &Place, programs: &Programs, initramfs: &Path, keep: bool) -> Result<Outcome> {
    let first = test(place, programs, initramfs, keep)?;
    let failed = first.failed().join(", ");
    let few = (1..=MAX_AGAIN).contains(&first.failed().len());
    if !few || matches!(place, Place::Host) {
        return Ok(first);
    }
    let name = place.name();
    say!("vm: {name}: once more, for {failed}\n");
    let second = test(place, programs, initramfs, keep)?;
    if second.is_good() {
        say!("vm: {name}: unsteady: {failed}: failed, see above, and passed in another boot\n");
    }
    Ok(second)
}

/// Runs the test program on one kernel, and prints what came of it.
fn test(place: &Place, programs: &Programs, initramfs: &Path, keep: bool) -> Result<Outcome> {
    let (release, outcome) = match place {
        Place::Machine(line) => {
            let kernel = kernel::find(line)?;
            let step = Step::quiet(&format!("vm: {}", kernel.release), "booting");
            let outcome = boot::boot(&kernel, initramfs, keep)?;
            step.done();
            (kernel.release, outcome)
        }
        Place::Host => {
            let outcome = boot::on_host(programs, keep)?;
            let release = &outcome.doctor["kernel"];
            (release.as_str().unwrap_or("?").to_owned(), outcome)
        }
    };
    let mut lines = vec![verified::table(&outcome.verify)];
    for check in &outcome.checks {
        let (word, why) = match &check.verdict {
            Verdict::Ok => continue,
            Verdict::Failed(why) => ("FAIL", why),
            Verdict::Skipped(why) => ("skipped", why),
        };
        let (name, mode) = (&check.name, &check.mode);
        lines.push(format!("{word} {name} {mode}: {why}\n"));
    }
    let name = place.name();
    lines.push(format!("{name} ({release}): {}\n", outcome.summary()));
    // Whether somebody reads does not change what came of it.
    let _ = io::stdout().write_all(lines.concat().as_bytes());
    Ok(outcome)
}

/// What was asked for, each once.
fn places(choices: &[Choice]) -> Vec<Place> {
    let wanted = |name: &str| {
        let is = |choice: &Choice| {
            *choice == Choice::All
                || choice
                    .to_possible_value()
                    .is_some_and(|value| value.get_name() == name)
        };
        choices.iter().any(is)
    };
    let machines = LINES.iter().map(Place::Machine);
    machines
        .chain([Place::Host])
        .filter(|place| wanted(place.name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(choices: &[Choice]) -> Vec<&'static str> {
        places(choices).iter().map(Place::name).collect()
    }

    #[test]
    fn every_line_can_be_chosen_and_all_stands_for_each() {
        let everything = ["5.10", "6.1", "6.12", "7.x", "host"];
        assert_eq!(names(&[Choice::All]), everything);
        assert_eq!(
            names(&[Choice::V7, Choice::V5_10, Choice::V7]),
            ["5.10", "7.x"]
        );
        assert_eq!(names(&[Choice::Host]), ["host"]);
        let single = [
            Choice::V5_10,
            Choice::V6_1,
            Choice::V6_12,
            Choice::V7,
            Choice::Host,
        ];
        assert_eq!(names(&single), everything);
    }
}
