//! `cargo xtask go-layouts`: the table of where the fields of the Go runtime's structs lie, made anew from the
//! debug information of programs that each release of Go builds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, Step, say};
use crate::{deps, go, project};

/// The table in the sources.
const TABLE: &str = "observer/src/runtimes/go/layouts.json";

/// Makes the table. `check`: only says whether it is the one in the sources.
pub(crate) fn make(check: bool, install: bool) -> Result<bool> {
    deps::require("go-layouts", "go", "golang-go", install)?;
    let mut programs = Vec::new();
    for toolchain in toolchains(install)? {
        for machine in ["amd64", "arm64"] {
            programs.push(build(&toolchain, machine)?);
        }
    }
    let step = Step::quiet("go-layouts", "cargo run --example go_layouts");
    let mut reader = project::cargo();
    reader
        .args(["run", "--quiet", "--package", "observer"])
        .args(["--example", "go_layouts", "--"])
        .args(&programs);
    let table = cmd::output(&mut reader)?;
    step.done();
    let path = project::root().join(TABLE);
    let old = fs::read_to_string(&path).unwrap_or_default();
    if table == old {
        say!("go-layouts: {TABLE} is what these releases say\n");
        return Ok(true);
    }
    if check {
        say!("go-layouts: {TABLE} is not what these releases say: run `cargo xtask go-layouts`\n");
        return Ok(false);
    }
    fs::write(&path, table).with_context(|| format!("cannot write {}", path.display()))?;
    say!("go-layouts: wrote {TABLE}\n");
    Ok(true)
}

/// The `go` commands: the distribution's own, and one for each minor release that is known.
fn toolchains(install: bool) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("go")];
    for release in go::KNOWN {
        match go::toolchain(release, install)? {
            Some(go) => found.push(go),
            None => {
                bail!("Go {release} is needed, and nothing is fetched, as --no-install was given")
            }
        }
    }
    Ok(found)
}

/// Compiles the tests' scenes, which use all that is looked for. Gives `RELEASE/MACHINE=PROGRAM`.
fn build(go: &Path, machine: &str) -> Result<String> {
    let mut version = Command::new(go);
    version
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local");
    let release = cmd::output(&mut version)?.trim().to_owned();
    let folder = project::root().join("target/go-layouts");
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let program = folder.join(format!("{release}-{machine}"));
    let step = Step::quiet("go-layouts", &format!("{release} build for {machine}"));
    let mut command = Command::new(go);
    command
        .current_dir(project::root().join("observer/tests/go/programs"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .env("GOTOOLCHAIN", "local")
        .env("GOARCH", machine)
        .env("GOFLAGS", "-mod=mod")
        .env("GOCACHE", project::root().join("target/go-cache"))
        .env("CGO_ENABLED", "0");
    cmd::output(&mut command)?;
    step.done();
    Ok(format!("{release}/{machine}={}", program.display()))
}
