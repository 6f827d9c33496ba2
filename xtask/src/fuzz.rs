//! Fuzzing: each parser of hostile input is given millions of inputs, made of what was seen to lead further.
//!
//! The targets are in `fuzz/`, laid out as `cargo fuzz` has it. That program needs a nightly compiler for its
//! sanitizers; observer's own code is safe Rust, whose checks are enough, so the pinned compiler will do: what
//! is built here is what `cargo fuzz --sanitizer none` builds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, say};
use crate::project;

/// What tells libFuzzer how far an input came.
const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Clink-dead-code",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// An input that takes longer is a finding, and so is one that needs more memory.
const SECONDS_OF_ONE: u32 = 10;
const MEGABYTES: u32 = 1_024;
/// Longer inputs lead to nothing that shorter ones do not.
const LONGEST: u32 = 16 << 10;

/// Fuzzes a target, or each for a while. False: something was found.
pub(crate) fn fuzz(target: Option<&str>, seconds: u32) -> Result<bool> {
    let all = targets()?;
    let chosen: Vec<&String> = match target {
        Some(name) => all.iter().filter(|one| *one == name).collect(),
        None => all.iter().collect(),
    };
    if chosen.is_empty() {
        bail!("there is no such target; there are {}", all.join(", "));
    }
    let triple = project::Rustc::find()?.host;
    let mut build = project::cargo();
    build
        .args(["build", "--release", "--bins", "--target", &triple])
        .arg("--manifest-path")
        .arg(folder().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(project::target().join("fuzz"))
        .env("RUSTFLAGS", COVERAGE.join(" "));
    cmd::run(&mut build).context("cannot build the targets")?;
    let programs = project::target().join("fuzz").join(triple).join("release");
    let mut clean = true;
    for name in chosen {
        clean &= run(&programs.join(name), name, seconds)?;
    }
    Ok(clean)
}

fn folder() -> PathBuf {
    project::root().join("fuzz")
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let mut names = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Runs one target. False: it found something, which is in `fuzz/artifacts`.
fn run(program: &Path, name: &str, seconds: u32) -> Result<bool> {
    let corpus = folder().join("corpus").join(name);
    let artifacts = folder().join("artifacts").join(name);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    say!("fuzz: {name}, {seconds} s\n");
    let mut command = std::process::Command::new(program);
    command
        .arg(&corpus)
        .arg(folder().join("seeds").join(name))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={SECONDS_OF_ONE}"))
        .arg(format!("-rss_limit_mb={MEGABYTES}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1");
    let status = cmd::status(&mut command)?;
    if !status.success() {
        say!(
            "fuzz: {name} found something: see {}\n",
            artifacts.display()
        );
    }
    Ok(status.success())
}
