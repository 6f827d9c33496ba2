//! What only tests need: programs that are installed where that may be done.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cmd::{self, Step, say};
use crate::project;

/// How to see that something is there.
enum Probe {
    Program(&'static str),
    File(&'static str),
}

impl Probe {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => cmd::exists(name),
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

/// Something that tests need, and where it comes from on a Debian-like system.
struct Dep {
    probe: Probe,
    package: &'static str,
    /// The tests that are skipped without it.
    needed_by: &'static str,
}

const DEPS: [Dep; 3] = [
    Dep {
        probe: Probe::Program("gcc"),
        package: "gcc",
        needed_by: "tests on programs in C",
    },
    Dep {
        probe: Probe::File("/usr/include/stdio.h"),
        package: "libc6-dev",
        needed_by: "tests on programs in C",
    },
    Dep {
        probe: Probe::Program("tmux"),
        package: "tmux",
        needed_by: "tests of the screen",
    },
];

/// Installs what is missing, where it may, and says so before. Tests whose needs are not met skip
/// themselves, so a failure here is told but does not end the run.
pub(crate) fn ensure(install: bool) {
    let missing: Vec<&Dep> = DEPS.iter().filter(|dep| !dep.probe.is_there()).collect();
    if missing.is_empty() {
        return;
    }
    let why_not = if !install {
        Some("--no-install was given")
    } else if !cmd::exists("apt-get") {
        Some("this is not a Debian-like system")
    } else if !project::is_root() {
        Some("installing needs root")
    } else {
        None
    };
    for Dep {
        package, needed_by, ..
    } in &missing
    {
        say!("test set-up: {package} is missing, for {needed_by}\n");
    }
    if let Some(reason) = why_not {
        say!("test set-up: nothing is installed, as {reason}: those tests will be skipped\n");
        return;
    }
    let packages: Vec<&str> = missing.iter().map(|dep| dep.package).collect();
    if let Err(error) = install_packages(&packages) {
        say!("test set-up: {error:#}\ntest set-up: those tests will be skipped\n");
    }
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if lists_are_there() {
        let step = Step::quiet("test set-up", &format!("apt-get install {list}"));
        if cmd::output(&mut apt_install(packages)).is_ok() {
            step.done();
            return Ok(());
        }
        // The lists may be older than the mirror.
    }
    let step = Step::quiet("test set-up", "apt-get update");
    cmd::output(apt_get().arg("update"))?;
    step.done();
    let step = Step::quiet("test set-up", &format!("apt-get install {list}"));
    cmd::output(&mut apt_install(packages))?;
    step.done();
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("--quiet");
    command
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = apt_get();
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    command
}

/// Whether apt knows any packages: images are often shipped without the lists.
fn lists_are_there() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}
