//! What only tests, the benchmark and virtual machines need: programs that are installed where that may be done.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::bench::postgres;
use crate::cmd::{self, Step, say};
use crate::project;
use crate::python;

/// How to see that something is there.
enum Probe {
    Program(&'static str),
    File(&'static str),
    Check(fn() -> bool),
}

impl Probe {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => cmd::exists(name),
            Self::File(path) => Path::new(path).exists(),
            Self::Check(is_there) => is_there(),
        }
    }
}

/// Something that is needed, and where it comes from on a Debian-like system.
struct Dep {
    probe: Probe,
    package: &'static str,
    /// What is skipped or left out without it.
    needed_by: &'static str,
}

const DEPS: &[Dep] = &[
    Dep {
        probe: Probe::Program("gcc"),
        package: "gcc",
        needed_by: "tests on programs in C",
    },
    Dep {
        probe: Probe::Program("g++"),
        package: "g++",
        needed_by: "tests on programs in C++",
    },
    Dep {
        probe: Probe::File("/usr/include/stdio.h"),
        package: "libc6-dev",
        needed_by: "tests on programs in C",
    },
    Dep {
        probe: Probe::Program("javac"),
        package: "default-jdk-headless",
        needed_by: "tests on programs in Java",
    },
    Dep {
        probe: Probe::Program("musl-gcc"),
        package: "musl-tools",
        needed_by: "tests on programs with musl",
    },
    Dep {
        probe: Probe::Check(|| postgres::bin_dir().is_some()),
        package: "postgresql",
        needed_by: "tests on PostgreSQL",
    },
    Dep {
        probe: Probe::Program("redis-server"),
        package: "redis-server",
        needed_by: "tests on Redis",
    },
    Dep {
        probe: Probe::File("/usr/bin/python3"),
        package: "python3",
        needed_by: "tests on Python",
    },
    Dep {
        probe: Probe::Program("tmux"),
        package: "tmux",
        needed_by: "tests of the screen",
    },
    Dep {
        probe: Probe::Program("go"),
        package: "golang-go",
        needed_by: "tests on programs in Go",
    },
    Dep {
        probe: Probe::Program("qemu-aarch64"),
        package: "qemu-user",
        needed_by: "tests on programs in Go for arm64",
    },
    Dep {
        probe: Probe::File("/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1"),
        package: "libc6-arm64-cross",
        needed_by: "tests on position independent programs in Go for arm64",
    },
    Dep {
        probe: Probe::Check(python::has_pip),
        package: "python3-pip",
        needed_by: "tests of exports, and on programs in Go of several releases",
    },
    Dep {
        probe: Probe::Program("chromium"),
        package: "chromium",
        needed_by: "tests of the report in a browser",
    },
    Dep {
        probe: Probe::Program("prometheus"),
        package: "prometheus",
        needed_by: "tests of the agent's metrics",
    },
    Dep {
        probe: Probe::Program("containerd"),
        package: "containerd",
        needed_by: "tests on containers",
    },
    Dep {
        probe: Probe::Program("runc"),
        package: "runc",
        needed_by: "tests on containers",
    },
    Dep {
        probe: Probe::Program("curl"),
        package: "curl",
        needed_by: "tests of the agent's HTTP",
    },
];

const BENCH: [Dep; 4] = [
    Dep {
        probe: Probe::Program("bpftrace"),
        package: "bpftrace",
        needed_by: "the comparison with bpftrace",
    },
    Dep {
        probe: Probe::Program("offcputime"),
        package: "libbpf-tools",
        needed_by: "the comparison with offcputime",
    },
    Dep {
        probe: Probe::Program("perf"),
        package: "linux-perf",
        needed_by: "the comparison with perf, and messaging",
    },
    Dep {
        probe: Probe::Check(|| postgres::bin_dir().is_some()),
        package: "postgresql",
        needed_by: "pgbench",
    },
];

/// Who asks: the words that lines begin and end with.
struct Asker {
    subject: &'static str,
    otherwise: &'static str,
}

/// Installs what is missing for tests. Tests whose needs are not met skip themselves, so a failure here
/// is told but does not end the run.
pub(crate) fn ensure(install: bool) {
    let asker = Asker {
        subject: "test set-up",
        otherwise: "those tests will be skipped",
    };
    let missing: Vec<&Dep> = DEPS.iter().filter(|dep| !dep.probe.is_there()).collect();
    asker.provide(&missing, install);
}

/// The same for the benchmark.
pub(crate) fn ensure_for_bench(install: bool) {
    let asker = Asker {
        subject: "bench set-up",
        otherwise: "it is left out",
    };
    // One by one: no release of a distribution is sure to have them all.
    for dep in BENCH.iter().filter(|dep| !dep.probe.is_there()) {
        asker.provide(&[dep], install);
    }
}

impl Asker {
    /// Installs packages where that may be done, and says so before.
    fn provide(&self, missing: &[&Dep], install: bool) {
        let Self { subject, otherwise } = self;
        if missing.is_empty() {
            return;
        }
        for Dep {
            package, needed_by, ..
        } in missing
        {
            say!("{subject}: {package} is missing, for {needed_by}\n");
        }
        if let Some(reason) = why_not(install) {
            say!("{subject}: nothing is installed, as {reason}: {otherwise}\n");
            return;
        }
        let packages: Vec<&str> = missing.iter().map(|dep| dep.package).collect();
        if let Err(error) = install_packages(subject, &packages) {
            say!("{subject}: {error:#}\n{subject}: {otherwise}\n");
        }
    }
}

/// Installs a program that a command cannot do without, where that may be done.
pub(crate) fn require(subject: &str, program: &str, package: &str, install: bool) -> Result<()> {
    if cmd::exists(program) {
        return Ok(());
    }
    say!("{subject}: {program} is missing\n");
    if let Some(reason) = why_not(install) {
        bail!(
            "{program} is needed, and nothing is installed, as {reason}: install it first (on \
             Debian and its like `apt-get install --no-install-recommends {package}`)"
        );
    }
    install_packages(subject, &[package])
}

/// Why nothing can be installed, if so.
fn why_not(install: bool) -> Option<&'static str> {
    if !install {
        Some("--no-install was given")
    } else if !cmd::exists("apt-get") {
        Some("this is not a Debian-like system")
    } else if !project::is_root() {
        Some("installing needs root")
    } else {
        None
    }
}

fn install_packages(subject: &str, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if lists_are_there() {
        let step = Step::quiet(subject, &format!("apt-get install {list}"));
        if cmd::output(&mut apt_install(packages)).is_ok() {
            step.done();
            return Ok(());
        }
        // The lists may be older than the mirror.
    }
    let step = Step::quiet(subject, "apt-get update");
    cmd::output(apt_get().arg("update"))?;
    step.done();
    let step = Step::quiet(subject, &format!("apt-get install {list}"));
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
