//! Building observer, and starting it with the privileges that it needs.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cmd;
use crate::project;

/// Builds observer, for release or for debugging.
pub(crate) fn build(debug: bool) -> Result<()> {
    let mut build = project::cargo();
    build.args(["build", "--package", "observer"]);
    if !debug {
        build.arg("--release");
    }
    cmd::run(&mut build).context("cannot build observer")
}

/// Builds observer and becomes it. It comes back only with the reason why that failed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    build(false)?;
    let mut observer = observer();
    observer.args(args);
    // Taking this process's place, signals and the exit code need nobody in between.
    let error = observer.exec();
    Err(error).with_context(|| format!("cannot start `{}`", cmd::line(&observer)))
}

/// A command for the release binary, through sudo when that is needed and there.
pub(crate) fn observer() -> Command {
    let program = released("observer");
    // Without sudo it starts all the same: observer itself says best which privileges it lacks.
    if project::is_root() || !cmd::exists("sudo") {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    sudo
}

/// A file of the release build.
pub(crate) fn released(name: &str) -> PathBuf {
    project::target().join("release").join(name)
}
